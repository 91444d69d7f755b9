package restore

import (
	"bytes"
	"context"
	"crypto/rand"
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
	"drover/internal/repo/localfs"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(unprivilegedEnv); dir != "" {
		os.Exit(unprivilegedRestore(dir))
	}
	goleak.VerifyTestMain(m)
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func openRepo(t testing.TB, st *mem.Store) *repo.Repository {
	t.Helper()
	r, err := repo.Open(t.Context(), st, "secret", repo.Options{})
	must(t, err)
	must(t, r.LoadIndex(t.Context()))
	return r
}

// newRepo returns a repository of the test's own.
func newRepo(t testing.TB) (*repo.Repository, *mem.Store) {
	t.Helper()
	b, err := bundle()
	must(t, err)
	st := mem.New()
	must(t, repo.Materialise(t.Context(), st, b))
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
	must(t, err)
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

func write(t testing.TB, path, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

func noise(t testing.TB, n int) []byte {
	t.Helper()
	data := make([]byte, n)
	_, err := rand.Read(data)
	must(t, err)
	return data
}

// describe lists all that is below dir, and dir itself, in its own way.
func describe(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	links := make(map[uint64]string)
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		text := fmt.Sprintf("%o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %d bytes %s links %d", len(data), format.Hash(data).Short(), st.Nlink)
			if st.Nlink > 1 {
				if links[st.Ino] == "" {
					links[st.Ino] = rel
				}
				text += " = " + links[st.Ino]
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " → " + target
		case unix.S_IFBLK, unix.S_IFCHR:
			text += fmt.Sprintf(" device %d", st.Rdev)
		}
		parent, err := localfs.OpenDir(filepath.Dir(path))
		if err != nil {
			return err
		}
		attrs, err := parent.Xattrs(filepath.Base(path))
		if err := errors.Join(err, parent.Close()); err != nil {
			return err
		}
		slices.SortFunc(attrs, func(a, b format.Xattr) int { return strings.Compare(a.Name, b.Name) })
		for _, x := range attrs {
			text += fmt.Sprintf(" %s=%x", x.Name, x.Value)
		}
		out[rel] = text
		return nil
	}))
	return out
}

func compareTrees(t testing.TB, got, want map[string]string) {
	t.Helper()
	for path, w := range want {
		if g := got[path]; g != w {
			t.Errorf("%q is\n  %s\nwant\n  %s", path, g, w)
		}
	}
	for path, g := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%q should not be there: %s", path, g)
		}
	}
}

var (
	old = time.Unix(1234567890, 987654321)
	// An ACL as the kernel keeps it: version 2; user::rwx, user:1:r--, group::r-x, mask::r-x, other::r--.
	acl = []byte{2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 4, 0, 1, 0, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255,
		16, 0, 5, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255}
	// A capability: revision 2, effective, cap_net_bind_service.
	capability = []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
)

