// Package limited keeps another store's use within limits: bytes a second up
// and down, and calls at once.
//
// Conditional puts pass at once and count for nothing: they are small, and a
// lease that waits behind a backup would be lost. Rates hold on average: an
// object's bytes are waited for before its upload and after its download.
package limited

import (
	"context"
	"fmt"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"drover/internal/objstore"
)

// Options are the limits; zero is none.
type Options struct {
	Upload      int64 // bytes a second
	Download    int64 // bytes a second
	Concurrency int64 // calls at once
}

// Store is a store within limits. Use New.
type Store struct {
	under    objstore.Store
	upload   *rate.Limiter
	download *rate.Limiter
	calls    *semaphore.Weighted // nil: no limit
}

// New returns under within the limits of o.
func New(under objstore.Store, o Options) *Store {
	s := &Store{under: under, upload: limiter(o.Upload), download: limiter(o.Download)}
	if o.Concurrency > 0 {
		s.calls = semaphore.NewWeighted(o.Concurrency)
	}
	return s
}

// limiter lets a tenth of a second's bytes through at once.
func limiter(bytes int64) *rate.Limiter {
	if bytes <= 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(bytes), int(max(bytes/10, 1)))
}

// wait waits until n bytes may have passed.
func wait(ctx context.Context, l *rate.Limiter, n int) error {
	if l.Limit() == rate.Inf {
		return nil
	}
	for n > 0 {
		part := min(n, l.Burst())
		if err := l.WaitN(ctx, part); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			// The limiter sees that the deadline will come first.
			return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
		}
		n -= part
	}
	return nil
}

// begin waits for a turn; call end after it.
func (s *Store) begin(ctx context.Context, op, key string) (end func(), err error) {
	if s.calls == nil {
		return func() {}, nil
	}
	if err := s.calls.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("%s %s: wait for a turn: %w", op, key, err)
	}
	return func() { s.calls.Release(1) }, nil
}

// Describe implements objstore.Describer.
func (s *Store) Describe() string {
	if d, ok := s.under.(objstore.Describer); ok {
		return d.Describe()
	}
	return ""
}

// Get implements objstore.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) ([]byte, objstore.Info, error) {
	end, err := s.begin(ctx, "get", key)
	if err != nil {
		return nil, objstore.Info{}, err
	}
	defer end()
	data, info, err := s.under.Get(ctx, key, offset, length)
	if err != nil {
		return nil, objstore.Info{}, err
	}
	if err := wait(ctx, s.download, len(data)); err != nil {
		return nil, objstore.Info{}, fmt.Errorf("get %s: keep to the rate: %w", key, err)
	}
	return data, info, nil
}

// Head implements objstore.Store.
func (s *Store) Head(ctx context.Context, key string) (objstore.Info, error) {
	end, err := s.begin(ctx, "head", key)
	if err != nil {
		return objstore.Info{}, err
	}
	defer end()
	return s.under.Head(ctx, key)
}

// Put implements objstore.Store.
func (s *Store) Put(ctx context.Context, key string, data []byte) error {
	end, err := s.begin(ctx, "put", key)
	if err != nil {
		return err
	}
	defer end()
	if err := wait(ctx, s.upload, len(data)); err != nil {
		return fmt.Errorf("put %s: keep to the rate: %w", key, err)
	}
	return s.under.Put(ctx, key, data)
}

// PutIf implements objstore.Store, outside all limits.
func (s *Store) PutIf(ctx context.Context, key string, data []byte, cond objstore.Condition) (objstore.ETag, error) {
	return s.under.PutIf(ctx, key, data, cond)
}

// List implements objstore.Store. It takes no turn, because fn may make calls
// that do.
func (s *Store) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	return s.under.List(ctx, prefix, fn)
}

// Delete implements objstore.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	end, err := s.begin(ctx, "delete", key)
	if err != nil {
		return err
	}
	defer end()
	return s.under.Delete(ctx, key)
}

// Folders implements objstore.FolderLister, as List.
func (s *Store) Folders(ctx context.Context, fn func(string) error) error {
	return objstore.Folders(ctx, s.under, fn)
}
