//go:build e2e

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"drover/internal/testkit/dockertest"
)

// disk is one of a member's own, which can fill up, become slow, or hang: a file system in user space, whose process
// the test stops, upon memory of a given size.
type disk struct {
	t      *testing.T
	path   string // to mount
	memory string
	server *exec.Cmd
	gone   func()
}

// diskSize is enough for a member, and little to fill.
const diskSize = "1500m"

func newDisk(t *testing.T) *disk {
	t.Helper()
	program, err := exec.LookPath("fuse-overlayfs")
	if err != nil {
		t.Fatal("fuse-overlayfs must be installed, for disks that can be made slow: ", err)
	}
	dir := t.TempDir()
	d := &disk{t: t, path: filepath.Join(dir, "disk"), memory: filepath.Join(dir, "memory")}
	lower := filepath.Join(dir, "empty")
	for _, p := range []string{d.path, d.memory, lower} {
		if err := os.Mkdir(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mount("tmpfs", d.memory, "tmpfs", 0, "mode=0755,size="+diskSize); err != nil {
		t.Fatal("mount: ", err)
	}
	d.gone = sync.OnceFunc(d.remove)
	t.Cleanup(d.gone)
	upper, work := filepath.Join(d.memory, "upper"), filepath.Join(d.memory, "work")
	for _, p := range []string{upper, work} {
		if err := os.Mkdir(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.server = exec.Command(program, "-f", "-o", "lowerdir="+lower+",upperdir="+upper+",workdir="+work, d.path)
	if err := d.server.Start(); err != nil {
		t.Fatal(err)
	}
	dockertest.Await(t, 10*time.Second, "the disk", func(ctx context.Context) error {
		return exec.CommandContext(ctx, "mountpoint", "-q", d.path).Run()
	})
	return d
}

func (d *disk) remove() {
	if d.server != nil && d.server.Process != nil {
		d.resume()
		_ = syscall.Unmount(d.path, syscall.MNT_DETACH)
		_ = d.server.Process.Kill()
		_ = d.server.Wait()
	}
	_ = syscall.Unmount(d.memory, syscall.MNT_DETACH)
}

func (d *disk) signal(sig syscall.Signal) { _ = d.server.Process.Signal(sig) }

// hang has nothing come back from the disk, until resume.
func (d *disk) hang()   { d.signal(syscall.SIGSTOP) }
func (d *disk) resume() { d.signal(syscall.SIGCONT) }

// slow has it answer for 20 ms of each 220 only, until stop is called.
func (d *disk) slow() (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer d.resume()
		for {
			d.hang()
			select {
			case <-end:
				return
			case <-time.After(200 * time.Millisecond):
			}
			d.resume()
			select {
			case <-end:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return sync.OnceFunc(func() { close(end); <-ended })
}

// fill leaves no room, until free.
func (d *disk) fill() {
	d.t.Helper()
	// It ends when there is no space left, and that is an error.
	_ = exec.CommandContext(d.t.Context(), "dd", "if=/dev/zero", "of="+d.memory+"/filler", "bs=64K", "status=none").Run()
}

func (d *disk) free() {
	if err := os.Remove(d.memory + "/filler"); err != nil {
		d.t.Error(err)
	}
}
