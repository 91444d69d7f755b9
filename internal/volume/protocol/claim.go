package protocol

import "fmt"

// tenure is our holding of the head under one claim.
type tenure struct {
	epoch    uint64
	claim    string
	renewed  Time // send time of the last write known to have landed
	deadline Time // strict: when jobs must be dead
	keep     bool // the files on the disk go on being the volume's
	restored bool // or the head's have been brought
	synced   bool // the file system was synced after the head's snapshot was taken or brought
	ready    bool // the files are right, and the record says that we hold
	failing  bool // restoring them has failed …
	failed   Time // … for the first time
}

// intent is a claim that we are about to write, or have written.
type intent struct {
	claim  string
	tag    Tag // of the head that it was decided on
	keep   bool
	synced bool
}

// claimable says whether the head, as last seen, may be claimed now.
func (m *Machine) claimable() bool {
	if m.own != nil || m.seen == nil || m.fault != "" || m.stop != nil && !m.leftBehind() || m.now < m.shy || m.cfg.Retired {
		return false
	}
	if m.seen.Head.State != Held {
		return true
	}
	return m.reclaimable() || m.expired()
}

// reclaimable says whether the head is held by a former life of ours that can
// be continued at once. Under strict a twin may be running: wait a TTL.
func (m *Machine) reclaimable() bool {
	return (!m.strict() || m.broken(StrictReclaim)) && m.keepable()
}

func (m *Machine) actClaim() bool {
	if m.write != nil || m.read.out || m.recording != nil || !m.claimable() || m.jobs.alive() || m.work.busy() && !m.following() || m.mustSettle() {
		return false
	}
	if m.refusesFiles() {
		m.exit(fmt.Errorf("%w: move the files away, or say first_start: adopt", ErrFilesPresent))
		return true
	}
	if m.broken(ResumeClaim) && m.seen.Head.State == Held && m.keepable() {
		m.resume()
		return true
	}
	if m.lock.id == "" {
		return m.takeLock(m.seen.Head.Holder.Lock)
	}
	if m.intent == nil || m.intent.tag != m.seen.Tag {
		m.intend()
	}
	if !m.intentDurable() {
		rec := m.intentRecord()
		return m.record(rec, m.adoptable() || rec.Restoring && !m.local.MarkersMatch)
	}
	m.putClaim()
	return true
}

// intend decides what becomes of our files if the claim of this very head lands.
func (m *Machine) intend() {
	m.intent = &intent{claim: m.cfg.NewID(), tag: m.seen.Tag}
	if m.keepable() || m.adoptable() {
		m.intent.keep, m.intent.synced = true, m.keptSynced()
	}
}

func (m *Machine) intentDurable() bool {
	return m.cfg.Detached || m.broken(NoClaimIntent) || m.hasRec && m.rec.IntendedClaim == m.intent.claim
}

// intentRecord says before the claim is sent which claim that is, and what the
// files are if it lands.
func (m *Machine) intentRecord() Record {
	rec := m.rec
	switch {
	case m.keepable():
		rec.remember()
	case m.adoptable():
		rec = Record{Role: RoleHolder}
	default:
		rec.Role = RoleNone
		rec.Restoring = m.restoreNeeded() && !m.broken(NoRestoring)
	}
	rec.IntendedClaim = m.intent.claim
	return rec
}

func (m *Machine) putClaim() {
	h := m.ownHead()
	h.Epoch++
	h.Claim = m.intent.claim
	h.State = Held
	m.startWrite(claimWrite, h)
}

// claimed: from now on no older epoch can commit.
func (m *Machine) claimed(w *write) {
	m.own = &tenure{epoch: w.head.Epoch, claim: w.head.Claim, keep: m.intent.keep, synced: m.intent.synced}
	m.intent, m.watch, m.deposed, m.fresh = nil, Watch{}, "", true
	m.shy, m.yieldErr = 0, nil
	m.commitRetry.succeed()
	m.force = m.own.keep // our former life may have ended before it saw that its lock was gone
}

// resume is what ResumeClaim does.
func (m *Machine) resume() {
	h := m.seen.Head
	m.own = &tenure{epoch: h.Epoch, claim: h.Claim, keep: true, synced: m.keptSynced(), renewed: m.now}
	m.renewed(m.now)
}

func (m *Machine) exitHeld() {
	if m.lock.id != "" {
		m.dropLock()
	}
	m.exit(fmt.Errorf("%w by %s in epoch %d", ErrHeld, m.seen.Head.Holder.ID, m.seen.Head.Epoch))
}
