package restore

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/repo/format"
	"drover/internal/repo/fstest"
)

// mutate changes a tree in some of the ways in which programs do.
func mutate(t *testing.T, r *rand.Rand, dir string) {
	t.Helper()
	var files, dirs []string
	fstest.Must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			dirs = append(dirs, path)
		default:
			files = append(files, path)
		}
		return nil
	}))
	file, where := files[r.IntN(len(files))], dirs[r.IntN(len(dirs))]
	fresh := filepath.Join(where, fmt.Sprintf("new%d", r.IntN(1000)))
	switch r.IntN(9) {
	case 0:
		fstest.Write(t, fresh, string(fstest.Noise(r.IntN(3000))))
	case 1:
		fstest.Must(t, os.Remove(file))
	case 2:
		_ = os.Link(file, fresh)
	case 3:
		fstest.Must(t, os.Chmod(where, 0o700|os.FileMode(r.IntN(64))))
	case 4:
		_ = os.Rename(file, fresh)
	case 5:
		_ = os.Rename(where, filepath.Join(dir, fmt.Sprintf("moved%d", r.IntN(1000)))) // not into itself
	case 6:
		if info, err := os.Lstat(file); err == nil && info.Mode().IsRegular() {
			fstest.Write(t, file, "changed "+fmt.Sprint(r.IntN(1000)))
		}
	case 7:
		when := time.Unix(int64(r.IntN(1e9)), 5)
		fstest.Must(t, unix.UtimesNanoAt(unix.AT_FDCWD, file, []unix.Timespec{{Sec: when.Unix()}, {Sec: when.Unix(), Nsec: 5}}, unix.AT_SYMLINK_NOFOLLOW))
	case 8:
		fstest.Must(t, os.MkdirAll(fresh+"/deep/er", 0o755))
		fstest.Write(t, fresh+"/deep/er/file", "x")
	}
}

// TestBase: what a standby has, moved from snapshot to snapshot, is each of them.
func TestBase(t *testing.T) {
	r := sharedRepo(t)
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 1))
			top := t.TempDir()
			dir, away := filepath.Join(top, "vol"), filepath.Join(top, "away")
			fstest.RichTree(t, dir)
			fstest.Write(t, dir+"/quiet/a/b", "never touched")
			var had *format.Snapshot
			for step := range 10 {
				for range random.IntN(4) {
					mutate(t, random, dir)
				}
				sn, want := backUp(t, r, dir), fstest.Describe(t, dir)
				// The standby's disk takes the place of the holder's for a moment.
				holders := filepath.Join(top, "holders")
				fstest.Must(t, os.Rename(dir, holders))
				if had != nil {
					fstest.Must(t, os.Rename(away, dir))
				}
				if _, err := Run(t.Context(), r, sn, Options{Delete: true, StrictMetadata: true, Base: had}); err != nil {
					t.Fatalf("step %d: %v", step, err)
				}
				fstest.Compare(t, fstest.Describe(t, dir), want)
				fstest.Must(t, os.Rename(dir, away), os.Rename(holders, dir))
				had = sn
			}
		})
	}
}

// A delta looks at what differs and at nothing else.
func TestBaseIsCheap(t *testing.T) {
	r := sharedRepo(t)
	dir := filepath.Join(t.TempDir(), "vol")
	for i := range 100 {
		fstest.Write(t, fmt.Sprintf("%s/d%d/f", dir, i), "same")
	}
	old := backUp(t, r, dir)
	fstest.Write(t, dir+"/d7/f", "other")
	sn := backUp(t, r, dir)
	want := fstest.Describe(t, dir)
	if _, err := Run(t.Context(), r, old, Options{Delete: true}); err != nil {
		t.Fatal(err)
	}
	var steps []string
	res, err := Run(t.Context(), r, sn, Options{Delete: true, Base: old, step: func(op, path string) error {
		steps = append(steps, op+" "+strings.TrimPrefix(path, dir))
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	fstest.Compare(t, fstest.Describe(t, dir), want)
	if res.Files != 1 || len(steps) > 12 {
		t.Errorf("it looked at %d files, and changed %q", res.Files, steps)
	}
}

// A base that is not what is there is noticed where it matters to the names, and one
// that was pruned does no harm.
func TestBaseThatDoesNotHold(t *testing.T) {
	r := sharedRepo(t)
	dir := filepath.Join(t.TempDir(), "vol")
	for _, name := range []string{"a/1", "a/2", "b/c/3", "b/4"} {
		fstest.Write(t, dir+"/"+name, name)
	}
	old := backUp(t, r, dir)
	fstest.Write(t, dir+"/a/1", "one")
	sn, want := backUp(t, r, dir), fstest.Describe(t, dir)
	var base format.Snapshot
	for what, damage := range map[string]func(){
		"a file is missing":      func() { fstest.Must(t, os.Remove(dir+"/a/2")) },
		"a directory is missing": func() { fstest.Must(t, os.RemoveAll(dir+"/b")) },
		"all is missing":         func() { fstest.Must(t, os.RemoveAll(dir)) },
		"the base was pruned":    func() { base.Tree = &format.ID{1} },
	} {
		if _, err := Run(t.Context(), r, old, Options{Delete: true}); err != nil {
			t.Fatal(err)
		}
		base = *old
		damage()
		if _, err := Run(t.Context(), r, sn, Options{Delete: true, Base: &base}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		fstest.Compare(t, fstest.Describe(t, dir), want)
	}
}
