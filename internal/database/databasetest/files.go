package databasetest

import (
	"context"
	"errors"
	"syscall"
	"time"

	"drover/internal/database"
	"drover/internal/failover"
)

// disk looks at the files and fails the test if they are not what they should be.
func (m *member) disk(empty bool) failover.Disk {
	m.c.Helper()
	d, err := m.Disk(m.c.ctx())
	m.c.must(err)
	if d.Empty != empty || d.Empty == (d.System != "") {
		m.c.Fatalf("the files of member %d: %+v, want empty: %v", m.n, d, empty)
	}
	return d
}

// renew is a new agent in the place of one that died.
func (m *member) renew() {
	_ = m.Close()
	m.Driver = m.c.Driver(m.n)
}

// interrupted has something ended in the middle, its agent with it, a little later each time, until it comes
// to its end. Between, there is nothing.
func (m *member) interrupted(do func(context.Context) error) {
	m.c.Helper()
	for after := 20 * time.Millisecond; ; after *= 2 {
		ctx, cancel := context.WithTimeout(m.c.ctx(), after)
		err := do(ctx)
		cut := ctx.Err() != nil
		cancel()
		m.renew()
		switch {
		case err == nil:
			m.disk(false)
			return
		case !cut:
			m.c.Fatal(err)
		}
		m.disk(true)
	}
}

// files: what is half made is none, and what is whole is not lost.
func files(c *cluster) {
	a, b := c.members[0], c.members[1]
	a.disk(true)
	a.interrupted(a.Driver.Init)
	system := a.disk(false).System
	if err := a.Init(c.ctx()); err == nil {
		c.Fatal("a database was made over one")
	}
	a.configure(database.Configuration{})
	a.start()
	c.must(a.Admit(c.ctx(), true))
	a.append("1")
	if _, err := b.Status(c.ctx()); !errors.Is(err, database.ErrNotRunning) {
		c.Errorf("the status of nothing: %v", err)
	}
	b.interrupted(func(ctx context.Context) error { return b.Clone(ctx, a.peer()) })
	if d := b.disk(false); d.System != system {
		c.Fatalf("a copy says that it is %s, of %s", d.System, system)
	}
	if err := b.Configure(c.ctx(), database.Configuration{ID: b.id}); err == nil {
		b.start()
		if b.status().Primary {
			c.Fatal("a copy became a primary by itself")
		}
	}
	c.slots(a)
	b.follow(a)
	b.shows("1")
	b.kill()
	ctx, cancel := context.WithCancel(c.ctx())
	cancel()
	if err := b.Clone(ctx, a.peer()); err == nil {
		c.Fatal("a copy was made in no time")
	}
	b.disk(true) // it is being replaced
	incarnations(c, a, b)
}

// incarnations: a copy does not acknowledge for the one that was there before.
func incarnations(c *cluster, a, b *member) {
	c.Helper()
	before := b.id
	a.synchronize(failover.SyncSet{Members: []string{before}, Acks: 1})
	b.id = "m1-b"
	c.slots(a)
	b.join(a)
	waiting := a.attempt("2")
	c.hangs("a commit that an earlier copy should acknowledge", waiting)
	for _, r := range a.status().Replicas {
		if r.ID == before {
			c.Errorf("a replica is known by an earlier name: %+v", r)
		}
	}
	a.synchronize(set(1, b))
	c.ends("a commit that the new copy acknowledges", waiting)
	if err := b.Promote(c.ctx()); err == nil {
		c.Error("a replica was promoted that was not detached")
	}
	b.kill()
	if _, err := b.Status(c.ctx()); !errors.Is(err, database.ErrNotRunning) {
		c.Errorf("a killed server's status: %v", err)
	}
	c.must(b.Rewind(c.ctx(), a.peer())) // which is not needed
	b.follow(a)
	b.shows("1", "2")
}

// closing: a closed primary has no clients but keeps its replicas, and one that is stopped keeps nothing for itself.
func closing(c *cluster) {
	a, b := c.members[0], c.members[1]
	a.found()
	c.slots(a)
	b.join(a)
	client := a.session()
	c.must(client.Append(c.ctx(), "1"))
	c.must(a.Admit(c.ctx(), false))
	if _, err := client.Rows(c.ctx()); err == nil {
		c.Error("a session goes on although the server is closed")
	}
	if s, err := c.Session(c.ctx(), a.n); err == nil {
		s.Close()
		c.Error("a client is admitted although the server is closed")
	}
	b.sees("still receiving", func(s failover.Database) bool { return s.Receiving })
	if s := a.status(); s.Open {
		c.Errorf("a closed server says that it is open: %+v", s)
	}
	a.renew()
	c.must(a.Admit(c.ctx(), true))
	busy := a.session()
	ctx, cancel := context.WithCancel(c.ctx())
	done := make(chan error, 1)
	go func() { // until the server ends it
		defer busy.Close()
		for {
			if err := busy.Append(ctx, "more"); err != nil {
				done <- err
				return
			}
		}
	}()
	b.sees("ahead", func(s failover.Database) bool { return s.Receiving })
	c.must(a.Stop(c.ctx()))
	a.stopped()
	<-done //nolint:errcheck // it has ended, that is all
	cancel()
	c.must(b.Follow(c.ctx(), nil))
	end := b.detached().Received
	c.must(b.Promote(c.ctx()))
	c.slots(b)
	c.must(a.Rewind(c.ctx(), b.peer()))
	a.configure(database.Configuration{Standby: true})
	a.start()
	if at := a.detached().Received; !c.behind(at, end) {
		c.Errorf("the primary ended at %s, and its replica has only %s", at, end)
	}
	p := b.peer()
	c.must(a.Follow(c.ctx(), &p))
	a.receives(b)
}

// ahead: a replica that has more than the new primary loses it, and follows.
func ahead(c *cluster) {
	a, b, d := c.members[0], c.members[1], c.members[2]
	a.found()
	c.slots(a)
	b.join(a)
	d.join(a)
	a.append("1")
	b.shows("1")
	c.must(b.Follow(c.ctx(), nil))
	at := b.detached().Received
	c.slots(b) // so that others find what they need at once
	a.append("lost")
	d.shows("1", "lost")
	more := d.status().Received
	if order, ok := d.Compare(at, more); !ok || order >= 0 {
		c.Fatalf("%s is compared with %s: %d, %v", at, more, order, ok)
	}
	a.process.Signal(syscall.SIGKILL)
	a.kill()
	c.must(b.Promote(c.ctx()))
	c.must(b.Admit(c.ctx(), true))
	b.append("2")
	if order, ok := d.Compare(b.status().Received, more); ok {
		c.Fatalf("%s and %s, neither of which has what the other has, are compared: %d", b.status().Received, more, order)
	}
	d.kill()
	c.must(d.Rewind(c.ctx(), b.peer()))
	d.follow(b)
	d.shows("1", "2")
	p := b.peer()
	a.configure(database.Configuration{Standby: true}) // what is not yet rewound is started, as after a loss of everything
	a.start()
	a.detached()
	a.kill()
	c.must(a.Rewind(c.ctx(), p))
	a.follow(b)
	a.shows("1", "2")
}
