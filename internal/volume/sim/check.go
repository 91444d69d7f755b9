package sim

import (
	"slices"

	"drover/internal/volume/protocol"
)

// The promises. Each is checked at the event that could break it.

// checkWrite: the committed history is a line, and each write of the head is one
// of the table's transitions.
func (w *world) checkWrite(a *agent, old, next protocol.Head) {
	same := next.Epoch == old.Epoch && next.Claim == old.Claim
	switch {
	case next.Write == old.Write:
		w.failf("%s writes the same id twice: %s", a.id, next.Write)
	case next.Epoch == old.Epoch+1:
		if w.class == Outage && old.Epoch > 0 {
			w.failf("%s takes the volume over because the store was away for everybody", a.id)
		}
		if next.Claim == old.Claim || next.Snapshot != old.Snapshot || next.Seq != old.Seq || next.State != protocol.Held {
			w.failf("%s's claim changes more than the claim", a.id)
		}
	case !same || old.State != protocol.Held:
		w.failf("%s writes in epoch %d, claim %s upon epoch %d, claim %s (%s)", a.id, next.Epoch, next.Claim, old.Epoch, old.Claim, old.State)
	case next.Seq == old.Seq && next.Snapshot != old.Snapshot, next.Seq > old.Seq+1, next.Seq < old.Seq:
		w.failf("%s writes seq %d upon %d", a.id, next.Seq, old.Seq)
	case next.Seq == old.Seq+1:
		w.checkCommit(a, old, next)
	}
	needs := w.repo.snapshots[next.Snapshot].packs
	if c := packSet(next.Condemned); c.minus(needs) != c {
		w.failf("%s writes a head whose snapshot counts on packs %v that it condemns", a.id, c.minus(c.minus(needs)))
	}
	for _, p := range old.Condemned {
		if !slices.Contains(next.Condemned, p) && packSet([]string{p}).within(w.repo.exist) {
			w.failf("%s takes pack %s off the list while it is there", a.id, p)
		}
	}
}

// checkCommit: a snapshot's parent is the head that it replaces, its packs are
// there, and none is condemned.
func (w *world) checkCommit(a *agent, old, next protocol.Head) {
	s := w.repo.snapshots[next.Snapshot]
	switch {
	case s == nil || !s.object:
		w.failf("%s commits %s, whose object is not stored", a.id, next.Snapshot)
		return
	case s.upon != old.Snapshot && !w.repo.snapshots[old.Snapshot].content.within(s.content):
		w.failf("%s commits %s, made upon %q, upon %q: the history forks", a.id, s.id, s.upon, old.Snapshot)
	}
	if !w.repo.intact(s.id) {
		if w.class != Pruning || w.repo.locks[next.Holder.Lock] != nil { // the write may be of a former life, with its lock
			w.failf("%s commits %s, of whose packs %v are missing", a.id, s.id, s.packs.minus(w.repo.exist))
		}
		w.damaged = true
	} else {
		w.damaged = false
	}
	s.committed = true
}

// highest is the newest head that a life has seen, by its record or by reading.
type highest struct{ epoch, seq uint64 }

func (b *highest) learn(in protocol.Input, seen protocol.Head) {
	if boot, ok := in.(protocol.Boot); ok && boot.Local.Record != nil {
		b.epoch, b.seq = boot.Local.Record.SeenEpoch, boot.Local.Record.SeenSeq
	}
	b.epoch, b.seq = max(b.epoch, seen.Epoch), max(b.seq, seen.Seq)
}

// checkBase: nobody who knows better writes upon a head that went back.
func (w *world) checkBase(a *agent, p protocol.PutHead) {
	for _, past := range w.store.past {
		h := past.seen.Head
		if past.seen.Tag == p.Base && (h.Epoch < a.best.epoch || h.Seq < a.best.seq) && w.tampered {
			w.tampered = false // this one counts
			w.failf("%s writes upon a head of epoch %d, seq %d and has seen %d, %d", a.id, h.Epoch, h.Seq, a.best.epoch, a.best.seq)
		}
	}
}

// checkHead: nothing acknowledged is missing from what the head names.
func (w *world) checkHead() {
	s := w.repo.snapshots[w.store.seen.Head.Snapshot]
	if lost := w.acked.minus(s.content); lost != (set{}) {
		w.failf("acknowledged writes %v are not in the head's %s", lost, s.id)
	}
}

