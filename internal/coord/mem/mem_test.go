package mem_test

import (
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/coord"
	"drover/internal/coord/coordtest"
	"drover/internal/coord/mem"
	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func harness(t *testing.T) coordtest.Harness {
	s := mem.NewServer()
	open := func(t *testing.T) coord.Coordinator {
		c := s.Open()
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	set := func(l mem.Link) func(*testing.T, coord.Coordinator) {
		return func(_ *testing.T, c coord.Coordinator) { c.(*mem.Client).Set(l) }
	}
	return coordtest.Harness{
		Open: open, Settle: time.Second, LeaseTTL: 10 * time.Second, ServiceTTL: 10 * time.Second,
		DeregisterAfter: time.Minute, TooLarge: 1 << 20,
		Partition: set(mem.Down), Hang: set(mem.Hanging), Heal: set(mem.Up),
		RestartServer: func(*testing.T) { s.SetAvailable(false); s.SetAvailable(true) },
		LoseSession:   func(_ *testing.T, c coord.Coordinator) { c.(*mem.Client).LoseLeases() },
		Stranger: func(t *testing.T) coord.Coordinator {
			c := open(t)
			c.(*mem.Client).Set(mem.Denied)
			return c
		},
	}
}

func TestConformance(t *testing.T) { coordtest.RunInBubble(t, harness) }

// TestRealClock holds that nothing in it depends on a bubble.
func TestRealClock(t *testing.T) {
	coordtest.Run(t, func(t *testing.T) coordtest.Harness {
		h := harness(t)
		h.Settle, h.LeaseTTL, h.LeaseLate, h.ServiceTTL, h.ServiceLate = time.Second, time.Second, time.Second, time.Second, time.Second
		h.DeregisterAfter, h.DeregisterLate = time.Second, time.Second
		return h
	})
}

func TestServerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.NewServer()
		c := s.Open()
		defer func() { _ = c.Close() }()
		l, err := c.Acquire(t.Context(), "a", coord.LeaseOptions{Holder: "x", TTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		s.SetAvailable(false)
		if _, err := c.Get(t.Context(), "a"); coord.Kind(err) != coord.ErrUnavailable {
			t.Errorf("get: %v", err)
		}
		began := time.Now()
		<-l.Done()
		if after := time.Since(began); after != time.Minute {
			t.Errorf("the lease ended %v after the server was away", after)
		}
		s.SetAvailable(true)
		l, err = c.Acquire(t.Context(), "a", coord.LeaseOptions{Holder: "x", TTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		s.LoseLeases()
		<-l.Done()
		if err := l.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
