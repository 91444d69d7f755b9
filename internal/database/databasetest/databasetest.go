// Package databasetest holds drivers to database.Driver's contract, on real servers.
//
// Run promises that a driver which passes makes, copies, fences, promotes and rewinds as package failover takes
// for granted. It leaves the processes of a member to be started and killed to itself, and everything that
// only one engine has to that engine's own tests.
package databasetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"drover/internal/database"
	"drover/internal/failover"
)

// Engine is what the suite needs of one.
type Engine interface {
	// Driver is a new one for the n-th member of a test: the second time, for the same files, as after an agent's death.
	Driver(n int) database.Driver
	// Peer is where the member listens.
	Peer(n int) (host string, port int)
	// User runs the servers; nil: as the test.
	User() *syscall.Credential
	// Session opens one of a client's, over the network.
	Session(ctx context.Context, n int) (Session, error)
}

// Maker is what an engine may be able to do besides.
type Maker interface {
	// Make makes the n-th member's files a new database's, as its driver's Init has made one before, in less time.
	Make(n int) error
}

// Session is a client's.
type Session interface {
	// Append makes a row; it returns when that was acknowledged.
	Append(ctx context.Context, row string) error
	// Rows are all rows, in order. None, if there is no table yet.
	Rows(ctx context.Context) ([]string, error)
	Close()
}

// Run runs the suite. engine makes an engine with members of its own.
func Run(t *testing.T, engine func(t *testing.T) Engine) {
	for name, story := range map[string]func(*cluster){
		"reign":   reign,
		"files":   files,
		"closing": closing,
		"ahead":   ahead,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			story(newCluster(t, engine(t)))
		})
	}
}

// patience is how long anything may take on a busy machine.
const patience = time.Minute

// cluster is some members in one test.
type cluster struct {
	*testing.T
	Engine
	members []*member
}

func newCluster(t *testing.T, e Engine) *cluster {
	c := &cluster{T: t, Engine: e}
	for n := range 3 {
		c.members = append(c.members, &member{c: c, n: n, id: fmt.Sprintf("m%d-a", n)})
	}
	for _, m := range c.members {
		m.Driver = e.Driver(m.n)
		t.Cleanup(func() {
			m.kill()
			_ = m.Close()
		})
	}
	return c
}

func (c *cluster) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// ctx ends when nothing can be waited for any more.
func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	c.Cleanup(cancel)
	return ctx
}

// until waits for a condition, which says what it saw.
func (c *cluster) until(what string, holds func() (bool, any)) {
	c.Helper()
	ctx := c.ctx()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, saw := holds()
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			c.Fatalf("it does not come to pass that %s; last seen: %+v", what, saw)
		case <-tick.C:
		}
	}
}

// clock says how long the steps of a failover take. What they may take is not judged: the machine is busy with other things.
func (c *cluster) clock() func(step string) {
	begin := time.Now()
	return func(step string) {
		c.Logf("%s: %s", step, time.Since(begin).Round(time.Millisecond))
		begin = time.Now()
	}
}

// member is one with its files and, at times, its server.
type member struct {
	database.Driver
	c       *cluster
	n       int
	id      string
	process *Process
}

func (m *member) peer() database.Peer {
	host, port := m.c.Peer(m.n)
	return database.Peer{Name: fmt.Sprintf("member %d", m.n), ID: m.id, Host: host, Port: port}
}

// start starts the server as it is configured and waits until it answers.
func (m *member) start() {
	m.c.Helper()
	m.process = Start(m.c, m.Command(), m.c.User())
	m.c.until("the server answers", func() (bool, any) {
		_, err := m.Status(m.c.ctx())
		if err != nil && !errors.Is(err, database.ErrNotRunning) {
			return false, err
		}
		if m.process.Ended() {
			m.c.Fatalf("the server ended: %s", m.process.Said())
		}
		return err == nil, err
	})
}

func (m *member) configure(c database.Configuration) {
	m.c.Helper()
	c.ID = m.id
	m.c.must(m.Configure(m.c.ctx(), c))
}

// kill ends the server like a loss of power, as far as a process can, and waits until nothing of it is left.
func (m *member) kill() {
	if m.process != nil {
		m.process.Kill()
		m.process = nil
	}
}

