package protocol

import (
	"cmp"
	"fmt"
)

// Status returns what people and metrics see.
func (m *Machine) Status() Status {
	s := Status{Phase: m.phase(), Reason: m.reason(), Ambiguous: m.write != nil && !m.write.out}
	if m.seen != nil {
		s.Head = m.seen.Head
	}
	if m.own == nil {
		s.Copied = m.copied.seq
	}
	if m.own != nil {
		s.Renewed = m.own.renewed
	}
	return s
}

func (m *Machine) phase() Phase {
	switch {
	case m.exited:
		return PhaseStopped
	case m.fault != "":
		return PhaseFault
	case m.stop != nil:
		return PhaseStopping
	case m.own != nil && !m.own.ready:
		return PhaseRestoring
	case m.own != nil && !m.cfg.Detached && m.jobs.state != jobsOn:
		return PhaseFenced
	case m.own != nil:
		return PhaseHolder
	case m.jobs.alive() || m.deposed != "" && m.mustSettle():
		return PhaseDeposed
	case m.write != nil || m.claimable():
		return PhaseClaiming
	case m.seen == nil:
		return PhaseStarting
	}
	return PhaseStandby
}

func (m *Machine) reason() string {
	switch {
	case m.fault != "":
		return m.fault
	case m.own == nil && m.yieldErr != nil && m.seen.Head.State != Held:
		return fmt.Sprintf("gave the volume back, since it cannot be restored here: %v", m.yieldErr)
	case m.own == nil && (m.jobs.alive() || m.mustSettle()):
		return m.settling()
	case m.lock.id == "" && m.lock.err != nil && (m.own != nil || m.claimable()):
		return fmt.Sprintf("lock the repository: %v", m.lock.err)
	case m.own != nil && !m.own.ready && m.work.err != nil:
		return fmt.Sprintf("restore: %v", m.work.err)
	case m.own == nil && m.seen != nil && m.seen.Head.State == Held:
		if err := cmp.Or(m.work.err, m.recErr); err != nil {
			return fmt.Sprintf("held by %s; not copied yet: %v", m.seen.Head.Holder.ID, err)
		}
		return "held by " + m.seen.Head.Holder.ID
	case m.recErr != nil:
		return fmt.Sprintf("write the record: %v", m.recErr)
	}
	return ""
}

func (m *Machine) settling() string {
	switch {
	case m.work.err != nil:
		return fmt.Sprintf("%s; local changes are not kept yet: %v", m.settleReason(), m.work.err)
	case m.seen == nil:
		return ""
	}
	return m.settleReason() + "; local changes, if any, are being kept as a diverged snapshot"
}

// tell reports a change of the status that somebody may wait for; a renewal is none.
func (m *Machine) tell() {
	s, t := m.Status(), m.told
	h, g := s.Head, t.Head
	same := s.Phase == t.Phase && s.Reason == t.Reason && s.Ambiguous == t.Ambiguous && s.Copied == t.Copied &&
		h.Epoch == g.Epoch && h.Claim == g.Claim && h.State == g.State && h.Seq == g.Seq && len(h.Condemned) == len(g.Condemned)
	if same {
		return
	}
	m.told = s
	m.emit(Became{Status: s})
}
