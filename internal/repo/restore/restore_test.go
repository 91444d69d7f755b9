package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/internal/objstore/mem"
	"drover/internal/repo"
	"drover/internal/repo/archive"
	"drover/internal/repo/format"
	"drover/internal/repo/fstest"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(unprivilegedEnv); dir != "" {
		os.Exit(unprivilegedRestore(dir))
	}
	goleak.VerifyTestMain(m)
}

func openRepo(t testing.TB, st *mem.Store) *repo.Repository {
	t.Helper()
	r, err := repo.Open(t.Context(), st, "secret", repo.Options{})
	fstest.Must(t, err)
	fstest.Must(t, r.LoadIndex(t.Context()))
	return r
}

// newRepo returns a repository of the test's own.
func newRepo(t testing.TB) (*repo.Repository, *mem.Store) {
	t.Helper()
	b, err := bundle()
	fstest.Must(t, err)
	st := mem.New()
	fstest.Must(t, repo.Materialise(t.Context(), st, b))
	return openRepo(t, st), st
}

// Deriving a key takes a second on a busy machine, so tests that do not damage
// it share one repository.
var (
	bundle = sync.OnceValues(func() (*repo.Bundle, error) { return repo.NewBundle("secret") })
	shared = sync.OnceValues(func() (*repo.Repository, error) {
		b, err := bundle()
		if err != nil {
			return nil, err
		}
		st := mem.New()
		if err := repo.Materialise(context.Background(), st, b); err != nil {
			return nil, err
		}
		r, err := repo.Open(context.Background(), st, "secret", repo.Options{})
		if err != nil {
			return nil, err
		}
		return r, r.LoadIndex(context.Background())
	})
)

func sharedRepo(t testing.TB) *repo.Repository {
	t.Helper()
	r, err := shared()
	fstest.Must(t, err)
	return r
}

func backUp(t testing.TB, r *repo.Repository, paths ...string) *format.Snapshot {
	t.Helper()
	w := r.NewWriter(t.Context(), repo.WriterOptions{})
	res, err := archive.Run(t.Context(), w, r, archive.Options{Paths: paths})
	if err != nil {
		w.Abort()
		t.Fatal(err)
	}
	sn := &format.Snapshot{Time: time.Now(), Tree: &res.Tree, Paths: paths}
	if _, _, err := w.Finish(t.Context(), sn); err != nil {
		t.Fatal(err)
	}
	return sn
}

func blocks(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	fstest.Must(t, unix.Lstat(path, &st))
	return st.Blocks
}

func TestRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vol")
	fstest.RichTree(t, dir)
	want := fstest.Describe(t, dir)
	r := sharedRepo(t)
	sn := backUp(t, r, dir)
	target := t.TempDir()
	res, err := Run(t.Context(), r, sn, Options{Target: target, Verify: true, StrictMetadata: true, Sync: true})
	if err != nil {
		t.Fatal(err)
	}
	fstest.Compare(t, fstest.Describe(t, filepath.Join(target, dir)), want)
	if n := blocks(t, filepath.Join(target, dir, "sparse")); n > 64 {
		t.Errorf("the sparse file takes %d blocks", n)
	}
	if res.Files != 20 || res.BytesWritten == 0 || res.Kept != 0 {
		t.Errorf("result %+v", res)
	}
	// The parents' metadata too.
	var a, b unix.Stat_t
	fstest.Must(t, unix.Stat(filepath.Dir(dir), &a), unix.Stat(filepath.Join(target, filepath.Dir(dir)), &b))
	if a.Mode != b.Mode || a.Mtim != b.Mtim {
		t.Errorf("the parent has mode %o and time %v, want %o and %v", b.Mode, b.Mtim, a.Mode, a.Mtim)
	}
	// A second time nothing is written.
	res, err = Run(t.Context(), r, sn, Options{Target: target, Delete: true, Verify: true, StrictMetadata: true})
	if err != nil || res.BytesWritten != 0 || res.Removed != 0 {
		t.Errorf("again: %+v, %v", res, err)
	}
	fstest.Compare(t, fstest.Describe(t, filepath.Join(target, dir)), want)
}

