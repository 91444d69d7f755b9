// Package file keeps objects as files below one directory: the bucket of a
// laptop, a demo, or a disk that several instances on one machine share.
//
// The file of key a/b/c is <dir>/a/b/c, so that stock restic opens the
// repository of a volume at <dir>/<volume>, and may work in it at the same
// time. Temporary and lock files are in <dir>/.drover-tmp, outside every volume.
//
// It promises: an object appears whole or not at all; what a call acknowledged
// survives a power cut; conditional puts are atomic between goroutines and
// processes of one machine, and the crash of a process leaves no lock. Network
// file systems cannot promise that, and are refused. See DESIGN.md.
//
// It does not interrupt the disk: a call looks at its context between steps.
package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"drover/internal/objstore"
)

// ownDir holds what is not an object. Keys in it are refused.
const ownDir = ".drover-tmp"

// Options are what Open may be told.
type Options struct {
	// MustExist makes a missing directory an error of Open. Without it the
	// directory is made by the first put, and until then holds nothing.
	MustExist bool
}

// Store is a directory of objects. Use Open.
type Store struct {
	dir string

	mu      sync.Mutex
	root    *os.Root        // nil until the directory was there
	ready   bool            // ownDir is there
	durable map[string]bool // directories whose entries in their parents were synced
}

// Open returns the store in dir, an absolute path. It refuses a network file
// system with objstore.ErrUnsupported.
func Open(dir string, opts Options) (*Store, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("open store %s: the path is not absolute", dir)
	}
	s := &Store{dir: filepath.Clean(dir), durable: make(map[string]bool)}
	if err := refuseNetwork(s.dir); err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	_, err := s.open(false)
	if errors.Is(err, fs.ErrNotExist) && !opts.MustExist {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, kind(err))
	}
	return s, nil
}

// Describe implements objstore.Describer.
func (s *Store) Describe() string { return "file://" + s.dir }

// Close gives back the handle on the directory. No call may be under way.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root == nil {
		return nil
	}
	err := s.root.Close()
	s.root = nil
	return err
}

// open returns the handle on the directory. Holding it keeps the file system
// mounted, so that an unmounted disk is never taken for an empty store.
func (s *Store) open(toWrite bool) (*os.Root, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if toWrite && !s.ready && (s.root == nil || !gone(s.root)) {
		if err := makeDir(s.dir); err != nil {
			return nil, err
		}
	}
	if s.root == nil {
		root, err := os.OpenRoot(s.dir)
		if err != nil {
			return nil, err
		}
		if err := refuseNetwork(s.dir); err != nil {
			return nil, errors.Join(err, root.Close())
		}
		s.root = root
	}
	if toWrite && !s.ready {
		if err := s.root.Mkdir(ownDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		s.ready = true
		removeStale(s.root)
	}
	return s.root, nil
}

// gone says whether the directory itself was removed while it was open: then
// "no such file" does not mean that there is no such object.
func gone(root *os.Root) bool {
	d, err := root.Open(".")
	if err != nil {
		return true
	}
	defer func() { _ = d.Close() }()
	var st unix.Stat_t
	err = unix.Fstat(int(d.Fd()), &st)
	return err != nil || st.Nlink == 0
}

// begin holds the checks that every call on a key starts with.
func begin(ctx context.Context, op, key string) error {
	if err := objstore.CheckKey(key); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if key == ownDir || strings.HasPrefix(key, ownDir+"/") {
		return fmt.Errorf("%s %s: %s is the store's own", op, key, ownDir)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", op, key, err)
	}
	return nil
}

// kind translates what the operating system says into the port's kinds.
func kind(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: the store's disk is full: %w", objstore.ErrUnavailable, err)
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM),
		errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ESTALE):
		return fmt.Errorf("%w: %w", objstore.ErrUnavailable, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: %w", objstore.ErrUnauthorised, err)
	case errors.Is(err, unix.EXDEV):
		return fmt.Errorf("%w: the store's directory must be on one file system: %w", objstore.ErrUnsupported, err)
	}
	return err
}

// missing says whether err means that the key's path is not there.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}
