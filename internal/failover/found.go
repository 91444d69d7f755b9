package failover

import "time"

// found is for a cluster that has no record: there is none yet, or it was lost.
func (t *step) found() {
	switch {
	case t.s.leads != 0 && t.s.last != nil:
		t.restore()
	case t.s.last != nil && t.s.last.Phase == Standby:
		t.refoundStandby()
	case t.o.Disk == nil:
		t.d.Why = "the local files cannot be looked at"
		t.unled()
	case !t.o.Disk.Empty && !t.adopts():
		t.d.Why = "there is a database here, but no record of its cluster in the coordinator"
		t.unled()
	case t.o.Stopping:
	case t.o.Disk.Empty && t.o.Unsure:
		t.d.Why = unsure
	case t.o.Backup && t.o.Now-t.since() < 2*t.cfg.TTL:
		// There was a cluster, and there may be one: who leads it writes the record again.
		t.d.Why = "there is a backup, but no record of its cluster in the coordinator: waiting whether somebody leads"
	case t.cfg.Standby && !t.o.Backup: // with a backup of its own it was one of its own
		t.foundStandby()
	case t.cfg.Self.Tags.NoFailover:
		t.d.Why = "there is no cluster yet, and a member with the tag nofailover makes none"
	default:
		r := &Record{Epoch: t.s.Epoch + 1, Phase: Bootstrapping, Mode: t.cfg.Mode, Primary: t.s.ID}
		enrol(r, t.cfg.Name, t.own())
		t.claim(r)
	}
}

// unsure is why no new database is made: it could take the place of one that there is a backup of.
const unsure = "it is not known yet whether there is a backup to begin with"

// restore writes the record again that the coordinator has lost, or of which it has an old backup, or in
// whose place another cluster was founded: who leads knows what was in it. If it only was a stale reading the write is refused.
func (t *step) restore() {
	if t.s.leads == 0 || t.s.last == nil || t.o.Record != nil && !t.o.Record.version().before(t.s.last.version()) {
		return
	}
	t.d.Why = "the coordinator has lost the cluster's record: writing it again"
	next := t.s.last.Next()
	next.Epoch++
	t.claim(next) // a new epoch: whoever founds another cluster meanwhile is in conflict with this write, or it with his
}

// since is when it was first seen that there is no record.
func (t *step) since() time.Duration {
	if t.s.vacant == 0 {
		t.s.vacant = t.o.Now
	}
	return t.s.vacant
}

// adopts reports whether this member may found a cluster upon the files that it has: it is told to, and
// they were never a member's.
func (t *step) adopts() bool {
	return t.cfg.Adopt && t.s.Led == 0 && t.s.Lineage == 0 && !t.s.Torn
}

// claim asks for an epoch in which this member leads.
func (t *step) claim(r *Record) {
	switch {
	case t.s.tried != r.Epoch:
		t.s.tried, t.s.triedAt = r.Epoch, t.o.Now
	case t.o.Sent >= t.s.triedAt+t.cfg.TTL:
		t.s.triedAt = t.o.Sent // not before this was it done: the record is still the former one
	}
	t.put(r)
}

// bootstrap makes the first database, as the member that was chosen to.
func (t *step) bootstrap() {
	disk := t.o.Disk
	switch {
	case disk == nil:
		t.d.Why = "the local files cannot be looked at"
	case t.o.Busy:
		t.d.Why = "making the first database"
	case disk.Empty && t.o.Unsure:
		t.d.Why = unsure
	case disk.Empty:
		t.s.Made = t.r.Epoch // what is found later is nobody's data
		t.persist()
		t.do(t.first())
	default:
		next := t.r.Clone()
		next.Epoch++
		next.Phase, next.Since, next.System = Running, next.Epoch, disk.System
		reigns(next, Reign{Epoch: next.Epoch, Primary: t.s.ID, Reason: "bootstrap", Time: t.o.Clock})
		t.claim(next)
	}
}

func (t *step) first() Action {
	t.d.Why = "making the first database"
	if t.o.Backup {
		t.d.Why = "restoring the newest backup"
		return Restore{}
	}
	return Init{}
}

// awaitFirst waits for the first database, and has another member make it if who was to is gone.
func (t *step) awaitFirst() {
	t.d.Why = "another member makes the first database"
	t.unled()
	if !t.enrolled() || t.o.Stopping || t.r.Paused || t.silent() < t.cfg.TTL || t.cfg.Self.Tags.NoFailover {
		return
	}
	if t.o.Disk == nil || !t.o.Disk.Empty && !t.leftover() {
		return
	}
	next := t.r.Clone()
	next.Epoch++
	next.Primary = t.s.ID
	t.claim(next)
}

// leftover reports whether the local files are only what an own, abandoned bootstrap has made.
func (t *step) leftover() bool { return t.s.Made != 0 && t.s.Led == 0 && t.s.Lineage == 0 }
