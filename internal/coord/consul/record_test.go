package consul_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"
)

// record is what was said by something that runs beside the test.
type record struct {
	t     *testing.T
	ctx   context.Context
	group sync.WaitGroup

	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed and replaced at each line
}

func newRecord(t *testing.T) *record {
	ctx, cancel := context.WithCancel(context.Background())
	r := &record{t: t, ctx: ctx, more: make(chan struct{})}
	t.Cleanup(func() { cancel(); r.group.Wait() })
	return r
}

func (r *record) run(f func()) { r.group.Go(f) }

func (r *record) add(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
	close(r.more)
	r.more = make(chan struct{})
}

// await waits until exactly these lines were said.
func (r *record) await(within time.Duration, wanted ...string) {
	r.t.Helper()
	r.awaitThat(within, func(lines []string) bool { return slices.Equal(lines, wanted) }, wanted)
}

func (r *record) awaitThat(within time.Duration, ok func([]string) bool, wanted any) {
	r.t.Helper()
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		r.mu.Lock()
		lines, more := slices.Clone(r.lines), r.more
		r.mu.Unlock()
		if ok(lines) {
			return
		}
		select {
		case <-more:
		case <-timer.C:
			r.t.Fatalf("after %v: %q, want %q", within, lines, wanted)
		}
	}
}
