// Package mem keeps objects in memory, for tests, simulators and dry runs.
//
// It keeps the port's contract exactly and is linearisable: each call takes
// effect at one moment under one lock. What it stores ends with the process.
// Faults, delays and limits are left to the decorators.
package mem

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"drover/internal/objstore"
)

// Store is an object store in memory. Use New.
type Store struct {
	mu      sync.Mutex
	version uint64 // of the last write; never repeats, so no ETag does
	objects map[string]object
}

type object struct {
	data []byte // never changed after it was stored
	info objstore.Info
}

// New returns an empty store.
func New() *Store { return &Store{objects: make(map[string]object)} }

// Describe implements objstore.Describer.
func (s *Store) Describe() string { return "mem:" }

// begin holds the checks that every call starts with.
func begin(ctx context.Context, op, key string) error {
	if err := objstore.CheckKey(key); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", op, key, err)
	}
	return nil
}

func (s *Store) find(op, key string) (object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return object{}, fmt.Errorf("%s %s: %w", op, key, objstore.ErrNotFound)
	}
	return o, nil
}

// Get implements objstore.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) ([]byte, objstore.Info, error) {
	if err := begin(ctx, "get", key); err != nil {
		return nil, objstore.Info{}, err
	}
	if offset < 0 {
		return nil, objstore.Info{}, fmt.Errorf("get %s: negative offset %d", key, offset)
	}
	o, err := s.find("get", key)
	if err != nil {
		return nil, objstore.Info{}, err
	}
	if offset > o.info.Size {
		return nil, objstore.Info{}, fmt.Errorf("get %s from %d of %d bytes: %w", key, offset, o.info.Size, objstore.ErrRange)
	}
	rest := o.data[offset:]
	if length >= 0 && length < int64(len(rest)) {
		rest = rest[:length]
	}
	return bytes.Clone(rest), o.info, nil
}

// Head implements objstore.Store.
func (s *Store) Head(ctx context.Context, key string) (objstore.Info, error) {
	if err := begin(ctx, "head", key); err != nil {
		return objstore.Info{}, err
	}
	o, err := s.find("head", key)
	return o.info, err
}

// Put implements objstore.Store.
func (s *Store) Put(ctx context.Context, key string, data []byte) error {
	if err := begin(ctx, "put", key); err != nil {
		return err
	}
	data = bytes.Clone(data)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store(key, data)
	return nil
}

// store needs the lock, and owns data from here on.
func (s *Store) store(key string, data []byte) objstore.ETag {
	s.version++
	etag := objstore.ETag("v" + strconv.FormatUint(s.version, 10))
	s.objects[key] = object{data, objstore.Info{Key: key, Size: int64(len(data)), ETag: etag, ModTime: time.Now()}}
	return etag
}

// PutIf implements objstore.Store.
func (s *Store) PutIf(ctx context.Context, key string, data []byte, cond objstore.Condition) (objstore.ETag, error) {
	if err := begin(ctx, "put", key); err != nil {
		return "", err
	}
	if !cond.Valid() {
		return "", fmt.Errorf("put %s: condition %+v is not exactly one", key, cond)
	}
	data = bytes.Clone(data)
	s.mu.Lock()
	defer s.mu.Unlock()
	current, exists := s.objects[key]
	if cond.Absent == exists || exists && current.info.ETag != cond.ETag {
		return "", fmt.Errorf("put %s: %w", key, objstore.ErrConflict)
	}
	return s.store(key, data), nil
}

// List implements objstore.Store. It calls fn in the order of keys, for the
// objects there were when it began.
func (s *Store) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	for _, info := range s.snapshot(prefix) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("list %s: %w", prefix, err)
	}
	return nil
}

func (s *Store) snapshot(prefix string) []objstore.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []objstore.Info
	for key, o := range s.objects {
		if strings.HasPrefix(key, prefix) {
			found = append(found, o.info)
		}
	}
	slices.SortFunc(found, func(a, b objstore.Info) int { return strings.Compare(a.Key, b.Key) })
	return found
}

// Delete implements objstore.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := begin(ctx, "delete", key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key)
	return nil
}
