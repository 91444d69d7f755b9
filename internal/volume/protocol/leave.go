package protocol

import "fmt"

// actLeave ends a machine that need not stand by, when nothing of it is left: no claim
// that may land yet, no job, no file that only this volume's history or a diverged
// snapshot of it may take in.
func (m *Machine) actLeave() bool {
	if !m.cfg.Leave || m.own != nil || m.stop != nil || m.seen == nil {
		return false
	}
	why := m.whyLeave()
	switch {
	case why == nil || !m.mayLeave():
		return false
	case m.files() == usedFiles && m.neverRan():
		// They were to be the first state here, and are as good for another volume.
		rec := m.rec
		rec.Role, rec.Restoring = RoleNone, false
		return m.record(rec, false)
	case m.lock.id != "":
		m.dropLock()
	}
	m.exit(why)
	return true
}

// whyLeave says why the volume cannot be had; nil: it can, or soon.
func (m *Machine) whyLeave() error {
	switch {
	case m.fault != "":
		return fmt.Errorf("%w: %s", ErrUnfit, m.fault)
	case m.yieldErr != nil:
		return fmt.Errorf("%w: it cannot be restored: %w", ErrUnfit, m.yieldErr)
	case m.claimable() && m.lock.id == "" && m.lock.err != nil && m.now >= m.since+m.cfg.TTL:
		return fmt.Errorf("%w: lock the repository: %w", ErrUnfit, m.lock.err)
	case m.cfg.Retired, m.seen.Head.State == Held && !m.claimable():
		return fmt.Errorf("%w by %s in epoch %d", ErrHeld, m.seen.Head.Holder.ID, m.seen.Head.Epoch)
	}
	return nil
}

func (m *Machine) mayLeave() bool {
	switch {
	case m.write != nil:
		return m.broken(LeaveUnresolved)
	case m.jobs.alive(), m.work.busy(), m.recording != nil, m.lock.taking, m.keepable():
		return false
	}
	return m.files() != usedFiles || m.neverRan() || m.broken(LeaveUnsettled)
}
