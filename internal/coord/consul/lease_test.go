package consul_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"drover/internal/coord"
	"drover/internal/coord/consul"
	"drover/internal/testkit/consulserver"
)

func acquire(t *testing.T, c coord.Coordinator, holder string) coord.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l, err := c.Acquire(ctx, "lock", coord.LeaseOptions{Holder: holder})
	must(t, err)
	return l
}

func wantDone(t *testing.T, l coord.Lease, within time.Duration) {
	t.Helper()
	select {
	case <-l.Done():
	case <-time.After(within):
		t.Errorf("the lease is not done after %v", within)
	}
}

// TestKeyIsDeleted: a lease is lost as soon as its key is, though its session lives.
func TestKeyIsDeleted(t *testing.T) {
	s := consulserver.Start(t, consulserver.Options{LeastTTL: leastTTL})
	c := open(t, consul.Options{Address: s.Address})
	l, err := c.Acquire(t.Context(), "lock", coord.LeaseOptions{Holder: "a", TTL: time.Hour})
	must(t, err)
	s.Ask(http.MethodDelete, "/v1/kv/drover/lease/lock/0", "")
	wantDone(t, l, 10*time.Second)
	next := acquire(t, c, "b")
	must(t, l.Release(t.Context()))
	if got, err := c.Holders(t.Context(), "lock"); err != nil || strings.Join(got, ",") != "b" {
		t.Errorf("holders: %q, %v", got, err)
	}
	must(t, next.Release(t.Context()))
}

// TestLockDelay: a session that somebody destroys is missed by its holder at the next
// renewal at the latest; no other one has the slot before.
func TestLockDelay(t *testing.T) {
	s := consulserver.Start(t, consulserver.Options{LeastTTL: leastTTL})
	g := startGate(t, s.Address)
	// The holder sees nothing but its renewals.
	g.obey(func(r *http.Request) verdict {
		if strings.Contains(r.URL.RawQuery, "index=") {
			return drop
		}
		return pass
	})
	a, b := open(t, consul.Options{Address: g.server.URL}), open(t, consul.Options{Address: s.Address})
	for range 3 {
		l := acquire(t, a, "a")
		loseSessions(s)
		next := acquire(t, b, "b")
		select {
		case <-l.Done():
		default:
			t.Error("two have the slot")
		}
		must(t, next.Release(t.Context()))
	}
}

// TestLostAnswers: what was done, and not heard of, is found out.
func TestLostAnswers(t *testing.T) {
	s := consulserver.Start(t, consulserver.Options{LeastTTL: leastTTL})
	g := startGate(t, s.Address)
	lost := 0
	g.obey(func(r *http.Request) verdict {
		if r.URL.Path == "/v1/txn" && lost < 1 {
			lost++
			return lose
		}
		return pass
	})
	c := open(t, consul.Options{Address: g.server.URL})
	l := acquire(t, c, "a")
	if lost != 1 {
		t.Fatal("nothing was lost")
	}
	txns := 0
	for _, v := range g.visits(time.Time{}) {
		if strings.HasSuffix(v.what, "/v1/txn") {
			txns++
		}
	}
	if txns != 1 {
		t.Errorf("%d transactions for one lock: the first was done", txns)
	}
	if got, err := c.Holders(t.Context(), "lock"); err != nil || len(got) != 1 {
		t.Errorf("holders: %q, %v", got, err)
	}
	must(t, l.Release(t.Context()))

	g.obey(func(*http.Request) verdict { return lose })
	_, err := c.CompareAndSwap(t.Context(), "cas", []byte("x"), "")
	wantKind(t, "swap", err, coord.ErrUnavailable)
	g.obey(nil)
	if p, err := c.Get(t.Context(), "cas"); err != nil || string(p.Value) != "x" {
		t.Errorf("%v, %v", p, err)
	}
	swaps := 0
	for _, v := range g.visits(time.Time{}) {
		if strings.HasSuffix(v.what, "/v1/txn") {
			swaps++
		}
	}
	if swaps != 3 { // lock, release, swap
		t.Errorf("%d transactions: a swap was repeated", swaps)
	}
}
