package protocol

// lock is our shared lock in the repository, which keeps others from pruning.
type lock struct {
	id     string // "": none
	taking bool
	retry  retry
	err    error
}

// check is the question whether our lock is still there.
type check struct {
	out    bool
	stale  bool // its answer is of a lock that is ours no more
	passed bool // for diverged files; a commit keeps its own
	retry  retry
}

func (m *Machine) takeLock(predecessor string) bool {
	if m.lock.taking || !m.lock.retry.ready(m.now) {
		return false
	}
	m.lock.taking = true
	m.emit(TakeLock{Predecessor: predecessor})
	return true
}

func (m *Machine) takeLocked(in Locked) {
	if !m.lock.taking {
		return
	}
	m.lock.taking, m.lock.err = false, in.Err
	if in.Err != nil {
		m.lock.retry.fail(m.now, m.cfg.TTL)
		return
	}
	m.lock.retry.succeed()
	m.lock.id = in.Lock
}

func (m *Machine) dropLock() {
	m.lock.id, m.saved = "", false
	m.disownCheck()
	m.emit(DropLock{})
}

// actDropLock gives a lock back that pins nothing.
func (m *Machine) actDropLock() bool {
	if m.lock.id == "" || m.own != nil || m.write != nil || m.work.busy() || m.claimable() || m.mustSettle() {
		return false
	}
	m.dropLock()
	return true
}

func (m *Machine) checkLock() bool {
	if m.check.out || !m.check.retry.ready(m.now) {
		return false
	}
	m.check.out, m.check.stale = true, false
	m.emit(CheckLock{})
	return true
}

// disownCheck: a check under way was sent before what is stored next, and proves
// nothing about it.
func (m *Machine) disownCheck() { m.check.stale = m.check.out }

func (m *Machine) takeChecked(in LockChecked) {
	if !m.check.out {
		return
	}
	stale := m.check.stale
	m.check.out, m.check.stale = false, false
	switch {
	case stale:
	case in.Err != nil:
		m.check.retry.fail(m.now, m.cfg.TTL)
	case !in.Present && !m.broken(NoLockCheck):
		// Somebody may have pruned what we stored: it has to be stored again.
		m.check.retry.succeed()
		m.lock.id, m.saved = "", false
		if m.commit != nil {
			m.commit.lost = true
		}
	default:
		m.check.retry.succeed()
		m.check.passed = m.saved
		if m.commit != nil {
			m.commit.pinned = true
		}
	}
}
