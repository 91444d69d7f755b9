package file

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// makeDir makes dir and what is missing above it, durably.
func makeDir(dir string) error {
	var made []string
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		made = append(made, d)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range made {
		parent, err := os.Open(filepath.Dir(d))
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
