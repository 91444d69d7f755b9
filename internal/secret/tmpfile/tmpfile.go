// Package tmpfile writes secrets to files that are in memory only.
//
// It refuses a path that is not on a tmpfs or ramfs unless it is told otherwise. A file is
// for its owner alone from its first byte on, appears whole, and is removed at the end. What
// is written, and who is told of it, is left to the caller. (A tmpfs may be swapped out, a
// ramfs is not.)
package tmpfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrNotMemory is the error of a path whose file would be on a disk.
var ErrNotMemory = errors.New("not in memory: use a directory on a tmpfs")

// Options of one file.
type Options struct {
	Mode  fs.FileMode // 0: 0600
	Owner *Owner      // nil: this process's
}

// Owner of a file.
type Owner struct{ UID, GID int }

// Files are the files that one owner writes. All methods may be called from any goroutine.
type Files struct {
	anywhere bool

	mu    sync.Mutex
	files map[string]identity
}

// identity tells a file from another of the same name.
type identity struct{ device, inode uint64 }

// New returns an owner that has no files. anywhere lets them be on disks.
func New(anywhere bool) *Files {
	return &Files{anywhere: anywhere, files: map[string]identity{}}
}

// Write makes path a file with the content, or replaces it. Whoever reads it sees the
// old content or the new one. The directory has to be there.
func (f *Files) Write(path string, content []byte, o Options) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, err := f.open(path)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	name := filepath.Base(path)
	part := "." + name + "." + rand.Text()[:8]
	id, err := write(int(dir.Fd()), part, content, o)
	if err == nil {
		err = unix.Renameat(int(dir.Fd()), part, int(dir.Fd()), name)
	}
	if err != nil {
		_ = unix.Unlinkat(int(dir.Fd()), part, 0)
		return fmt.Errorf("write %s: %w", path, err)
	}
	f.files[path] = id
	return nil
}

// open returns the directory of path, if files may be there.
func (f *Files) open(path string) (*os.File, error) {
	dir, err := os.OpenFile(filepath.Dir(path), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	if f.anywhere {
		return dir, nil
	}
	var where unix.Statfs_t
	err = unix.Fstatfs(int(dir.Fd()), &where)
	if err == nil && where.Type != unix.TMPFS_MAGIC && where.Type != unix.RAMFS_MAGIC {
		err = ErrNotMemory
	}
	if err != nil {
		_ = dir.Close()
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return dir, nil
}

// write makes a new file in the directory.
func write(dir int, name string, content []byte, o Options) (identity, error) {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return identity{}, err
	}
	file := os.NewFile(uintptr(fd), name)
	mode := o.Mode.Perm()
	if mode == 0 {
		mode = 0o600
	}
	_, err = file.Write(content)
	if err == nil && o.Owner != nil {
		err = file.Chown(o.Owner.UID, o.Owner.GID)
	}
	if err == nil {
		err = file.Chmod(mode)
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	return identity{device: st.Dev, inode: st.Ino}, errors.Join(err, file.Close())
}

// Adopt makes a file that an earlier run has left one of these, to be removed with them.
func (f *Files) Adopt(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("adopt %s: %w", path, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files[path] = identity{device: st.Dev, inode: st.Ino}
	return nil
}

// Close removes the files, but for those that somebody else has replaced.
func (f *Files) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for path, id := range f.files {
		var st unix.Stat_t
		err := unix.Lstat(path, &st)
		if err == nil && (identity{device: st.Dev, inode: st.Ino}) == id {
			err = unix.Unlink(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove %s: %w", path, err))
		}
	}
	clear(f.files)
	return errors.Join(errs...)
}
