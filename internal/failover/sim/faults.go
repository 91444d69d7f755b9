package sim

import (
	"time"

	"drover/internal/failover"
)

// disturb lets something go wrong now and then.
func (w *world) disturb() {
	if w.rng.IntN(60) != 0 {
		return
	}
	m := w.all[w.rng.IntN(len(w.all))]
	if w.rng.IntN(2) == 0 { // primaries are more interesting
		for _, other := range w.all {
			if other.server.primary {
				m = other
			}
		}
	}
	other := w.all[w.rng.IntN(len(w.all))]
	w.report.Faults++
	switch w.rng.IntN(13) {
	case 0, 1:
		w.trace("FAULT %s: its server crashes", m.name)
		m.kill()
	case 2:
		w.trace("FAULT %s crashes", m.name)
		m.crash()
		w.later(m.boot, func() bool { return m.dead })
	case 3:
		m.asleep, m.agent = w.now+w.some(), w.rng.IntN(2) == 0
		w.trace("FAULT %s sleeps until %v, only its agent: %v", m.name, m.asleep, m.agent)
	case 4:
		w.trace("FAULT %s: its server is stopped", m.name)
		m.server.stopped = true
		since := m.server.since
		w.later(func() { m.server.stopped = false }, func() bool { return m.server.since == since })
	case 5, 6:
		w.isolate(m.name, "store")
	case 7:
		if other != m {
			w.isolate(m.name, other.name)
		}
	case 8:
		for _, o := range w.all {
			if o != m {
				w.isolate(m.name, o.name)
			}
		}
	case 9:
		w.trace("FAULT %s is cut off from all", m.name)
		w.isolate(m.name, "store")
		for _, o := range w.all {
			if o != m {
				w.isolate(m.name, o.name)
			}
		}
	case 10:
		w.trace("FAULT the coordinator is away")
		w.store.down = true
		w.later(func() { w.store.down = false }, func() bool { return true })
	case 11:
		w.destroy(m)
	case 12:
		w.plan(m)
	}
}

// some is a time that may be shorter or longer than what others wait for.
func (w *world) some() time.Duration {
	return time.Duration(w.rng.IntN(int(3*ttl/tick))) * tick
}

func (w *world) later(do func(), still func() bool) {
	at := w.now + w.some()
	w.mail = append(w.mail, letter{at, "", "", func() {
		if still() {
			do()
		}
	}})
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
		w.later(func() { delete(w.cut, way) }, func() bool { return true })
	}
}

// destroy loses an instance with its disk, where no commit is lost by that alone: another comes in its place.
func (w *world) destroy(m *member) {
	set := w.store.record.Set
	intact := 0
	for _, o := range w.all {
		if o != m && o.system != "" && o.persisted.Lineage != 0 {
			has := map[int]bool{}
			for _, e := range o.log {
				has[e.value] = true
			}
			whole := true
			for v := range w.acked {
				whole = whole && has[v]
			}
			for v := range w.seen {
				whole = whole && has[v]
			}
			if whole && (set.Has(o.persisted.ID) || w.store.record.Primary == o.persisted.ID) {
				intact++
			}
		}
	}
	if intact == 0 || w.store.record.Phase != failover.Running || w.opt.Mode == failover.Off {
		return
	}
	w.trace("FAULT %s is destroyed", m.name)
	m.crash()
	m.persisted, m.system, m.log, m.replica = failover.Persistent{}, "", nil, false
	w.later(m.boot, func() bool { return m.dead })
}

// plan asks for a switchover.
func (w *world) plan(m *member) {
	r := w.store.record.Next()
	r.Switchover = &failover.Switchover{To: m.name}
	if w.rng.IntN(3) == 0 {
		r.Switchover.To = ""
	}
	w.trace("FAULT a switchover to %q is asked for", r.Switchover.To)
	w.store.record = r
	w.store.revision++
}

// heal ends all that is wrong.
func (w *world) heal() {
	w.trace("all is well again")
	clear(w.cut)
	w.store.down = false
	for _, m := range w.all {
		m.asleep, m.server.stopped = 0, false
		if m.dead {
			m.boot()
		}
	}
}
