package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"drover/internal/objstore/faulty"
	"drover/internal/objstore/mem"
	"drover/internal/repo"
)

// upkeepLife is a history with garbage, upon which an upkeep runs to its end. It dies at
// the nth call to anything but the head from then on (0: never).
func upkeepLife(t *testing.T, n int) (calls int) {
	st := mem.New()
	var mu sync.Mutex
	counting, dead := false, false
	var kill context.CancelFunc = func() {}
	view := faulty.New(st, func(c faulty.Call) faulty.Fault {
		mu.Lock()
		defer mu.Unlock()
		if counting && kindOfKey(c.Key) != "head" {
			calls++
		}
		if dead || counting && n > 0 && calls == n {
			dead = true
			kill()
			return faulty.Fault{Before: errDead}
		}
		return faulty.Fault{}
	})
	a := newServer(t, view, "a", filepath.Join(t.TempDir(), "state")).start().waitStarted()
	for i := range 3 {
		a.write("file", fmt.Sprint("state ", i))
		a.backup()
	}
	k := newKeeper(a, Retention{Committed: repo.Policy{Last: 1}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	mu.Lock()
	counting, kill = true, cancel
	mu.Unlock()
	for range 4 {
		if _, err := k.once(ctx); err != nil && ctx.Err() == nil {
			t.Fatal(err)
		}
		k.clock += time.Hour
	}
	mu.Lock()
	counting = false
	mu.Unlock()
	a.crash()
	if err := os.RemoveAll(a.state); err != nil {
		t.Fatal(err)
	}
	b := newServer(t, st, "b", a.state).start().waitStarted()
	b.want("file", "state 2")
	b.write("file", "state 0") // of a pack that is condemned, or gone
	b.backup()
	next := newKeeper(b, Retention{Committed: repo.Policy{Last: 1}})
	for range 4 {
		next.run()
		next.clock += time.Hour
	}
	if _, snapshots := wholeAndCount(t, b); snapshots != 1 {
		t.Errorf("%d snapshots are left, want 1", snapshots)
	}
	if head, _ := b.rt.head(); len(head.Condemned) != 0 {
		t.Errorf("still condemned: %v", head.Condemned)
	}
	return calls
}

// The upkeep dies at each of its calls in turn; another instance takes over and ends the
// work: all that is reached is there, and nothing stays condemned.
func TestUpkeepThatDies(t *testing.T) {
	calls := upkeepLife(t, 0)
	if calls < 40 {
		t.Fatalf("only %d calls", calls)
	}
	step := 7 // in the short run
	if os.Getenv("DROVER_SOAK") != "" {
		step = 1
	}
	for n := 1; n <= calls; n += step {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			upkeepLife(t, n)
		})
	}
}