// richTree makes one of everything. It needs root.
func richTree(t testing.TB, dir string) {
	t.Helper()
	for name, content := range map[string]string{
		"small": "hello", "empty": "", "sub/deep/er/file": "x", "setuid": "s", "owned": "o", "attrs": "a", "first": "linked",
		"new\nline": "n", "not\xffutf8": "u", strings.Repeat("l", 255): "long", "big": string(noise(t, 9<<20+5)), "twin": "hello",
	} {
		write(t, filepath.Join(dir, name), content)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Mkdir(in("nothing"), 0o500), os.Mkdir(in("sticky"), 0o700), os.Mkdir(in("zz"), 0o755))
	must(t, os.Symlink("/target\xfe", in("symlink")), os.Symlink("small", in("symlink2")), os.Link(in("first"), in("zz/second")), os.Link(in("first"), in("third")))
	must(t, unix.Mkfifo(in("fifo"), 0o620), unix.Mknod(in("null"), unix.S_IFCHR|0o666, 259), unix.Mknod(in("block"), unix.S_IFBLK|0o600, 0x702))
	must(t, unix.Lsetxattr(in("attrs"), "user.one", []byte("1"), 0), unix.Lsetxattr(in("attrs"), "user.empty", nil, 0),
		unix.Lsetxattr(in("sub"), "user.dir", noise(t, 300), 0), unix.Lsetxattr(in("symlink"), "trusted.link", []byte("t"), 0),
		unix.Lsetxattr(in("attrs"), "system.posix_acl_access", acl, 0), unix.Lsetxattr(in("sub/deep"), "system.posix_acl_default", acl, 0))
	must(t, os.Lchown(in("owned"), 1234, 56789), os.Lchown(in("symlink"), 12, 34), os.Lchown(in("sub/deep"), 77, 78), os.Lchown(in("setuid"), 5, 6))
	must(t, unix.Lsetxattr(in("setuid"), "security.capability", capability, 0))
	must(t, unix.Chmod(in("setuid"), 0o6751), unix.Chmod(in("sticky"), 0o3777), unix.Chmod(in("sub/deep/er/file"), 0))
	f, err := os.Create(in("sparse"))
	must(t, err)
	_, err = f.WriteAt([]byte("middle"), 10<<20+100)
	must(t, err, f.Truncate(20<<20), f.Close())
	for _, name := range []string{"small", "symlink", "fifo", "sub/deep/er/file", "sub/deep", "sub", "nothing", "."} {
		ts := []unix.Timespec{{Sec: old.Unix()}, {Sec: old.Unix(), Nsec: int64(old.Nanosecond())}}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, in(name), ts, unix.AT_SYMLINK_NOFOLLOW))
	}
}

func blocks(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st.Blocks
}

func TestRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vol")
	richTree(t, dir)
	want := describe(t, dir)
	r := sharedRepo(t)
	sn := backUp(t, r, dir)
	target := t.TempDir()
	res, err := Run(t.Context(), r, sn, Options{Target: target, Verify: true, StrictMetadata: true, Sync: true})
	if err != nil {
		t.Fatal(err)
	}
	compareTrees(t, describe(t, filepath.Join(target, dir)), want)
	if n := blocks(t, filepath.Join(target, dir, "sparse")); n > 64 {
		t.Errorf("the sparse file takes %d blocks", n)
	}
	if res.Files != 20 || res.BytesWritten == 0 || res.Kept != 0 {
		t.Errorf("result %+v", res)
	}
	// The parents' metadata too.
	var a, b unix.Stat_t
	must(t, unix.Stat(filepath.Dir(dir), &a), unix.Stat(filepath.Join(target, filepath.Dir(dir)), &b))
	if a.Mode != b.Mode || a.Mtim != b.Mtim {
		t.Errorf("the parent has mode %o and time %v, want %o and %v", b.Mode, b.Mtim, a.Mode, a.Mtim)
	}
	// A second time nothing is written.
	res, err = Run(t.Context(), r, sn, Options{Target: target, Delete: true, Verify: true, StrictMetadata: true})
	if err != nil || res.BytesWritten != 0 || res.Removed != 0 {
		t.Errorf("again: %+v, %v", res, err)
	}
	compareTrees(t, describe(t, filepath.Join(target, dir)), want)
}

// mess changes a copy of richTree in many ways.
func mess(t testing.TB, dir string) {
	t.Helper()
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Remove(in("small")), os.WriteFile(in("empty"), []byte("not"), 0o600), os.RemoveAll(in("sub/deep")))
	write(t, in("sub/deep"), "a file where a directory was")
	must(t, os.Remove(in("symlink")), os.Mkdir(in("symlink"), 0o755))
	write(t, in("symlink/x/y"), "z")
	must(t, os.Remove(in("fifo")), os.Symlink("/etc/passwd", in("fifo")))
	must(t, os.Remove(in("zz/second")), os.Link(in("owned"), in("zz/second")), os.Remove(in("third")))
	write(t, in("third"), "linked")
	must(t, os.Chmod(in("nothing"), 0o777), os.Lchown(in("attrs"), 9, 9), unix.Lsetxattr(in("attrs"), "user.extra", []byte("e"), 0))
	must(t, unix.Lsetxattr(in("sub"), "system.posix_acl_default", acl, 0))
	write(t, in("extra/dir/file"), "extra")
	must(t, os.Symlink("/", in("extra/root")), unix.Mknod(in("extra/sock"), unix.S_IFSOCK|0o600, 0))
	f, err := os.OpenFile(in("big"), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("damage"), 5<<20)
	must(t, err, f.Truncate(9<<20+100000), f.Close())
	must(t, os.Remove(in("twin")), os.Link(in("setuid"), in("twin")))
	must(t, os.Truncate(in("sparse"), 10))
}

