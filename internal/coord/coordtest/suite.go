// Package coordtest is the conformance suite of the coordinator's port: every backend that
// can be written to passes it.
//
// It tests what the contract says, against one server that several clients use, and makes
// the server and the clients fail in the ways that a backend's Harness offers. What was
// not offered is named at the end of Run: it was not tested. Keys, names and IDs are new in
// each test, so that a server may be shared by them. Speed, and what is special to a
// backend, are left to its own tests.
package coordtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/coord"
)

// Harness is a server and what can be done to it. A function that is nil is an ability
// that the backend does not have.
type Harness struct {
	// Open returns another client of the server: another agent. The harness closes it
	// at the end of the test.
	Open func(t *testing.T) coord.Coordinator

	// Settle is by when watches have seen a write that was acknowledged, or a client the
	// end of a failure, back-off included.
	Settle time.Duration
	// LeaseTTL is the least TTL of a lease that the backend keeps to. LeaseLate is how
	// much later than its TTL a silent holder's slot may become free.
	LeaseTTL, LeaseLate time.Duration
	// ServiceTTL and ServiceLate are the same for reports of health. Handed on, and
	// shown, is everything else within Settle.
	ServiceTTL, ServiceLate time.Duration
	// DeregisterAfter is the least that the backend keeps to, DeregisterLate how much
	// later it may be. 0: too long to be tested.
	DeregisterAfter, DeregisterLate time.Duration
	// TooLarge is the size of a value that the backend refuses. 0: none that could be tested.
	TooLarge int

	// Partition cuts the client off: its calls fail soon. Heal ends a partition, or a hang.
	Partition, Heal func(t *testing.T, c coord.Coordinator)
	// Hang lets the client's calls go on without an answer, until Heal.
	Hang func(t *testing.T, c coord.Coordinator)
	// RestartServer ends the server and starts it again with what it had acknowledged.
	RestartServer func(t *testing.T)
	// LoseSession ends the leases of the client behind its back.
	LoseSession func(t *testing.T, c coord.Coordinator)
	// Compact removes the server's history.
	Compact func(t *testing.T)
	// RewindIndex makes the server's index lower than it was. Keys may be lost by it.
	RewindIndex func(t *testing.T)
	// Stranger returns a client that may do nothing, closed as Open's.
	Stranger func(t *testing.T) coord.Coordinator
}

// hung is how long a call may take that has nothing to wait for: it is a bound for tests that
// hang, and far more than any server needs.
const hung = time.Minute

// suite is one test's harness.
type suite struct {
	Harness
	id string // new in each test
}

// test is one of the suite's, and the ability without which it cannot be made.
type test struct {
	name  string
	run   func(*testing.T, *suite)
	needs string
}

func tests() []test {
	return slices.Concat(kvTests(), watchTests(), leaseTests(), registryTests())
}

// abilities names what a harness offers.
func (h Harness) abilities() map[string]bool {
	return map[string]bool{
		"": true, "Partition": h.Partition != nil && h.Heal != nil, "Hang": h.Hang != nil && h.Heal != nil,
		"RestartServer": h.RestartServer != nil, "LoseSession": h.LoseSession != nil, "Compact": h.Compact != nil,
		"RewindIndex": h.RewindIndex != nil, "Stranger": h.Stranger != nil, "TooLarge": h.TooLarge > 0,
		"DeregisterAfter": h.DeregisterAfter > 0,
	}
}

// Run tests the backend whose harness open returns, by the real clock.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	run(t, open, func(t *testing.T, f func(*testing.T)) { f(t) })
}

// RunInBubble tests a backend that waits for nothing outside of its process, each test in a bubble of
// testing/synctest, which open is called in.
func RunInBubble(t *testing.T, open func(t *testing.T) Harness) {
	run(t, open, synctest.Test)
}

func run(t *testing.T, open func(t *testing.T) Harness, within func(*testing.T, func(*testing.T))) {
	var (
		can map[string]bool
		not []string
	)
	within(t, func(t *testing.T) { can = open(t).abilities() }) // no test of its own, so that -run may name any
	for _, c := range tests() {
		if !can[c.needs] {
			not = append(not, fmt.Sprintf("%s (needs %s)", c.name, c.needs))
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			within(t, func(t *testing.T) {
				c.run(t, &suite{open(t), "coordtest-" + strings.ToLower(rand.Text()[:10])})
			})
		})
	}
	if len(not) > 0 {
		t.Logf("not applicable to this backend, and so NOT TESTED: %s", strings.Join(not, ", "))
	}
}

// key is one of this test's own.
func (s *suite) key(name string) string { return s.id + "/" + name }

// call is a context for calls that have nothing to wait for.
func call(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), hung)
	t.Cleanup(cancel)
	return ctx
}

func want(t *testing.T, what string, err, kind error) {
	t.Helper()
	if got := coord.Kind(err); got != kind || err == nil {
		t.Errorf("%s: got error %v, want %v", what, err, kind)
	}
}

func ok(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// eventually calls f, at first at once, until it returns "" or the time is over; what it
// returns is what is still missing.
func eventually(t *testing.T, within time.Duration, f func() string) {
	t.Helper()
	end := time.Now().Add(within)
	for {
		missing := f()
		if missing == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %v: %s", within, missing)
		}
		coord.Wait(t.Context(), max(within/100, 10*time.Millisecond))
	}
}
