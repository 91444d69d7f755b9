package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// writeFile replaces a file of the server's user by a durable new one, readable by that user alone.
func (d *Driver) writeFile(path, content string) error {
	if err := d.putFile(path, content, (*os.File).Sync); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// writeRun does it where nothing need outlive the system's crash: whoever starts after that configures anew.
func (d *Driver) writeRun(path, content string) error {
	return d.putFile(path, content, func(*os.File) error { return nil })
}

func (d *Driver) putFile(path, content string, sync func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.WriteString(content); err != nil {
		return err
	}
	if err = errors.Join(d.own(f.Name()), sync(f), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// removeFile removes a file, durably. That there is none is fine.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// own gives a file to the server's user.
func (d *Driver) own(path string) error {
	if d.o.User == nil {
		return nil
	}
	return os.Lchown(path, int(d.o.User.Uid), int(d.o.User.Gid))
}

// makeDir makes a directory of the server's user.
func (d *Driver) makeDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return errors.Join(os.Chmod(path, 0o700), d.own(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// exchange puts the directory fresh in the place of the one at path, if there is any, which is then removed.
// Killed in the middle, one of both, or nothing, stands at path.
func exchange(fresh, path string) error {
	err := unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
	switch {
	case err == nil:
		if err := syncDir(filepath.Dir(path)); err != nil {
			return err
		}
		return os.RemoveAll(fresh)
	case errors.Is(err, unix.ENOENT):
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EXDEV): // not of this file system
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	default:
		return mountHint(path, err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return mountHint(path, err)
	}
	return syncDir(filepath.Dir(path))
}

func mountHint(path string, err error) error {
	if errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EXDEV) {
		return fmt.Errorf("put the database at %s: %w (a mount point cannot be replaced: use a directory below it)", path, err)
	}
	return fmt.Errorf("put the database at %s: %w", path, err)
}

// fresh makes a new directory beside the database, and removes what earlier ones left. Its name is another one
// each time: a program that outlived its agent writes into none that is in use.
func (d *Driver) fresh() (string, error) {
	if err := d.removeFresh(); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(filepath.Dir(d.o.Data), filepath.Base(d.o.Data)+freshSuffix+"*")
	if err != nil {
		return "", err
	}
	return dir, d.own(dir)
}

// removeFresh removes what unfinished copies have left beside the database.
func (d *Driver) removeFresh() error {
	left, err := filepath.Glob(escapeGlob(d.o.Data) + freshSuffix + "*")
	if err != nil {
		return err
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

func escapeGlob(s string) string {
	out := make([]byte, 0, len(s))
	for _, c := range []byte(s) {
		switch c {
		case '*', '?', '[', '\\':
			out = append(out, '\\')
		}
		out = append(out, c)
	}
	return string(out)
}
