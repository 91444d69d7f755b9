package pgbackup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"syscall"

	"golang.org/x/sys/unix"
)

// data is a data directory that is written to. Its owner is not trusted: no link leads out of it.
type data struct {
	root *os.Root
	like os.FileInfo
}

func openData(dir string) (*data, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	like, err := root.Stat(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &data{root, like}, nil
}

func (d *data) close() { _ = d.root.Close() } // of a directory: nothing is lost

// put writes a file whole, as the property of whose the directory is.
func (d *data) put(name string, content []byte) error {
	temp := name + ".drover"
	if err := d.root.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := d.root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, d.own(f), f.Sync(), f.Close())
	if err == nil {
		err = d.root.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, d.root.Remove(temp))
	}
	return d.sync(path.Dir(name))
}

func (d *data) mkdir(name string) error {
	if err := d.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.own(f), f.Close())
}

// own gives a file to whose the directory is, if we may.
func (d *data) own(f *os.File) error {
	st, ok := d.like.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}

func (d *data) sync(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncAll makes the directory's file system durable.
func (d *data) syncAll() error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync the data directory: %w", err)
	}
	return nil
}
