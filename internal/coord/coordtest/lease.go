package coordtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"drover/internal/coord"
)

func leaseTests() []test {
	return []test{
		{"LeaseOfOne", testLeaseOne, ""},
		{"LeaseOfMany", testLeaseMany, ""},
		{"LeaseExcludes", testLeaseExcludes, ""},
		{"LeaseSlotsExclude", testLeaseSlots, ""},
		{"LeaseOtherSlots", testLeaseOtherSlots, ""},
		{"LeaseSameHolder", testLeaseSameHolder, ""},
		{"LeaseWaitEnds", testLeaseWaitEnds, ""},
		{"LeaseOutlivesItsTTL", testLeaseRenewed, ""},
		{"LeaseOfAClosedClient", testLeaseClosed, ""},
		{"LeaseOfACutOffHolder", testLeaseCutOff, "Partition"},
		{"LeaseOfAHangingHolder", testLeaseHanging, "Hang"},
		{"LeaseShortCut", testLeaseShortCut, "Partition"},
		{"LeaseLostBehindTheBack", testLeaseLost, "LoseSession"},
		{"LeaseWaitsForTheServer", testLeaseWaitsForServer, "Partition"},
		{"LeaseOutlivesARestart", testLeaseRestart, "RestartServer"},
		{"LeaseOfAStranger", testLeaseStranger, "Stranger"},
	}
}

func (s *suite) options(holder string, slots int) coord.LeaseOptions {
	return coord.LeaseOptions{Holder: holder, TTL: s.LeaseTTL, Slots: slots}
}

// acquire wants a slot within some time.
func (s *suite) acquire(t *testing.T, c coord.Leases, name, holder string, slots int, within time.Duration) coord.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	l, err := c.Acquire(ctx, s.key(name), s.options(holder, slots))
	if err != nil {
		t.Fatalf("acquire %s for %s within %v: %v", name, holder, within, err)
	}
	return l
}

// refused wants no slot for a while: a third of the time in which a silent one falls free.
func (s *suite) refused(t *testing.T, c coord.Leases, name, holder string, slots int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), s.LeaseTTL/3)
	defer cancel()
	l, err := c.Acquire(ctx, s.key(name), s.options(holder, slots))
	if err == nil {
		t.Errorf("%s got a slot of %s, which has no more", holder, name)
		_ = l.Release(call(t))
	} else if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting in vain: error %v, want the context's", err)
	}
}

func held(l coord.Lease) bool {
	select {
	case <-l.Done():
		return false
	default:
		return true
	}
}

func (s *suite) holders(t *testing.T, c coord.Leases, name string, wanted ...string) {
	t.Helper()
	eventually(t, s.Settle, func() string {
		got, err := c.Holders(call(t), s.key(name))
		if err != nil || !slices.Equal(got, wanted) {
			return fmt.Sprintf("%s is held by %q, %v, want %q", name, got, err, wanted)
		}
		return ""
	})
}

func release(t *testing.T, l coord.Lease) {
	t.Helper()
	ok(t, "release", l.Release(call(t)))
	if held(l) {
		t.Error("Done is not closed after Release")
	}
}

func testLeaseOne(t *testing.T, s *suite) {
	a, b := s.Open(t), s.Open(t)
	s.holders(t, a, "lock")
	l := s.acquire(t, a, "lock", "a", 1, s.Settle)
	if !held(l) {
		t.Fatal("Done is closed of a new lease")
	}
	s.holders(t, b, "lock", "a")
	s.refused(t, b, "lock", "b", 1)
	other := s.acquire(t, b, "other/ünï code", "b", 0, s.Settle) // no slots said: one
	s.refused(t, a, "other/ünï code", "a", 1)
	release(t, l)
	s.holders(t, b, "lock")
	l = s.acquire(t, b, "lock", "b", 1, s.Settle)
	s.holders(t, a, "lock", "b")
	if !held(l) || !held(other) {
		t.Error("a lease ended with another one")
	}
	release(t, l)
	release(t, other)
}

// testLeaseMany has three slots, and hands each on at once when it is released.
func testLeaseMany(t *testing.T, s *suite) {
	clients := []coord.Coordinator{s.Open(t), s.Open(t)}
	var leases []coord.Lease
	for i := range 3 {
		leases = append(leases, s.acquire(t, clients[i%2], "sem", fmt.Sprintf("h%d", i), 3, s.Settle))
	}
	s.holders(t, clients[1], "sem", "h0", "h1", "h2")
	s.refused(t, clients[1], "sem", "h3", 3)
	got := make(chan coord.Lease, 1)
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() {
		ctx, cancel := context.WithTimeout(t.Context(), hung)
		defer cancel()
		l, err := clients[1].Acquire(ctx, s.key("sem"), s.options("h3", 3))
		if err != nil {
			t.Errorf("acquire: %v", err)
		}
		got <- l
	})
	coord.Wait(t.Context(), s.Settle/4) // it waits by now, or comes later: both must go well
	release(t, leases[0])
	began := time.Now()
	last := <-got
	if last == nil {
		return
	}
	if took := time.Since(began); took > s.Settle {
		t.Errorf("a released slot was handed on after %v, want within %v", took, s.Settle)
	}
	s.holders(t, clients[0], "sem", "h1", "h2", "h3")
	for _, l := range append(leases[1:], last) {
		if !held(l) {
			t.Error("a lease was lost")
		}
		release(t, l)
	}
	s.holders(t, clients[0], "sem")
}

