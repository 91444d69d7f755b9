package protocol

import "slices"

// commit is one snapshot on its way into the head.
type commit struct {
	requests []uint64
	started  Time // of the capture
	got      *Captured
	doomed   []string // packs condemned since the capture began, though they may have left the list
	landed   bool
	head     Head
	pinned   bool // our lock was there after the snapshot object was stored
	lost     bool // or it was gone: begin again
	final    bool // asked for by the stopping of the instance
	delta    bool // and after the jobs have ended
}

// takeBackup queues a request. It joins only a capture that has not started.
func (m *Machine) takeBackup(in BackupWanted) {
	switch {
	case m.own == nil || !m.own.ready:
		m.reply([]uint64{in.Request}, Head{}, ErrNotHolder)
	case m.stop != nil && m.stop.stage >= stageRelease:
		m.reply([]uint64{in.Request}, Head{}, ErrStopping)
	case m.broken(JoinLate) && m.commit != nil:
		m.commit.requests = append(m.commit.requests, in.Request)
	default:
		m.waiting = append(m.waiting, in.Request)
	}
}

func (m *Machine) actCommit() bool {
	c := m.commit
	switch {
	case m.own == nil || !m.own.ready || m.fault != "":
		return false
	case c == nil:
		return m.commitWanted() && m.commitRetry.ready(m.now) && m.capture(&commit{})
	case m.work.busy():
		return false
	case c.lost && !m.commitSent():
		return m.captureAgain()
	case c.got == nil:
		return m.capture(c)
	}
	return m.actCommitHead() || m.actPin() || m.actAcknowledge()
}

func (m *Machine) commitWanted() bool {
	return len(m.waiting) > 0 || m.stop != nil && m.stop.want
}

// capture starts a capture for all who wait by now.
func (m *Machine) capture(c *commit) bool {
	if m.work.busy() {
		return false
	}
	if m.lock.id == "" {
		return m.takeLock("")
	}
	if s := m.stop; s != nil && s.want {
		s.want = false
		c.final, c.delta = true, s.stage == stageDelta
	}
	c.requests = append(c.requests, m.waiting...)
	m.waiting = nil
	c.started = m.now
	m.commit = c
	m.work.begin(capturing)
	m.emit(Capture{Head: m.seen.Head, Fresh: m.fresh, Force: m.force})
	return true
}

// captureAgain begins the same commit anew, trusting nothing of the former try.
func (m *Machine) captureAgain() bool {
	c := m.commit
	m.fresh, m.force = true, m.force || c.lost
	m.disownCheck()
	return m.capture(&commit{requests: c.requests, final: c.final, delta: c.delta})
}

func (m *Machine) takeCaptured(in Captured) {
	if m.work.job != capturing {
		return
	}
	cancelled := m.work.cancelled
	m.work.end()
	c := m.commit
	switch {
	case c == nil || cancelled:
	case in.Err != nil && in.Transient:
		m.waiting = append(c.requests, m.waiting...)
		m.commit = nil
		m.commitRetry.fail(m.now, m.cfg.TTL)
		if m.stop != nil && c.final {
			m.stop.want = true
		}
	case in.Err != nil:
		m.failCommit(in.Err)
	default:
		m.commitRetry.succeed()
		m.fresh = false
		m.force = m.force && in.Unchanged
		c.got = &in
	}
}

// actPin asks, once the snapshot object is stored, whether our lock kept it.
func (m *Machine) actPin() bool {
	return !m.commit.pinned && !m.commit.lost && m.checkLock()
}

// actCommitHead records the intent and then writes the head.
func (m *Machine) actCommitHead() bool {
	c := m.commit
	switch {
	case c.landed || c.got.Unchanged || m.write != nil:
		return false
	case m.condemned(c.got.Packs) && !m.broken(ReuseCondemned):
		return m.captureAgain()
	case !m.intendsCommit(c.got.Snapshot):
		rec := m.holderRecord()
		rec.Intended, rec.SyncedIntended = c.got.Snapshot, c.got.Synced
		return m.record(rec, false)
	}
	h := m.ownHead()
	h.Seq++
	h.Snapshot, h.Tree, h.Paths, h.Time = c.got.Snapshot, c.got.Tree, c.got.Paths, c.got.Time
	m.startWrite(commitWrite, h)
	return true
}

func (m *Machine) intendsCommit(snapshot string) bool {
	return m.cfg.Detached || m.broken(NoIntent) || m.rec.Intended == snapshot && m.rec.Claim == m.own.claim
}

func (m *Machine) condemned(packs []string) bool {
	return slices.ContainsFunc(packs, func(p string) bool {
		return slices.Contains(m.seen.Head.Condemned, p) || slices.Contains(m.commit.doomed, p)
	})
}

// commitSent says whether the head may yet become this commit's.
func (m *Machine) commitSent() bool { return m.write != nil && m.write.kind == commitWrite }

func (m *Machine) committed(h Head) {
	c := m.commit
	if c == nil || c.got == nil {
		return
	}
	c.landed, c.head = true, h
	m.own.synced = c.got.Synced
}

// actAcknowledge ends a commit that is proven. An unchanged tree needs a proof
// too: another one may have claimed and committed since we last knew.
func (m *Machine) actAcknowledge() bool {
	c := m.commit
	switch {
	case c.lost || !c.pinned && !m.broken(NoLockCheck):
		return false
	case c.got.Unchanged && m.proofWanted(), !c.got.Unchanged && !c.landed:
		return false
	}
	if !c.landed {
		c.head = m.seen.Head
	}
	m.reply(c.requests, c.head, nil)
	m.commit = nil
	return true
}

// proofWanted says whether an acknowledgement waits for the news that the head
// was still ours after its capture began.
func (m *Machine) proofWanted() bool {
	c := m.commit
	return c != nil && c.got != nil && c.got.Unchanged && len(c.requests) > 0 &&
		m.own.renewed < c.started && !m.broken(UnchangedUnproven)
}

// failCommit ends a commit for good; the files stay as they are.
func (m *Machine) failCommit(err error) {
	c := m.commit
	m.commit = nil
	m.disownCheck()
	m.reply(c.requests, Head{}, err)
	if m.stop != nil && c.delta {
		m.stop.commitErr = err
	}
}

// recordFailed: the record could not be written (a full disk): whoever waits for
// a commit is told, all else tries again.
func (m *Machine) recordFailed(err error) {
	if c := m.commit; c != nil && c.got != nil && !c.landed && !m.commitSent() {
		m.failCommit(err)
	}
}

// failAll ends every request.
func (m *Machine) failAll(err error) {
	if m.commit != nil {
		m.failCommit(err)
	}
	m.reply(m.waiting, Head{}, err)
	m.waiting = nil
	for _, e := range m.edits {
		m.reply([]uint64{e.request}, Head{}, err)
	}
	m.edits = nil
}
