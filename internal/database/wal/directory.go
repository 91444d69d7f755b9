package wal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// folder of a data directory in which PostgreSQL's log is, and that in which it says what is ready.
const (
	walFolder   = "pg_wal"
	readyFolder = walFolder + "/archive_status"
	tempBegin   = "drover-"
	tempEnd     = ".tmp"
)

// ErrPath: a path that is none of the database's log.
var ErrPath = errors.New("not a file in pg_wal of this database's data directory")

// directory is a data directory. Its owner is not trusted: nothing is read or written but
// files of the log, below it, whatever links are in it.
type directory struct {
	path string
	tidy sync.Once // before the first write
}

// base checks an absolute path as PostgreSQL names one (%p), and returns its last element.
func (d *directory) base(file string) (string, error) {
	if !filepath.IsAbs(file) {
		return "", fmt.Errorf("%w: %.200q is not absolute", ErrPath, file)
	}
	file = filepath.Clean(file)
	folder := filepath.Dir(file)
	if filepath.Base(folder) != walFolder {
		return "", fmt.Errorf("%w: %.200q", ErrPath, file)
	}
	have, err := os.Stat(filepath.Dir(folder))
	if err != nil {
		return "", fmt.Errorf("%w: %.200q", ErrPath, file)
	}
	mine, err := os.Stat(d.path)
	if err != nil {
		return "", fmt.Errorf("look at the data directory: %w", err)
	}
	if !os.SameFile(have, mine) {
		return "", fmt.Errorf("%w: %.200q", ErrPath, file)
	}
	return filepath.Base(file), nil
}

func (d *directory) open() (*os.Root, error) {
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return nil, fmt.Errorf("open the data directory: %w", err)
	}
	return root, nil
}

// read returns the content of a file of the log.
func (d *directory) read(name string) ([]byte, error) {
	root, err := d.open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	f, err := root.OpenFile(path.Join(walFolder, name), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, explainRoot("read", name, err)
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", name, err)
	case !fi.Mode().IsRegular() || fi.Size() > maxContent:
		return nil, fmt.Errorf("read %s: %w: it is no regular file, or too large", name, ErrForeign)
	}
	content := make([]byte, fi.Size())
	if _, err := io.ReadFull(f, content); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return content, nil
}

// explainRoot says more of a folder that leads out of the data directory.
func explainRoot(what, name string, err error) error {
	if strings.Contains(name, "/") || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%s %s: %w", what, name, err)
	}
	return fmt.Errorf("%s %s: %w (pg_wal has to be a directory in the data directory, and no link out of it)", what, name, err)
}

// write makes a file in pg_wal, whole or not at all, as its owner's.
func (d *directory) write(name string, content []byte) (err error) {
	root, err := d.open()
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	d.tidy.Do(func() { tidy(root) })
	temp := path.Join(walFolder, tempBegin+rand.Text()+tempEnd)
	defer func() {
		if err != nil {
			_ = root.Remove(temp)
		}
	}()
	if err := writeFile(root, temp, content); err != nil {
		return explainRoot("write", name, err)
	}
	if err := root.Rename(temp, path.Join(walFolder, name)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	folder, err := root.Open(walFolder)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func writeFile(root *os.Root, name string, content []byte) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil && os.Geteuid() == 0 {
		err = handOver(root, f)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// handOver gives a file to the data directory's owner.
func handOver(root *os.Root, f *os.File) error {
	fi, err := root.Stat(".")
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("the data directory has no owner")
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}

// tidy removes what was left of writes that were killed.
func tidy(root *os.Root) {
	names, _ := list(root, walFolder) // what cannot be listed cannot be tidied
	for _, name := range names {
		if strings.HasPrefix(name, tempBegin) && strings.HasSuffix(name, tempEnd) {
			_ = root.Remove(path.Join(walFolder, name))
		}
	}
}

// ready lists the segments that wait to be archived, in order.
func (d *directory) ready() ([]Name, error) {
	root, err := d.open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	files, err := list(root, readyFolder)
	if err != nil {
		return nil, err
	}
	var names []Name
	for _, file := range files {
		text, ready := strings.CutSuffix(file, ".ready")
		if n, err := ParseName(text); ready && err == nil && n.Kind == Segment {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, compare)
	return names, nil
}

// line is that of the newest timeline whose history is here; none: there is no history.
func (d *directory) line() (Line, error) {
	root, err := d.open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	files, err := list(root, walFolder)
	if err != nil {
		return nil, err
	}
	var newest Name
	for _, file := range files {
		if n, err := ParseName(file); err == nil && n.Kind == History && n.Timeline > newest.Timeline {
			newest = n
		}
	}
	if newest.Timeline == 0 {
		return nil, nil
	}
	content, err := d.read(newest.String())
	if err != nil {
		return nil, err
	}
	return ParseHistory(newest.Timeline, content)
}

func list(root *os.Root, folder string) ([]string, error) {
	f, err := root.Open(folder)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}
