// Package retry repeats what another store could not do for want of an answer.
//
// It repeats on objstore.ErrUnavailable only, with growing, jittered pauses, and
// gives every attempt a time limit, so that a connection that hangs is given up.
// A conditional put is never repeated, since its outcome is unknown, only
// limited in time. A listing that breaks is begun again, and what was listed
// before is not listed twice. Everything else is passed through as it is.
package retry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"drover/internal/objstore"
)

// Options are the limits; zero values mean the defaults given here.
type Options struct {
	First    time.Duration // pause after the first failure; 200 ms
	Cap      time.Duration // longest pause; 10 s
	Attempts int           // of one call, the first included; 0 is no limit but the context

	// An attempt may take Base (15 s) and, for its bytes, as long as MinRate
	// (256 KiB/s) would take. A read to the end of an object counts as Unknown
	// bytes (64 MiB). A listing may take that long between two objects.
	Base    time.Duration
	MinRate int64
	Unknown int64

	// Failed is told of each failed attempt that will be repeated after pause.
	Failed func(op, key string, err error, attempt int, pause time.Duration)

	// Sleep waits, or returns the context's error; Jitter returns a number in
	// [0, 1). Tests replace them.
	Sleep  func(ctx context.Context, d time.Duration) error
	Jitter func() float64
}

// Store is a store that tries again. Use New.
type Store struct {
	under objstore.Store
	o     Options
}

// New returns a store that repeats failed calls of under.
func New(under objstore.Store, o Options) *Store {
	o.First = cmp.Or(o.First, 200*time.Millisecond)
	o.Cap = cmp.Or(o.Cap, 10*time.Second)
	o.Base = cmp.Or(o.Base, 15*time.Second)
	o.MinRate = cmp.Or(o.MinRate, 256<<10)
	o.Unknown = cmp.Or(o.Unknown, 64<<20)
	if o.Failed == nil {
		o.Failed = func(string, string, error, int, time.Duration) {}
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	return &Store{under, o}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Describe implements objstore.Describer.
func (s *Store) Describe() string {
	if d, ok := s.under.(objstore.Describer); ok {
		return d.Describe()
	}
	return ""
}

// limit is how long one attempt with that many bytes may take.
func (s *Store) limit(bytes int64) time.Duration {
	return s.o.Base + time.Duration(float64(bytes)/float64(s.o.MinRate)*float64(time.Second))
}

// pause is the wait after the nth failure: doubling, capped, and between half of
// that and all of it, so that clients that failed together come back apart.
func (s *Store) pause(n int) time.Duration {
	d := s.o.Cap
	if n <= 30 { // no overflow of the shift
		d = min(d, s.o.First<<(n-1))
	}
	return d/2 + time.Duration(s.o.Jitter()*float64(d/2))
}

// once makes one attempt in its time. That its time is over is told apart from
// the end of the caller's context: it is the store that did not answer.
func once(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	attempt, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return blame(ctx, attempt, limit, do(attempt))
}

func blame(ctx, attempt context.Context, limit time.Duration, err error) error {
	if err != nil && ctx.Err() == nil && attempt.Err() != nil && errors.Is(err, attempt.Err()) {
		return fmt.Errorf("%w: no answer within %v: %v", objstore.ErrUnavailable, limit, err) //nolint:errorlint // the caller's context has not ended
	}
	return err
}

// repeat calls do until it succeeds, fails for good or the limits are reached.
func (s *Store) repeat(ctx context.Context, op, key string, do func() error) error {
	for n := 1; ; n++ {
		err := do()
		if err == nil || !errors.Is(err, objstore.ErrUnavailable) {
			return err
		}
		if ended := ctx.Err(); ended != nil {
			return fmt.Errorf("after %d attempts: %w: %w", n, ended, err)
		}
		if n == s.o.Attempts {
			return fmt.Errorf("after %d attempts: %w", n, err)
		}
		pause := s.pause(n)
		s.o.Failed(op, key, err, n, pause)
		if stopped := s.o.Sleep(ctx, pause); stopped != nil {
			return fmt.Errorf("after %d attempts: %w: %w", n, stopped, err)
		}
	}
}

// Get implements objstore.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (data []byte, info objstore.Info, err error) {
	size := length
	if length < 0 {
		size = s.o.Unknown
	}
	err = s.repeat(ctx, "get", key, func() error {
		return once(ctx, s.limit(size), func(ctx context.Context) (err error) {
			data, info, err = s.under.Get(ctx, key, offset, length)
			return err
		})
	})
	return data, info, err
}

// Head implements objstore.Store.
func (s *Store) Head(ctx context.Context, key string) (info objstore.Info, err error) {
	err = s.repeat(ctx, "head", key, func() error {
		return once(ctx, s.limit(0), func(ctx context.Context) (err error) {
			info, err = s.under.Head(ctx, key)
			return err
		})
	})
	return info, err
}

// Put implements objstore.Store.
func (s *Store) Put(ctx context.Context, key string, data []byte) error {
	return s.repeat(ctx, "put", key, func() error {
		return once(ctx, s.limit(int64(len(data))), func(ctx context.Context) error {
			return s.under.Put(ctx, key, data)
		})
	})
}

// PutIf implements objstore.Store. It is one attempt, whatever comes of it.
func (s *Store) PutIf(ctx context.Context, key string, data []byte, cond objstore.Condition) (etag objstore.ETag, err error) {
	err = once(ctx, s.limit(int64(len(data))), func(ctx context.Context) (err error) {
		etag, err = s.under.PutIf(ctx, key, data, cond)
		return err
	})
	return etag, err
}

// Delete implements objstore.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	return s.repeat(ctx, "delete", key, func() error {
		return once(ctx, s.limit(0), func(ctx context.Context) error { return s.under.Delete(ctx, key) })
	})
}

// List implements objstore.Store. It remembers the keys that it passed on.
func (s *Store) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	l := listing{limit: s.limit(0), fn: fn, passed: map[string]bool{}}
	err := s.repeat(ctx, "list", prefix, func() error { return l.attempt(ctx, s.under, prefix) })
	if l.refused != nil {
		return l.refused
	}
	return err
}

// listing is one call of List.
type listing struct {
	limit   time.Duration // between two objects
	fn      func(objstore.Info) error
	passed  map[string]bool
	refused error // what fn ended the listing with
}

func (l *listing) attempt(ctx context.Context, under objstore.Store, prefix string) error {
	attempt, cancel := context.WithCancel(ctx)
	defer cancel()
	alarm := time.AfterFunc(l.limit, cancel)
	defer alarm.Stop()
	err := under.List(attempt, prefix, func(i objstore.Info) error {
		alarm.Stop() // the time that fn takes is the caller's
		err := l.pass(i)
		alarm.Reset(l.limit)
		return err
	})
	if l.refused != nil {
		return nil // the caller's own end of it is no reason to try again
	}
	return blame(ctx, attempt, l.limit, err)
}

func (l *listing) pass(i objstore.Info) error {
	if l.passed[i.Key] {
		return nil
	}
	l.passed[i.Key] = true
	l.refused = l.fn(i)
	return l.refused
}

// Folders implements objstore.FolderLister. They are few: fn is called when all are known.
func (s *Store) Folders(ctx context.Context, fn func(string) error) error {
	var names []string
	err := s.repeat(ctx, "list", "", func() error {
		names = nil
		return once(ctx, s.limit(s.o.Unknown), func(ctx context.Context) error {
			return objstore.Folders(ctx, s.under, func(name string) error {
				names = append(names, name)
				return nil
			})
		})
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := fn(name); err != nil {
			return err
		}
	}
	return nil
}
