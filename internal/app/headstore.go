package app

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"drover/internal/coord"
	"drover/internal/objstore"
)

// headStore keeps the few objects of volumes that are replaced by compare-and-swap (the
// head, what an initialisation decided, a clone that is being made) as keys of a
// coordinator, for a store that cannot compare and swap. All others are the store's.
type headStore struct {
	objstore.Store
	kv     coord.KV
	prefix string // of the keys, without a slash at its end
}

// isControl says whether a key is one of a volume's control objects, <volume>/drover/…, or
// one of all volumes.
func isControl(key string) bool {
	_, rest, ok := strings.Cut(key, "/")
	return strings.HasPrefix(key, "drover/") || ok && strings.HasPrefix(rest, "drover/")
}

func (s *headStore) key(key string) string { return s.prefix + "/" + key }

// ofCoordinator translates the coordinator's kinds of errors.
func ofCoordinator(what, key string, err error) error {
	for from, to := range map[error]error{
		coord.ErrNotFound: objstore.ErrNotFound, coord.ErrConflict: objstore.ErrConflict,
		coord.ErrUnauthorized: objstore.ErrUnauthorised, coord.ErrUnavailable: objstore.ErrUnavailable,
	} {
		if errors.Is(err, from) {
			return fmt.Errorf("%s %s in the coordinator: %w: %w", what, key, to, err)
		}
	}
	if err != nil {
		return fmt.Errorf("%s %s in the coordinator: %w", what, key, err)
	}
	return nil
}

// Get implements objstore.Store.
func (s *headStore) Get(ctx context.Context, key string, offset, length int64) ([]byte, objstore.Info, error) {
	if !isControl(key) {
		return s.Store.Get(ctx, key, offset, length)
	}
	pair, err := s.kv.Get(ctx, s.key(key))
	if err != nil {
		return nil, objstore.Info{}, ofCoordinator("get", key, err)
	}
	size := int64(len(pair.Value))
	if offset < 0 || offset > size {
		return nil, objstore.Info{}, fmt.Errorf("get %s: %w", key, objstore.ErrRange)
	}
	end := size
	if length >= 0 {
		end = min(size, offset+length)
	}
	return pair.Value[offset:end], s.info(key, pair), nil
}

func (s *headStore) info(key string, pair coord.Pair) objstore.Info {
	return objstore.Info{Key: key, Size: int64(len(pair.Value)), ETag: objstore.ETag(pair.Revision)}
}

// Head implements objstore.Store.
func (s *headStore) Head(ctx context.Context, key string) (objstore.Info, error) {
	if !isControl(key) {
		return s.Store.Head(ctx, key)
	}
	pair, err := s.kv.Get(ctx, s.key(key))
	if err != nil {
		return objstore.Info{}, ofCoordinator("head", key, err)
	}
	return s.info(key, pair), nil
}

// Put implements objstore.Store.
func (s *headStore) Put(ctx context.Context, key string, data []byte) error {
	if !isControl(key) {
		return s.Store.Put(ctx, key, data)
	}
	_, err := s.kv.Put(ctx, s.key(key), data)
	return ofCoordinator("put", key, err)
}

// PutIf implements objstore.Store. Of other keys only some that make a repository are
// created by condition, and what is in them was decided by a control object: two who create
// one store the same bytes, so that no atomicity is needed.
func (s *headStore) PutIf(ctx context.Context, key string, data []byte, cond objstore.Condition) (objstore.ETag, error) {
	if isControl(key) && cond.Valid() {
		revision, err := s.kv.CompareAndSwap(ctx, s.key(key), data, coord.Revision(cond.ETag))
		return objstore.ETag(revision), ofCoordinator("put", key, err)
	}
	if !cond.Absent || cond.ETag != "" {
		return "", fmt.Errorf("replace %s by condition: %w", key, objstore.ErrUnsupported)
	}
	switch _, err := s.Store.Head(ctx, key); {
	case err == nil:
		return "", fmt.Errorf("create %s: %w", key, objstore.ErrConflict)
	case !errors.Is(err, objstore.ErrNotFound):
		return "", err
	}
	if err := s.Store.Put(ctx, key, data); err != nil {
		return "", err
	}
	info, err := s.Store.Head(ctx, key)
	return info.ETag, err
}

// List implements objstore.Store.
func (s *headStore) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	if !isControl(prefix) {
		if err := s.Store.List(ctx, prefix, fn); err != nil {
			return err
		}
	}
	pairs, err := s.kv.List(ctx, s.key(prefix))
	if err != nil {
		return ofCoordinator("list", prefix, err)
	}
	for _, p := range pairs {
		key := strings.TrimPrefix(p.Key, s.prefix+"/")
		if !isControl(key) {
			continue
		}
		if err := fn(s.info(key, p)); err != nil {
			return err
		}
	}
	return nil
}

// Delete implements objstore.Store.
func (s *headStore) Delete(ctx context.Context, key string) error {
	if !isControl(key) {
		return s.Store.Delete(ctx, key)
	}
	return ofCoordinator("delete", key, s.kv.Delete(ctx, s.key(key), nil))
}

// Describe implements objstore.Describer.
func (s *headStore) Describe() string { return describe(s.Store) }
