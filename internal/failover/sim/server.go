package sim

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"drover/internal/failover"
)

// entry is one commit in a log: which value, and which primary's it is.
type entry struct {
	value int
	epoch uint64
	chain uint64 // of it and all before it: logs with the same are the same up to here
}

// streams is how long a replica counts as streaming after it was heard of.
const streams = 5 * tick

// server is a process.
type server struct {
	up, stopped bool // stopped: by SIGSTOP
	id          string
	since       time.Duration
	answers     time.Duration // when it begins to
	primary     bool
	open        bool
	upstream    string // ID
	detached    time.Duration
	set         failover.SyncSet
	flushed     map[string]int // what replicas have told
	streaming   map[string]time.Duration
	waiting     []int // lengths of the log that clients wait for
	visible     int   // so much of the log can be read
	shown       int   // and has been
}

// running reports whether it does anything.
func (s *server) running() bool { return s.up && !s.stopped }

// append adds a commit, or an entry that is the database's own affair, to the log.
func (m *member) append(epoch uint64) {
	w := m.w
	e := entry{len(w.acked), epoch, uint64(len(w.acked)) + 1}
	w.acked, w.seen = append(w.acked, 0), append(w.seen, false)
	if n := len(m.log); n > 0 {
		e.chain = (m.log[n-1].chain ^ e.chain) * 0x9e3779b97f4a7c15
	}
	m.log = append(m.log, e)
}

// follows reports whether the log is a beginning of the other one.
func (m *member) follows(up *member) bool {
	n := len(m.log)
	return n == 0 || n <= len(up.log) && m.log[n-1].chain == up.log[n-1].chain
}

// receives is the member that this one's server gets its log from now; nil: nobody.
func (m *member) receives() *member {
	up := m.w.byID(m.server.upstream)
	if up == nil || !up.server.running() || up.frozen() || !up.server.primary && m.cfg.Self.Tags.ReplicateFrom != up.name || up.server.id != m.server.upstream ||
		!m.w.reaches(up.name, m.name) || !m.w.reaches(m.name, up.name) || !m.follows(up) {
		return nil
	}
	return up
}

// serve is what the server does by itself.
func (m *member) serve() {
	s := &m.server
	if !s.running() {
		return
	}
	if m.w.rng.IntN(m.slow) == 0 {
		m.durable = len(m.log)
	}
	if s.primary || s.upstream == "" || m.w.now < s.answers {
		return
	}
	up := m.receives()
	if up == nil {
		return
	}
	if n := min(m.w.rng.IntN(4), up.durable-len(m.log)); n > 0 && m.w.rng.IntN(m.pace) == 0 {
		m.log = append(m.log, up.log[len(m.log):len(m.log)+n]...)
	}
	id, have, run, since := s.id, m.durable, &up.server, up.server.since
	m.w.send(m.name, up.name, func() {
		if run.since != since || run.flushed == nil {
			return
		}
		run.flushed[id] = max(run.flushed[id], have)
		if at, once := run.streaming[id]; once && m.w.now-at <= streams || have >= up.durable-3 { // it has caught up once
			run.streaming[id] = m.w.now
		}
	})
}

// acknowledge answers clients whose commits enough replicas have.
func (m *member) acknowledge() {
	s := &m.server
	for len(s.waiting) > 0 {
		n, have := s.waiting[0], 0
		for _, id := range s.set.Members {
			if s.flushed[id] >= n {
				have++
			}
		}
		if have < s.set.Acks || m.durable < n {
			return
		}
		s.waiting, s.visible = s.waiting[1:], max(s.visible, n)
		m.w.ack(m, m.log[n-1].value)
	}
}

// status is what the server says of itself; nil: nothing.
func (m *member) status() *failover.Database {
	s := &m.server
	if !s.running() || m.w.now < s.answers {
		return nil
	}
	db := &failover.Database{
		Primary: s.primary, Received: strconv.Itoa(m.durable), Upstream: s.upstream, Open: s.open,
		Set: s.set, Receiving: s.upstream != "" && m.receives() != nil,
		Detached: s.upstream == "" && m.w.now-s.detached > 2*tick,
	}
	if m.full {
		db.Incident = "the disk is full"
	}
	for id, at := range s.streaming {
		if m.w.now-at <= streams {
			db.Replicas = append(db.Replicas, failover.Replica{ID: id, Flushed: strconv.Itoa(s.flushed[id]), Streaming: true})
		}
	}
	slices.SortFunc(db.Replicas, func(a, b failover.Replica) int { return cmp.Compare(a.ID, b.ID) })
	return db
}

// start starts the server.
func (m *member) start(a failover.Start) {
	if m.torn {
		m.w.fail("%s: files that another copy has replaced a part of are started", m.name)
	}
	if !a.Standby && m.replica {
		m.w.fail("%s: the files of a replica are started as a primary", m.name)
	}
	m.replica = m.replica || a.Standby
	if m.broken {
		return
	}
	m.durable = len(m.log)
	m.server = server{
		up: true, id: m.persisted.ID, since: m.w.now, answers: m.w.now + time.Duration(5+m.w.rng.IntN(20))*tick, primary: !a.Standby,
		upstream: a.Upstream, detached: m.w.now, set: a.Set, visible: len(m.log),
		flushed: map[string]int{}, streaming: map[string]time.Duration{},
	}
}

// promote ends recovery: the history is another one from here, which begins with an entry of its own.
func (m *member) promote() {
	s := &m.server
	if s.primary {
		return
	}
	m.w.trace("%s is promoted in epoch %d with %d entries, set %v", m.name, m.persisted.Led, len(m.log), s.set)
	s.primary, s.open, m.replica, s.upstream, s.visible = true, false, false, "", len(m.log)
	m.append(m.persisted.Led)
	m.durable = len(m.log)
	s.flushed, s.streaming, s.waiting = map[string]int{}, map[string]time.Duration{}, nil
}

// stop ends the server in order: those that receive from it have all of it.
func (m *member) stop() {
	m.durable = len(m.log)
	for _, other := range m.w.all {
		if other.server.running() && !other.frozen() && m.server.primary && other.receives() == m {
			other.log = append(other.log, m.log[len(other.log):]...)
			other.durable = len(other.log)
		}
	}
	m.w.trace("%s stops", m.name)
	m.kill()
}

// kill ends the server.
func (m *member) kill() { m.server = server{} }
