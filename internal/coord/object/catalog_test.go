package object_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/coord"
	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/mem"
)

// fleet is some clients of one store that report, and can be stopped.
type fleet struct {
	t     *testing.T
	store *mem.Store
	wires map[string]*wire
	stops map[string]context.CancelFunc
	group sync.WaitGroup
}

func newFleet(t *testing.T, ids ...string) *fleet {
	f := &fleet{t: t, store: mem.New(), wires: map[string]*wire{}, stops: map[string]context.CancelFunc{}}
	for _, id := range ids {
		f.start(id)
	}
	t.Cleanup(func() {
		for _, stop := range f.stops {
			stop()
		}
		f.group.Wait()
	})
	return f
}

// start has one register, and report each ten seconds, as an agent does.
func (f *fleet) start(id string) {
	w := lines{under: f.store}.open(f.t)
	ctx, stop := context.WithCancel(f.t.Context())
	f.wires[id], f.stops[id] = w, stop
	r := coord.Registration{ID: id, Name: "web", TTL: 30 * time.Second, Initial: coord.Passing, DeregisterAfter: 10 * time.Minute}
	f.group.Go(func() {
		for coord.Wait(ctx, 10*time.Second) {
			err := w.Report(ctx, id, coord.Passing, "")
			if coord.Kind(err) == coord.ErrNotFound {
				err = w.Register(ctx, r)
			}
			if err != nil && ctx.Err() == nil && coord.Kind(err) != coord.ErrUnavailable {
				f.t.Errorf("%s: %v", id, err)
			}
		}
	})
}

// watch writes down what a newcomer is told: "a b" are passing, "(c)" is critical, "!" a failure.
func (f *fleet) watch() (w *wire, told func() []string, stop func()) {
	w = lines{under: f.store}.open(f.t)
	ctx, cancel := context.WithCancel(f.t.Context())
	var (
		mu    sync.Mutex
		lines []string
		group sync.WaitGroup
	)
	group.Go(func() {
		q := coord.Query{Name: "web", Status: []coord.Status{coord.Passing, coord.Critical}}
		w.WatchService(ctx, q, func(found []coord.Instance, err error) {
			var parts []string
			for _, i := range found {
				if i.Status == coord.Critical {
					parts = append(parts, "("+i.ID+")")
				} else {
					parts = append(parts, i.ID)
				}
			}
			if err != nil {
				parts = []string{"!"}
			}
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, strings.Join(parts, " "))
		})
	})
	stop = func() { cancel(); group.Wait() }
	f.t.Cleanup(stop)
	return w, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string{}, lines...)
	}, stop
}

func (f *fleet) want(what string, told func() []string, want ...string) {
	f.t.Helper()
	if got := fmt.Sprintf("%q", told()); got != fmt.Sprintf("%q", want) {
		f.t.Errorf("%s: told %s, want %q", what, got, want)
	}
}

func (f *fleet) objects() (keys []string) {
	_ = f.store.List(f.t.Context(), "drover/coord/services/", func(i objstore.Info) error {
		keys = append(keys, strings.TrimPrefix(i.Key, "drover/coord/services/web/"))
		return nil
	})
	return keys
}

// TestOutageMakesNobodyCritical has the store away for all, for longer than any TTL.
func TestOutageMakesNobodyCritical(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "a", "b")
		time.Sleep(time.Minute)
		w, told, _ := f.watch()
		time.Sleep(time.Minute)
		away := func(yes bool) {
			var script faulty.Script
			if yes {
				script = func(faulty.Call) faulty.Fault { return faulty.Fault{Before: objstore.ErrUnavailable} }
			}
			for _, w := range append([]*wire{w}, f.wires["a"], f.wires["b"]) {
				w.calls.Set(script)
			}
		}
		away(true)
		time.Sleep(time.Hour)
		away(false)
		time.Sleep(5 * time.Minute)
		f.want("an outage of an hour", told, "a b", "!", "a b")
	})
}

// TestWatcherAloneIsAway: while it could not look, nothing became silent to it.
func TestWatcherAloneIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "a", "b")
		time.Sleep(time.Minute)
		w, told, _ := f.watch()
		time.Sleep(time.Minute)
		w.calls.Set(func(faulty.Call) faulty.Fault { return faulty.Fault{Before: objstore.ErrUnavailable} })
		time.Sleep(time.Minute)
		f.stops["b"]() // dies meanwhile
		time.Sleep(time.Minute)
		w.calls.Set(nil)
		time.Sleep(30 * time.Second)
		f.want("just back", told, "a b", "!", "a b")
		time.Sleep(time.Hour)
		f.want("later", told, "a b", "!", "a b", "a (b)", "a")
	})
}

// TestNewcomerSeesTheDead: a watcher that starts knows after a TTL who is silent.
func TestNewcomerSeesTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "a", "b")
		time.Sleep(time.Minute)
		f.stops["b"]()
		time.Sleep(5 * time.Minute)
		_, told, _ := f.watch()
		time.Sleep(20 * time.Second)
		f.want("at first", told, "a b")
		time.Sleep(20 * time.Second)
		f.want("after a TTL", told, "a b", "a (b)")
		time.Sleep(9 * time.Minute)
		f.want("before ten minutes that it watched itself", told, "a b", "a (b)")
		time.Sleep(2 * time.Minute)
		f.want("after them", told, "a b", "a (b)", "a")
	})
}

// TestTheDeadAreBuried follows the objects of one that dies, is marked by one of several
// watchers, and is deleted long after; and of one that comes back.
func TestTheDeadAreBuried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "a", "b")
		time.Sleep(time.Minute)
		_, told, _ := f.watch()
		_, other, _ := f.watch()
		time.Sleep(time.Minute)
		f.stops["b"]()
		time.Sleep(20 * time.Minute)
		f.want("b is removed", told, "a b", "a (b)", "a")
		f.want("b is removed, says the other one", other, "a b", "a (b)", "a")
		if n := len(f.objects()); n != 4 {
			t.Errorf("marked, there are %q", f.objects())
		}
		f.start("b")
		time.Sleep(time.Minute)
		f.want("b is back", told, "a b", "a (b)", "a", "a b")
		f.stops["b"]()
		time.Sleep(3 * time.Hour)
		f.want("b is removed again", told, "a b", "a (b)", "a", "a b", "a (b)", "a")
		if keys := f.objects(); len(keys) != 2 || keys[0] != "a/about" {
			t.Errorf("hours later there are %q", keys)
		}
		if err := f.store.Put(t.Context(), "drover/coord/services/web/c/beat", []byte("late")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		if keys := f.objects(); len(keys) != 2 {
			t.Errorf("a beat of nobody is left: %q", keys)
		}
	})
}

// TestRemovedWhileCutOff: who was removed while it was alone finds that out, and registers
// again.
func TestRemovedWhileCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "a", "b")
		time.Sleep(time.Minute)
		_, told, _ := f.watch()
		time.Sleep(time.Minute)
		f.wires["b"].calls.Set(func(faulty.Call) faulty.Fault { return faulty.Fault{Hang: true} })
		time.Sleep(20 * time.Minute)
		f.wires["b"].calls.Set(nil)
		time.Sleep(2 * time.Minute)
		f.want("b was cut off for longer than its DeregisterAfter", told, "a b", "a (b)", "a", "a b")
	})
}
