package object_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/coord"
	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/mem"
	"drover/internal/register"
)

// TestHerd: hundreds of agents, or a thousand, each with an instance and watches of keys and of a service,
// lose the store for three minutes. They ask less often while it is away, and do not come at one moment
// when it is back.
func TestHerd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			services   = 25
			gone, back = 2 * time.Minute, 5 * time.Minute
			end        = 7 * time.Minute
		)
		n := int(rounds(250, 1000))
		var away atomic.Bool
		var known atomic.Int64
		var mu sync.Mutex
		seconds := make([]int, int(end/time.Second)+2)
		begun := time.Now()
		script := func(faulty.Call) (f faulty.Fault) {
			mu.Lock()
			seconds[time.Since(begun)/time.Second]++
			mu.Unlock()
			if away.Load() {
				f.Before = objstore.ErrUnavailable
			}
			return f
		}
		store := mem.New()
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		for i := range n {
			c := lines{under: store, whole: func() faulty.Script { return script }}.open(t)
			name := fmt.Sprintf("service-%d", i%services)
			s := register.New(c, register.Options{Log: slog.New(slog.DiscardHandler), Registration: coord.Registration{
				ID: fmt.Sprintf("%s-%d", name, i), Name: name, Address: "192.0.2.1", TTL: 30 * time.Second,
			}})
			s.Set(coord.Passing, "")
			group.Go(func() { s.Run(ctx) })
			group.Go(func() { c.Watch(ctx, "app/", false, func(_ []coord.Pair, err error) { count(&known, err) }) })
			group.Go(func() {
				c.WatchService(ctx, coord.Query{Name: name}, func(is []coord.Instance, err error) {
					if away.Load() && err == nil && len(is) != n/services {
						t.Errorf("%d of %d instances of %s while nobody answers", len(is), n/services, name)
					}
				})
			})
			time.Sleep(20 * time.Second / time.Duration(n))
		}
		time.Sleep(gone - time.Since(begun))
		away.Store(true)
		time.Sleep(back - time.Since(begun))
		if known.Load() != 0 {
			t.Errorf("%d watches have not noticed that nobody answers", known.Load())
		}
		away.Store(false)
		time.Sleep(31 * time.Second)
		if known.Load() != int64(n) {
			t.Errorf("%d of %d watches know the state half a minute after the outage", known.Load(), n)
		}
		time.Sleep(end - time.Since(begun))
		cancel()
		group.Wait()
		peak := func(from, to time.Duration) int { return slices.Max(seconds[from/time.Second : to/time.Second]) }
		rest, first, later, after := peak(time.Minute, gone), peak(gone, gone+time.Minute), peak(gone+time.Minute, back), peak(back, end)
		t.Logf("requests in the busiest second: at rest %d, in the first minute of the outage %d, later %d, afterwards %d", rest, first, later, after)
		if first > 3*rest/2 || later > rest/2 || after > 3*rest/2 {
			t.Error("a herd")
		}
	})
}

// count counts the watches that know: a failure is told once, and then a state.
func count(known *atomic.Int64, err error) {
	if err == nil {
		known.Add(1)
	} else {
		known.Add(-1)
	}
}

// TestHangIsNoticedByAll: a store that takes calls and answers none is noticed by every watch when
// the call of one has timed out, and not by one after the other.
func TestHangIsNoticedByAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := lines{under: mem.New()}.open(t)
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		var known atomic.Int64
		const n = 5
		for range n {
			group.Go(func() { c.Watch(ctx, "app/", false, func(_ []coord.Pair, err error) { count(&known, err) }) })
			group.Go(func() {
				c.WatchService(ctx, coord.Query{Name: "web"}, func(_ []coord.Instance, err error) { count(&known, err) })
			})
		}
		time.Sleep(time.Minute)
		if known.Load() != 2*n {
			t.Fatalf("%d watches know", known.Load())
		}
		c.calls.Set(func(faulty.Call) faulty.Fault { return faulty.Fault{Hang: true} })
		time.Sleep(21 * time.Second) // an interval, a timeout of 15 s
		if known.Load() != 0 {
			t.Errorf("%d of %d watches have not noticed", known.Load(), 2*n)
		}
		c.calls.Set(nil)
		time.Sleep(46 * time.Second) // a call that hangs yet, and the longest pause
		if known.Load() != 2*n {
			t.Errorf("%d of %d watches know again", known.Load(), 2*n)
		}
		cancel()
		group.Wait()
	})
}
