package sim

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"drover/internal/failover"
)

// member is one instance: its disk, its agent, its server.
type member struct {
	w    *world
	name string
	cfg  failover.Config

	// The disk.
	persisted failover.Persistent
	system    string // of the database; empty: there is none
	replica   bool
	log       []entry
	until     time.Duration // copying, until then
	copying   func()

	server server

	// The agent.
	dead   bool
	asleep time.Duration // until then; the whole instance, or
	agent  bool          // only the agent
	state  failover.State
	obs    failover.Observation
	rev    int
	leads  time.Duration // until then, by the last decision
	writes bool          // a write is under way
	reads  bool
	why    string
}

// server is a process.
type server struct {
	up, stopped bool // stopped: by SIGSTOP
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
}

func (w *world) newMember(name string) *member {
	m := &member{w: w, name: name}
	m.cfg = failover.Config{
		Name: name, Self: failover.Member{Host: name, API: name}, Mode: w.opt.Mode, Acks: w.opt.Acks, TTL: ttl, Missing: ttl,
		Forget: 10 * ttl, Compare: compare,
	}
	m.boot()
	return m
}

func compare(a, b string) (int, bool) {
	x, err1 := strconv.Atoi(a)
	y, err2 := strconv.Atoi(b)
	return cmp.Compare(x, y), err1 == nil && err2 == nil
}

// boot starts the agent anew, with what the disk remembers.
func (m *member) boot() {
	m.dead = false
	m.state = failover.State{Persistent: m.persisted}
	m.obs = failover.Observation{Answers: map[string]failover.Answer{}}
	m.writes, m.reads, m.leads = false, false, 0
}

// crash ends the agent and its server; what is on the disk stays.
func (m *member) crash() {
	m.dead = true
	m.kill()
	m.copying = nil
}

// kill ends the server.
func (m *member) kill() {
	m.server = server{}
}

func (m *member) frozen() bool { return m.dead || m.w.now < m.asleep && !m.agent }

// live is one tick.
func (m *member) live() {
	if m.dead {
		return
	}
	if !m.frozen() {
		m.replicate()
	}
	if m.w.now < m.asleep {
		return
	}
	if m.leads != 0 && m.w.now >= m.leads { // the watchdog
		m.leads = 0
		m.kill()
	}
	if m.copying != nil && m.w.now >= m.until {
		m.copying()
		m.copying = nil
	}
	m.observe()
	state, d := failover.Step(m.cfg, m.state, m.obs, m.w.newID())
	m.state, m.why, m.leads = state, d.Why, d.LeadUntil
	m.exchange(d)
	for _, a := range d.Actions {
		if !m.act(a) {
			break
		}
	}
}

// observe looks at the own server and disk.
func (m *member) observe() {
	s, o := &m.server, &m.obs
	o.Now, o.Busy = m.w.now, m.copying != nil
	o.Disk = &failover.Disk{Empty: m.system == "", System: m.system, Replica: m.replica}
	o.Database, o.Process = nil, failover.Down
	if !s.up {
		return
	}
	o.Process = failover.Starting
	if m.w.now < s.answers || s.stopped {
		if m.w.now >= s.answers {
			o.Process = failover.Up
		}
		return
	}
	o.Process, o.Asked = failover.Up, m.w.now
	db := &failover.Database{
		Primary: s.primary, Received: strconv.Itoa(len(m.log)), Upstream: s.upstream, Open: s.open,
		Set: s.set, Receiving: s.upstream != "" && m.receives() != nil,
		Detached: s.upstream == "" && m.w.now-s.detached > 2*tick,
	}
	for id, at := range s.streaming {
		if m.w.now-at <= 5*tick {
			db.Replicas = append(db.Replicas, failover.Replica{ID: id, Flushed: strconv.Itoa(s.flushed[id]), Streaming: true})
		}
	}
	slices.SortFunc(db.Replicas, func(a, b failover.Replica) int { return cmp.Compare(a.ID, b.ID) })
	o.Database = db
}

