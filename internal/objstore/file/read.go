package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/objstore"
)

// Get implements objstore.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) ([]byte, objstore.Info, error) {
	if err := begin(ctx, "get", key); err != nil {
		return nil, objstore.Info{}, err
	}
	if offset < 0 {
		return nil, objstore.Info{}, fmt.Errorf("get %s: negative offset %d", key, offset)
	}
	f, info, err := s.openObject("get", key)
	if err != nil {
		return nil, objstore.Info{}, err
	}
	defer func() { _ = f.Close() }()
	if offset > info.Size {
		return nil, objstore.Info{}, fmt.Errorf("get %s from %d of %d bytes: %w", key, offset, info.Size, objstore.ErrRange)
	}
	if rest := info.Size - offset; length < 0 || length > rest {
		length = rest
	}
	data := make([]byte, length)
	for done := int64(0); done < length; {
		if err := ctx.Err(); err != nil {
			return nil, objstore.Info{}, fmt.Errorf("get %s: %w", key, err)
		}
		n, err := f.ReadAt(data[done:min(length, done+chunk)], offset+done)
		done += int64(n)
		if err != nil && (n == 0 || !errors.Is(err, io.EOF)) {
			return nil, objstore.Info{}, fmt.Errorf("get %s at %d of %d bytes: %w", key, offset+done, info.Size, kind(err))
		}
	}
	return data, info, nil
}

// Head implements objstore.Store.
func (s *Store) Head(ctx context.Context, key string) (objstore.Info, error) {
	if err := begin(ctx, "head", key); err != nil {
		return objstore.Info{}, err
	}
	return s.info("head", key)
}

func (s *Store) info(op, key string) (objstore.Info, error) {
	root, err := s.open(false)
	if err != nil {
		return objstore.Info{}, s.absent(nil, op, key, err)
	}
	st, err := root.Stat(key)
	if err != nil {
		return objstore.Info{}, s.absent(root, op, key, err)
	}
	if !st.Mode().IsRegular() {
		return objstore.Info{}, fmt.Errorf("%s %s: %w", op, key, objstore.ErrNotFound)
	}
	return infoOf(key, st), nil
}

func infoOf(key string, st fs.FileInfo) objstore.Info {
	return objstore.Info{Key: key, Size: st.Size(), ETag: etagOf(st), ModTime: st.ModTime()}
}

// openObject returns the file and its Info: of one version, since a version's
// file is never changed.
func (s *Store) openObject(op, key string) (*os.File, objstore.Info, error) {
	root, err := s.open(false)
	if err != nil {
		return nil, objstore.Info{}, s.absent(nil, op, key, err)
	}
	f, err := root.OpenFile(key, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, objstore.Info{}, s.absent(root, op, key, err)
	}
	st, err := f.Stat()
	if err == nil && st.Mode().IsRegular() {
		return f, infoOf(key, st), nil
	}
	if err == nil {
		err = fs.ErrNotExist // a directory, which is no object
	}
	return nil, objstore.Info{}, errors.Join(s.absent(root, op, key, err), f.Close())
}

// absent tells "no such object" from every other reason why a path could not be
// read. root is nil if the store's directory could not be opened.
func (s *Store) absent(root *os.Root, op, key string, err error) error {
	if !missing(err) {
		return fmt.Errorf("%s %s: %w", op, key, kind(err))
	}
	if root != nil && gone(root) {
		return fmt.Errorf("%s %s: %w: the directory %s was removed", op, key, objstore.ErrUnavailable, s.dir)
	}
	return fmt.Errorf("%s %s: %w", op, key, objstore.ErrNotFound)
}

// List implements objstore.Store. Files whose names are not keys are not
// objects, and are passed over; those that stock restic leaves (such as
// data/xx/<id>-tmp-123) look like keys, and are listed.
func (s *Store) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	root, err := s.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", prefix, kind(err))
	}
	w := walk{ctx: ctx, root: root, prefix: prefix, fn: fn}
	start := "."
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		start = prefix[:i]
		if objstore.CheckKey(start) != nil {
			return nil //nolint:nilerr // no key begins like that: the list is empty
		}
	}
	if start == ownDir || strings.HasPrefix(start, ownDir+"/") {
		return nil
	}
	if err := w.dir(start); err != nil {
		return err
	}
	if gone(root) {
		return fmt.Errorf("list %s: %w: the directory %s was removed", prefix, objstore.ErrUnavailable, s.dir)
	}
	return nil
}

// Folders implements objstore.FolderLister.
func (s *Store) Folders(ctx context.Context, fn func(string) error) error {
	root, err := s.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("list: %w", kind(err))
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("list: %w", kind(err))
	}
	if gone(root) {
		return fmt.Errorf("list: %w: the directory %s was removed", objstore.ErrUnavailable, s.dir)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("list: %w", err)
		}
		folder := e.IsDir() || e.Type() == fs.ModeSymlink // as walk.link has it
		if !folder || e.Name() == ownDir || objstore.CheckKey(e.Name()) != nil {
			continue
		}
		if err := fn(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// walk is one listing.
type walk struct {
	ctx    context.Context
	root   *os.Root
	prefix string
	fn     func(objstore.Info) error
}

func (w *walk) dir(dir string) error {
	d, err := w.root.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return w.failed(err)
	}
	defer func() { _ = d.Close() }()
	for {
		if err := w.ctx.Err(); err != nil {
			return w.failed(err)
		}
		entries, err := d.ReadDir(1000)
		for _, e := range entries {
			if err := w.entry(d, dir, e); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return w.failed(err)
		}
	}
}

// failed passes over what vanished meanwhile, and nothing else.
func (w *walk) failed(err error) error {
	if missing(err) {
		return nil
	}
	return fmt.Errorf("list %s: %w", w.prefix, kind(err))
}

func (w *walk) entry(d *os.File, dir string, e fs.DirEntry) error {
	key := path.Join(dir, e.Name())
	if key == ownDir || objstore.CheckKey(e.Name()) != nil {
		return nil //nolint:nilerr // ours, or a name that no key has: not an object
	}
	switch e.Type() {
	case fs.ModeDir:
		if strings.HasPrefix(key+"/", w.prefix) || strings.HasPrefix(w.prefix, key+"/") {
			return w.dir(key)
		}
	case 0:
		if strings.HasPrefix(key, w.prefix) {
			return w.file(d, key, e.Name())
		}
	case fs.ModeSymlink:
		return w.link(key)
	}
	return nil
}

func (w *walk) file(d *os.File, key, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return w.failed(&fs.PathError{Op: "stat", Path: key, Err: err})
	}
	ns := st.Mtim.Nano()
	return w.fn(objstore.Info{Key: key, Size: st.Size, ETag: makeETag(ns, st.Size), ModTime: time.Unix(0, ns)})
}

// link follows a symlink, as Get does: an object must not be missing from a
// listing because somebody moved its directory. One that leads out of the store
// is an error, and so is a loop, by the kernel's limit.
func (w *walk) link(key string) error {
	st, err := w.root.Stat(key)
	if err != nil {
		return w.failed(err)
	}
	switch {
	case st.IsDir() && (strings.HasPrefix(key+"/", w.prefix) || strings.HasPrefix(w.prefix, key+"/")):
		return w.dir(key)
	case st.Mode().IsRegular() && strings.HasPrefix(key, w.prefix):
		return w.fn(infoOf(key, st))
	}
	return nil
}