// stopped waits until a server has ended that was told to.
func (m *member) stopped() {
	m.c.Helper()
	m.c.until("the server ends", func() (bool, any) { return m.process.Ended(), m.process.Said() })
	m.process = nil
}

func (m *member) status() failover.Database {
	m.c.Helper()
	s, err := m.Status(m.c.ctx())
	m.c.must(err)
	return s
}

// sees waits for a status.
func (m *member) sees(what string, holds func(failover.Database) bool) failover.Database {
	m.c.Helper()
	var s failover.Database
	m.c.until(fmt.Sprintf("member %d is %s", m.n, what), func() (bool, any) {
		var err error
		s, err = m.Status(m.c.ctx())
		return err == nil && holds(s), fmt.Sprintf("%+v %v", s, err)
	})
	return s
}

func (m *member) detached() failover.Database {
	m.c.Helper()
	return m.sees("detached, and knows how far it is", func(s failover.Database) bool { return s.Detached && s.Received != "" })
}

func (m *member) receives(from *member) failover.Database {
	m.c.Helper()
	return m.sees("receiving", func(s failover.Database) bool { return s.Receiving && s.Upstream == from.id })
}

// found makes the first primary, open to clients.
func (m *member) found() {
	m.c.Helper()
	if maker, ok := m.c.Engine.(Maker); ok {
		m.c.must(maker.Make(m.n))
	} else {
		m.c.must(m.Init(m.c.ctx()))
	}
	m.configure(database.Configuration{})
	m.start()
	m.c.must(m.Admit(m.c.ctx(), true))
}

// join makes a replica of another member.
func (m *member) join(source *member) {
	m.c.Helper()
	m.c.must(m.Clone(m.c.ctx(), source.peer()))
	m.follow(source)
}

// follow starts the server as a replica.
func (m *member) follow(source *member) {
	m.c.Helper()
	p := source.peer()
	m.configure(database.Configuration{Standby: true, Upstream: &p})
	m.start()
	m.receives(source)
	m.c.must(m.Admit(m.c.ctx(), true))
}

func (m *member) session() Session {
	m.c.Helper()
	var s Session
	m.c.until("a client is admitted", func() (bool, any) {
		var err error
		s, err = m.c.Session(m.c.ctx(), m.n)
		return err == nil, err
	})
	m.c.Cleanup(s.Close)
	return s
}

// append is a client that writes a row and waits for it.
func (m *member) append(row string) {
	m.c.Helper()
	s := m.session()
	m.c.must(s.Append(m.c.ctx(), row))
	s.Close()
}

// attempt is a client that writes a row; the channel tells its end.
func (m *member) attempt(row string) <-chan error {
	m.c.Helper()
	s := m.session()
	ctx := m.c.ctx()
	done := make(chan error, 1)
	go func() {
		defer s.Close()
		done <- s.Append(ctx, row)
	}()
	return done
}

// shows waits until a client sees these rows.
func (m *member) shows(rows ...string) {
	m.c.Helper()
	s := m.session()
	defer s.Close()
	m.c.until(fmt.Sprintf("member %d has the rows %v", m.n, rows), func() (bool, any) {
		have, err := s.Rows(m.c.ctx())
		return err == nil && slices.Equal(have, rows), fmt.Sprint(have, err)
	})
}

// hangs fails the test if something ends that cannot, as far as a second shows.
func (c *cluster) hangs(what string, done <-chan error) {
	c.Helper()
	select {
	case err := <-done:
		c.Fatalf("%s: it ended: %v", what, err)
	case <-time.After(time.Second):
	}
}

func (c *cluster) ends(what string, done <-chan error) {
	c.Helper()
	select {
	case err := <-done:
		if err != nil {
			c.Fatalf("%s: %v", what, err)
		}
	case <-c.ctx().Done():
		c.Fatalf("%s: it does not end", what)
	}
}

func (c *cluster) slots(m *member) {
	c.Helper()
	var peers []database.Peer
	for _, o := range c.members {
		peers = append(peers, o.peer())
	}
	c.must(m.Replicas(c.ctx(), peers))
}
