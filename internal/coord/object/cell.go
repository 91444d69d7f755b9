package object

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"drover/internal/coord"
	"drover/internal/objstore"
)

const (
	version  = 1
	remember = 64 // writes whose ids an object keeps
	attempts = 50 // of a write that loses against others each time
)

// stored is the form of an object. The ids of its last writes stay in it: so who got no
// answer finds out whether its write landed, even when others wrote since.
type stored[T any] struct {
	Version int      `json:"version"`
	Count   uint64   `json:"count"` // of all writes; it only grows
	Writes  []string `json:"writes"`
	Value   T        `json:"value"`
}

// state is one version of an object. Nothing in it is changed after it was read or made.
type state[T any] struct {
	stored[T]
	etag objstore.ETag // empty: there is none
}

// landed says whether the write id is in this version, and which one it was.
func (s state[T]) landed(id string) (count uint64, yes bool) {
	i := slices.Index(s.Writes, id)
	if i < 0 {
		return 0, false
	}
	return s.Count - uint64(len(s.Writes)-1-i), true
}

// cell is an object that is replaced by compare-and-swap only. The last version that was
// seen is kept. It may be used by many goroutines; those that wait do so for a channel, which testing/synctest
// can see.
type cell[T any] struct {
	c       *Client
	key     string
	reading chan struct{} // one at a time, so that none returns an older version than one before
	writing chan struct{}

	failed failure // of recent; for who has the turn of reading

	mu    sync.Mutex
	known bool // last was read or written by us
	last  state[T]
	asked time.Time // when it was asked whether last is the newest, and it was
}

// failure is a question that got no answer. Who waited for its turn meanwhile takes it for its own:
// else each waits in turn, when a store answers nobody.
type failure struct {
	err   error
	ended time.Time
}

// since returns the error if it came after a moment.
func (f failure) since(began time.Time) error {
	if f.ended.After(began) {
		return f.err
	}
	return nil
}

// of notes the outcome of a question, unless it was given up by who asked.
func (f *failure) of(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		*f = failure{err, time.Now()}
	}
}

func newCell[T any](c *Client, key string) *cell[T] {
	return &cell[T]{c: c, key: key, reading: make(chan struct{}, 1), writing: make(chan struct{}, 1)}
}

func (l *cell[T]) cached() (state[T], time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, l.asked, l.known
}

func (l *cell[T]) keep(s state[T], asked time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last, l.asked, l.known = s, asked, true
}

// turn takes one of the channels, or returns the context's error.
func turn(ctx context.Context, ch chan struct{}) error {
	select {
	case ch <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", coord.ErrUnavailable, ctx.Err())
	}
}

// recent returns a version that was the newest at most age ago.
func (l *cell[T]) recent(ctx context.Context, age time.Duration) (state[T], error) {
	began := time.Now()
	if err := turn(ctx, l.reading); err != nil {
		return state[T]{}, err
	}
	defer func() { <-l.reading }()
	if s, asked, known := l.cached(); known && time.Since(asked) <= age {
		return s, nil
	}
	if err := l.failed.since(began); err != nil {
		return state[T]{}, err
	}
	s, err := l.fetch(ctx)
	l.failed.of(ctx, err)
	return s, err
}

// read returns the newest version.
func (l *cell[T]) read(ctx context.Context) (state[T], error) {
	if err := turn(ctx, l.reading); err != nil {
		return state[T]{}, err
	}
	defer func() { <-l.reading }()
	return l.fetch(ctx)
}

// fetch asks for the ETag, and for the object only if that is new. It needs the turn of reading.
func (l *cell[T]) fetch(ctx context.Context) (state[T], error) {
	for {
		before, _, known := l.cached()
		asked := time.Now()
		now, err := l.look(ctx, before, known)
		if err != nil {
			return state[T]{}, kind(err)
		}
		after, _, _ := l.cached()
		if after.etag != before.etag && after.etag != now.etag && now.Count <= after.Count {
			continue // we wrote meanwhile, and this was read before
		}
		l.keep(now, asked)
		return now, nil
	}
}

func (l *cell[T]) look(ctx context.Context, before state[T], known bool) (state[T], error) {
	ctx, cancel := l.c.call(ctx)
	defer cancel()
	if known {
		info, err := l.c.store.Head(ctx, l.key)
		switch {
		case errors.Is(err, objstore.ErrNotFound):
			return state[T]{}, nil
		case err != nil:
			return state[T]{}, err
		case info.ETag == before.etag:
			return before, nil
		}
	}
	data, info, err := l.c.store.Get(ctx, l.key, 0, -1)
	if errors.Is(err, objstore.ErrNotFound) {
		return state[T]{}, nil
	}
	if err != nil {
		return state[T]{}, err
	}
	return decode[T](l.c, l.key, data, info.ETag)
}

