package object_test

import (
	"context"
	"fmt"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"drover/internal/coord"
	"drover/internal/coord/coordtest"
	"drover/internal/coord/object"
	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/file"
	"drover/internal/objstore/mem"
	"drover/internal/objstore/s3"
	"drover/internal/testkit/leak"
	"drover/internal/testkit/s3server"
)

func TestMain(m *testing.M) { leak.Main(m) }

// wire is how each client reaches the store: fault by fault.
type wire struct {
	*object.Client
	calls *faulty.Store
}

// lines are clients of one store, each behind a line that can be cut. A line that is whole
// does what the script of whole makes.
type lines struct {
	under objstore.Store
	opt   object.Options
	whole func() faulty.Script
}

func (l lines) open(t *testing.T) *wire {
	w := &wire{calls: faulty.New(l.under, nil)}
	if l.whole != nil {
		w.calls.Set(l.whole())
	}
	w.Client = object.New(w.calls, l.opt)
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func (l lines) harness() coordtest.Harness {
	set := func(f faulty.Fault) func(*testing.T, coord.Coordinator) {
		return func(_ *testing.T, c coord.Coordinator) {
			c.(*wire).calls.Set(func(faulty.Call) faulty.Fault { return f })
		}
	}
	return coordtest.Harness{
		Open:     func(t *testing.T) coord.Coordinator { return l.open(t) },
		TooLarge: 8 << 20,

		Partition: set(faulty.Fault{Before: objstore.ErrUnavailable}),
		Hang:      set(faulty.Fault{Hang: true}),
		Heal: func(_ *testing.T, c coord.Coordinator) {
			var script faulty.Script
			if l.whole != nil {
				script = l.whole()
			}
			c.(*wire).calls.Set(script)
		},
		Stranger: func(t *testing.T) coord.Coordinator {
			c := l.open(t)
			set(faulty.Fault{Before: objstore.ErrUnauthorised})(t, c)
			return c
		},
		// Somebody deletes what a coordinator thinks is there.
		LoseSession: func(t *testing.T, _ coord.Coordinator) { clean(t, l.under, "drover/coord/leases/") },
		RewindIndex: func(t *testing.T) { clean(t, l.under, "drover/coord/kv") },
	}
}

func clean(t *testing.T, s objstore.Store, prefix string) {
	t.Helper()
	var keys []string
	if err := s.List(t.Context(), prefix, func(i objstore.Info) error { keys = append(keys, i.Key); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(keys) == 0 {
		t.Errorf("nothing is below %s", prefix)
	}
	for _, key := range keys {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
}

func slow(h coordtest.Harness) coordtest.Harness {
	h.Settle, h.LeaseTTL, h.LeaseLate, h.ServiceTTL, h.ServiceLate = 30*time.Second, 60*time.Second, 15*time.Second, 30*time.Second, 10*time.Second
	h.DeregisterAfter, h.DeregisterLate = 5*time.Minute, time.Minute
	return h
}

func TestConformance(t *testing.T) {
	coordtest.RunInBubble(t, func(t *testing.T) coordtest.Harness { return slow(lines{under: mem.New()}.harness()) })
}

func seal(t *testing.T, secret string) object.Sealer {
	t.Helper()
	s, err := object.NewSealer([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformanceSealed(t *testing.T) {
	coordtest.RunInBubble(t, func(t *testing.T) coordtest.Harness {
		return slow(lines{under: mem.New(), opt: object.Options{Sealer: seal(t, "0123456789abcdef")}}.harness())
	})
}

// TestConformanceWithLostAnswers loses the answer to each third compare-and-swap, and has
// each fourth done twice: nobody notices.
func TestConformanceWithLostAnswers(t *testing.T) {
	coordtest.RunInBubble(t, func(t *testing.T) coordtest.Harness {
		return slow(lines{under: mem.New(), whole: func() faulty.Script {
			var n atomic.Int64
			return func(c faulty.Call) faulty.Fault {
				if c.Op != faulty.PutIf {
					return faulty.Fault{}
				}
				switch i := n.Add(1); {
				case i%3 == 0:
					return faulty.Fault{After: objstore.ErrUnavailable}
				case i%4 == 0:
					return faulty.Fault{Twice: true}
				}
				return faulty.Fault{}
			}
		}}.harness())
	})
}

// quick is for real stores. What hangs is left to the bubbles: a call that does ends with its
// timeout, which a busy machine needs to be long.
func quick(h coordtest.Harness) coordtest.Harness {
	h.Settle, h.LeaseTTL, h.LeaseLate, h.ServiceTTL, h.ServiceLate = 4*time.Second, 4*time.Second, 3*time.Second, 4*time.Second, 3*time.Second
	h.DeregisterAfter, h.DeregisterLate = 2*time.Second, 2*time.Second
	h.Hang = nil
	return h
}

var often = object.Options{Interval: 100 * time.Millisecond}

func TestConformanceInADirectory(t *testing.T) {
	coordtest.Run(t, func(t *testing.T) coordtest.Harness {
		s, err := file.Open(t.TempDir(), file.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return quick(lines{under: s, opt: often}.harness())
	})
}

func TestConformanceInABucket(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv()
	n := 0
	coordtest.Run(t, func(t *testing.T) coordtest.Harness {
		n++
		u, err := url.Parse(server.URL(fmt.Sprintf("p%d", n)))
		if err != nil {
			t.Fatal(err)
		}
		o, err := s3.ParseURL(u)
		if err != nil {
			t.Fatal(err)
		}
		s, err := s3.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		h := quick(lines{under: s, opt: often}.harness())
		h.RestartServer = func(*testing.T) { server.Stop(); server.StartAgain() }
		return h
	})
}

// TestServerHangs stops a real server in the middle: its connections stay, and nothing answers.
// A holder knows in time all the same, and a watch goes on afterwards.
func TestServerHangs(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv()
	u, err := url.Parse(server.URL("hang"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := s3.ParseURL(u)
	if err != nil {
		t.Fatal(err)
	}
	s, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	c := object.New(s, often)
	defer func() { _ = c.Close() }()
	const ttl = 3 * time.Second
	l, err := c.Acquire(t.Context(), "lock", coord.LeaseOptions{Holder: "a", TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	server.Pause()
	paused := time.Now()
	select {
	case <-l.Done():
	case <-time.After(2 * ttl):
		t.Errorf("%v after the server hung, the holder does not know", time.Since(paused))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := c.Put(ctx, "a", nil); coord.Kind(err) != coord.ErrUnavailable {
		t.Errorf("put: %v", err)
	}
	server.Resume()
	if err := l.Release(t.Context()); err != nil {
		t.Errorf("release: %v", err)
	}
	if l, err = c.Acquire(t.Context(), "lock", coord.LeaseOptions{Holder: "a", TTL: ttl}); err != nil {
		t.Fatal(err)
	}
	if err := l.Release(t.Context()); err != nil {
		t.Error(err)
	}
}
