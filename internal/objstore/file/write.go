package file

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/objstore"
)

// chunk is how much is read or written between two looks at the context.
const chunk = 4 << 20

// Put implements objstore.Store.
func (s *Store) Put(ctx context.Context, key string, data []byte) error {
	_, err := s.put(ctx, key, data, objstore.Condition{})
	return err
}

// PutIf implements objstore.Store.
func (s *Store) PutIf(ctx context.Context, key string, data []byte, cond objstore.Condition) (objstore.ETag, error) {
	if !cond.Valid() {
		return "", fmt.Errorf("put %s: condition %+v is not exactly one", key, cond)
	}
	return s.put(ctx, key, data, cond)
}

// put stores data; the zero condition always holds.
func (s *Store) put(ctx context.Context, key string, data []byte, cond objstore.Condition) (objstore.ETag, error) {
	if err := begin(ctx, "put", key); err != nil {
		return "", err
	}
	etag, err := s.store(ctx, key, data, cond)
	if errors.Is(err, fs.ErrNotExist) {
		// Somebody removed a directory that was there before.
		s.forgetDirs()
		etag, err = s.store(ctx, key, data, cond)
	}
	if err != nil {
		return "", fmt.Errorf("put %s: %w", key, s.unlessGone(err))
	}
	return etag, nil
}

// unlessGone translates the error of a write.
func (s *Store) unlessGone(err error) error {
	if root, openErr := s.open(false); errors.Is(err, fs.ErrNotExist) && openErr == nil && gone(root) {
		return fmt.Errorf("%w: the directory %s was removed", objstore.ErrUnavailable, s.dir)
	}
	return kind(err)
}

func (s *Store) store(ctx context.Context, key string, data []byte, cond objstore.Condition) (objstore.ETag, error) {
	root, err := s.open(true)
	if err != nil {
		return "", err
	}
	if err := s.ensureDir(root, path.Dir(key)); err != nil {
		return "", err
	}
	t, err := newTemp(root)
	if err != nil {
		return "", err
	}
	defer t.discard()
	if err := t.fill(ctx, data); err != nil {
		return "", err
	}
	etag, err := s.publish(ctx, root, t, key, cond)
	if err != nil {
		return "", err
	}
	if err := syncDir(root, path.Dir(key)); err != nil {
		// The object is there, and may or may not outlive a power cut.
		return "", fmt.Errorf("%w: sync its directory: %w", objstore.ErrUnavailable, err)
	}
	return etag, nil
}

// publish makes the temporary file the object, if cond holds. Its time becomes
// later than that of the version it replaces, because the ETag is made of it.
func (s *Store) publish(ctx context.Context, root *os.Root, t *temp, key string, cond objstore.Condition) (objstore.ETag, error) {
	how := unix.LOCK_SH
	if cond != (objstore.Condition{}) {
		how = unix.LOCK_EX
	}
	lk, err := lock(ctx, root, key, how)
	if err != nil {
		return "", err
	}
	defer func() { _ = lk.Close() }()
	old, err := root.Stat(key)
	exists := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if cond.Absent && exists || cond.ETag != "" && (!exists || etagOf(old) != cond.ETag) {
		return "", objstore.ErrConflict
	}
	if exists && !old.ModTime().Before(t.modTime) {
		if err := t.date(old.ModTime().Add(1)); err != nil {
			return "", err
		}
	}
	info, err := t.f.Stat()
	if err != nil {
		return "", err
	}
	if cond != (objstore.Condition{}) && !info.ModTime().Equal(t.modTime) {
		return "", fmt.Errorf("%w: this file system rounds times (%v became %v), so that versions cannot be told apart",
			objstore.ErrUnsupported, t.modTime.UnixNano(), info.ModTime().UnixNano())
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := root.Rename(t.name, key); err != nil {
		return "", err
	}
	t.published = true
	return etagOf(info), nil
}

// etagOf makes the ETag of a version of an object: when it was written, to the
// nanosecond and ever later, and its size.
func etagOf(info fs.FileInfo) objstore.ETag {
	return makeETag(info.ModTime().UnixNano(), info.Size())
}

func makeETag(ns, size int64) objstore.ETag {
	return objstore.ETag(strconv.FormatInt(ns, 16) + "-" + strconv.FormatInt(size, 16))
}

// Delete implements objstore.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := begin(ctx, "delete", key); err != nil {
		return err
	}
	if err := s.remove(ctx, key); err != nil {
		return fmt.Errorf("delete %s: %w", key, s.unlessGone(err))
	}
	return nil
}

func (s *Store) remove(ctx context.Context, key string) error {
	if _, err := s.info("delete", key); errors.Is(err, objstore.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	root, err := s.open(true)
	if err != nil {
		return err
	}
	lk, err := lock(ctx, root, key, unix.LOCK_SH)
	if err != nil {
		return err
	}
	err = root.Remove(key)
	_ = lk.Close()
	if err != nil && !missing(err) {
		return err
	}
	return syncDir(root, path.Dir(key))
}

// temp is a file in ownDir that becomes an object or vanishes. It is locked
// while its process lives, which keeps removeStale away.
type temp struct {
	root      *os.Root
	f         *os.File
	name      string
	modTime   time.Time
	published bool
}

// tempPrefix begins the name of every temporary file.
const tempPrefix = "put-"

func newTemp(root *os.Root) (*temp, error) {
	name := ownDir + "/" + tempPrefix + rand.Text()
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	t := &temp{root: root, f: f, name: name}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.discard()
		return nil, err
	}
	return t, nil
}

// fill writes data, dates the file now and makes both durable.
func (t *temp) fill(ctx context.Context, data []byte) error {
	for len(data) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := t.f.Write(data[:min(len(data), chunk)])
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return t.date(time.Now())
}

// date sets the file's time and makes it durable with what was written.
func (t *temp) date(at time.Time) error {
	if err := t.root.Chtimes(t.name, at, at); err != nil {
		return err
	}
	t.modTime = at
	return t.f.Sync()
}

func (t *temp) discard() {
	if !t.published {
		_ = t.root.Remove(t.name) // what stays is removed as stale later
	}
	_ = t.f.Close()
}
