package archive

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"drover/internal/repo"
	"drover/internal/repo/format"

	"golang.org/x/sys/unix"
)

// stagedTree has files for each way of staging: small and large, with links, a
// hole, and an empty one.
func stagedTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for i := range 200 {
		write(t, filepath.Join(dir, "small", strconv.Itoa(i)), strings.Repeat(strconv.Itoa(i), i*40))
	}
	write(t, filepath.Join(dir, "empty"), "")
	for name, size := range map[string]int{"chunks": 3 << 20, "own": ownFile + 12345, "shared": cloneSize + 321} {
		write(t, filepath.Join(dir, "large", name), string(bytes.Repeat([]byte(name+" 0123456789 "), size/10))[:size])
	}
	if err := errors.Join(
		os.Link(filepath.Join(dir, "large/own"), filepath.Join(dir, "linked")),
		os.Symlink("nowhere", filepath.Join(dir, "symlink")),
		os.WriteFile(filepath.Join(dir, "sparse"), nil, 0o600),
		os.Truncate(filepath.Join(dir, "sparse"), 2<<20),
	); err != nil {
		t.Fatal(err)
	}
	return dir
}

// twoSteps backs up in two steps; between runs in between.
func twoSteps(t *testing.T, r *repo.Repository, opt Options, stageDir string, memory int64, between func()) *Result {
	t.Helper()
	stage := NewStage(stageDir, memory)
	w := r.NewWriter(t.Context(), repo.WriterOptions{})
	defer w.Abort()
	l, err := Look(t.Context(), w, r, opt, stage)
	if err != nil {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(stageDir); err != nil || len(names) != 0 {
		t.Errorf("the stage's directory shows %v, %v: a crash would leave it", names, err)
	}
	between()
	res, err := l.Store(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stage.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := w.Finish(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return res
}

// sameTree compares dir in two trees. What is above it is others' too, and changes
// its times when they like.
func sameTree(t *testing.T, r *repo.Repository, dir string, got, want format.ID) {
	t.Helper()
	sub := func(tree format.ID) format.ID {
		for name := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
			data, err := r.LoadBlob(t.Context(), format.Handle{Type: format.TreeBlob, ID: tree}, nil)
			if err != nil {
				t.Fatal(err)
			}
			nodes, err := format.DecodeTree(data)
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(nodes, func(n format.Node) bool { return n.Name == name })
			if i < 0 || nodes[i].Subtree == nil {
				t.Fatalf("%s is not in tree %s", dir, tree)
			}
			tree = *nodes[i].Subtree
		}
		return tree
	}
	if sub(got) != sub(want) {
		t.Errorf("another tree: %s", difference(t, r, dir, got, want))
	}
}

func TestTwoStepsMakeTheSameTree(t *testing.T) {
	for name, memory := range map[string]int64{"memory": 1 << 30, "disk": 0, "both": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			r, dir, stageDir := newRepo(t), stagedTree(t), t.TempDir()
			opt := Options{Paths: []string{dir}}
			want := backUp(t, r, opt)
			// What is written after the first step is in none of the second.
			got := twoSteps(t, r, opt, stageDir, memory, func() {
				write(t, filepath.Join(dir, "small/1"), "later")
				write(t, filepath.Join(dir, "large/own"), "later")
				write(t, filepath.Join(dir, "new"), "later")
				if err := os.RemoveAll(filepath.Join(dir, "large")); err != nil {
					t.Fatal(err)
				}
			})
			sameTree(t, r, dir, got.Tree, want.Tree)
			if got.Files != want.Files || got.Bytes != want.Bytes || got.Dirs != want.Dirs {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// A change between two backups, in two steps with a parent and hints.
func TestTwoStepsWithHints(t *testing.T) {
	r, dir := newRepo(t), stagedTree(t)
	cache, err := OpenDirCache(t.TempDir(), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{Paths: []string{dir}, Cache: cache}
	parent := backUp(t, r, opt)
	changed := filepath.Join(dir, "small/7")
	write(t, changed, "other")
	write(t, filepath.Join(dir, "linked"), "other too")
	opt.ParentTree, opt.ParentTime = parent.Tree, settled()
	opt.Changed = &ChangedSet{Paths: []string{changed, filepath.Join(dir, "linked")}}
	got := twoSteps(t, r, opt, t.TempDir(), 0, func() {})
	sameTree(t, r, dir, got.Tree, backUp(t, r, Options{Paths: []string{dir}}).Tree)
	if got.FullWalk {
		t.Errorf("it walked all: %s", got.FullWalkCause)
	}
}

func TestLookEndsWithItsContext(t *testing.T) {
	r, dir := newRepo(t), stagedTree(t)
	stage := NewStage(t.TempDir(), 0)
	defer stage.Close()
	w := r.NewWriter(t.Context(), repo.WriterOptions{})
	defer w.Abort()
	ctx, cancel := context.WithCancel(t.Context())
	opt := Options{Paths: []string{dir}, afterRead: func(string) { cancel() }}
	if _, err := Look(ctx, w, r, opt, stage); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestFullDiskOfTheStage(t *testing.T) {
	r, dir := newRepo(t), stagedTree(t)
	stage := NewStage(filepath.Join(t.TempDir(), "gone"), 0)
	defer stage.Close()
	w := r.NewWriter(t.Context(), repo.WriterOptions{})
	defer w.Abort()
	if _, err := Look(t.Context(), w, r, Options{Paths: []string{dir}, OnUnreadable: Skip}, stage); !errors.Is(err, unix.ENOENT) || !errors.Is(err, ErrStage) {
		t.Errorf("%v, want that there is no such directory", err)
	}
}