// mess changes a copy of richTree in many ways.
func mess(t testing.TB, dir string) {
	t.Helper()
	in := func(name string) string { return filepath.Join(dir, name) }
	fstest.Must(t, os.Remove(in("small")), os.WriteFile(in("empty"), []byte("not"), 0o600), os.RemoveAll(in("sub/deep")))
	fstest.Write(t, in("sub/deep"), "a file where a directory was")
	fstest.Must(t, os.Remove(in("symlink")), os.Mkdir(in("symlink"), 0o755))
	fstest.Write(t, in("symlink/x/y"), "z")
	fstest.Must(t, os.Remove(in("fifo")), os.Symlink("/etc/passwd", in("fifo")))
	fstest.Must(t, os.Remove(in("zz/second")), os.Link(in("owned"), in("zz/second")), os.Remove(in("third")))
	fstest.Write(t, in("third"), "linked")
	fstest.Must(t, os.Chmod(in("nothing"), 0o777), os.Lchown(in("attrs"), 9, 9), unix.Lsetxattr(in("attrs"), "user.extra", []byte("e"), 0))
	fstest.Must(t, unix.Lsetxattr(in("sub"), "system.posix_acl_default", fstest.ACL, 0))
	fstest.Write(t, in("extra/dir/file"), "extra")
	fstest.Must(t, os.Symlink("/", in("extra/root")), unix.Mknod(in("extra/sock"), unix.S_IFSOCK|0o600, 0))
	f, err := os.OpenFile(in("big"), os.O_RDWR, 0)
	fstest.Must(t, err)
	_, err = f.WriteAt([]byte("damage"), 5<<20)
	fstest.Must(t, err, f.Truncate(9<<20+100000), f.Close())
	fstest.Must(t, os.Remove(in("twin")), os.Link(in("setuid"), in("twin")))
	fstest.Must(t, os.Truncate(in("sparse"), 10))
}

func TestExactRestoreInPlace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vol")
	fstest.RichTree(t, dir)
	want := fstest.Describe(t, dir)
	r := sharedRepo(t)
	sn := backUp(t, r, dir)
	opt := Options{Delete: true, Verify: true, StrictMetadata: true}

	mess(t, dir)
	diffs, err := Diff(t.Context(), r, sn, Options{})
	fstest.Must(t, err)
	for _, d := range []Difference{{dir + "/small", Missing}, {dir + "/extra", Extra}, {dir + "/sub/deep", Type}, {dir + "/big", Content},
		{dir + "/attrs", Metadata}, {dir + "/third", Links}, {dir + "/symlink", Type}} {
		if !slices.Contains(diffs, d) {
			t.Errorf("Diff lacks %v: %v", d, diffs)
		}
	}
	res, err := Run(t.Context(), r, sn, opt)
	fstest.Must(t, err)
	fstest.Compare(t, fstest.Describe(t, dir), want)
	if res.Removed == 0 || res.BytesWritten > 9<<20 {
		t.Errorf("result %+v: of the big file only what was damaged should be written", res)
	}
	diffs, err = Diff(t.Context(), r, sn, Options{})
	if err != nil || len(diffs) != 0 {
		t.Errorf("differences after the restore: %v, %v", diffs, err)
	}

	fstest.Must(t, os.RemoveAll(filepath.Dir(dir)))
	_, err = Run(t.Context(), r, sn, opt)
	fstest.Must(t, err)
	fstest.Compare(t, fstest.Describe(t, dir), want)

	fstest.Must(t, os.RemoveAll(dir))
	fstest.Write(t, dir, "a file where the root was")
	_, err = Run(t.Context(), r, sn, opt)
	fstest.Must(t, err)
	fstest.Compare(t, fstest.Describe(t, dir), want)
}

var errKilled = errors.New("killed")

