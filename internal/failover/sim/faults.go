package sim

import (
	"time"

	"drover/internal/failover"
)

// faults is how many kinds there are.
const faults = 17

// disturb lets something go wrong now and then.
func (w *world) disturb() {
	if w.rng.IntN(w.seldom) != 0 {
		return
	}
	m := w.all[w.rng.IntN(len(w.all))]
	if w.rng.IntN(3) != 0 { // primaries are more interesting
		for _, other := range w.all {
			if other.server.primary {
				m = other
			}
		}
	}
	kind := w.rng.IntN(faults)
	if w.rng.IntN(2) == 0 { // this schedule's favourite
		kind = w.kind
	}
	w.report.Faults++
	if kind < 7 || kind == 16 {
		w.local(m, kind)
	} else {
		w.remote(m, kind)
	}
}

// local is what happens to one instance.
func (w *world) local(m *member, kind int) {
	switch kind {
	case 0:
		w.trace("FAULT %s: its server crashes", m.name)
		m.kill()
	case 1:
		power := w.rng.IntN(2) == 0
		w.trace("FAULT %s crashes, loses power: %v", m.name, power)
		m.crash(power)
		w.later(m.boot, func() bool { return m.off })
	case 2:
		if w.opt.Awake {
			return
		}
		w.trace("FAULT %s: its agent dies, the server does not", m.name)
		m.dead, m.hands = true, nil
		w.later(m.boot, func() bool { return m.dead && !m.off })
	case 3:
		if w.opt.Awake {
			return
		}
		m.asleep, m.agent = w.now+w.some(), w.rng.IntN(2) == 0
		w.trace("FAULT %s sleeps until %v, only its agent: %v", m.name, m.asleep, m.agent)
	case 4:
		if w.opt.Awake {
			return
		}
		w.trace("FAULT %s: its server is stopped", m.name)
		m.server.stopped = true
		since := m.server.since
		w.later(func() { m.server.stopped = false }, func() bool { return m.server.since == since })
	case 5:
		w.trace("FAULT %s: its disk is full", m.name)
		m.full = true
		w.later(func() { m.full = false }, func() bool { return true })
	case 16:
		w.trace("FAULT %s: its server does not start", m.name)
		m.broken = true
		m.kill()
		w.later(func() { m.broken = false }, func() bool { return true })
	case 6:
		w.destroy(m)
	}
}

// remote is what happens to several, or to the coordinator.
func (w *world) remote(m *member, kind int) {
	other := w.all[w.rng.IntN(len(w.all))]
	switch kind {
	case 7, 8:
		w.isolate(m.name, "store")
	case 9:
		if other != m {
			w.isolate(m.name, other.name)
		}
	case 10:
		w.trace("FAULT %s is cut off from all others", m.name)
		w.isolateAll(m)
	case 11:
		w.trace("FAULT %s is cut off from all", m.name)
		w.isolate(m.name, "store")
		w.isolateAll(m)
	case 12:
		w.trace("FAULT the coordinator is away")
		w.store.down = true
		w.later(func() { w.store.down = false }, func() bool { return true })
	case 13:
		w.plan(m)
	case 14:
		w.pause()
	case 15:
		w.change()
	}
}

// some is a time that may be shorter or longer than what others wait for.
func (w *world) some() time.Duration {
	least := time.Duration(w.rng.IntN(2)) * ttl
	return least + time.Duration(w.rng.IntN(int(2*ttl/tick)))*tick
}

func (w *world) later(do func(), still func() bool) {
	w.after(w.some(), func() {
		if still() {
			do()
		}
	})
}

// isolate cuts a way in one direction, or in both.
func (w *world) isolate(a, b string) {
	ways := [][2]string{{a, b}, {b, a}}
	if n := w.rng.IntN(3); n < 2 {
		ways = ways[n : n+1]
	}
	for _, way := range ways {
		w.trace("FAULT %s cannot reach %s", way[0], way[1])
		w.cut[way] = true
		end := w.some()
		if b != "store" && w.rng.IntN(3) == 0 {
			end *= 3
		}
		w.after(end, func() { delete(w.cut, way) })
	}
}

func (w *world) isolateAll(m *member) {
	for _, o := range w.all {
		if o != m {
			w.isolate(m.name, o.name)
		}
	}
}

// destroy loses an instance with its disk, where no commit is lost by that alone: another comes in its place.
func (w *world) destroy(m *member) {
	r := w.store.record
	if r == nil || r.Phase != failover.Running || !w.sync() || !w.spare(m) {
		return
	}
	w.trace("FAULT %s is destroyed", m.name)
	m.crash(true)
	m.persisted, m.system, m.log, m.durable, m.replica, m.torn = failover.Persistent{}, "", nil, 0, false, false
	w.later(m.boot, func() bool { return m.off })
}

// spare reports whether another member of the set, or the primary, has all that counts.
func (w *world) spare(m *member) bool {
	r := w.store.record
	for _, o := range w.all {
		if o == m || o.system == "" || o.torn || o.persisted.Lineage == 0 || !r.Set.Has(o.persisted.ID) && r.Primary != o.persisted.ID {
			continue
		}
		has := make([]bool, len(w.acked))
		for _, e := range o.log[:o.durable] {
			has[e.value] = true
		}
		whole := true
		for v, epoch := range w.acked {
			whole = whole && (has[v] || epoch == 0 && !w.seen[v])
		}
		if whole {
			return true
		}
	}
	return false
}

// plan asks for a switchover, or for a failover by hand.
func (w *world) plan(m *member) {
	if w.store.record == nil {
		return
	}
	r := w.store.record.Next()
	r.Switchover = &failover.Switchover{To: m.name}
	switch w.rng.IntN(6) {
	case 0, 1:
		r.Switchover.To = ""
	case 2:
		r.Switchover.Force = !w.opt.Awake
	}
	w.trace("FAULT a switchover to %q is asked for, force: %v", r.Switchover.To, r.Switchover.Force)
	w.replace("somebody", r)
}

// pause forbids failover for a while.
func (w *world) pause() {
	set := func(paused bool) {
		if w.store.record != nil {
			r := w.store.record.Next()
			r.Paused = paused
			w.replace("somebody", r)
		}
	}
	w.trace("FAULT failover is paused")
	set(true)
	w.later(func() { set(false) }, func() bool { return true })
}

// change configures a member, or all of them, differently.
func (w *world) change() {
	if !w.sync() {
		return
	}
	acks := 1 + w.rng.IntN(max(1, len(w.all)-1))
	mode := []failover.Mode{failover.On, failover.Strict}[w.rng.IntN(2)]
	w.trace("FAULT the configuration is now %s, %d", mode, acks)
	for _, m := range w.all {
		if w.rng.IntN(4) != 0 {
			m.cfg.Acks, m.cfg.Mode = acks, mode
		}
	}
}

// heal ends all that is wrong.
func (w *world) heal() {
	w.trace("all is well again")
	clear(w.cut)
	w.store.down = false
	if w.store.record != nil {
		r := w.store.record.Next()
		r.Paused = false
		w.replace("somebody", r)
	}
	for _, m := range w.all {
		m.asleep, m.server.stopped, m.full, m.broken, m.pace = 0, false, false, false, 1
		m.cfg.Acks, m.cfg.Mode = w.opt.Acks, w.opt.Mode
		if m.dead {
			m.boot()
		}
	}
}
