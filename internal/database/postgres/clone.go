package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"drover/internal/database"

	"golang.org/x/sys/unix"
)

// Clone implements database.Driver. The copy is made beside what there is, and takes its place when it is whole and on
// stable storage; if there is no room for both, what there is goes first.
func (d *Driver) Clone(ctx context.Context, source database.Peer) error {
	if err := d.clone(ctx, source); err != nil {
		return fmt.Errorf("clone %s: %w", source.Name, err)
	}
	return nil
}

func (d *Driver) clone(ctx context.Context, source database.Peer) error {
	if err := errors.Join(checkPeer(source), d.makeDir(d.o.Run)); err != nil {
		return err
	}
	secret, forget, err := d.secret(d.o.Replication, "clone")
	if err != nil {
		return err
	}
	defer forget()
	if err := d.writeFile(d.unfinished(), "a copy of another member's database takes the place of this one\n"); err != nil {
		return err
	}
	dir, err := d.fresh()
	if err != nil {
		return err
	}
	if err := d.makeRoom(); err != nil {
		return err
	}
	if _, err := d.run(ctx, "", nil, "pg_basebackup", "-D", dir, "-d", d.peerInfo(source, d.o.Replication.Name, secret, "pg_basebackup"),
		"--no-password", "-c", "fast", "-X", "stream", "--no-estimate-size"); err != nil {
		return err
	}
	if err := d.writeFile(filepath.Join(dir, standbySignal), ""); err != nil { // nothing starts as a primary from a copy
		return err
	}
	if err := exchange(dir, d.o.Data); err != nil {
		return err
	}
	return errors.Join(d.cleanAuto(), removeFile(d.unfinished()))
}

// makeRoom removes the old files, which are as good as none by now, if the disk does not hold as much again.
func (d *Driver) makeRoom() error {
	used, err := size(d.o.Data)
	if err != nil {
		return err
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(d.o.Data), &disk); err != nil {
		return err
	}
	if free := int64(disk.Bavail) * disk.Bsize; free > used+used/4 {
		return nil
	}
	return os.RemoveAll(d.o.Data)
}

// size is what a directory's files have. What goes while one looks has none.
func size(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
		return nil
	})
	return sum, err
}

// secret writes a password file for a program, and returns what removes it.
func (d *Driver) secret(r Role, purpose string) (path string, forget func(), err error) {
	line, err := passLine(r.Name, r.Password())
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join(d.o.Run, purpose+passSuffix)
	return path, func() { _ = os.Remove(path) }, d.writeRun(path, line)
}