func decode[T any](c *Client, key string, data []byte, etag objstore.ETag) (s state[T], err error) {
	if c.opt.Sealer != nil {
		if data, err = c.opt.Sealer.Open(key, data); err != nil {
			return s, fmt.Errorf("open %s: %w", key, err)
		}
	}
	if err := json.Unmarshal(data, &s.stored); err != nil {
		return state[T]{}, fmt.Errorf("read %s: it is no object of this coordinator: %w", key, err)
	}
	if s.Version != version || s.Count == 0 || len(s.Writes) == 0 {
		return state[T]{}, fmt.Errorf("read %s: its version is %d, this agent knows %d", key, s.Version, version)
	}
	s.etag = etag
	return s, nil
}

func encode[T any](c *Client, key string, s stored[T]) ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", key, err)
	}
	if c.opt.Sealer != nil {
		data = c.opt.Sealer.Seal(key, data)
	}
	return data, nil
}

// newID returns the id of a write: no two are ever the same, so no two versions have the same bytes.
func newID() string { return rand.Text() }

// errSame is what a change returns when there is nothing to write.
var errSame = errors.New("nothing to change")

// update replaces the object by what change makes of its newest version: exactly once, or
// not. Others' writes in between are no error: change is asked again. An answer that was lost
// is resolved by reading back. ErrUnavailable: it may have landed, or may still. It returns the write's
// number. What change returns as error is returned if the version was the newest.
//
// It first tries with the version that is known, which saves a request when nobody else writes.
func (l *cell[T]) update(ctx context.Context, id string, change func(T, uint64) (T, error)) (uint64, error) {
	if err := turn(ctx, l.writing); err != nil {
		return 0, err
	}
	defer func() { <-l.writing }()
	base, _, fresh := l.cached()
	again := coord.Backoff{Least: 20 * time.Millisecond, Most: time.Second}
	newest := false
	for range attempts {
		var err error
		if !fresh {
			if base, err = l.read(ctx); err != nil {
				return 0, err
			}
			newest = true
		}
		if count, yes := base.landed(id); yes {
			return count, nil
		}
		fresh = false // from here on
		value, err := change(base.Value, base.Count+1)
		if err != nil && newest {
			return 0, err
		}
		if err != nil {
			continue
		}
		count, done, err := l.swap(ctx, base, id, value)
		if done || err != nil {
			return count, err
		}
		if !coord.Wait(ctx, again.Next()) {
			return 0, fmt.Errorf("%w: %w", coord.ErrUnavailable, ctx.Err())
		}
	}
	return 0, fmt.Errorf("write %s: %w: %d attempts met other writes", l.key, coord.ErrUnavailable, attempts)
}

// swap makes one attempt. It is done, or another write took its place for certain, or
// there is an error.
func (l *cell[T]) swap(ctx context.Context, base state[T], id string, value T) (count uint64, done bool, err error) {
	writes := append(slices.Clone(base.Writes), id)
	next := state[T]{stored: stored[T]{version, base.Count + 1, writes[max(0, len(writes)-remember):], value}}
	data, err := encode(l.c, l.key, next.stored)
	if err != nil {
		return 0, false, err
	}
	if len(data) > l.c.opt.MaxBytes {
		return 0, false, fmt.Errorf("write %s: %d bytes, of at most %d: %w", l.key, len(data), l.c.opt.MaxBytes, coord.ErrTooLarge)
	}
	cond := objstore.IfAbsent()
	if base.etag != "" {
		cond = objstore.IfMatch(base.etag)
	}
	limited, cancel := l.c.call(ctx)
	asked := time.Now()
	etag, err := l.c.store.PutIf(limited, l.key, data, cond)
	cancel()
	if err == nil {
		next.etag = etag
		l.keep(next, asked)
		return next.Count, true, nil
	}
	if !errors.Is(err, objstore.ErrConflict) && !errors.Is(kind(err), coord.ErrUnavailable) {
		return 0, false, kind(err)
	}
	now, back := l.read(ctx)
	if back != nil {
		return 0, false, fmt.Errorf("write %s: %w, and what became of it is not known: %w", l.key, back, err)
	}
	if count, yes := now.landed(id); yes {
		return count, true, nil
	}
	if now.etag == base.etag && !errors.Is(err, objstore.ErrConflict) {
		return 0, false, kind(err) // it may still land
	}
	return 0, false, nil // the version that it was to replace is gone, or the store refused it
}
