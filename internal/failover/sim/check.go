package sim

import (
	"slices"

	"drover/internal/failover"
)

func (w *world) sync() bool { return w.opt.Mode != failover.Off }

// clients write to whoever lets them, and note what they can read there.
func (w *world) clients() {
	accept := ""
	for _, m := range w.all {
		s := &m.server
		if !s.running() || !s.primary || !s.open {
			continue
		}
		if w.opt.Awake && accept != "" {
			w.fail("%s and %s accept commits at the same moment", accept, m.name)
		}
		accept = m.name
		m.acknowledge()
		if w.sync() {
			for ; s.shown < min(s.visible, len(m.log)); s.shown++ {
				w.seen[m.log[s.shown].value] = true
			}
		}
		if len(s.waiting) < 3 && !m.full && w.rng.IntN(2) == 0 {
			m.append(m.persisted.Led)
			s.waiting = append(s.waiting, len(m.log))
		}
		if w.faulty && len(s.waiting) > 0 && w.rng.IntN(50) == 0 { // somebody's wait is cancelled
			s.waiting = slices.Delete(s.waiting, 0, 1)
		}
	}
}

// ack is told by a server that has told a client.
func (w *world) ack(m *member, value int) {
	epoch := m.persisted.Led
	w.acked[value] = epoch
	w.count++
	if w.faulty {
		w.report.Gap = max(w.report.Gap, w.now-w.lastAck)
	}
	w.lastAck = w.now
	if !w.sync() || epoch < w.byHand {
		return
	}
	if other, ok := w.ackers[epoch]; ok && other != m.name {
		w.fail("%s and %s acknowledge commits in epoch %d", other, m.name, epoch)
	}
	w.ackers[epoch] = m.name
	r := w.store.record
	if r == nil || r.Phase != failover.Running || r.Epoch <= epoch {
		return
	}
	has := func(e entry) bool { return e.value == value }
	if p := w.byID(r.Primary); p != nil && !slices.ContainsFunc(p.log, has) {
		w.fail("%s acknowledges value %d in epoch %d, though %s, chosen for epoch %d, does not have it", m.name, value, epoch, p.name, r.Epoch)
	}
}

// chosen holds that whoever was made primary has all that was acknowledged or could be read.
func (w *world) chosen() {
	r := w.store.record
	if n := len(r.History); n > 0 && r.History[n-1].Epoch == r.Epoch && r.History[n-1].Reason == "failover by hand" {
		w.byHand = r.Epoch
		return // what is lost is found out when it admits clients
	}
	if m := w.byID(r.Primary); m != nil && w.sync() {
		w.complete(m, r.Epoch)
	}
}

// complete holds that a primary has all that was acknowledged or could be read before its epoch.
func (w *world) complete(m *member, reign uint64) {
	has := make([]bool, len(w.acked))
	for _, e := range m.log {
		has[e.value] = true
	}
	for v, epoch := range w.acked {
		lacks := !has[v] && (epoch != 0 && epoch < reign || w.seen[v])
		switch {
		case !lacks:
		case !w.sync():
			w.report.Lost++
			w.acked[v] = 0
		case epoch < w.byHand: // somebody took it upon himself
			w.acked[v], w.seen[v] = 0, false
		default:
			w.fail("%s leads epoch %d without value %d, which was acknowledged in epoch %d, or could be read (%v)", m.name, reign, v, epoch, w.seen[v])
			return
		}
	}
}

// final holds that everything acknowledged is with the last primary.
func (w *world) final() {
	for _, m := range w.all {
		if m.server.up && m.server.primary && m.server.open && w.store.record.Primary == m.persisted.ID {
			w.complete(m, m.persisted.Led)
		}
	}
}

// content reports whether nothing is left to do for a member.
func (m *member) content() bool {
	return !m.off && !m.dead && m.why == "" && m.server.up && !m.torn && (m.server.primary && m.server.open || m.receives() != nil)
}

// excused reports whether nobody can be elected for a reason that only a person can judge: a copy
// which may have had the only proof of a commit was destroyed.
func (w *world) excused() bool {
	r := w.store.record
	if r == nil {
		return true // it was lost, and then whoever knew it was
	}
	for _, id := range append(slices.Clone(r.Set.Members), r.Primary) {
		if w.byID(id) == nil && r.Phase == failover.Electing {
			return true
		}
	}
	return w.byID(r.Primary) == nil
}
