package sim

import "drover/internal/failover"

// exchange reads the record, beats, and asks others.
func (m *member) exchange(d failover.Decision) {
	w := m.w
	if !m.reads && w.rng.IntN(3) == 0 {
		m.read()
	}
	if d.Beat != 0 && w.rng.IntN(4) == 0 {
		m.beat(d.Beat)
	}
	if w.rng.IntN(3) != 0 {
		return
	}
	for _, id := range d.Ask {
		if to := w.owner[id]; to != nil {
			m.askOne(to, d.Beat)
		}
	}
}

func (m *member) beat(epoch uint64) {
	w, sent, life := m.w, m.clock(), m.life
	w.send(m.name, "store", func() {
		w.store.beats[epoch]++
		w.send("store", m.name, func() {
			if m.life == life && (sent > m.obs.Beaten || m.obs.BeatenEpoch != epoch) {
				m.obs.Beaten, m.obs.BeatenEpoch = sent, epoch
			}
		})
	})
}

func (m *member) read() {
	w, sent, life, done := m.w, m.clock(), m.life, false
	m.reads = true
	end := func() {
		if m.life == life && !done {
			m.reads, done = false, true
		}
	}
	w.after(10*tick, end) // a timeout
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
			if m.life != life || done || sent <= m.obs.Sent {
				return
			}
			m.obs.Known, m.obs.Record, m.obs.Beat, m.rev = true, r, beat, rev
			m.obs.Sent, m.obs.Got = sent, m.clock()
			end()
		})
	})
}

func (m *member) askOne(to *member, leads uint64) {
	w, sent, life := m.w, m.clock(), m.life
	w.send(m.name, to.name, func() {
		if to.off || to.dead || w.now < to.asleep {
			return
		}
		if leads != 0 && leads == to.persisted.Epoch {
			to.obs.Alive, to.obs.AliveEpoch = to.clock(), leads
		}
		o := to.obs
		o.Busy, o.Process = to.hands != nil, to.process()
		a := to.state.Answer(to.persisted.Epoch, o)
		w.send(to.name, m.name, func() {
			a.Sent, a.Got = sent, m.clock()
			if old, ok := m.obs.Answers[a.ID]; m.life == life && (!ok || old.Sent < a.Sent) {
				m.obs.Answers[a.ID] = a
			}
		})
	})
}

// write asks the coordinator to replace the record.
func (m *member) write(r *failover.Record) {
	if m.writes {
		return
	}
	m.writes = true
	w, rev, life := m.w, m.rev, m.life
	absent := m.obs.Record == nil
	end := func() {
		if m.life == life {
			m.writes = false
		}
	}
	w.after(10*tick, end)
	w.send(m.name, "store", func() {
		if s := &w.store; absent && s.record == nil || !absent && rev == s.revision {
			w.replace(m.name, r)
		}
		w.send("store", m.name, end)
	})
}