func testLeaseExcludes(t *testing.T, s *suite) { s.contend(t, 1) }
func testLeaseSlots(t *testing.T, s *suite)    { s.contend(t, 3) }

// contend has more contenders than slots take turns, and counts who believes to hold one.
func (s *suite) contend(t *testing.T, slots int) {
	const contenders, turns = 6, 3
	clients := []coord.Coordinator{s.Open(t), s.Open(t), s.Open(t)}
	var (
		mu    sync.Mutex
		now   int
		group sync.WaitGroup
	)
	for i := range contenders {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*hung)
			defer cancel()
			for range turns {
				l, err := clients[i%len(clients)].Acquire(ctx, s.key("contend"), s.options(fmt.Sprintf("h%d", i), slots))
				if err != nil {
					t.Errorf("contender %d: %v", i, err)
					return
				}
				mu.Lock()
				if now++; now > slots {
					t.Errorf("%d hold %d slots", now, slots)
				}
				mu.Unlock()
				coord.Wait(ctx, s.Settle/50)
				mu.Lock()
				now--
				mu.Unlock()
				if err := l.Release(ctx); err != nil {
					t.Errorf("contender %d: release: %v", i, err)
				}
			}
		})
	}
	group.Wait()
}

func testLeaseOtherSlots(t *testing.T, s *suite) {
	a, b := s.Open(t), s.Open(t)
	l := s.acquire(t, a, "sem", "a", 2, s.Settle)
	for _, slots := range []int{1, 3} {
		_, err := b.Acquire(call(t), s.key("sem"), s.options("b", slots))
		want(t, fmt.Sprintf("acquire with %d slots what is held with 2", slots), err, coord.ErrConflict)
	}
	s.holders(t, b, "sem", "a")
	release(t, l)
	release(t, s.acquire(t, b, "sem", "b", 3, s.Settle)) // nobody holds it: the number is free
}

func testLeaseSameHolder(t *testing.T, s *suite) {
	a := s.Open(t)
	l := s.acquire(t, a, "lock", "same", 1, s.Settle)
	s.refused(t, a, "lock", "same", 1)
	s.refused(t, s.Open(t), "lock", "same", 1)
	if !held(l) {
		t.Error("the lease was taken away by its own name")
	}
	release(t, l)
	release(t, s.acquire(t, a, "lock", "same", 1, s.Settle))
}

func testLeaseWaitEnds(t *testing.T, s *suite) {
	a := s.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	l, err := a.Acquire(ctx, s.key("lock"), s.options("a", 1))
	ok(t, "acquire", err)
	cancel() // the lease does not end with it
	_, err = a.Acquire(ctx, s.key("lock"), s.options("b", 1))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("acquire when the context has ended: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	ended := make(chan error, 1)
	var group sync.WaitGroup
	defer group.Wait()
	b := s.Open(t)
	group.Go(func() {
		_, err := b.Acquire(ctx, s.key("lock"), s.options("b", 1))
		ended <- err
	})
	coord.Wait(t.Context(), s.Settle/4)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("acquire whose context ends: %v", err)
	}
	s.holders(t, a, "lock", "a")
	if !held(l) {
		t.Error("the lease ended with the context of Acquire")
	}
	release(t, l)
	release(t, s.acquire(t, a, "lock", "c", 1, s.Settle)) // who gave up holds nothing, and stands in nobody's way
}

