package restore

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"drover/internal/repo/fstest"

	"golang.org/x/sys/unix"
)

// TestMountPoints: a path that is a mount point is emptied and filled, not
// replaced, and a small file system that is full is said to be so. It needs the
// right to mount, which containers seldom have.
func TestMountPoints(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "vol")
	fstest.Must(t, os.Mkdir(dir, 0o755))
	err := unix.Mount("drover-test", dir, "tmpfs", 0, "size=1m")
	if errors.Is(err, unix.EPERM) {
		t.Fatal("this test needs the right to mount: run it as root")
	}
	fstest.Must(t, err)
	t.Cleanup(func() { fstest.Must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	fstest.Write(t, dir+"/d/f", "content")
	r := sharedRepo(t)
	sn := backUp(t, r, dir)
	fstest.Write(t, dir+"/extra", "x")
	fstest.Must(t, os.RemoveAll(dir+"/d"))
	_, err = Run(t.Context(), r, sn, Options{Delete: true, Verify: true, Sync: true})
	fstest.Must(t, err)

	// A file system that the snapshot does not know is not emptied.
	fstest.Must(t, os.Mkdir(dir+"/other", 0o755), unix.Mount("drover-test", dir+"/other", "tmpfs", 0, "size=1m"))
	fstest.Write(t, dir+"/other/precious", "x")
	_, err = Run(t.Context(), r, sn, Options{Delete: true})
	var incomplete *IncompleteError
	if !errors.As(err, &incomplete) || incomplete.Paths[0].Path != dir+"/other" {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(dir + "/other/precious"); err != nil {
		t.Error(err)
	}
	fstest.Must(t, unix.Unmount(dir+"/other", 0))

	big := filepath.Join(base, "big")
	fstest.Write(t, big+"/a", string(fstest.Noise(600<<10)))
	fstest.Write(t, big+"/b", string(fstest.Noise(600<<10)))
	_, err = Run(t.Context(), r, backUp(t, r, big), Options{Target: dir})
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error %v", err)
	}
}
