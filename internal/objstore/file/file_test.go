package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"drover/internal/objstore"
	"drover/internal/objstore/objstoretest"
)

func TestMain(m *testing.M) {
	if os.Getenv(racerEnv) != "" {
		os.Exit(racer())
	}
	if os.Getenv(limitedEnv) != "" {
		os.Exit(limited())
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	objstoretest.Run(t, func(t *testing.T) objstore.Store { return open(t, filepath.Join(t.TempDir(), "new")) })
}

func TestLayoutIsRestics(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir)
	if err := s.Put(t.Context(), "vol/data/ab/abcd", []byte("pack")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "vol/data/ab/abcd"))
	if err != nil || string(got) != "pack" {
		t.Fatalf("%q, %v", got, err)
	}
	for path, mode := range map[string]fs.FileMode{
		"": 0o700, "vol": 0o700, "vol/data/ab": 0o700, "vol/data/ab/abcd": 0o600, ownDir: 0o700,
	} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode(), err, mode)
		}
	}
	inVolume, err := os.ReadDir(filepath.Join(dir, "vol"))
	if err != nil || len(inVolume) != 1 {
		t.Errorf("the volume holds %v, %v; want nothing but data", inVolume, err)
	}
	if left := temps(t, dir); len(left) != 0 {
		t.Errorf("temporary files left: %v", left)
	}
}

