package archive

import (
	"sync"
	"sync/atomic"
)

// crew bounds how many goroutines of one walk work at once. A goroutine that
// waits for others gives its place back, so nothing can block for good.
type crew struct{ places chan struct{} }

func newCrew(n int) *crew {
	c := &crew{places: make(chan struct{}, n)}
	c.places <- struct{}{} // the caller's own
	return c
}

func (c *crew) try() bool {
	select {
	case c.places <- struct{}{}:
		return true
	default:
		return false
	}
}

func (c *crew) leave() { <-c.places }
func (c *crew) enter() { c.places <- struct{}{} }

// each calls fn(0) to fn(n-1), in this goroutine and in as many more as there
// are places for, and returns when all have returned. After an error no new call
// begins; the first error is returned.
func (c *crew) each(n int, fn func(i int) error) error {
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

// group runs calls in other goroutines while there are places, else in this one.
type group struct {
	c      *crew
	wg     sync.WaitGroup
	failed atomic.Pointer[error]
}

// run calls fn, now or later; after an error it does nothing.
func (g *group) run(fn func() error) {
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

func (g *group) wait() error {
	g.c.leave()
	g.wg.Wait()
	g.c.enter()
	if err := g.failed.Load(); err != nil {
		return *err
	}
	return nil
}
