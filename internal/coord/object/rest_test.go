package object_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/coord"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/mem"
)

// rates counts what f, which runs for ten minutes after five that are not counted, asks of
// the store in a minute.
func rates(t *testing.T, f func(ctx context.Context, c coord.Coordinator)) map[faulty.Op]float64 {
	rate := map[faulty.Op]float64{}
	synctest.Test(t, func(t *testing.T) {
		w := lines{under: mem.New()}.open(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); f(ctx, w) }()
		time.Sleep(5 * time.Minute)
		before := len(w.calls.Calls())
		time.Sleep(10 * time.Minute)
		calls := w.calls.Calls()[before:]
		cancel()
		<-done
		for _, c := range calls {
			rate[c.Op] += 0.1
		}
	})
	return rate
}

// TestRequestsAtRest holds what docs/COORDINATORS.md says that an agent costs, with the
// defaults and TTLs of 30 s.
func TestRequestsAtRest(t *testing.T) {
	const ttl = 30 * time.Second
	r := coord.Registration{ID: "web-1", Name: "web", Address: "192.0.2.1", TTL: ttl, Initial: coord.Passing}
	watch := func(ctx context.Context, c coord.Coordinator) {
		c.Watch(ctx, "app/", false, func([]coord.Pair, error) {})
	}
	for _, c := range []struct {
		name string
		run  func(ctx context.Context, c coord.Coordinator)
		most map[faulty.Op]float64
	}{
		{"a watch of keys", watch, map[faulty.Op]float64{faulty.Head: 12.5}},
		{"ten watches of keys", func(ctx context.Context, c coord.Coordinator) {
			done := make(chan struct{})
			for range 10 {
				go func() { watch(ctx, c); done <- struct{}{} }()
			}
			for range 10 {
				<-done
			}
		}, map[faulty.Op]float64{faulty.Head: 24.5}},
		{"a lease that is held", func(ctx context.Context, c coord.Coordinator) {
			if _, err := c.Acquire(ctx, "leader", coord.LeaseOptions{Holder: "a", TTL: ttl}); err != nil {
				t.Error(err)
			}
			<-ctx.Done()
		}, map[faulty.Op]float64{faulty.PutIf: 6.5}},
		{"a lease that is waited for, beside one that is held", func(ctx context.Context, c coord.Coordinator) {
			for range 2 {
				if _, err := c.Acquire(ctx, "leader", coord.LeaseOptions{Holder: "a", TTL: ttl}); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		}, map[faulty.Op]float64{faulty.PutIf: 6.5, faulty.Head: 18, faulty.Get: 6.5}},
		{"an instance that reports each ten seconds", func(ctx context.Context, c coord.Coordinator) {
			err := c.Register(ctx, r)
			for i := 0; err == nil; i++ {
				err = c.Report(ctx, r.ID, coord.Passing, "")
				if !coord.Wait(ctx, ttl/3) {
					return
				}
			}
			t.Error(err)
		}, map[faulty.Op]float64{faulty.Head: 6.5, faulty.Put: 6.5}},
		{"a watch of a service", func(ctx context.Context, c coord.Coordinator) {
			if err := c.Register(ctx, r); err != nil {
				t.Error(err)
			}
			c.WatchService(ctx, coord.Query{Name: "web"}, func([]coord.Instance, error) {})
		}, map[faulty.Op]float64{faulty.List: 12.5}},
	} {
		rate := rates(t, c.run)
		var text []string
		for _, op := range slices.Sorted(maps.Keys(rate)) {
			text = append(text, fmt.Sprintf("%.1f %s", rate[op], op))
			if rate[op] > c.most[op] {
				t.Errorf("%s: %.1f %s a minute, want at most %.1f", c.name, rate[op], op, c.most[op])
			}
		}
		t.Logf("%s: %s a minute", c.name, strings.Join(text, ", "))
	}
}

// TestRegisteringAgainListsNothing: many agents that start again do not each list what all of them
// have registered.
func TestRegisteringAgainListsNothing(t *testing.T) {
	store, r := mem.New(), coord.Registration{ID: "web-1", Name: "web", Address: "192.0.2.1", TTL: 30 * time.Second}
	if err := (lines{under: store}).open(t).Register(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	again := lines{under: store}.open(t)
	if err := again.Register(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for _, c := range again.calls.Calls() {
		if c.Op == faulty.List {
			t.Errorf("it lists %s", c.Key)
		}
	}
}

// TestBeatsAreNotRead: that instances live costs no request each, however many they are.
func TestBeatsAreNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, ctx := mem.New(), t.Context()
		writer, reader := lines{under: store}.open(t), lines{under: store}.open(t)
		const n = 50
		for i := range n {
			r := coord.Registration{ID: fmt.Sprintf("i%d", i), Name: "web", TTL: 30 * time.Second, Initial: coord.Passing}
			if err := writer.Register(ctx, r); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		calls := 0
		go reader.WatchService(ctx, coord.Query{Name: "web"}, func([]coord.Instance, error) { calls++ })
		for range 30 {
			for i := range n {
				if err := writer.Report(ctx, fmt.Sprintf("i%d", i), coord.Passing, ""); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(10 * time.Second)
		}
		if err := writer.Report(ctx, "i7", coord.Warning, ""); err != nil { // this one is read
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		cancel()
		synctest.Wait()
		gets := 0
		for _, c := range reader.calls.Calls() {
			if c.Op == faulty.Get {
				gets++
			}
		}
		if gets != n+1 || calls != 2 {
			t.Errorf("%d reads of objects for %d instances and one change, in %d calls of the watch", gets, n, calls)
		}
	})
}