func temps(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, ownDir, tempPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestOwnDirIsNoObject(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.Put(t.Context(), ownDir+"/x", nil); err == nil {
		t.Error("a put into the store's own directory was accepted")
	}
	if _, err := s.PutIf(t.Context(), "a", nil, objstore.IfAbsent()); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"", ".", ".d", ownDir, ownDir + "/", ownDir + "/l"} {
		err := s.List(t.Context(), prefix, func(i objstore.Info) error {
			if i.Key != "a" {
				t.Errorf("List %q shows %s", prefix, i.Key)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestETagOfSameBytes is what a hash of the content cannot do: the ABA case.
func TestETagOfSameBytes(t *testing.T) {
	s := open(t, t.TempDir())
	seen := map[objstore.ETag]bool{}
	tag, err := s.PutIf(t.Context(), "a", []byte("same"), objstore.IfAbsent())
	for range 50 {
		if err != nil || seen[tag] {
			t.Fatalf("ETag %q, %v; seen before: %v", tag, err, seen[tag])
		}
		seen[tag] = true
		tag, err = s.PutIf(t.Context(), "a", []byte("same"), objstore.IfMatch(tag))
	}
}

// TestETagGrowsUnderABackwardClock has the present version come from a clock
// that was ahead.
func TestETagGrowsUnderABackwardClock(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := s.Put(t.Context(), "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	ahead := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "a"), ahead, ahead); err != nil {
		t.Fatal(err)
	}
	before, err := s.Head(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "a", []byte("2")); err != nil {
		t.Fatal(err)
	}
	after, err := s.Head(t.Context(), "a")
	if err != nil || !after.ModTime.After(before.ModTime) || after.ETag == before.ETag {
		t.Fatalf("%+v, then %+v, %v", before, after, err)
	}
}

func TestETagIsTheSameForAnotherOpener(t *testing.T) {
	dir := t.TempDir()
	tag, err := open(t, dir).PutIf(t.Context(), "a", []byte("x"), objstore.IfAbsent())
	if err != nil {
		t.Fatal(err)
	}
	info, err := open(t, dir).Head(t.Context(), "a")
	if err != nil || info.ETag != tag {
		t.Fatalf("%q, %v; want %q", info.ETag, err, tag)
	}
}

func TestListSeesOthersFilesAndPassesOverNames(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, name := range []string{"locks/abc", "has blank", "data/x:y"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	err := s.List(t.Context(), "", func(i objstore.Info) error { got = append(got, i.Key); return nil })
	if err != nil || len(got) != 1 || got[0] != "locks/abc" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestSymlinkedDirectory(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := s.Put(t.Context(), "real/a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "vol")); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := s.List(t.Context(), "vol/", func(i objstore.Info) error { got = append(got, i.Key); return nil })
	if err != nil || len(got) != 1 || got[0] != "vol/a" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Get(t.Context(), "out/passwd", 0, -1); err == nil || errors.Is(err, objstore.ErrNotFound) {
		t.Errorf("Get through a link out of the store: %v", err)
	}
	if err := s.List(t.Context(), "", func(objstore.Info) error { return nil }); err == nil {
		t.Error("List passes over a link out of the store in silence")
	}
}

// TestRemovedDirectory: a store that was taken away does not say "not found".
func TestRemovedDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir)
	if err := s.Put(t.Context(), "a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.Get(t.Context(), "a", 0, -1)
	if !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("Get: %v", err)
	}
	if err := s.List(t.Context(), "", nil); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("List: %v", err)
	}
	if err := s.Put(t.Context(), "a", nil); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("Put: %v", err)
	}
}

func TestRemovedSubdirectoryIsMadeAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for range 2 {
		if err := s.Put(t.Context(), "vol/data/a", []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(dir, "vol")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadingMakesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir)
	if _, err := s.Head(t.Context(), "a"); !errors.Is(err, objstore.ErrNotFound) {
		t.Errorf("Head: %v", err)
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
	if _, err := Open(dir, Options{MustExist: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open with MustExist: %v", err)
	}
	if _, err := Open("relative", Options{}); err == nil {
		t.Error("a relative path was accepted")
	}
}

func TestStaleTemporaryFilesGo(t *testing.T) {
	dir := t.TempDir()
	if err := open(t, dir).Put(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	newAged := func(age time.Duration) *temp {
		tmp, err := newTemp(root)
		if err != nil {
			t.Fatal(err)
		}
		if err := tmp.date(time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
		return tmp
	}
	inUse, crashed, young := newAged(2*staleAge), newAged(2*staleAge), newAged(0)
	crashed.f.Close()
	young.f.Close()
	if err := open(t, dir).Put(t.Context(), "b", nil); err != nil {
		t.Fatal(err)
	}
	for tmp, stays := range map[*temp]bool{inUse: true, crashed: false, young: true} {
		if _, err := root.Stat(tmp.name); (err == nil) != stays {
			t.Errorf("%s: %v; should stay: %v", tmp.name, err, stays)
		}
	}
	inUse.discard()
}

// TestLockIsWaitedFor holds a key's lock as a paused process would.
func TestLockIsWaitedFor(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.Put(t.Context(), "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	held, err := lock(t.Context(), s.root, "a", unix.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Put(ctx, "a", []byte("2")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Put under another's lock: %v", err)
	}
	if err := s.Delete(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Delete under another's lock: %v", err)
	}
	if got, _, err := s.Get(t.Context(), "a", 0, -1); err != nil || string(got) != "1" {
		t.Errorf("Get under another's lock: %q, %v", got, err)
	}
	held.Close()
	if err := s.Put(t.Context(), "a", []byte("3")); err != nil {
		t.Error(err)
	}
	if left := temps(t, s.dir); len(left) != 0 {
		t.Errorf("temporary files left: %v", left)
	}
}

func TestKindOfAFullDisk(t *testing.T) {
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT} {
		err := kind(&fs.PathError{Op: "write", Path: "x", Err: errno})
		if !errors.Is(err, objstore.ErrUnavailable) || !errors.Is(err, errno) || !strings.Contains(err.Error(), "disk is full") {
			t.Errorf("%v: %v", errno, err)
		}
	}
}

func TestNetworkFileSystems(t *testing.T) {
	for _, magic := range []uint32{unix.NFS_SUPER_MAGIC, unix.V9FS_MAGIC, 0xff534d42, 0x00c36400} {
		if _, found := networkMagic(magic); !found {
			t.Errorf("%#x is not known", magic)
		}
	}
	for _, magic := range []uint32{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC,
		unix.OVERLAYFS_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC} {
		if name, found := networkMagic(magic); found {
			t.Errorf("%#x is taken for %s", magic, name)
		}
	}
	const mounts = "36 35 0:52 / /mnt rw,noatime shared:1 - fuse.sshfs host:/dir rw\n" +
		"37 35 0:53 / /home rw - fuse.fuse-overlayfs fuse-overlayfs rw\n" +
		"38 35 0:5 / /short\n"
	for device, want := range map[string]bool{"0:52": true, "0:53": false, "0:5": false, "0:99": false} {
		if got := networkFUSE(mountType(mounts, device)); got != want {
			t.Errorf("device %s: type %q, network: %v", device, mountType(mounts, device), got)
		}
	}
	if mountType(mounts, "0:53") != "fuse.fuse-overlayfs" {
		t.Errorf("got type %q", mountType(mounts, "0:53"))
	}
}

func BenchmarkPut(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20, 16 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s := open(b, b.TempDir())
			data := bytes.Repeat([]byte{7}, size)
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				if err := s.Put(b.Context(), fmt.Sprintf("data/%02x/%d", i%256, i), data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPutParallel(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s := open(b, b.TempDir())
			data := bytes.Repeat([]byte{7}, size)
			b.SetBytes(int64(size))
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					key := fmt.Sprintf("data/%d", time.Now().UnixNano())
					if err := s.Put(b.Context(), key, data); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkPutIf(b *testing.B) {
	s := open(b, b.TempDir())
	tag, err := s.PutIf(b.Context(), "vol/drover/head", nil, objstore.IfAbsent())
	for b.Loop() {
		if err != nil {
			b.Fatal(err)
		}
		tag, err = s.PutIf(b.Context(), "vol/drover/head", make([]byte, 1000), objstore.IfMatch(tag))
	}
}

func BenchmarkGet(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s := open(b, b.TempDir())
			if err := s.Put(b.Context(), "data/ab/a", make([]byte, size)); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, _, err := s.Get(b.Context(), "data/ab/a", 0, -1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestMakesWhatIsMissingAbove(t *testing.T) {
	base := t.TempDir()
	for _, dir := range []string{"a/b/c", "a/b/d", "a"} {
		if err := open(t, filepath.Join(base, dir)).Put(t.Context(), "k", nil); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