// checkPacks: no needed pack is deleted.
func (w *world) checkPacks() {
	head := w.store.seen.Head.Snapshot
	if head != "" && !w.repo.intact(head) && !w.damaged {
		w.failf("packs %v of the head's %s are gone", w.repo.snapshots[head].packs.minus(w.repo.exist), head)
	}
	for _, id := range sorted(w.repo.snapshots) {
		if s := w.repo.snapshots[id]; s.pinned && s.object && !w.repo.intact(id) {
			w.failf("packs %v of diverged %s are gone", s.packs.minus(w.repo.exist), id)
		}
	}
}

// checkAck: what was on the disk when the backup was asked for is in the head,
// was committed or proven since, and can be restored.
func (w *world) checkAck(a *agent, r *request, h protocol.Head) {
	s := w.repo.snapshots[h.Snapshot]
	switch {
	case !r.content.within(s.content):
		w.failf("%s acknowledges %s without writes %v", a.id, s.id, r.content.minus(s.content))
	case !w.store.wasHead(h.Claim, h.Snapshot, r.at, w.now):
		w.failf("%s acknowledges %s, which was not the head's since the request", a.id, s.id)
	case !w.repo.intact(s.id) && s.id == w.store.seen.Head.Snapshot: // an older one may have been forgotten
		w.failf("%s acknowledges %s, of whose packs %v are missing", a.id, s.id, s.packs.minus(w.repo.exist))
	}
	w.acked = w.acked.union(r.content)
	w.checkHead()
}

// checkOverwrite: nothing uncommitted is dropped in silence, and what may be kept is.
func (w *world) checkOverwrite(a *agent, h protocol.Head) {
	if d := a.disk; w.class != Twins && w.class != PutBack && d.ranAt > 0 && !slices.ContainsFunc(w.store.from[d.ranAt:], func(o *disk) bool { return o != d }) {
		w.failf("%s restores over the files of its former life, though nobody else has claimed since", a.id)
	}
	have := a.disk.cache
	if a.cfg.DiscardImageFiles {
		have = have.minus(a.disk.image)
	}
	lost := have.minus(w.repo.saved()).minus(w.repo.snapshots[h.Snapshot].content)
	if lost != (set{}) {
		w.failf("%s overwrites %v, which stands nowhere else", a.id, lost)
	}
}

// checkStart: the application never starts on half a tree, nor without what was
// committed, and one claim belongs to one life.
func (w *world) checkStart(a *agent) {
	h := a.m.Status().Head
	s := w.repo.snapshots[h.Snapshot]
	switch {
	case a.disk.half && s.content != a.disk.cache:
		w.failf("%s starts jobs on half a tree", a.id)
	case !s.content.within(a.disk.cache):
		w.failf("%s starts jobs without %v of %s", a.id, s.content.minus(a.disk.cache), s.id)
	case a.disk.brought && s.content != a.disk.cache:
		w.failf("%s starts jobs with %v, which are not of %s", a.id, a.disk.cache.minus(s.content), s.id)
	}
	a.disk.brought = false
}

// checkRunning: under strict no two instances run jobs at once.
func (w *world) checkRunning() {
	if w.class != Strict {
		return
	}
	running := ""
	for _, a := range w.agents {
		if a.alive && a.jobs && !a.paused {
			running += a.id
		}
	}
	if len(running) > 1 {
		w.failf("%s run jobs at once", running)
	}
}

// checkStep: jobs run only under a claim that is ours as far as we know.
func (w *world) checkStep(a *agent) {
	s := a.m.Status()
	if a.alive && a.jobs && s.Head.Claim != a.claim && s.Phase != protocol.PhaseFault {
		w.failf("%s lets its jobs run though claim %s has replaced %s", a.id, s.Head.Claim, a.claim)
	}
	if a.alive && a.stopBy > 0 && w.now > a.stopBy {
		w.failf("%s has not ended in its grace", a.id)
	}
}

// checkExit: a life that ends well leaves nothing uncommitted.
func (w *world) checkExit(a *agent, err error) {
	if err != nil || !a.ran || a.disk.half || a.disk.brought { // a standby's copy is not its own
		return
	}
	if lost := a.disk.cache.minus(w.repo.saved()); lost != (set{}) {
		w.failf("%s ends well and leaves %v uncommitted", a.id, lost)
	}
}

// checkLive: when all faults have ceased, somebody serves.
func (w *world) checkLive() {
	if w.damaged && w.class == Pruning {
		return
	}
	for _, a := range w.agents {
		w.logf("%s: alive %v paused %v %+v", a.id, a.alive, a.paused, a.m.Status())
	}
	w.failf("calm since %s, and nobody serves", w.calmAt)
}

// settled says whether all requests made to the living are answered.
func (w *world) settled() bool { return true }