// TestKilledAtEveryStep: an exact restore that was killed before its n-th change
// of the disk, and then run again, ends in the same state.
func TestKilledAtEveryStep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vol")
	in := func(name string) string { return filepath.Join(dir, name) }
	build := func() {
		fstest.Must(t, os.RemoveAll(dir))
		for name, content := range map[string]string{"a": "a", "d/b": "bb", "d/e/c": "ccc", "empty": "", "link": "l", "type": "t"} {
			fstest.Write(t, in(name), content)
		}
		fstest.Must(t, os.Link(in("link"), in("d/link")), os.Symlink("a", in("sym")), os.Mkdir(in("hollow"), 0o711), os.Chtimes(in("d"), fstest.Old, fstest.Old), os.Chtimes(dir, fstest.Old, fstest.Old))
	}
	build()
	big := fstest.Noise(4 << 20)
	fstest.Must(t, os.WriteFile(in("big"), big, 0o640), os.Chtimes(dir, fstest.Old, fstest.Old))
	want := fstest.Describe(t, dir)
	r := sharedRepo(t)
	sn := backUp(t, r, dir)
	spoil := func() {
		build()
		fstest.Must(t, os.RemoveAll(in("d/e")), os.Remove(in("type")), os.Mkdir(in("type"), 0o700), os.WriteFile(in("a"), []byte("A"), 0o600))
		fstest.Write(t, in("type/x"), "x")
		fstest.Write(t, in("extra/y"), "y")
		fstest.Must(t, os.WriteFile(in("d/e"), nil, 0o600), os.Remove(in("d/link")))
		part := bytes.Clone(big)
		copy(part[3<<20:], make([]byte, 100))
		fstest.Must(t, os.WriteFile(in("big"), part[:len(part)-9], 0o600))
	}
	for n := 0; ; n++ {
		spoil()
		steps := 0
		opt := Options{Delete: true, Concurrency: 1, step: func(string, string) error {
			if steps++; steps > n {
				return errKilled // and so does every later change
			}
			return nil
		}}
		_, err := Run(t.Context(), r, sn, opt)
		if err == nil {
			if n < 30 {
				t.Errorf("the whole restore takes %d changes", n)
			}
			fstest.Compare(t, fstest.Describe(t, dir), want)
			return
		}
		if !errors.Is(err, errKilled) {
			t.Fatalf("step %d: %v", n, err)
		}
		if _, err := Run(t.Context(), r, sn, Options{Delete: true}); err != nil {
			t.Fatalf("after a kill at step %d: %v", n, err)
		}
		fstest.Compare(t, fstest.Describe(t, dir), want)
		if t.Failed() {
			t.Fatalf("after a kill at step %d", n)
		}
	}
}

func TestKeptAndExcludedFilesStay(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vol")
	fstest.Write(t, dir+"/f", "1")
	fstest.Write(t, dir+"/marker", "of the snapshot")
	r := sharedRepo(t)
	sn := backUp(t, r, dir)
	sn.Excludes = []string{"*.tmp", dir + "/cache"}
	for _, name := range []string{"x.tmp", "cache/a", "extra/b.tmp", "extra/c", "marker", "other/marker"} {
		fstest.Write(t, filepath.Join(dir, name), name)
	}
	_, err := Run(t.Context(), r, sn, Options{Delete: true, Keep: func(path string) bool { return filepath.Base(path) == "marker" }})
	fstest.Must(t, err)
	got := slices.Sorted(maps.Keys(fstest.Describe(t, dir)))
	want := []string{".", "cache", "cache/a", "extra", "extra/b.tmp", "f", "marker", "other", "other/marker", "x.tmp"}
	if !slices.Equal(got, want) {
		t.Errorf("left: %q, want %q", got, want)
	}
	if data, err := os.ReadFile(dir + "/marker"); err != nil || string(data) != "marker" {
		t.Errorf("the kept file is %q, %v", data, err)
	}
}

func TestRootThatIsASymlinkOrAFile(t *testing.T) {
	base := t.TempDir()
	fstest.Write(t, base+"/real/f", "1")
	fstest.Write(t, base+"/file", "2")
	fstest.Must(t, os.Symlink("real", base+"/vol"))
	r := sharedRepo(t)
	sn := backUp(t, r, base+"/vol", base+"/file")
	fstest.Write(t, base+"/real/extra", "x")
	fstest.Write(t, base+"/real/f", "changed")
	fstest.Write(t, base+"/file", "changed")
	fstest.Write(t, base+"/beside", "not ours")
	_, err := Run(t.Context(), r, sn, Options{Delete: true, Verify: true})
	fstest.Must(t, err)
	if target, err := os.Readlink(base + "/vol"); err != nil || target != "real" {
		t.Errorf("the symbolic link is %q, %v", target, err)
	}
	got := fstest.Describe(t, base)
	if got["real/extra"] != "" || got["beside"] == "" {
		t.Errorf("left: %v", got)
	}
	for path, want := range map[string]string{"/real/f": "1", "/file": "2"} {
		if data, err := os.ReadFile(base + path); err != nil || string(data) != want {
			t.Errorf("%s is %q, %v", path, data, err)
		}
	}
}

