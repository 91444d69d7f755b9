package roll

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/coord/mem"
	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// fleet are instances that change together.
type fleet struct {
	t      *testing.T
	server *mem.Server

	mu      sync.Mutex
	now     int // change at this moment
	most    int
	changed []string
	sick    map[string]bool // not healthy after a change
}

func newFleet(t *testing.T) *fleet {
	return &fleet{t: t, server: mem.NewServer(), sick: map[string]bool{}}
}

// instance is one of them, with its own client.
type instance struct {
	*Roll
	f      *fleet
	name   string
	client *mem.Client
}

func (f *fleet) join(name string, limit int) *instance {
	i := &instance{f: f, name: name, client: f.server.Open()}
	f.t.Cleanup(func() { _ = i.client.Close() })
	i.Roll = New(i.client, Options{
		Prefix: "drover/shop", Name: "web", Instance: name, Limit: limit, TTL: 10 * time.Second, Log: slog.New(slog.DiscardHandler),
		Healthy: func(ctx context.Context) error {
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.sick[name] {
				return errors.New("its checks fail")
			}
			return nil
		},
	})
	return i
}

// change takes a second, and is counted.
func (i *instance) change(ctx context.Context) error {
	i.f.mu.Lock()
	i.f.now++
	i.f.most = max(i.f.most, i.f.now)
	i.f.changed = append(i.f.changed, i.name)
	i.f.mu.Unlock()
	time.Sleep(time.Second)
	i.f.mu.Lock()
	i.f.now--
	i.f.mu.Unlock()
	return ctx.Err()
}

// roll has all of them change at once, and returns what each came to.
func (f *fleet) roll(version string, all []*instance) map[string]error {
	var group sync.WaitGroup
	var mu sync.Mutex
	out := map[string]error{}
	for _, i := range all {
		group.Go(func() {
			err := i.Do(f.t.Context(), version, i.change)
			mu.Lock()
			defer mu.Unlock()
			out[i.name] = err
		})
	}
	group.Wait()
	return out
}

func (f *fleet) of(n, limit int) []*instance {
	var all []*instance
	for i := range n {
		all = append(all, f.join(fmt.Sprint("i", i), limit))
	}
	return all
}

func TestNoMoreThanTheLimitAtATime(t *testing.T) {
	for _, limit := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t)
			for name, err := range f.roll("v1", f.of(5, limit)) {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if f.most != limit || len(f.changed) != 5 {
				t.Errorf("%d at a time, want %d; %v changed", f.most, limit, f.changed)
			}
		})
	}
}

// One of five turns unhealthy: no other begins after it, and all say why. A later change
// is another one.
func TestUnhealthyOneStopsTheRoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		all := f.of(5, 1)
		for _, i := range all {
			f.sick[i.name] = i.name == "i2"
		}
		out := f.roll("v1", all)
		if last := f.changed[len(f.changed)-1]; last != "i2" {
			t.Errorf("%v changed, after the sick one too", f.changed)
		}
		for _, i := range all {
			err, did := out[i.name], slices.Contains(f.changed, i.name)
			switch {
			case i.name == "i2" && (err == nil || errors.Is(err, ErrStopped)):
				t.Errorf("the sick one: %v", err)
			case i.name != "i2" && did != (err == nil), !did && !errors.Is(err, ErrStopped):
				t.Errorf("%s, changed %v: %v", i.name, did, err)
			case !did && i.State().Why != "the roll is stopped: i2: not healthy after the change: its checks fail":
				t.Errorf("%s says %+v", i.name, i.State())
			}
		}
		late := f.join("late", 1)
		if err := late.Do(t.Context(), "v1", late.change); !errors.Is(err, ErrStopped) {
			t.Errorf("one that comes late: %v", err)
		}
		f.sick["i2"] = false
		f.changed = nil
		for name, err := range f.roll("v2", all) {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		a, b := f.join("a", 1), f.join("b", 1)
		if err := a.Do(t.Context(), "v1", func(context.Context) error { return errors.New("the reload command failed") }); err == nil || errors.Is(err, ErrStopped) {
			t.Errorf("%v", err)
		}
		if err := b.Do(t.Context(), "v1", b.change); !errors.Is(err, ErrStopped) {
			t.Errorf("%v", err)
		}
		for _, want := range []string{"a: the reload command failed", ""} {
			if why, err := b.Resume(t.Context()); err != nil || why != want {
				t.Fatalf("%q, %v; want %q", why, err, want)
			}
		}
		if err := b.Do(t.Context(), "v1", b.change); err != nil {
			t.Errorf("%v", err)
		}
	})
}