func TestExactRestoreInPlace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vol")
	richTree(t, dir)
	want := describe(t, dir)
	r := sharedRepo(t)
	sn := backUp(t, r, dir)
	opt := Options{Delete: true, Verify: true, StrictMetadata: true}

	mess(t, dir)
	diffs, err := Diff(t.Context(), r, sn, Options{})
	must(t, err)
	for _, d := range []Difference{{dir + "/small", Missing}, {dir + "/extra", Extra}, {dir + "/sub/deep", Type}, {dir + "/big", Content},
		{dir + "/attrs", Metadata}, {dir + "/third", Links}, {dir + "/symlink", Type}} {
		if !slices.Contains(diffs, d) {
			t.Errorf("Diff lacks %v: %v", d, diffs)
		}
	}
	res, err := Run(t.Context(), r, sn, opt)
	must(t, err)
	compareTrees(t, describe(t, dir), want)
	if res.Removed == 0 || res.BytesWritten > 9<<20 {
		t.Errorf("result %+v: of the big file only what was damaged should be written", res)
	}
	diffs, err = Diff(t.Context(), r, sn, Options{})
	if err != nil || len(diffs) != 0 {
		t.Errorf("differences after the restore: %v, %v", diffs, err)
	}

	must(t, os.RemoveAll(filepath.Dir(dir)))
	_, err = Run(t.Context(), r, sn, opt)
	must(t, err)
	compareTrees(t, describe(t, dir), want)

	must(t, os.RemoveAll(dir))
	write(t, dir, "a file where the root was")
	_, err = Run(t.Context(), r, sn, opt)
	must(t, err)
	compareTrees(t, describe(t, dir), want)
}

var errKilled = errors.New("killed")

// TestKilledAtEveryStep: an exact restore that was killed before its n-th change
// of the disk, and then run again, ends in the same state.
func TestKilledAtEveryStep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vol")
	in := func(name string) string { return filepath.Join(dir, name) }
	build := func() {
		must(t, os.RemoveAll(dir))
		for name, content := range map[string]string{"a": "a", "d/b": "bb", "d/e/c": "ccc", "empty": "", "link": "l", "type": "t"} {
			write(t, in(name), content)
		}
		must(t, os.Link(in("link"), in("d/link")), os.Symlink("a", in("sym")), os.Mkdir(in("hollow"), 0o711), os.Chtimes(in("d"), old, old), os.Chtimes(dir, old, old))
	}
	build()
	big := noise(t, 4<<20)
	must(t, os.WriteFile(in("big"), big, 0o640), os.Chtimes(dir, old, old))
	want := describe(t, dir)
	r := sharedRepo(t)
	sn := backUp(t, r, dir)
	spoil := func() {
		build()
		must(t, os.RemoveAll(in("d/e")), os.Remove(in("type")), os.Mkdir(in("type"), 0o700), os.WriteFile(in("a"), []byte("A"), 0o600))
		write(t, in("type/x"), "x")
		write(t, in("extra/y"), "y")
		must(t, os.WriteFile(in("d/e"), nil, 0o600), os.Remove(in("d/link")))
		part := bytes.Clone(big)
		copy(part[3<<20:], make([]byte, 100))
		must(t, os.WriteFile(in("big"), part[:len(part)-9], 0o600))
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
			compareTrees(t, describe(t, dir), want)
			return
		}
		if !errors.Is(err, errKilled) {
			t.Fatalf("step %d: %v", n, err)
		}
		if _, err := Run(t.Context(), r, sn, Options{Delete: true}); err != nil {
			t.Fatalf("after a kill at step %d: %v", n, err)
		}
		compareTrees(t, describe(t, dir), want)
		if t.Failed() {
			t.Fatalf("after a kill at step %d", n)
		}
	}
}

