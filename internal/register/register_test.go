package register

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

	"drover/internal/coord"
)

// catalog is a registry that forgets, fails and hangs as it is told.
type catalog struct {
	coord.Registry
	mu    sync.Mutex
	calls []string
	there map[string]coord.Status
	fail  error
	hang  chan struct{} // nil: no call hangs
}

func (c *catalog) do(ctx context.Context, call string, f func() error) error {
	c.mu.Lock()
	c.calls = append(c.calls, call)
	hang := c.hang
	c.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", coord.ErrUnavailable, ctx.Err())
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	return f()
}

func (c *catalog) Register(ctx context.Context, r coord.Registration) error {
	return c.do(ctx, "register", func() error {
		if _, ok := c.there[r.ID]; !ok {
			c.there[r.ID] = coord.Critical
		}
		return nil
	})
}

func (c *catalog) Report(ctx context.Context, id string, s coord.Status, note string) error {
	return c.do(ctx, "report "+string(s), func() error {
		if _, ok := c.there[id]; !ok {
			return coord.ErrNotFound
		}
		c.there[id] = s
		return nil
	})
}

func (c *catalog) Deregister(ctx context.Context, id string) error {
	return c.do(ctx, "deregister", func() error { delete(c.there, id); return nil })
}

// set changes how the catalog behaves.
func (c *catalog) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *catalog) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := c.calls
	c.calls = nil
	return calls
}

func (c *catalog) status() coord.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.there["web-1"]
}

// run runs a service in a bubble, and takes it out at the end.
func run(t *testing.T, f func(t *testing.T, c *catalog, s *Service)) {
	synctest.Test(t, func(t *testing.T) {
		c := &catalog{there: map[string]coord.Status{}}
		s := New(c, Options{Registration: coord.Registration{ID: "web-1", Name: "web", TTL: 30 * time.Second}, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.Run(ctx) }()
		f(t, c, s)
		cancel()
		<-done
	})
}

func (c *catalog) want(t *testing.T, status coord.Status, calls ...string) {
	t.Helper()
	synctest.Wait()
	if got := c.take(); !slices.Equal(got, calls) || c.status() != status {
		t.Errorf("calls %q, want %q; the catalog says %q, want %q", got, calls, c.status(), status)
	}
}

func TestFromTheFirstReportToTheEnd(t *testing.T) {
	run(t, func(t *testing.T, c *catalog, s *Service) {
		time.Sleep(time.Minute)
		c.want(t, "")
		s.Set(coord.Passing, "")
		c.want(t, coord.Passing, "register", "report passing")
		time.Sleep(25 * time.Second) // periods of 8 to 10 seconds
		synctest.Wait()
		if calls := c.take(); len(calls) < 2 || len(calls) > 3 || calls[0] != "report passing" {
			t.Errorf("in 25 s of a TTL of 30 s: %q", calls)
		}
		s.Set(coord.Critical, "refused")
		c.want(t, coord.Critical, "report critical")
		if err := s.Withdraw(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.want(t, "", "deregister")
		time.Sleep(time.Hour)
		c.want(t, "")
		s.Set(coord.Passing, "") // it was restarted
		c.want(t, coord.Passing, "register", "report passing")
	})
}

func TestNoReregistrationAfterTheCatalogLostIt(t *testing.T) {
	run(t, func(t *testing.T, c *catalog, s *Service) {
		s.Set(coord.Passing, "")
		c.want(t, coord.Passing, "register", "report passing")
		c.set(func() { clear(c.there) }) // a restarted agent of the catalog has no memory
		time.Sleep(11 * time.Second)
		c.want(t, coord.Passing, "report passing", "register", "report passing")
	})
}

// While the catalog is away it is tried again at growing intervals, whatever is wanted
// meanwhile; a withdrawal is not made to wait for that.
func TestCatalogIsAway(t *testing.T) {
	run(t, func(t *testing.T, c *catalog, s *Service) {
		c.set(func() { c.fail = coord.ErrUnavailable })
		for range 200 {
			s.Set(coord.Passing, "")
			s.Set(coord.Critical, "")
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if n := len(c.take()); n < 8 || n > 16 {
			t.Errorf("%d calls in 200 s", n)
		}
		if s.State().Err == nil || s.State().Known != "" {
			t.Errorf("%+v", s.State())
		}
		c.set(func() { c.fail = nil })
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if c.status() != coord.Critical || s.State().Err != nil || s.State().Known != coord.Critical {
			t.Errorf("it says %q; %+v", c.status(), s.State())
		}
		c.set(func() { c.fail = coord.ErrUnavailable })
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := s.Withdraw(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, coord.ErrUnavailable) {
			t.Errorf("%v", err)
		}
		c.set(func() { c.fail = nil })
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if c.status() != "" {
			t.Error("it stayed in the catalog")
		}
	})
}

// What is under way when the withdrawal comes may land after it: that is waited for, too.
func TestWithdrawWhileRegistering(t *testing.T) {
	run(t, func(t *testing.T, c *catalog, s *Service) {
		hang := make(chan struct{})
		c.set(func() { c.hang = hang })
		s.Set(coord.Passing, "")
		synctest.Wait()
		gone := make(chan error, 1)
		go func() { gone <- s.Withdraw(t.Context()) }()
		synctest.Wait()
		select {
		case <-gone:
			t.Fatal("it returned while a registration was under way")
		default:
		}
		c.set(func() { c.hang = nil })
		close(hang)
		if err := <-gone; err != nil {
			t.Fatal(err)
		}
		c.want(t, "", "register", "report passing", "deregister")
	})
}

func TestHangingCatalogIsGivenUp(t *testing.T) {
	run(t, func(t *testing.T, c *catalog, s *Service) {
		hang := make(chan struct{})
		c.set(func() { c.hang = hang })
		s.Set(coord.Passing, "")
		time.Sleep(callLimit + time.Second)
		synctest.Wait()
		if !errors.Is(s.State().Err, coord.ErrUnavailable) {
			t.Errorf("%+v", s.State())
		}
		c.set(func() { c.hang = nil })
		close(hang)
	})
}

func TestEndTakesItOut(t *testing.T) {
	var c *catalog
	run(t, func(t *testing.T, have *catalog, s *Service) {
		c = have
		s.Set(coord.Passing, "")
		c.want(t, coord.Passing, "register", "report passing")
	})
	if c.status() != "" {
		t.Error("it is in the catalog after the end")
	}
}
