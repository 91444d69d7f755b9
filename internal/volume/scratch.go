package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoRoom: the scratch space has no room for a restore test.
var ErrNoRoom = errors.New("no room for a restore test")

// Owner is a user and a group.
type Owner struct{ UID, GID uint32 }

// Scratch is the space of one restore test.
type Scratch struct {
	Dir    string // empty at first
	key    string // of the configuration, that says where it is
	lock   *os.File
	statfs func(path string, st *unix.Statfs_t) error
}

// OpenScratch empties a directory, which is for restore tests alone, of what an earlier one left, and makes room
// in it for an owner; nil: the process's user. key is what of the configuration names the directory.
func OpenScratch(path string, owner *Owner, key string) (*Scratch, error) {
	if err := os.MkdirAll(path, 0o711); err != nil {
		return nil, fmt.Errorf("make scratch space: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock scratch space: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock scratch space %s: another restore test runs there: %w", path, err), lock.Close())
	}
	s := &Scratch{Dir: filepath.Join(path, "files"), key: key, lock: lock, statfs: unix.Statfs}
	err = removeTree(s.Dir)
	if err == nil {
		err = os.Mkdir(s.Dir, 0o700)
	}
	if err == nil && owner != nil {
		err = os.Chown(s.Dir, int(owner.UID), int(owner.GID))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make scratch space: %w", err), lock.Close())
	}
	return s, nil
}

// Close removes what is there.
func (s *Scratch) Close() error {
	if err := removeTree(s.Dir); err != nil {
		return errors.Join(fmt.Errorf("remove what was restored: %w", err), s.lock.Close())
	}
	return s.lock.Close()
}

// removeTree is os.RemoveAll of what may hold directories that their owner may not
// write, since they were restored so.
func removeTree(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			return os.Chmod(path, 0o700) // before its entries are read
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return os.RemoveAll(dir)
}

// spareShare is the part of a file system, in percent, that a restore test leaves to
// the application.
const spareShare = 5

// Room fails with ErrNoRoom if so much more would leave too little.
func (s *Scratch) Room(files, bytes uint64) error {
	var st unix.Statfs_t
	if err := s.statfs(s.Dir, &st); err != nil {
		return fmt.Errorf("look for free space in %s: %w", s.Dir, err)
	}
	unit := uint64(st.Frsize)
	free, spare := st.Bavail*unit, st.Blocks*unit/100*spareShare
	if free < spare || free-spare < bytes {
		return fmt.Errorf("%w: it needs %d MiB and leaves %d %% of the disk to the application, but only %d MiB are free at %s: give it a directory with more room (%s)",
			ErrNoRoom, bytes>>20, spareShare, free>>20, s.Dir, s.key)
	}
	if st.Files > 0 && (st.Ffree < st.Files/100*spareShare || st.Ffree-st.Files/100*spareShare < files) {
		return fmt.Errorf("%w: it needs %d inodes, and only %d are free at %s: give it a directory with more room (%s)",
			ErrNoRoom, files, st.Ffree, s.Dir, s.key)
	}
	return nil
}

// Watch ends the context when the application, or somebody else, needs the space.
func (s *Scratch) Watch(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := s.Room(0, 0); err != nil {
					cancel(err)
					return
				}
			}
		}
	}()
	return ctx, func() { cancel(nil); <-ended }
}