func TestKeptAndExcludedFilesStay(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vol")
	write(t, dir+"/f", "1")
	r := sharedRepo(t)
	sn := backUp(t, r, dir)
	sn.Excludes = []string{"*.tmp", dir + "/cache"}
	for _, name := range []string{"x.tmp", "cache/a", "extra/b.tmp", "extra/c", "marker", "other/marker"} {
		write(t, filepath.Join(dir, name), name)
	}
	_, err := Run(t.Context(), r, sn, Options{Delete: true, Keep: func(path string) bool { return filepath.Base(path) == "marker" }})
	must(t, err)
	got := slices.Sorted(maps.Keys(describe(t, dir)))
	want := []string{".", "cache", "cache/a", "extra", "extra/b.tmp", "f", "marker", "other", "other/marker", "x.tmp"}
	if !slices.Equal(got, want) {
		t.Errorf("left: %q, want %q", got, want)
	}
}

func TestRootThatIsASymlinkOrAFile(t *testing.T) {
	base := t.TempDir()
	write(t, base+"/real/f", "1")
	write(t, base+"/file", "2")
	must(t, os.Symlink("real", base+"/vol"))
	r := sharedRepo(t)
	sn := backUp(t, r, base+"/vol", base+"/file")
	write(t, base+"/real/extra", "x")
	write(t, base+"/real/f", "changed")
	write(t, base+"/file", "changed")
	write(t, base+"/beside", "not ours")
	_, err := Run(t.Context(), r, sn, Options{Delete: true, Verify: true})
	must(t, err)
	if target, err := os.Readlink(base + "/vol"); err != nil || target != "real" {
		t.Errorf("the symbolic link is %q, %v", target, err)
	}
	got := describe(t, base)
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
	write(t, dir+"/a/f", "1")
	write(t, dir+"/b/f", "2")
	r := sharedRepo(t)
	sn := backUp(t, r, dir)
	target := t.TempDir()
	_, err := Run(t.Context(), r, sn, Options{Target: target, Include: []string{dir + "/b"}})
	must(t, err)
	if got := slices.Sorted(maps.Keys(describe(t, target+dir))); !slices.Equal(got, []string{".", "b", "b/f"}) {
		t.Errorf("restored %q", got)
	}
	write(t, dir+"/a/extra", "x")
	write(t, dir+"/b/extra", "x")
	_, err = Run(t.Context(), r, sn, Options{Delete: true, Include: []string{dir + "/b"}})
	must(t, err)
	if got := slices.Sorted(maps.Keys(describe(t, dir))); !slices.Equal(got, []string{".", "a", "a/extra", "a/f", "b", "b/f"}) {
		t.Errorf("left %q", got)
	}
}

func TestDamagedBlobsAreNamed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vol")
	write(t, dir+"/bad", string(noise(t, 1000)))
	r, st := newRepo(t)
	backUp(t, r, dir)
	write(t, dir+"/good", string(noise(t, 1000)))
	sn := backUp(t, r, dir)
	bad, err := os.ReadFile(dir + "/bad")
	must(t, err)
	at, _ := r.Lookup(format.Handle{Type: format.DataBlob, ID: format.Hash(bad)})
	key := format.DataFile.Key(at[0].Pack)
	pack, _, err := st.Get(t.Context(), key, 0, -1)
	must(t, err)
	pack[at[0].Offset+100] ^= 1
	must(t, st.Put(t.Context(), key, pack))
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
		write(t, fmt.Sprintf("%s/%d", dir, i), fmt.Sprint(i))
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
		write(t, fmt.Sprintf("%s/%d", dir, i), fmt.Sprint(i))
	}
	r := sharedRepo(t)
	sn := backUp(t, r, dir)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Run(ctx, r, sn, Options{Target: t.TempDir(), Progress: func(string, uint64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
