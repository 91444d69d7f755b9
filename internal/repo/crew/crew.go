// Package crew runs the parts of one recursive job on a bounded number of
// goroutines.
//
// A goroutine that waits for others gives its place back, so a crew never blocks
// for good, however deep the recursion; and a job that finds no free place does
// its parts itself. Every call returns only when all that it started has ended.
package crew

import (
	"sync"
	"sync/atomic"
)

// Crew bounds how many goroutines of one job work at once.
type Crew struct{ places chan struct{} }

// New returns a Crew of n goroutines, the caller's among them.
func New(n int) *Crew {
	c := &Crew{places: make(chan struct{}, max(n, 1))}
	c.places <- struct{}{} // the caller's own
	return c
}

func (c *Crew) try() bool {
	select {
	case c.places <- struct{}{}:
		return true
	default:
		return false
	}
}

func (c *Crew) leave() { <-c.places }
func (c *Crew) enter() { c.places <- struct{}{} }

// Each calls fn(0) to fn(n-1), in this goroutine and in as many more as there
// are places for, and returns when all have returned. After an error no new call
// begins; the first error is returned.
func (c *Crew) Each(n int, fn func(i int) error) error {
	if n == 0 {
		return nil
	}
	var next atomic.Int64
	var failed atomic.Pointer[error]
	work := func() {
		for failed.Load() == nil {
			i := int(next.Add(1)) - 1
			if i >= n {
				return
			}
			if err := fn(i); err != nil {
				failed.CompareAndSwap(nil, &err)
			}
		}
	}
	var helpers sync.WaitGroup
	for helping := 1; helping < n && c.try(); helping++ {
		helpers.Go(func() {
			defer c.leave()
			work()
		})
	}
	work()
	c.leave()
	helpers.Wait()
	c.enter()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Group runs calls in other goroutines while there are places, else in the
// caller's. Only one goroutine uses it.
type Group struct {
	c      *Crew
	wg     sync.WaitGroup
	failed atomic.Pointer[error]
}

// Run calls fn, now or later; after an error it does nothing.
func (g *Group) Run(fn func() error) {
	if g.failed.Load() != nil {
		return
	}
	call := func() {
		if err := fn(); err != nil {
			g.failed.CompareAndSwap(nil, &err)
		}
	}
	if !g.c.try() {
		call()
		return
	}
	g.wg.Go(func() {
		defer g.c.leave()
		call()
	})
}

// Group returns a new Group.
func (c *Crew) Group() *Group { return &Group{c: c} }

// Failed reports whether a call returned an error.
func (g *Group) Failed() bool { return g.failed.Load() != nil }

// Wait returns when all calls have returned, with the first error.
func (g *Group) Wait() error {
	g.c.leave()
	g.wg.Wait()
	g.c.enter()
	if err := g.failed.Load(); err != nil {
		return *err
	}
	return nil
}
