package volume

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/repo/fstest"
)

// One directory of a snapshot comes to another place, whole, over whatever an interrupted try left there.
func TestRestorePath(t *testing.T) {
	t.Parallel()
	dir, st := fastDir(t), newStore(t)
	v := openVolume(t, st)
	for name, content := range map[string]string{"a": "1", "sub/b": "22", "sub/deep/c": "333"} {
		writeFile(t, filepath.Join(dir, "x/data", name), content)
	}
	writeFile(t, filepath.Join(dir, "x/other"), "not wanted")
	fstest.Must(t, os.Chmod(filepath.Join(dir, "x/data"), 0o750))
	out := mustCommit(t, v, snapshotOptions(filepath.Join(dir, "x")))
	opt := PathRestore{Snapshot: out.Head.Snapshot, Path: filepath.Join(dir, "x/data"), Into: filepath.Join(dir, "y"), Keep: []string{"mark"}, Instance: "test"}
	writeFile(t, filepath.Join(dir, "y/mark"), "kept")
	writeFile(t, filepath.Join(dir, "y/sub/left"), "of an earlier try")
	for range 2 {
		fstest.Must(t, v.RestorePath(t.Context(), opt))
		var got []string
		fstest.Must(t, filepath.WalkDir(opt.Into, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				got = append(got, strings.TrimPrefix(path, opt.Into+"/"))
			}
			return err
		}))
		if want := []string{"a", "mark", "sub/b", "sub/deep/c"}; !slices.Equal(got, want) {
			t.Errorf("there is %q, want %q", got, want)
		}
	}
	if fi, err := os.Stat(opt.Into); err != nil || fi.Mode().Perm() != 0o750 {
		t.Errorf("the directory itself is %v (%v)", fi.Mode(), err)
	}
	if locks, err := v.Repo.Locks(t.Context()); err != nil || len(locks) != 0 {
		t.Errorf("locks are left: %v (%v)", locks, err)
	}
	opt.Path = filepath.Join(dir, "x/none")
	if err := v.RestorePath(t.Context(), opt); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is none: %v", err)
	}
	opt.Path, opt.Snapshot = filepath.Join(dir, "x/data"), strings.Repeat("ab", 32)
	if err := v.RestorePath(t.Context(), opt); !errors.Is(err, repo.ErrSnapshotNotFound) {
		t.Errorf("a snapshot that is none: %v", err)
	}
}

func TestRestorePathOfDamagedData(t *testing.T) {
	t.Parallel()
	dir, st := fastDir(t), newStore(t)
	v := openVolume(t, st)
	writeFile(t, filepath.Join(dir, "x/f"), strings.Repeat("content", 1000))
	out := mustCommit(t, v, snapshotOptions(filepath.Join(dir, "x")))
	fstest.Must(t, st.List(t.Context(), "data/", func(i objstore.Info) error {
		data, _, err := st.Get(t.Context(), i.Key, 0, -1)
		if err != nil {
			return err
		}
		data[20] ^= 1
		return st.Put(t.Context(), i.Key, data)
	}))
	err := openVolume(t, st).RestorePath(t.Context(), PathRestore{Snapshot: out.Head.Snapshot, Path: filepath.Join(dir, "x"), Into: filepath.Join(dir, "y")})
	if err == nil {
		t.Error("restored from packs that were changed")
	}
}

// Tagged snapshots are found, and those removed that are not the head's.
func TestTaggedSnapshots(t *testing.T) {
	t.Parallel()
	dir, st := fastDir(t), newStore(t)
	v := openVolume(t, st)
	opt := snapshotOptions(dir)
	opt.Tree.Tags = []string{"database:7"}
	var ids []string
	for _, content := range []string{"1", "2", "3"} {
		writeFile(t, filepath.Join(dir, "f"), content)
		ids = append(ids, mustCommit(t, v, opt).Head.Snapshot)
		opt.Tree.Tags = []string{"database:7", "more"}
	}
	list := func(tag string) (found []string) {
		all, err := v.Tagged(t.Context(), tag)
		fstest.Must(t, err)
		for _, s := range all {
			found = append(found, s.Snapshot)
		}
		return found
	}
	if got := list("database:7"); !slices.Equal(got, ids) {
		t.Errorf("tagged %q, want %q", got, ids)
	}
	if got := list("more"); !slices.Equal(got, ids[1:]) {
		t.Errorf("tagged %q, want %q", got, ids[1:])
	}
	if got := list("database"); len(got) != 0 {
		t.Errorf("tagged %q", got)
	}
	for range 2 { // the same again is no error
		fstest.Must(t, v.RemoveSnapshots(t.Context(), snapshotOptions(dir), []string{ids[0], ids[2]}, true))
		if got := list("database:7"); !slices.Equal(got, ids[1:]) {
			t.Errorf("left %q, want %q: the head's stays", got, ids[1:])
		}
	}
	into := t.TempDir()
	fstest.Must(t, v.RestorePath(t.Context(), PathRestore{Snapshot: ids[1], Path: dir, Into: into}))
	if got, err := os.ReadFile(filepath.Join(into, "f")); err != nil || string(got) != "2" {
		t.Errorf("%q (%v)", got, err)
	}
}
