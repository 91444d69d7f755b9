package object_test

import (
	"testing"
	"time"

	"drover/internal/coord"
	"drover/internal/coord/coordtest"
	"drover/internal/coord/object"
	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/mem"
	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// wire is how each client reaches the store: fault by fault.
type wire struct {
	*object.Client
	calls *faulty.Store
}

// harness has clients of one store, each behind a line that can be cut.
func harness(under objstore.Store, opt object.Options) coordtest.Harness {
	open := func(t *testing.T) coord.Coordinator {
		calls := faulty.New(under, nil)
		c := object.New(calls, opt)
		t.Cleanup(func() { _ = c.Close() })
		return &wire{c, calls}
	}
	set := func(f faulty.Fault) func(*testing.T, coord.Coordinator) {
		return func(_ *testing.T, c coord.Coordinator) {
			c.(*wire).calls.Set(func(faulty.Call) faulty.Fault { return f })
		}
	}
	return coordtest.Harness{
		Open: open, TooLarge: 8 << 20,
		Partition: set(faulty.Fault{Before: objstore.ErrUnavailable}), Heal: set(faulty.Fault{}),
		Stranger: func(t *testing.T) coord.Coordinator {
			c := open(t)
			set(faulty.Fault{Before: objstore.ErrUnauthorised})(t, c)
			return c
		},
	}
}

func inBubble(t *testing.T, under objstore.Store) coordtest.Harness {
	h := harness(under, object.Options{})
	h.Settle, h.LeaseTTL, h.LeaseLate, h.ServiceTTL, h.ServiceLate = 30*time.Second, 60*time.Second, 10*time.Second, 30*time.Second, 10*time.Second
	h.DeregisterAfter, h.DeregisterLate = 5*time.Minute, time.Minute
	h.Hang = func(_ *testing.T, c coord.Coordinator) {
		c.(*wire).calls.Set(func(faulty.Call) faulty.Fault { return faulty.Fault{Hang: true} })
	}
	return h
}

func TestConformance(t *testing.T) {
	coordtest.RunInBubble(t, func(t *testing.T) coordtest.Harness { return inBubble(t, mem.New()) })
}
