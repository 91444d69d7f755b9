package protocol

import "slices"

// record begins to write rec beside the data. Nothing follows from it before it
// is on the disk.
func (m *Machine) record(rec Record, markers bool) bool {
	return m.writeRecord(WriteRecord{Record: rec, Markers: markers})
}

func (m *Machine) writeRecord(w WriteRecord) bool {
	if m.recording != nil || !m.recRetry.ready(m.now) {
		return false
	}
	w.Record.Version, w.Record.Volume = RecordVersion, m.cfg.Volume
	w.Record.SeenEpoch, w.Record.SeenSeq = m.highEpoch, m.highSeq
	m.recording = &w
	m.emit(w)
	return true
}

func (m *Machine) takeRecord(in RecordWritten) {
	w := m.recording
	if w == nil {
		return
	}
	m.recording, m.recErr = nil, in.Err
	if in.Err != nil {
		m.recRetry.fail(m.now, m.cfg.TTL)
		m.recordFailed(in.Err)
		return
	}
	m.recRetry.succeed()
	m.rec, m.hasRec = w.Record, true
	m.local.SameBoot = true
	m.local.MarkersMatch = m.local.MarkersMatch || w.Markers
}

// lostSnapshot names no snapshot.
const lostSnapshot = "-"

// forgetUnsynced strikes from the record, after another boot, the snapshots that
// the disk may no longer have: the page cache that they were taken from may have
// been newer than the disk. It must be done once, at the start: a record written
// in this boot bears its id, and a commit of the former life may yet land.
func (m *Machine) forgetUnsynced() {
	if m.local.SameBoot || m.broken(KeepUnsynced) {
		return
	}
	if !m.rec.SyncedLast && m.rec.Last != "" {
		m.rec.Last = lostSnapshot
	}
	if !m.rec.SyncedIntended {
		m.rec.Intended = ""
	}
}

// fileState says what the files below the paths are to us.
type fileState int

const (
	noFiles    fileState = iota
	imageFiles           // there before any record: of the image, or a person's
	usedFiles            // jobs may have written to them: nothing of them may be lost
	worthless            // copies, half restored, or saved elsewhere
)

func (m *Machine) files() fileState {
	kept := m.hasRec && m.rec.Role == RoleHolder && m.local.MarkersMatch
	switch {
	case !m.local.FilesPresent && !kept:
		return noFiles
	case m.hasRec && m.rec.Restoring && m.local.MarkersMatch:
		return worthless
	case m.hasRec && m.rec.Restoring:
		return imageFiles // others than the record speaks of
	case m.hasRec && m.rec.Role == RoleWarm && m.local.MarkersMatch:
		return worthless
	case m.hasRec && m.rec.Role != RoleNone:
		return usedFiles
	}
	return imageFiles
}

// keepable says whether the files on the disk are at least what the head names,
// so that a claim of it may go on with them.
func (m *Machine) keepable() bool {
	if m.cfg.Retired || m.files() != usedFiles || m.rec.Role != RoleHolder || !m.local.MarkersMatch && !m.broken(KeepUnmarked) {
		return false
	}
	h := m.seen.Head
	if !m.claimedHere(h.Claim) {
		return false
	}
	last, intended := m.namesOurs()
	return last || intended || m.broken(KeepUnchecked)
}

// claimedHere says whether a claim was made by a life of ours on this disk.
func (m *Machine) claimedHere(claim string) bool {
	return claim != "" && (claim == m.rec.Claim || claim == m.rec.IntendedClaim || slices.Contains(m.rec.EarlierClaims, claim))
}

// mostClaims bounds the list of earlier claims: one is added by each life that
// ends between the sending of a claim and its answer.
const mostClaims = 16

// remember keeps the claim that was intended before: it may land yet.
func (r *Record) remember() {
	if r.IntendedClaim == "" {
		return
	}
	r.EarlierClaims = append(slices.Clone(r.EarlierClaims), r.IntendedClaim)
	r.EarlierClaims = r.EarlierClaims[max(0, len(r.EarlierClaims)-mostClaims):]
}

// namesOurs says whether the head names the record's last or intended snapshot
// (as far as the disk is known to have it: forgetUnsynced).
func (m *Machine) namesOurs() (last, intended bool) {
	s := m.seen.Head.Snapshot
	return s == m.rec.Last, m.rec.Intended != "" && s == m.rec.Intended
}

// keptSynced says whether the disk is known to have what the head names even if
// the power failed since.
func (m *Machine) keptSynced() bool {
	last, intended := m.namesOurs()
	return m.seen.Head.Seq == 0 || last && m.rec.SyncedLast || intended && m.rec.SyncedIntended
}

// adoptable says whether files become the volume's first state.
func (m *Machine) adoptable() bool {
	if !m.cfg.AdoptFiles || m.cfg.Retired || m.seen.Head.Seq > 0 {
		return false
	}
	state := m.files()
	return state == imageFiles || state == usedFiles && (!m.cfg.Leave || m.neverRan())
}

// neverRan says that no job of ours can have run on the files: the claim that jobs run
// under is recorded before the first of them starts.
func (m *Machine) neverRan() bool { return m.rec.Claim == "" }

// refusesFiles says whether a first start finds files that nobody said to adopt.
func (m *Machine) refusesFiles() bool {
	return m.files() == imageFiles && m.seen.Head.Seq == 0 && !m.cfg.AdoptFiles
}

// restoreNeeded says whether there is anything to bring or to clear away.
func (m *Machine) restoreNeeded() bool {
	return m.seen.Head.Seq > 0 || m.files() != noFiles
}