// receives is the member that this one's server gets its log from now; nil: nobody.
func (m *member) receives() *member {
	up := m.w.byID(m.server.upstream)
	if up == nil || !up.server.up || up.server.stopped || up.frozen() || !up.server.primary ||
		!m.w.reaches(up.name, m.name) || !m.w.reaches(m.name, up.name) {
		return nil
	}
	if n := len(m.log); n > len(up.log) || !slices.Equal(m.log, up.log[:n]) {
		return nil // its history is another one
	}
	return up
}

// replicate is what the server does by itself.
func (m *member) replicate() {
	s := &m.server
	if !s.up || s.stopped || s.primary || s.upstream == "" || m.w.now < s.answers {
		return
	}
	up := m.receives()
	if up == nil {
		return
	}
	if n := m.w.rng.IntN(4); len(m.log)+n <= len(up.log) {
		m.log = append(slices.Clone(m.log), up.log[len(m.log):len(m.log)+n]...)
	}
	id, have, run := m.persisted.ID, len(m.log), &up.server
	since := up.server.since
	m.w.send(m.name, up.name, func() {
		if run.since == since && run.flushed != nil {
			run.flushed[id], run.streaming[id] = max(run.flushed[id], have), m.w.now
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
		if have < s.set.Acks {
			return
		}
		s.waiting, s.visible = s.waiting[1:], max(s.visible, n)
		m.w.ack(m, m.log[n-1].value)
	}
}

func (w *world) byID(id string) *member {
	for _, m := range w.all {
		if m.persisted.ID == id && id != "" {
			return m
		}
	}
	return nil
}

// exchange reads the record, beats, and asks others.
func (m *member) exchange(d failover.Decision) {
	w := m.w
	if !m.reads && w.rng.IntN(3) == 0 {
		m.reads = true
		m.read()
	}
	if d.Beat != 0 && w.rng.IntN(4) == 0 {
		sent, epoch := w.now, d.Beat
		w.send(m.name, "store", func() {
			w.store.beats[epoch]++
			w.send("store", m.name, func() {
				if sent > m.obs.Beaten || m.obs.BeatenEpoch != epoch {
					m.obs.Beaten, m.obs.BeatenEpoch = sent, epoch
				}
			})
		})
	}
	if w.rng.IntN(3) != 0 {
		return
	}
	for _, id := range d.Ask {
		if to := w.byID(id); to != nil {
			m.askOne(to, d.Beat)
		}
	}
}

func (m *member) read() {
	w, sent := m.w, m.w.now
	w.mail = append(w.mail, letter{w.now + 10*tick, m.name, m.name, func() { m.reads = false }}) // a timeout
	w.send(m.name, "store", func() {
		r, rev := w.store.record, w.store.revision
		if w.store.older != nil && w.rng.IntN(20) == 0 {
			r, rev = w.store.older, -1 // stale; a write upon it will fail
		}
		var beat uint64
		if r != nil {
			beat = w.store.beats[r.Epoch]
		}
		w.send("store", m.name, func() {
			if sent <= m.obs.Sent || m.dead {
				return
			}
			m.obs.Known, m.obs.Record, m.obs.Beat, m.rev = true, r, beat, rev
			m.obs.Sent, m.obs.Got = sent, w.now
			m.reads = false
		})
	})
}

func (m *member) askOne(to *member, leads uint64) {
	w, sent := m.w, m.w.now
	w.send(m.name, to.name, func() {
		if to.dead || w.now < to.asleep {
			return
		}
		if leads != 0 && leads == to.persisted.Epoch {
			to.obs.Alive, to.obs.AliveEpoch = w.now, leads
		}
		to.observe()
		a := to.state.Answer(to.persisted.Epoch, to.obs)
		w.send(to.name, m.name, func() {
			a.Sent, a.Got = sent, w.now
			if old, ok := m.obs.Answers[a.ID]; !m.dead && (!ok || old.Sent < a.Sent) {
				m.obs.Answers[a.ID] = a
			}
		})
	})
}

// act carries out one action; false: those after it are left out.
func (m *member) act(a failover.Action) bool {
	s := &m.server
	if _, kill := a.(failover.Kill); m.copying != nil && !kill {
		if _, ok := a.(failover.Persist); !ok {
			if _, ok := a.(failover.Write); !ok {
				return false
			}
		}
	}
	switch a := a.(type) {
	case failover.Persist:
		m.persisted = a.Persistent
	case failover.Write:
		m.write(a.Record)
	case failover.Kill:
		m.w.trace("%s is killed: %s", m.name, a.Reason)
		m.kill()
	case failover.Stop:
		m.stop()
	case failover.Init, failover.Restore:
		m.during(10, func() { m.system, m.log, m.replica = "db", nil, false })
	case failover.Clone:
		return m.copy(a.From, a.ID)
	case failover.Rewind:
		return m.copy(a.From, a.ID)
	case failover.Start:
		m.start(a)
	case failover.Follow:
		if a.Upstream == "" {
			s.detached = m.w.now
		}
		s.upstream = a.Upstream
	case failover.Synchronize:
		if !s.set.Equal(a.Set) {
			m.w.trace("%s waits for %v", m.name, a.Set)
		}
		s.set = a.Set
		m.state = m.state.Synchronized(strconv.Itoa(len(m.log)))
	case failover.Promote:
		m.promote()
	case failover.Admit:
		if a.Clients && !s.open {
			m.w.trace("%s admits clients in epoch %d, set %v", m.name, m.persisted.Led, s.set)
			m.w.complete(m)
		}
		s.open = a.Clients
	}
	return true
}

func (m *member) during(ticks int, do func()) {
	m.until = m.w.now + time.Duration(ticks+m.w.rng.IntN(10))*tick
	m.copying = do
}

// copy has the files replaced by those of a primary.
func (m *member) copy(from, id string) bool {
	if up := m.w.byID(from); up == nil || !up.server.up || !up.server.primary || up.frozen() || !m.w.reaches(up.name, m.name) {
		return false
	}
	m.kill()
	m.system, m.log = "", nil // until it is whole
	m.during(20, func() {
		up := m.w.byID(from)
		if up == nil || !up.server.up || !up.server.primary || up.frozen() || !m.w.reaches(up.name, m.name) {
			return
		}
		m.w.trace("%s is a copy of %s", m.name, up.name)
		m.system, m.log, m.replica = up.system, slices.Clone(up.log), true
		m.state = m.state.Renewed(id)
		m.persisted = m.state.Persistent
	})
	return false
}

func (m *member) start(a failover.Start) {
	m.server = server{
		up: true, since: m.w.now, answers: m.w.now + time.Duration(5+m.w.rng.IntN(20))*tick, primary: !a.Standby && !m.replica,
		upstream: a.Upstream, detached: m.w.now, set: a.Set, visible: len(m.log),
		flushed: map[string]int{}, streaming: map[string]time.Duration{},
	}
	if a.Standby {
		m.replica = true
	}
	if !a.Standby && m.replica {
		m.w.fail("%s: the files of a replica are started as a primary", m.name)
	}
}

func (m *member) promote() {
	s := &m.server
	if s.primary {
		return
	}
	m.w.trace("%s is promoted in epoch %d with %d entries, set %v", m.name, m.persisted.Led, len(m.log), s.set)
	s.primary, m.replica, s.upstream, s.visible = true, false, "", len(m.log)
	s.flushed, s.streaming, s.waiting = map[string]int{}, map[string]time.Duration{}, nil
}

// stop ends the server in order: those that receive from it have all of it.
func (m *member) stop() {
	for _, other := range m.w.all {
		if other.server.up && !other.frozen() && !other.server.stopped && m.server.primary && other.receives() == m {
			other.log = slices.Clone(m.log)
		}
	}
	m.w.trace("%s stops", m.name)
	m.kill()
}

// write asks the coordinator to replace the record.
func (m *member) write(r *failover.Record) {
	if m.writes {
		return
	}
	m.writes = true
	w, rev, wanted := m.w, m.rev, r.Clone()
	absent := m.obs.Record == nil
	w.mail = append(w.mail, letter{w.now + 10*tick, m.name, m.name, func() { m.writes = false }})
	w.send(m.name, "store", func() {
		s := &w.store
		if absent && s.record == nil || !absent && rev == s.revision {
			w.trace("%s writes: epoch %d %s primary %s candidate %s set %v", m.name, wanted.Epoch, wanted.Phase, wanted.Primary, wanted.Candidate, wanted.Set)
			s.older, s.record = s.record, wanted
			s.revision++
		}
		w.send("store", m.name, func() { m.writes = false })
	})
}
