// Package faulty makes another store fail on purpose, for tests, simulators and
// benchmarks: before or after taking effect, late, twice, slowly or never.
//
// A script decides about every call, and every call is recorded. Without a
// script it changes nothing. All waiting is by timers, so that it works in
// testing/synctest, and ends with the call's context.
package faulty

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"drover/internal/objstore"
)

// Op names a method of objstore.Store.
type Op string

// The methods of objstore.Store.
const (
	Get    Op = "get"
	Head   Op = "head"
	Put    Op = "put"
	PutIf  Op = "putif"
	List   Op = "list"
	Delete Op = "delete"
)

// Writes says whether op may change the store.
func (op Op) Writes() bool { return op == Put || op == PutIf || op == Delete }

// Call is one call, as the script sees it before and Calls returns it after.
type Call struct {
	N    int // 1 for the first call of the store
	Op   Op
	Key  string // of a List: its prefix
	Data []byte // what a Put or PutIf was given; not to be changed
	Cond objstore.Condition
	Done bool  // it returned
	Err  error // what it returned
}

// Fault is what happens to a call. The zero Fault is nothing. Of several that
// are set, the order is: Delay, Hang, Before, Late, then the effect, After.
type Fault struct {
	Delay  time.Duration // wait first
	Hang   bool          // take no effect and return only when the context ends
	Before error         // take no effect and return this
	Late   error         // return this, and take effect when Deliver is called
	Twice  bool          // take effect twice, as by a proxy that repeats; the second result counts
	After  error         // take effect, and return this all the same
	Stuck  bool          // take effect, and return only when the context ends
}

// Script decides what happens to a call. It may be called from many goroutines
// at once.
type Script func(Call) Fault

// Store is a store that fails as its script says. Use New.
type Store struct {
	under objstore.Store

	mu     sync.Mutex
	script Script
	calls  []Call
	late   []func() error
}

// New returns a store over under. A nil script lets every call pass.
func New(under objstore.Store, script Script) *Store { return &Store{under: under, script: script} }

// Slow is a script that adds delay to every call, as a distant server would.
func Slow(delay time.Duration) Script { return func(Call) Fault { return Fault{Delay: delay} } }

// At is a script for one fault at the nth call.
func At(n int, f Fault) Script {
	return func(c Call) Fault {
		if c.N == n {
			return f
		}
		return Fault{}
	}
}

// Set replaces the script, for the calls that begin from now on.
func (s *Store) Set(script Script) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = script
}

// Calls returns the calls so far, in the order in which they began.
func (s *Store) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// Late returns how many effects wait for Deliver.
func (s *Store) Late() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.late)
}

// Deliver has the ith of the waiting effects happen now (0 is the oldest) and
// returns what the store said to it, which no client hears any more.
func (s *Store) Deliver(i int) error {
	s.mu.Lock()
	effect := s.late[i]
	s.late = slices.Delete(s.late, i, i+1)
	s.mu.Unlock()
	return effect()
}

// Describe implements objstore.Describer.
func (s *Store) Describe() string {
	if d, ok := s.under.(objstore.Describer); ok {
		return d.Describe()
	}
	return ""
}

func (s *Store) begin(c Call) (n int, f Fault) {
	s.mu.Lock()
	c.N = len(s.calls) + 1
	s.calls = append(s.calls, c)
	script := s.script
	s.mu.Unlock()
	if script == nil {
		return c.N, Fault{}
	}
	return c.N, script(c)
}

func (s *Store) end(n int, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[n-1].Done, s.calls[n-1].Err = true, err
	return err
}

// do runs effect under what the script says of the call.
func (s *Store) do(ctx context.Context, c Call, effect func(context.Context) error) error {
	n, f := s.begin(c)
	return s.end(n, s.apply(ctx, c, f, effect))
}

func (s *Store) apply(ctx context.Context, c Call, f Fault, effect func(context.Context) error) error {
	if err := wait(ctx, f.Delay); err != nil {
		return fmt.Errorf("%s %s: %w", c.Op, c.Key, err)
	}
	switch {
	case f.Hang:
		return hang(ctx, c)
	case f.Before != nil:
		return f.Before
	case f.Late != nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.late = append(s.late, func() error { return effect(context.WithoutCancel(ctx)) })
		return f.Late
	}
	if f.Twice {
		_ = effect(ctx)
	}
	err := effect(ctx)
	switch {
	case f.Stuck:
		return hang(ctx, c)
	case f.After != nil:
		return f.After
	}
	return err
}

func hang(ctx context.Context, c Call) error {
	<-ctx.Done()
	return fmt.Errorf("%s %s: %w: %w", c.Op, c.Key, objstore.ErrUnavailable, ctx.Err())
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Get implements objstore.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (data []byte, info objstore.Info, err error) {
	err = s.do(ctx, Call{Op: Get, Key: key}, func(ctx context.Context) (err error) {
		data, info, err = s.under.Get(ctx, key, offset, length)
		return err
	})
	if err != nil {
		return nil, objstore.Info{}, err
	}
	return data, info, nil
}

// Head implements objstore.Store.
func (s *Store) Head(ctx context.Context, key string) (info objstore.Info, err error) {
	err = s.do(ctx, Call{Op: Head, Key: key}, func(ctx context.Context) (err error) {
		info, err = s.under.Head(ctx, key)
		return err
	})
	if err != nil {
		return objstore.Info{}, err
	}
	return info, nil
}

// Put implements objstore.Store.
func (s *Store) Put(ctx context.Context, key string, data []byte) error {
	data = bytes.Clone(data) // for Calls and Deliver
	return s.do(ctx, Call{Op: Put, Key: key, Data: data}, func(ctx context.Context) error {
		return s.under.Put(ctx, key, data)
	})
}

// PutIf implements objstore.Store.
func (s *Store) PutIf(ctx context.Context, key string, data []byte, cond objstore.Condition) (objstore.ETag, error) {
	data = bytes.Clone(data)
	var (
		mu   sync.Mutex // an effect delivered late may come at any time
		etag objstore.ETag
	)
	err := s.do(ctx, Call{Op: PutIf, Key: key, Data: data, Cond: cond}, func(ctx context.Context) error {
		got, err := s.under.PutIf(ctx, key, data, cond)
		mu.Lock()
		defer mu.Unlock()
		etag = got
		return err
	})
	if err != nil {
		return "", err
	}
	mu.Lock()
	defer mu.Unlock()
	return etag, nil
}

// List implements objstore.Store. A fault After comes when everything was listed.
func (s *Store) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	return s.do(ctx, Call{Op: List, Key: prefix}, func(ctx context.Context) error {
		return s.under.List(ctx, prefix, fn)
	})
}

// Delete implements objstore.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	return s.do(ctx, Call{Op: Delete, Key: key}, func(ctx context.Context) error {
		return s.under.Delete(ctx, key)
	})
}
