package databasetest

import (
	"syscall"

	"drover/internal/failover"
)

func set(acks int, members ...*member) failover.SyncSet {
	s := failover.SyncSet{Acks: acks}
	for _, m := range members {
		s.Members = append(s.Members, m.id)
	}
	return s
}

func (m *member) synchronize(s failover.SyncSet) string {
	m.c.Helper()
	at, err := m.Synchronize(m.c.ctx(), s)
	m.c.must(err)
	return at
}

// behind says that a is not further than b in the same history.
func (c *cluster) behind(a, b string) bool {
	order, ok := c.members[0].Compare(a, b)
	return ok && order <= 0
}

// reign is a primary's: it is made, gets replicas, is fenced, and comes back as a replica.
func reign(c *cluster) {
	a, b, d := c.members[0], c.members[1], c.members[2]
	a.found()
	c.slots(a)
	b.join(a)
	d.join(a)
	a.append("1")
	b.shows("1")
	acknowledging(c, a, b, d)
	fencing(c, a, b)
	promoting(c, a, b, d)
}

// acknowledging: commits wait for those that are to acknowledge, and for no others.
func acknowledging(c *cluster, a, b, d *member) {
	c.Helper()
	at := a.synchronize(set(1, b))
	c.until("the replica has what was before", func() (bool, any) {
		s := a.status()
		for _, r := range s.Replicas {
			if r.ID == b.id && r.Streaming && c.behind(at, r.Flushed) {
				return s.Set.Equal(set(1, b)), s
			}
		}
		return false, s
	})
	a.append("2")
	b.process.Signal(syscall.SIGSTOP)
	waiting := a.attempt("3")
	c.hangs("a commit that a frozen replica should acknowledge", waiting)
	a.synchronize(set(1, d))
	c.ends("a commit that another replica acknowledges", waiting)
	b.process.Signal(syscall.SIGCONT)
	b.receives(a)
	a.synchronize(set(2, b, d))
	a.append("4")
	a.synchronize(set(0))
	a.append("5")
	nobody := a.synchronize(failover.SyncSet{Acks: 1})
	waiting = a.attempt("6")
	c.hangs("a commit that nobody may acknowledge", waiting)
	if s := a.status(); !c.behind(nobody, s.Received) || s.Set.Acks != 1 {
		c.Fatalf("the set was in effect at %s: %+v", nobody, s)
	}
	a.synchronize(set(1, b, d))
	c.ends("a commit that others acknowledge now", waiting)
}

// fencing: who is detached receives nothing any more, not even after a restart.
func fencing(c *cluster, a, b *member) {
	c.Helper()
	a.synchronize(set(1, b))
	c.must(b.Follow(c.ctx(), nil))
	at := b.detached()
	waiting := a.attempt("7")
	c.hangs("a commit that a detached replica should acknowledge", waiting)
	if s := b.status(); !s.Detached || s.Upstream != "" || s.Receiving || !c.behind(s.Received, at.Received) {
		c.Fatalf("a detached replica was at %+v, and is at %+v", at, s)
	}
	b.kill()
	b.start()
	again := b.detached()
	c.hangs("the same, after the replica was killed", waiting)
	if !c.behind(again.Received, at.Received) {
		c.Fatalf("a detached replica was at %s, and after a restart at %s", at.Received, again.Received)
	}
	p := a.peer()
	c.must(b.Follow(c.ctx(), &p))
	b.receives(a)
	c.ends("a commit whose replica follows again", waiting)
}

// promoting: of an unacknowledged tail nothing is left, wherever it was.
func promoting(c *cluster, a, b, d *member) {
	c.Helper()
	times := c.clock()
	for _, m := range []*member{b, d} {
		c.must(m.Follow(c.ctx(), nil))
	}
	if !c.behind(d.detached().Received, b.detached().Received) {
		b, d = d, b // the one that was cut off later may have more
	}
	times("detach")
	tail := a.attempt("lost")
	c.hangs("a commit on a fenced primary", tail)
	a.kill()
	<-tail //nolint:errcheck // it has ended, that is all
	times = c.clock()
	b.synchronize(set(1, d))
	times("synchronize")
	c.must(b.Promote(c.ctx()))
	times("promote")
	if s := b.status(); !s.Primary || s.Open || !s.Set.Equal(set(1, d)) || !c.behind(d.status().Received, s.Received) {
		c.Fatalf("promoted: %+v, and the other replica: %+v", s, d.status())
	}
	if s := b.status(); !c.behind(s.Began, d.status().Received) || !c.behind(s.Began, s.Received) {
		c.Fatalf("its history began at %q, where that of %s ended", s.Began, d.status().Received)
	}
	if _, err := c.Session(c.ctx(), b.n); err == nil {
		c.Fatal("a client is admitted to a primary that is closed")
	}
	c.slots(b)
	p := b.peer()
	times = c.clock()
	c.must(d.Follow(c.ctx(), &p))
	d.receives(b)
	times("follow")
	c.must(b.Admit(c.ctx(), true))
	times("admit")
	b.append("8")
	b.shows("1", "2", "3", "4", "5", "6", "7", "8")

	c.must(a.Rewind(c.ctx(), p))
	a.follow(b)
	b.synchronize(set(2, a, d))
	b.append("9")
	a.shows("1", "2", "3", "4", "5", "6", "7", "8", "9")
	if order, ok := c.members[2].Compare(a.status().Received, b.status().Received); !ok || order > 0 {
		c.Fatalf("a rewound replica is at %+v, its primary at %+v", a.status(), b.status())
	}
}