// A resumption forgets those who are gone, and not who is changing at the moment.
func TestResumeWhileOneChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		a, b := f.join("a", 1), f.join("b", 1)
		ctx, die := context.WithCancel(t.Context())
		changing, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			ended <- a.Do(ctx, "v1", func(ctx context.Context) error {
				close(changing)
				<-ctx.Done()
				return ctx.Err()
			})
		}()
		<-changing
		if why, err := b.Resume(t.Context()); err != nil || why != "" {
			t.Errorf("%q, %v", why, err)
		}
		die()
		<-ended
		if err := b.Do(t.Context(), "v1", b.change); !errors.Is(err, ErrStopped) || len(f.changed) != 0 {
			t.Errorf("%v; %v changed", err, f.changed)
		}
		if why, err := b.Resume(t.Context()); err != nil || why == "" {
			t.Errorf("%q, %v", why, err)
		}
		if err := b.Do(t.Context(), "v1", b.change); err != nil {
			t.Error(err)
		}
	})
}

// The process dies in its change, and nobody hears of it again: that is a failure too,
// until it comes back and is healthy.
func TestInstanceDoesNotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		a, b := f.join("a", 1), f.join("b", 1)
		ctx, die := context.WithCancel(t.Context())
		if err := a.Do(ctx, "v1", func(context.Context) error { die(); return nil }); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if err := b.Do(t.Context(), "v1", b.change); !errors.Is(err, ErrStopped) || len(f.changed) != 0 {
			t.Errorf("%v; %v changed", err, f.changed)
		}
		f.sick["a"] = true
		if err := f.join("a", 1).Back(t.Context()); err == nil {
			t.Error("a sick one is back")
		}
		if err := b.Do(t.Context(), "v1", b.change); !errors.Is(err, ErrStopped) {
			t.Errorf("%v", err)
		}
		f.sick["a"] = false
		if err := f.join("a", 1).Back(t.Context()); err != nil {
			t.Error(err)
		}
		if err := b.Do(t.Context(), "v1", b.change); err != nil {
			t.Error(err)
		}
	})
}

func TestNoneBeginsWhileTheCoordinatorIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		a := f.join("a", 1)
		f.server.SetAvailable(false)
		done := make(chan error, 1)
		go func() { done <- a.Do(t.Context(), "v1", a.change) }()
		time.Sleep(10 * time.Minute)
		if s := a.State(); len(f.changed) != 0 || s.Doing != "waiting" || s.Why != "the coordinator does not answer" {
			t.Errorf("%+v; %v changed", s, f.changed)
		}
		f.server.SetAvailable(true)
		if err := <-done; err != nil || len(f.changed) != 1 || a.State().Doing != "" {
			t.Errorf("%v, %+v", err, a.State())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		f.server.SetAvailable(false)
		if err := a.Do(ctx, "v2", a.change); !errors.Is(err, context.DeadlineExceeded) || len(f.changed) != 1 {
			t.Errorf("%v; %v changed", err, f.changed)
		}
	})
}

// Who takes an old stop away leaves the note of an instance that has begun another change
// since: should that one not come back, it is missed.
func TestStopIsTakenAwayWithItsOwnNoteOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		a, b := f.join("a", 2), f.join("b", 2)
		fail := func(context.Context) error { return errors.New("the reload command failed") }
		if err := a.Do(t.Context(), "v1", fail); err == nil {
			t.Fatal("it succeeded")
		}
		if _, err := a.client.Put(t.Context(), "drover/shop/rolls/web/turns/a", []byte(`{"version": "v2"}`)); err != nil {
			t.Fatal(err)
		}
		if err := b.Do(t.Context(), "v2", b.change); !errors.Is(err, ErrStopped) || len(f.changed) != 0 {
			t.Errorf("%v; %v changed, and a did not come back", err, f.changed)
		}
	})
}
