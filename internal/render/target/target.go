// Package target puts a rendered file in its place.
//
// It promises that whoever opens the path finds the old file or the new one, whole,
// whatever happens meanwhile; that a file which is refused by its check leaves the old one
// in place; and that a file marked so is written to memory only. What is in it, and what
// follows from a change, is left to others. One goroutine at a time writes a path.
package target

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// DefaultMode is that of a file which states none. It may hold a secret.
const DefaultMode fs.FileMode = 0o600

// ErrOnDisk: the file may hold secrets and its directory is not in memory.
var ErrOnDisk = errors.New("its directory is on a disk, and secrets are kept in memory (tmpfs)")

// RefusedError is what a check says of a file.
type RefusedError struct{ Err error }

func (e *RefusedError) Error() string { return "check refused the file: " + e.Err.Error() }

// Unwrap returns what the check said.
func (e *RefusedError) Unwrap() error { return e.Err }

// File is a place for a file.
type File struct {
	Path string
	// User and Group are names or numbers; empty: those of the file that is replaced,
	// else ours.
	User, Group string
	Mode        fs.FileMode // 0: DefaultMode
	// Backup keeps the file that is replaced as Path.bak.
	Backup bool
	// NoDirectories leaves directories that are missing for others to make.
	NoDirectories bool
	// MemoryOnly refuses a directory that is not on a tmpfs or ramfs.
	MemoryOnly bool
	// Check is asked about the new file, under another name in the same directory, before
	// the old one is replaced; nil: nobody.
	Check func(candidate string) error
}

// Candidate is the name under which the new file is checked.
func (f File) Candidate() string {
	dir, name := filepath.Split(f.Path)
	return filepath.Join(dir, "."+name+".drover-new")
}

// Write makes content the file's. changed says that it was not so before; the mode and
// the owner of a file that stays are set right. Errors: RefusedError, ErrOnDisk.
func (f File) Write(content []byte) (changed bool, err error) {
	if f.Mode == 0 {
		f.Mode = DefaultMode
	}
	dir := filepath.Dir(f.Path)
	if !f.NoDirectories {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return false, fmt.Errorf("make directory of %s: %w", f.Path, err)
		}
	}
	if f.MemoryOnly {
		if err := inMemory(dir); err != nil {
			return false, fmt.Errorf("write %s: %w", f.Path, err)
		}
	}
	old, err := f.look()
	if err != nil {
		return false, err
	}
	own, err := f.owner(old)
	if err != nil {
		return false, err
	}
	if old.regular && bytes.Equal(old.content, content) {
		return false, f.mend(old, own)
	}
	if err := f.replace(content, old, own); err != nil {
		return false, err
	}
	return true, nil
}

// previous is the file that is there.
type previous struct {
	exists, regular bool
	content         []byte
	mode            fs.FileMode
	uid, gid        int
}

func (f File) look() (previous, error) {
	info, err := os.Lstat(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return previous{uid: -1, gid: -1}, nil
	}
	if err != nil {
		return previous{}, fmt.Errorf("look at the file in place: %w", err)
	}
	if info.IsDir() {
		return previous{}, fmt.Errorf("%s is a directory", f.Path)
	}
	p := previous{exists: true, regular: info.Mode().IsRegular(), mode: info.Mode().Perm(), uid: -1, gid: -1}
	if !p.regular {
		return p, nil // a link is replaced, not followed
	}
	var st unix.Stat_t
	if err := unix.Lstat(f.Path, &st); err != nil {
		return previous{}, fmt.Errorf("look at the file in place: %w", err)
	}
	p.uid, p.gid = int(st.Uid), int(st.Gid)
	if p.content, err = os.ReadFile(f.Path); err != nil {
		return previous{}, fmt.Errorf("read the file in place: %w", err)
	}
	return p, nil
}

// ownership: what is asked for must be had, what is only kept may be lost.
type ownership struct {
	uid, gid int // -1: as it comes
	asked    bool
}

