package failover

import (
	"maps"
	"slices"
)

// A standby cluster follows another one by nothing but that one's archive: it has no primary, and its members do not depend on each
// other. Somebody's word ends that: all stop to apply, and who has applied most leads a history of its own from there on. Whether the
// other cluster lives is not asked.

// foundStandby asks for a standby cluster. It is no claim: nobody leads it.
func (t *step) foundStandby() {
	t.d.Why = "beginning to follow another cluster"
	r := &Record{Epoch: t.s.Epoch + 1, Phase: Standby, Mode: t.cfg.Mode}
	enrol(r, t.cfg.Name, t.own())
	t.put(r)
}

// refoundStandby writes the record again that the coordinator has lost, in the epoch that it was of: whoever was made primary since has
// a newer one, and writes that.
func (t *step) refoundStandby() {
	t.d.Why = "the coordinator has lost the cluster's record: writing it again"
	next := t.s.last.Next()
	t.do(Write{next})
}

// shadow is what a member of a standby cluster does.
func (t *step) shadow(newID string) {
	db, disk := t.o.Database, t.o.Disk
	wished := t.r.Switchover != nil && t.r.Switchover.Force
	if !wished {
		t.s.vacant = 0
	}
	switch {
	case db != nil && db.Primary || t.s.Led != 0 && t.o.Process != Down && !t.o.Busy:
		t.kill("this cluster has no primary")
	case t.o.Stopping:
		t.leave()
	case disk == nil:
		t.d.Why = "the local files cannot be looked at"
	case t.o.Busy:
		if disk.Empty || t.s.Torn {
			t.d.Why = seeding
		}
	case !disk.Empty && t.r.System != "" && disk.System != t.r.System:
		t.d.Why = "the local files are of another database (" + disk.System + ", not " + t.r.System + "): they are kept, and nothing is done with them"
	case !disk.Empty && !t.s.Torn && (t.s.Led != 0 || !disk.Replica):
		t.d.Why = "the local files are a primary's: they are kept, and nothing is done with them"
	case disk.Empty || t.s.Torn:
		t.seed(newID)
	case t.r.System == "":
		t.write(func(r *Record) { r.System = disk.System })
	case !t.enrolled():
	case wished:
		t.ascend()
	default:
		t.apply(newID)
	}
}

const seeding = "restoring the newest backup of the cluster that it follows"

// seed makes the files those of a replica of the other cluster.
func (t *step) seed(newID string) {
	if t.unguided() {
		return
	}
	t.d.Why = seeding
	t.kill("its files are made anew")
	t.do(Seed{t.r.System, newID})
}

// unguided reports whether this member does not know which cluster is followed.
func (t *step) unguided() bool {
	if !t.cfg.Standby {
		t.d.Why = "this cluster follows another one, and the configuration of this member does not say which (database.standby_of)"
	}
	return !t.cfg.Standby
}

// apply keeps the server applying what the archive has.
func (t *step) apply(newID string) {
	switch db := t.o.Database; {
	case t.o.Process == Down && t.s.starts >= 20:
		t.s.starts = 0
		t.seed(newID)
	case t.o.Process == Down:
		t.start(Start{Standby: true, Archive: true})
	case db == nil:
		t.d.Why = "the server does not answer"
		t.hung()
	case !db.Archive: // it was about to lead, and is not any more
		t.do(Stop{})
	case !db.Open:
		t.do(Admit{true})
	default:
		t.unguided()
	}
}

// ascend has one member lead, which ends what a standby cluster is: the one that was named, or who has applied most.
func (t *step) ascend() {
	t.d.Why = "this cluster is about to be one of its own"
	if !t.detached() {
		return
	}
	if t.s.vacant == 0 {
		t.s.vacant = t.o.Now
	}
	to := t.r.Switchover.To
	if to != "" && to != t.cfg.Name || to == "" && !t.foremost() {
		return
	}
	next := t.r.Clone()
	next.Epoch++
	next.Phase, next.Since, next.Primary, next.Switchover = Running, next.Epoch, t.s.ID, nil
	reigns(next, Reign{Epoch: next.Epoch, Primary: t.s.ID, Reason: "promotion", Time: t.o.Clock, From: t.o.Database.Received})
	t.claim(next)
}

// foremost reports whether nobody who may lead has applied more. Who is there is waited for until it applies no
// more, but not for ever.
func (t *step) foremost() bool {
	waited := t.o.Now - t.s.vacant
	own := t.claimant()
	if own.member.Tags.NoFailover {
		return false
	}
	for _, name := range slices.Sorted(maps.Keys(t.r.Members)) {
		m := t.r.Members[name]
		if name == own.name || m.Tags.NoFailover {
			continue
		}
		a, lately := t.fresh(m.ID)
		still := lately && a.Detached && a.Epoch == t.r.Epoch
		switch {
		case !lately && waited < t.cfg.TTL, lately && !still && waited < 3*t.cfg.TTL:
			t.d.Why = "waiting until it is known how much " + name + " has applied"
			return false
		case !still:
			continue
		}
		if _, comparable := t.cfg.Compare(own.Received, a.Received); !comparable {
			t.d.Why = "what " + own.name + " and " + name + " have applied cannot be compared: somebody has to choose (drover failover --to)"
			return false
		}
		if t.better(claimant{name, m, a}, own) {
			return false
		}
	}
	return true
}
