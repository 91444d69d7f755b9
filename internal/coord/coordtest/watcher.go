package coordtest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"drover/internal/coord"
)

// told is one call of a watch's function.
type told[T any] struct {
	state T
	err   error
}

// watcher runs a watch and records what it is told. What no watch may do it finds by
// itself: call twice at once, tell what was told, tell a state with an error, go on after its end.
type watcher[T any] struct {
	t      *testing.T
	equal  func(a, b T) bool
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{}
	pause  time.Duration // how long each call takes

	mu    sync.Mutex
	calls []told[T]
	more  chan struct{} // closed and replaced at each call
	busy  bool
	over  bool
}

// watch starts a watch, which the test's end stops if stop was not called.
func watch[T any](t *testing.T, equal func(a, b T) bool, pause time.Duration, run func(context.Context, func(T, error))) *watcher[T] {
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher[T]{t: t, equal: equal, ctx: ctx, cancel: cancel, pause: pause, ended: make(chan struct{}), more: make(chan struct{})}
	var group sync.WaitGroup
	group.Go(func() {
		defer close(w.ended)
		run(ctx, w.call)
	})
	t.Cleanup(group.Wait)
	t.Cleanup(w.stop)
	return w
}

func (w *watcher[T]) call(state T, err error) {
	w.mu.Lock()
	if w.busy {
		w.t.Error("the function of a watch was called while it ran")
	}
	if w.over {
		w.t.Error("the function of a watch was called after Watch had returned")
	}
	var none T
	if err != nil && !w.equal(state, none) {
		w.t.Errorf("an error with a state: %v, %v", state, err)
	}
	if n := len(w.calls); n > 0 {
		last := w.calls[n-1]
		switch {
		case err == nil && last.err == nil && w.equal(last.state, state):
			w.t.Errorf("call %d: told again what was told: %v", n+1, state)
		case err != nil && last.err != nil && coord.Kind(err) == coord.Kind(last.err):
			w.t.Errorf("call %d: told again a failure of one kind: %v", n+1, err)
		}
	}
	w.calls = append(w.calls, told[T]{state, err})
	close(w.more)
	w.more = make(chan struct{})
	w.busy = true
	w.mu.Unlock()
	if w.pause > 0 {
		coord.Wait(w.ctx, w.pause)
	}
	w.mu.Lock()
	w.busy = false
	w.mu.Unlock()
}

// all returns the calls so far.
func (w *watcher[T]) all() []told[T] {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]told[T]{}, w.calls...)
}

// await waits until the last call is as done says.
func (w *watcher[T]) await(what string, within time.Duration, done func(state T, err error) bool) {
	w.t.Helper()
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		w.mu.Lock()
		more := w.more
		if n := len(w.calls); n > 0 && done(w.calls[n-1].state, w.calls[n-1].err) {
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		select {
		case <-more:
		case <-w.ended:
			w.t.Fatalf("%s: the watch ended", what)
		case <-timer.C:
			last := "none"
			if calls := w.all(); len(calls) > 0 {
				last = fmt.Sprintf("number %d: %+v", len(calls), calls[len(calls)-1])
			}
			w.t.Fatalf("%s: not told within %v; the last call was %s", what, within, last)
		}
	}
}

// failed waits for an error of that kind.
func (w *watcher[T]) failed(what string, within time.Duration, kind error) {
	w.t.Helper()
	w.await(what, within, func(_ T, err error) bool { return err != nil && coord.Kind(err) == kind })
}

// stop ends the watch and waits for it.
func (w *watcher[T]) stop() {
	w.cancel()
	timer := time.NewTimer(hung)
	defer timer.Stop()
	select {
	case <-w.ended:
		w.mu.Lock()
		w.over = true
		w.mu.Unlock()
	case <-timer.C:
		w.t.Error("the watch did not return when its context had ended")
	}
}
