package protocol

// copied is what the files of a standby are: exactly a committed snapshot, brought by
// this very process, upon which no job has run. Only then is the next one brought by
// what differs alone.
type copied struct {
	snapshot string // "": not known to be any
	seq      uint64
}

// actFollow keeps a standby's files at the newest snapshot, so that a takeover has
// little left to bring. It never touches files that may be worth anything.
func (m *Machine) actFollow() bool {
	if !m.cfg.Warm || m.cfg.Detached || m.own != nil || m.seen == nil || m.fault != "" || m.stop != nil || m.write != nil {
		return false
	}
	h := m.seen.Head
	if h.Snapshot == "" || h.Snapshot == m.copied.snapshot || m.lock.id != "" || m.claimable() || m.jobs.alive() || m.work.busy() || !m.work.retry.ready(m.now) {
		return false
	}
	if s := m.files(); s != noFiles && s != worthless {
		return false
	}
	if !m.rec.Restoring || m.rec.Role != RoleNone || !m.hasRec || !m.local.MarkersMatch {
		rec := m.rec
		rec.Role, rec.Restoring = RoleNone, true
		return m.writeRecord(WriteRecord{Record: rec, Markers: !m.local.MarkersMatch, Unclaimed: true})
	}
	m.bring()
	m.work.follow = true
	return true
}

// bring begins to make the files the head's snapshot.
func (m *Machine) bring() {
	h, base := m.seen.Head, m.copied
	m.work.begin(restoring)
	m.work.target = copied{h.Snapshot, h.Seq}
	m.work.base = base
	m.copied = copied{}
	m.emit(Restore{Head: h, Base: base.snapshot, Follow: m.own == nil})
}

// following says whether the work on the files is a standby's: a claim need not wait
// for it, and goes on with what it brought.
func (m *Machine) following() bool { return m.work.job == restoring && m.work.follow }

// brought notes what the files are after a restore.
func (m *Machine) brought(in Restored) {
	switch {
	case in.Err == nil:
		m.copied = m.work.target
	case in.Untouched:
		m.copied = m.work.base
	}
}
