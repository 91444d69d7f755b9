package file

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// makeDir makes dir and what is missing above it, durably. The entry of dir is
// synced even if it was there, because its maker may not have come to that yet.
func makeDir(dir string) error {
	made := []string{dir}
	for d := dir; ; d = filepath.Dir(d) {
		_, err := os.Stat(filepath.Dir(d))
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		made = append(made, filepath.Dir(d))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range made {
		parent, err := os.Open(filepath.Dir(d))
		if errors.Is(err, fs.ErrPermission) && d == dir {
			continue // somebody else made it for us, where we may not look
		}
		if err != nil {
			return err
		}
		if err := errors.Join(parent.Sync(), parent.Close()); err != nil {
			return err
		}
	}
	return nil
}

// ensureDir makes the directory dir below root, durably: whoever made it, its
// entry in its parent is synced once by every process that puts into it,
// because its maker may not have come to that yet.
func (s *Store) ensureDir(root *os.Root, dir string) error {
	if dir == "." || s.isDurable(dir) {
		return nil
	}
	parent := path.Dir(dir)
	if err := s.ensureDir(root, parent); err != nil {
		return err
	}
	if err := root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := syncDir(root, parent); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.durable[dir] = true
	return nil
}

func (s *Store) isDurable(dir string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable[dir]
}

// forgetDirs makes ensureDir look again, after a directory was found missing.
func (s *Store) forgetDirs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.durable)
}

func syncDir(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