func testLeaseRenewed(t *testing.T, s *suite) {
	a, b := s.Open(t), s.Open(t)
	l := s.acquire(t, a, "lock", "a", 1, s.Settle)
	ctx, cancel := context.WithTimeout(t.Context(), s.LeaseTTL+s.LeaseLate+s.LeaseTTL/2)
	defer cancel()
	if _, err := b.Acquire(ctx, s.key("lock"), s.options("b", 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a lease that is renewed was given to another one: %v", err)
	}
	if !held(l) {
		t.Error("a lease that could be renewed was lost")
	}
	s.holders(t, b, "lock", "a")
	release(t, l)
}

func testLeaseClosed(t *testing.T, s *suite) {
	a, b := s.Open(t), s.Open(t)
	l := s.acquire(t, a, "lock", "a", 1, s.Settle)
	ok(t, "close", a.Close())
	if held(l) {
		t.Error("Done is not closed after the client was")
	}
	s.refused(t, b, "lock", "b", 1) // closing releases nothing
	release(t, s.acquire(t, b, "lock", "b", 1, s.LeaseTTL+s.LeaseLate+s.Settle))
}

// silent has a holder that cannot renew: it must know before anyone else gets its slot.
func (s *suite) silent(t *testing.T, cut func(*testing.T, coord.Coordinator)) {
	a, b := s.Open(t), s.Open(t)
	l := s.acquire(t, a, "lock", "a", 1, s.Settle)
	other := s.acquire(t, b, "other", "b", 1, s.Settle)
	cut(t, a)
	cutAt := time.Now()
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { // a renewal may have been on its way when the line was cut, not later
		timer := time.NewTimer(s.LeaseTTL + s.Settle/10)
		defer timer.Stop()
		select {
		case <-l.Done():
		case <-timer.C:
			t.Errorf("Done is not closed %v after the last renewal can have been sent", time.Since(cutAt))
		}
	})
	next := s.acquire(t, b, "lock", "b", 1, s.LeaseTTL+s.LeaseLate+s.Settle)
	select {
	case <-l.Done():
	case <-time.After(s.Settle / 20): // so late may a timer be on a busy machine
		t.Error("the next one has the slot, and the silent holder does not know")
	}
	s.holders(t, b, "lock", "b")
	s.Heal(t, a)
	eventually(t, s.Settle, func() string {
		if _, err := a.Holders(call(t), s.key("lock")); err != nil {
			return err.Error()
		}
		return ""
	})
	ok(t, "release of what was lost", l.Release(call(t)))
	s.holders(t, a, "lock", "b")
	if !held(next) || !held(other) {
		t.Error("the release of a lost lease took a slot from another one")
	}
	release(t, next)
	release(t, other)
}

func testLeaseCutOff(t *testing.T, s *suite)  { s.silent(t, s.Partition) }
func testLeaseHanging(t *testing.T, s *suite) { s.silent(t, s.Hang) }

// testLeaseShortCut holds that a gap which is shorter than the TTL costs nothing.
func testLeaseShortCut(t *testing.T, s *suite) {
	a, b := s.Open(t), s.Open(t)
	l := s.acquire(t, a, "lock", "a", 1, s.Settle)
	for range 2 {
		s.Partition(t, a)
		coord.Wait(t.Context(), s.LeaseTTL/4)
		s.Heal(t, a)
		coord.Wait(t.Context(), s.LeaseTTL/2)
	}
	s.refused(t, b, "lock", "b", 1)
	if !held(l) {
		t.Error("the lease was lost though it could be renewed in time")
	}
	release(t, l)
}

func testLeaseLost(t *testing.T, s *suite) {
	a, b := s.Open(t), s.Open(t)
	l := s.acquire(t, a, "lock", "a", 1, s.Settle)
	s.LoseSession(t, a)
	next := s.acquire(t, b, "lock", "b", 1, s.LeaseTTL+s.LeaseLate+s.Settle)
	timer := time.NewTimer(s.LeaseTTL)
	defer timer.Stop()
	select {
	case <-l.Done():
	case <-timer.C:
		t.Fatal("Done is not closed a TTL after the lease was lost")
	}
	ok(t, "release of what was lost", l.Release(call(t)))
	s.holders(t, a, "lock", "b")
	release(t, next)
	release(t, s.acquire(t, a, "lock", "a", 1, s.Settle)) // a new one can be had
}

func testLeaseWaitsForServer(t *testing.T, s *suite) {
	a := s.Open(t)
	s.Partition(t, a)
	got := make(chan error, 1)
	var (
		l     coord.Lease
		group sync.WaitGroup
	)
	defer group.Wait()
	group.Go(func() {
		ctx, cancel := context.WithTimeout(t.Context(), hung)
		defer cancel()
		var err error
		l, err = a.Acquire(ctx, s.key("lock"), s.options("a", 1))
		got <- err
	})
	select {
	case err := <-got:
		t.Fatalf("acquire did not wait for the server: %v", err)
	case <-time.After(s.Settle / 2):
	}
	s.Heal(t, a)
	ok(t, "acquire when the server is back", <-got)
	s.holders(t, a, "lock", "a")
	release(t, l)
}

// testLeaseRestart leaves open whether a lease outlives a server's restart: if its holder
// believes so, nobody else gets one, and if not, the next one does.
func testLeaseRestart(t *testing.T, s *suite) {
	a, b := s.Open(t), s.Open(t)
	l := s.acquire(t, a, "lock", "a", 1, s.Settle)
	s.RestartServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), s.LeaseTTL+s.LeaseLate+s.Settle)
	defer cancel()
	next, err := b.Acquire(ctx, s.key("lock"), s.options("b", 1))
	switch {
	case err == nil && held(l):
		t.Error("two hold one slot after a restart")
	case err != nil && !held(l):
		t.Errorf("nobody holds it, and it cannot be had: %v", err)
	}
	ok(t, "release", l.Release(call(t)))
	if next != nil {
		release(t, next)
	}
	release(t, s.acquire(t, b, "lock", "b", 1, s.Settle))
}

func testLeaseStranger(t *testing.T, s *suite) {
	_, err := s.Stranger(t).Acquire(call(t), s.key("lock"), s.options("x", 1))
	want(t, "acquire", err, coord.ErrUnauthorized)
}