func TestInclude(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vol")
	fstest.Write(t, dir+"/a/f", "1")
	fstest.Write(t, dir+"/b/f", "2")
	r := sharedRepo(t)
	sn := backUp(t, r, dir)
	target := t.TempDir()
	_, err := Run(t.Context(), r, sn, Options{Target: target, Include: []string{dir + "/b"}})
	fstest.Must(t, err)
	if got := slices.Sorted(maps.Keys(fstest.Describe(t, target+dir))); !slices.Equal(got, []string{".", "b", "b/f"}) {
		t.Errorf("restored %q", got)
	}
	fstest.Write(t, dir+"/a/extra", "x")
	fstest.Write(t, dir+"/b/extra", "x")
	_, err = Run(t.Context(), r, sn, Options{Delete: true, Include: []string{dir + "/b"}})
	fstest.Must(t, err)
	if got := slices.Sorted(maps.Keys(fstest.Describe(t, dir))); !slices.Equal(got, []string{".", "a", "a/extra", "a/f", "b", "b/f"}) {
		t.Errorf("left %q", got)
	}
}

func TestDamagedBlobsAreNamed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vol")
	fstest.Write(t, dir+"/bad", string(fstest.Noise(1000)))
	r, st := newRepo(t)
	backUp(t, r, dir)
	fstest.Write(t, dir+"/good", string(fstest.Noise(1000)))
	sn := backUp(t, r, dir)
	bad, err := os.ReadFile(dir + "/bad")
	fstest.Must(t, err)
	at, _ := r.Lookup(format.Handle{Type: format.DataBlob, ID: format.Hash(bad)})
	key := format.DataFile.Key(at[0].Pack)
	pack, _, err := st.Get(t.Context(), key, 0, -1)
	fstest.Must(t, err)
	pack[at[0].Offset+100] ^= 1
	fstest.Must(t, st.Put(t.Context(), key, pack))
	target := t.TempDir()
	_, err = Run(t.Context(), openRepo(t, st), sn, Options{Target: target})
	var incomplete *IncompleteError
	if !errors.As(err, &incomplete) || incomplete.Total != 1 || incomplete.Paths[0].Path != dir+"/bad" || !errors.Is(err, repo.ErrDamaged) {
		t.Fatalf("error %v", err)
	}
	if _, err := os.Lstat(target + dir + "/bad"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something is left of the damaged file: %v", err)
	}
	if data, err := os.ReadFile(target + dir + "/good"); err != nil || len(data) != 1000 {
		t.Errorf("the good file: %d bytes, %v", len(data), err)
	}
}

func TestFullDiskEndsTheRestore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vol")
	for i := range 50 {
		fstest.Write(t, fmt.Sprintf("%s/%d", dir, i), fmt.Sprint(i))
	}
	r := sharedRepo(t)
	sn := backUp(t, r, dir)
	writes := 0
	_, err := Run(t.Context(), r, sn, Options{Target: t.TempDir(), Concurrency: 1, step: func(op, path string) error {
		if op == "write" {
			if writes++; writes > 10 {
				return unix.ENOSPC
			}
		}
		return nil
	}})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), dir+"/") {
		t.Errorf("error %v does not say which file did not fit", err)
	}
	if writes > 12 {
		t.Errorf("%d files were tried", writes)
	}
}

func TestCancel(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vol")
	for i := range 50 {
		fstest.Write(t, fmt.Sprintf("%s/%d", dir, i), fmt.Sprint(i))
	}
	r := sharedRepo(t)
	sn := backUp(t, r, dir)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Run(ctx, r, sn, Options{Target: t.TempDir(), Progress: func(string, uint64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
