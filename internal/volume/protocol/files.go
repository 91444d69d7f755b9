package protocol

// work on the files: at most one of these is under way.
type fileJob int

const (
	idle fileJob = iota
	savingDiverged
	restoring
	capturing
)

type fileWork struct {
	job       fileJob
	cancelled bool
	follow    bool   // of restoring: for a standby
	target    copied // of restoring: what the files become …
	base      copied // … and were
	retry     retry  // of saving and restoring
	err       error  // why the last of them failed
}

func (w *fileWork) busy() bool { return w.job != idle }

func (w *fileWork) begin(job fileJob) { w.job, w.cancelled, w.follow = job, false, false }

func (w *fileWork) end() { w.job, w.cancelled = idle, false }

// cancelWork ends a capture or a restore that nobody wants any more.
func (m *Machine) cancelWork() bool {
	if m.work.cancelled || m.work.job != restoring && m.work.job != capturing {
		return false
	}
	m.work.cancelled = true
	m.emit(Cancel{})
	return true
}

// mustSettle says whether files are there that would be lost by a restore, and
// that no claim can go on with. Used files are saved as soon as that is known;
// an image's when they are in the way of a claim.
func (m *Machine) mustSettle() bool {
	if m.seen == nil || m.own != nil || m.cfg.Detached || m.broken(NoDiverged) || m.keepable() {
		return false
	}
	if m.adoptable() {
		// They may yet become the first state, but not if this is our end.
		return m.stop != nil && m.rec.Claim != "" && !(m.saved && m.check.passed)
	}
	switch state := m.files(); {
	case state == usedFiles && !(m.cfg.Leave && m.neverRan()):
		return true
	case state == usedFiles, state == imageFiles:
		return !m.cfg.DiscardImageFiles && m.seen.Head.Seq > 0 && m.claimable()
	}
	return false
}

// actSettle keeps what differs from the head as a diverged snapshot, and then
// records that the files are worth nothing any more. The snapshot object is no
// part of the history, so our lock must have pinned it all the while.
func (m *Machine) actSettle() bool {
	if m.fault != "" || m.write != nil || m.jobs.alive() || m.work.busy() || !m.mustSettle() {
		return false
	}
	switch {
	case m.lock.id == "":
		m.saved = false
		return m.takeLock("")
	case m.saved && m.check.passed, m.broken(RecordBeforeSave):
		rec := m.rec
		rec.Role, rec.Restoring = RoleNone, true
		return m.record(rec, !m.local.MarkersMatch)
	case m.saved:
		return m.checkLock()
	case !m.work.retry.ready(m.now):
		return false
	}
	m.work.begin(savingDiverged)
	m.emit(SaveDiverged{Head: m.seen.Head, Reason: m.settleReason()})
	return true
}

func (m *Machine) settleReason() string {
	switch {
	case m.deposed != "":
		return m.deposed
	case m.files() == imageFiles:
		return "the files were there before the volume"
	}
	return "the files are not those of the head"
}

func (m *Machine) takeDiverged(in DivergedSaved) {
	if m.work.job != savingDiverged {
		return
	}
	m.work.end()
	m.work.err = in.Err
	if in.Err != nil {
		m.work.retry.fail(m.now, m.cfg.TTL)
		return
	}
	m.work.retry.succeed()
	m.saved, m.check.passed = true, false
}

// actPrepare makes the files right after a claim, and says so in the record
// before the first job starts.
func (m *Machine) actPrepare() bool {
	o := m.own
	if o == nil || o.ready || m.fault != "" || m.work.busy() || (m.stop != nil || m.releasing()) && !o.keep {
		return false
	}
	switch {
	case m.cfg.Detached, m.rec.Role == RoleHolder && m.rec.Claim == o.claim, m.broken(JobsBeforeRecord) && (o.keep || o.restored):
		o.ready = true
		return true
	case o.keep || o.restored:
		return m.record(m.holderRecord(), !o.keep)
	case !m.restoreNeeded(), m.copied.snapshot != "" && m.copied.snapshot == m.seen.Head.Snapshot:
		o.restored = true
		return true
	case !m.work.retry.ready(m.now):
		return false
	}
	m.bring()
	return true
}

// holderRecord says that jobs may run on the files, which are or grew from the
// head's snapshot.
func (m *Machine) holderRecord() Record {
	return Record{
		Role: RoleHolder, Epoch: m.own.epoch, Claim: m.own.claim,
		Last: m.seen.Head.Snapshot, SyncedLast: m.own.synced,
	}
}

func (m *Machine) takeRestored(in Restored) {
	if m.work.job != restoring {
		return
	}
	cancelled, follow := m.work.cancelled, m.following()
	m.brought(in)
	m.work.end()
	m.local.FilesPresent = true
	if m.own == nil && !follow || cancelled {
		return
	}
	m.work.err = in.Err
	if in.Err != nil {
		m.work.retry.fail(m.now, m.cfg.TTL)
		if !follow && !m.own.failing {
			m.own.failing, m.own.failed = true, m.now
		}
		return
	}
	m.work.retry.succeed()
	if !follow {
		m.own.restored, m.own.synced = true, in.Synced
	}
}