func (f File) owner(old previous) (ownership, error) {
	own := ownership{old.uid, old.gid, f.User != "" || f.Group != ""}
	var err error
	if f.User != "" {
		if own.uid, err = idOf(f.User, func(name string) (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		}); err != nil {
			return own, fmt.Errorf("look up user %q: %w", f.User, err)
		}
	}
	if f.Group != "" {
		if own.gid, err = idOf(f.Group, func(name string) (string, error) {
			g, err := user.LookupGroup(name)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		}); err != nil {
			return own, fmt.Errorf("look up group %q: %w", f.Group, err)
		}
	}
	return own, nil
}

func idOf(name string, lookup func(string) (string, error)) (int, error) {
	if id, err := strconv.Atoi(name); err == nil {
		return id, nil
	}
	text, err := lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// mend sets the mode and the owner of a file whose content is right.
func (f File) mend(old previous, own ownership) error {
	if own.asked && (own.uid != old.uid || own.gid != old.gid) {
		if err := os.Chown(f.Path, own.uid, own.gid); err != nil {
			return fmt.Errorf("set owner: %w", err)
		}
	}
	if old.mode != f.Mode.Perm() {
		if err := os.Chmod(f.Path, f.Mode.Perm()); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	return nil
}

func (f File) replace(content []byte, old previous, own ownership) (err error) {
	candidate := f.Candidate()
	// What a crash left of the last one.
	if err := os.Remove(candidate); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove an old candidate: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(candidate) // the next write removes it, too
		}
	}()
	if err := f.fill(candidate, content, own); err != nil {
		return fmt.Errorf("write %s: %w", candidate, err)
	}
	if f.Check != nil {
		if err := f.Check(candidate); err != nil {
			return &RefusedError{err}
		}
	}
	if f.Backup && old.regular {
		if err := f.backup(); err != nil {
			return fmt.Errorf("keep the old file: %w", err)
		}
	}
	if err := os.Rename(candidate, f.Path); err != nil {
		return fmt.Errorf("replace %s: %w", f.Path, err)
	}
	return syncDir(filepath.Dir(f.Path))
}

// fill makes the new file, readable by its owner only until that is who it should be.
func (f File) fill(path string, content []byte, own ownership) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if own.uid >= 0 || own.gid >= 0 {
		if err := file.Chown(own.uid, own.gid); err != nil && own.asked {
			return err
		}
	}
	if err := file.Chmod(f.Mode.Perm()); err != nil {
		return err
	}
	if _, err := file.Write(content); err != nil {
		return err
	}
	return file.Sync()
}

// backup gives the file in place a second name, which survives its replacement.
func (f File) backup() error {
	next := f.Candidate() + ".bak"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Link(f.Path, next); err != nil {
		return err
	}
	return os.Rename(next, f.Path+".bak")
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

func inMemory(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	if st.Type != unix.TMPFS_MAGIC && st.Type != unix.RAMFS_MAGIC {
		return ErrOnDisk
	}
	return nil
}

// Append adds content to the file, which it makes if need be.
func (f File) Append(content []byte) (err error) {
	if f.MemoryOnly {
		if err := inMemory(filepath.Dir(f.Path)); err != nil {
			return fmt.Errorf("append to %s: %w", f.Path, err)
		}
	}
	own, err := f.owner(previous{uid: -1, gid: -1})
	if err != nil {
		return err
	}
	if f.Mode == 0 {
		f.Mode = DefaultMode
	}
	file, err := os.OpenFile(f.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, f.Mode.Perm())
	if err != nil {
		return fmt.Errorf("append to %s: %w", f.Path, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if own.asked {
		if err := file.Chown(own.uid, own.gid); err != nil {
			return fmt.Errorf("append to %s: %w", f.Path, err)
		}
	}
	if err := file.Chmod(f.Mode.Perm()); err != nil {
		return fmt.Errorf("append to %s: %w", f.Path, err)
	}
	if _, err := file.Write(content); err != nil {
		return fmt.Errorf("append to %s: %w", f.Path, err)
	}
	return file.Sync()
}
