package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dialTimeout is how long a listener on a stale-looking socket may take to accept.
const dialTimeout = 2 * time.Second

// socket is a listener and the lock beside it, which the kernel drops with its holder.
type socket struct {
	listener *net.UnixListener
	lock     *os.File
}

// takeSocket binds path. What is left of a dead agent is replaced; a living one, and
// anything that is no socket, is left alone.
func takeSocket(path string) (*socket, error) {
	// Jobs of other users must reach it: the directory is open, and callers are
	// told apart by their credentials.
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make directory of control socket: %w", placeable(err))
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("lock control socket %s: %w", path, placeable(err))
	}
	listener, err := bind(path)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &socket{listener, lock}, nil
}

// placeable adds what to do where nothing can be written: a container whose root file
// system is read-only, a directory of somebody else's.
func placeable(err error) error {
	if !errors.Is(err, syscall.EROFS) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w; give this directory something writable (in a container: a tmpfs), or choose another --socket", err)
}

// release removes the socket; the lock goes last.
func (s *socket) release() {
	_ = s.listener.Close() // closed already if it served
	_ = s.lock.Close()
}

// dyingTime is how long a killed process may take to be gone.
const dyingTime = 2 * time.Second

var errTaken = errors.New("another agent has it; give this one another --socket")

func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	// An agent that was killed a moment ago has the lock until its last thread is gone.
	tick := time.NewTicker(dyingTime / 100)
	defer tick.Stop()
	deadline := time.Now().Add(dyingTime)
	for err = flock(f); errors.Is(err, errTaken) && time.Now().Before(deadline); err = flock(f) {
		<-tick.C
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func flock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errTaken
	}
	return err
}

func bind(path string) (*net.UnixListener, error) {
	if err := clearStale(path); err != nil {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(fmt.Errorf("open control socket to jobs: %w", err), listener.Close())
	}
	return listener, nil
}

// clearStale removes the socket of an agent that is gone.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for control socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("control socket %s: there is something that is no socket; remove it or choose another --socket", path)
	}
	conn, err := net.DialTimeout("unix", path, dialTimeout) //nolint:noctx // local, and it bounds itself
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("control socket %s: %w", path, errTaken)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("control socket %s: cannot tell whether an agent has it: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove stale control socket: %w", err)
	}
	return nil
}
