package sim

import (
	"cmp"
	"strconv"
	"time"

	"drover/internal/failover"
)

// member is one instance: its disk, its agent, its server. The agent does what package database
// does: the server is asked, and things are done, beside the steps, and both take time.
type member struct {
	w    *world
	name string
	cfg  failover.Config
	rate int64 // of its clock, in thousandths

	// The disk.
	persisted failover.Persistent
	system    string // of the database; empty: there is none
	replica   bool
	torn      bool // something replaced a part of the files
	log       []entry
	durable   int // so much of the log survives a loss of power
	slow      int // how slow the disk is
	pace      int // how slowly it receives
	full      bool
	broken    bool // no server can be started from it

	server server

	off    bool // the instance does not run
	dead   bool // the agent does not; the server may
	asleep time.Duration
	agent  bool // only the agent sleeps

	// The agent.
	life   int
	state  failover.State
	obs    failover.Observation
	rev    int
	leads  time.Duration // until then, by the last decision
	writes bool          // a write is under way
	reads  bool
	polls  bool
	hands  []failover.Action // under way; the first one until
	until  time.Duration
	why    string
}

func (w *world) newMember(name string) *member {
	m := &member{w: w, name: name, slow: 1 + w.rng.IntN(3), pace: 1, rate: 970 + w.rng.Int64N(61)}
	m.cfg = failover.Config{
		Name: name, Self: failover.Member{Host: name, API: name}, Mode: w.opt.Mode, Acks: w.opt.Acks, TTL: ttl, Missing: ttl,
		Forget: 10 * ttl, Compare: compare,
	}
	if w.opt.Relay && len(w.all) == w.opt.Members-1 {
		m.cfg.Self.Tags.ReplicateFrom = w.all[len(w.all)-1].name
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
	m.off, m.dead = false, false
	m.life++
	m.state = failover.State{Persistent: m.persisted}
	m.obs = failover.Observation{Answers: map[string]failover.Answer{}}
	m.writes, m.reads, m.polls, m.leads, m.hands = false, false, false, 0, nil
}

// crash ends the agent and its server; what is on the disk stays, all or what was flushed.
func (m *member) crash(power bool) {
	m.off, m.dead = true, true
	m.kill()
	m.hands = nil
	if power {
		m.log = m.log[:m.durable]
	}
}

func (m *member) frozen() bool { return m.off || m.w.now < m.asleep && !m.agent }

// clock is the member's own.
func (m *member) clock() time.Duration { return m.w.now / 1000 * time.Duration(m.rate) }

// live is one tick.
func (m *member) live() {
	if m.frozen() {
		return
	}
	m.serve()
	if m.dead || m.w.now < m.asleep {
		return
	}
	if m.leads != 0 && m.clock() >= m.leads { // the watchdog
		m.leads = 0
		m.w.trace("%s: the watchdog kills its server", m.name)
		m.kill()
	}
	m.work()
	m.poll()
	o := &m.obs
	o.Now, o.Busy, o.Process = m.clock(), m.hands != nil, m.process()
	if o.Process == failover.Down {
		o.Database = nil
	}
	o.Disk = &failover.Disk{Empty: m.system == "", System: m.system, Replica: m.replica}
	state, d := failover.Step(m.cfg, m.state, m.obs, m.w.newID())
	m.state, m.why, m.leads = state, d.Why, d.LeadUntil
	m.exchange(d)
	m.act(d)
}

func (m *member) process() failover.Process {
	switch {
	case !m.server.up:
		return failover.Down
	case m.w.now < m.server.answers:
		return failover.Starting
	}
	return failover.Up
}

// poll asks the server how it is.
func (m *member) poll() {
	if m.polls {
		return
	}
	m.polls = true
	asked, db, life := m.clock(), m.status(), m.life
	m.w.after(time.Duration(m.w.rng.IntN(3))*tick, func() {
		if m.life != life {
			return
		}
		m.polls = false
		if asked >= m.obs.Asked && m.server.up {
			m.obs.Database, m.obs.Asked = db, asked
		}
	})
}

// act begins a decision.
func (m *member) act(d failover.Decision) {
	var hands []failover.Action
	for _, a := range d.Actions {
		switch a := a.(type) {
		case failover.Persist:
			m.persist(a.Persistent)
		case failover.Write:
			m.write(a.Record)
		case failover.Kill:
			m.w.trace("%s is killed: %s", m.name, a.Reason)
			m.kill()
			m.obs.Database = nil
		default:
			hands = append(hands, a)
		}
	}
	if m.hands == nil && len(hands) > 0 {
		m.hands = hands
		m.begin()
	}
}

func (m *member) persist(p failover.Persistent) {
	m.persisted = p
	m.w.owner[p.ID] = m
}

// begin begins the first of what is to be done.
func (m *member) begin() {
	ticks := m.w.rng.IntN(3)
	if m.w.faulty && m.w.rng.IntN(m.w.sluggish) == 0 {
		ticks = m.w.rng.IntN(60)
	}
	switch a := m.hands[0].(type) {
	case failover.Init, failover.Restore:
		ticks = 10 + m.w.rng.IntN(10)
	case failover.Clone:
		ticks = 20 + m.w.rng.IntN(10)
		m.renewing(a.ID, true)
	case failover.Rewind:
		ticks = 10 + m.w.rng.IntN(10)
		m.renewing(a.ID, false)
	}
	m.until = m.w.now + time.Duration(ticks)*tick
}

func (m *member) renewing(id string, clone bool) {
	m.state = m.state.Renewing(id)
	m.persist(m.state.Persistent)
	m.kill()
	m.torn = !clone || m.torn && m.system != ""
	if clone {
		m.system, m.log, m.durable, m.torn = "", nil, 0, false
	}
}

// work goes on with what is being done.
func (m *member) work() {
	for m.hands != nil && m.w.now >= m.until {
		ok := m.hand(m.hands[0])
		if m.hands = m.hands[1:]; ok && len(m.hands) > 0 {
			m.begin()
			continue
		}
		m.hands = nil
		m.obs.Database, m.obs.Asked = m.status(), m.clock()
	}
}

// hand finishes one thing; false: it failed, and those after it are left out.
func (m *member) hand(a failover.Action) bool {
	s := &m.server
	switch a := a.(type) {
	case failover.Init, failover.Restore:
		m.system, m.log, m.durable, m.replica = "db", nil, 0, false
		return true
	case failover.Clone:
		return m.copy(m.w.cloneSource(m, a.From), a.ID)
	case failover.Rewind:
		up := m.w.byID(a.From)
		return up != nil && up.server.primary && m.copy(up, a.ID)
	case failover.Start:
		m.start(a)
		return true
	}
	if !s.running() {
		return false
	}
	switch a := a.(type) {
	case failover.Stop:
		m.stop()
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
	case failover.Keep:
		m.state = m.state.Kept(a.IDs)
	case failover.Promote:
		m.promote()
	case failover.Admit:
		if a.Clients && !s.open && s.primary {
			m.w.trace("%s admits clients in epoch %d, set %v", m.name, m.persisted.Led, s.set)
			m.w.complete(m, m.persisted.Led)
		}
		s.open = a.Clients
	}
	return true
}

// cloneSource is who a member is copied from: the primary, or, with Relay, sometimes any replica, however far.
func (w *world) cloneSource(m *member, primary string) *member {
	up := w.byID(primary)
	if up == nil || !up.server.primary {
		return nil
	}
	if !w.opt.Relay || w.rng.IntN(3) > 0 {
		return up
	}
	all := []*member{up}
	for _, o := range w.all {
		if o != m && o.server.running() && !o.server.primary && !o.torn {
			all = append(all, o)
		}
	}
	return all[w.rng.IntN(len(all))]
}

// copy has the files replaced by those of a primary, or of a replica.
func (m *member) copy(up *member, id string) bool {
	if up == nil || !up.server.running() || up.frozen() || !m.w.reaches(up.name, m.name) {
		return false
	}
	m.w.trace("%s is a copy of %s", m.name, up.name)
	m.system, m.replica, m.torn = up.system, true, false
	m.log = append([]entry(nil), up.log[:up.durable]...)
	m.durable = len(m.log)
	m.state = m.state.Renewed(id)
	m.persist(m.state.Persistent)
	return true
}
