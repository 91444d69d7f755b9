package failover

import "time"

// An election: a candidate writes itself down with the next epoch. Every member that sees it stops
// receiving, for good, and says how far it has come. When so many of the record's set have
// answered that too few are left to acknowledge a commit of the old primary's, and none of them
// has more than the candidate, it writes itself down as primary, and only then leads.

// electable reports whether this member may ever be elected from here.
func (t *step) electable() bool {
	return t.r.Set.Has(t.s.ID) && !t.cfg.Self.Tags.NoFailover && t.s.Led == 0 && t.s.Lineage != 0 &&
		(t.r.Mode == Off || t.r.Set.Acks > 0) && t.r.Members[t.cfg.Name].ID == t.s.ID &&
		t.o.Process == Up && t.o.Database != nil && !t.o.Database.Primary && t.o.Database.Incident == ""
}

// forced reports whether somebody has asked for a failover to this member.
func (t *step) forced() bool {
	s := t.r.Switchover
	return s != nil && s.Force && s.To == t.cfg.Name && t.s.Led == 0 && t.s.Lineage != 0 &&
		t.o.Process == Up && t.o.Database != nil && !t.o.Database.Primary
}

// turn is how long the better ones are let go first.
func (t *step) turn() time.Duration {
	own := t.claimant()
	better := 0
	for name, m := range t.r.Members {
		a, ok := t.fresh(m.ID)
		if name == t.cfg.Name || !ok || !t.r.Set.Has(m.ID) || m.Tags.NoFailover || a.Led != 0 || a.Lineage == 0 {
			continue
		}
		if t.better(claimant{name, m, a}, own) {
			better++
		}
	}
	return time.Duration(better) * t.cfg.TTL / 8
}

// stand has this member become a candidate, when it is its turn.
func (t *step) stand(reason string) bool {
	t.d.Why = reason
	if t.s.vacant == 0 {
		t.s.vacant = t.o.Now
	}
	if t.o.Now-t.s.vacant < t.turn() {
		return false
	}
	t.write(func(r *Record) {
		r.Epoch++
		r.Phase, r.Candidate, r.Stopped = Electing, t.s.ID, r.Stopped && r.Phase == Electing
	})
	return true
}

// elect is what a member does while somebody is elected.
func (t *step) elect() {
	t.d.Why = "a primary is elected"
	detached := t.detached()
	switch {
	case t.r.Candidate == t.s.ID:
		if detached {
			t.canvass()
		}
	case t.r.Paused && t.r.Candidate == "":
		t.d.Why = "there is no primary, and failover is paused"
	case t.electable() && (t.r.Candidate == "" || t.silent() >= t.cfg.TTL) || t.forced():
		if t.s.vacant == 0 {
			t.s.vacant = t.o.Now
		}
		t.stand("nobody leads")
	default:
		t.s.vacant = 0
		t.revive()
	}
}

// detached reports whether this member receives from nobody; else it has it so.
func (t *step) detached() bool {
	db := t.o.Database
	switch {
	case t.o.Process == Down && t.o.Disk != nil && !t.o.Disk.Empty && t.s.Led == 0 && !t.s.Torn && !t.o.Busy:
		t.start(Start{Standby: true})
	case db == nil || t.o.Busy:
		t.hung()
	case db.Upstream != "" || db.Archive:
		t.do(Follow{""})
	}
	return db != nil && !t.o.Busy && !db.Primary && db.Upstream == "" && db.Detached && t.o.Asked >= t.s.sign && db.Received != ""
}

// Answer is what this member tells others. epoch is what it has written down for certain.
func (s State) Answer(epoch uint64, o Observation) Answer {
	a := Answer{ID: s.ID, Epoch: epoch, Lineage: min(s.Lineage, s.sure.Lineage), Led: s.Led}
	a.Down, a.Leaving = o.Process == Down && s.leads == 0, s.stopping
	if db := o.Database; db != nil {
		a.Received, a.Primary = db.Received, db.Primary && s.leads == epoch && s.leads != 0
		a.Detached = !db.Primary && db.Upstream == "" && db.Detached && db.Received != "" && s.Epoch == epoch && !o.Busy
	}
	return a
}

// claimant is a member that may be elected, and what it said.
type claimant struct {
	name   string
	member Member
	Answer
}

func (t *step) claimant() claimant {
	return claimant{t.cfg.Name, t.own(), Answer{ID: t.s.ID, Lineage: t.s.Lineage, Received: t.o.Database.Received}}
}

// better reports whether a is to be preferred to b: it has more of the newest history, or nothing beside
// it, or a higher priority, or at last the smaller name.
func (t *step) better(a, b claimant) bool {
	at, astray := t.within(a.Lineage, a.Received)
	bt, bstray := t.within(b.Lineage, b.Received)
	order, ok := t.cfg.Compare(at, bt)
	switch {
	case ok && order != 0:
		return order > 0
	case astray != bstray:
		return bstray
	case a.member.Tags.Priority != b.member.Tags.Priority:
		return a.member.Tags.Priority > b.member.Tags.Priority
	}
	return a.name < b.name
}

// ballot is what a candidate has been told.
type ballot struct {
	own, best claimant
	count     int    // of those who may know the last commits
	need      int    // so many of them must be asked
	awaited   bool   // somebody who answers as a rule has not yet
	puzzle    string // why it cannot be decided who knows more
}

// canvass is the candidate's part.
func (t *step) canvass() {
	set, own := t.r.Set, t.claimant()
	b := ballot{own: own, best: own, need: set.quorum()}
	if set.Has(t.s.ID) || set.Acks == 0 {
		b.count = 1
	}
	for _, id := range set.Members {
		if id == t.s.ID {
			continue
		}
		a, ok := t.o.Answers[id]
		if !ok || a.Epoch != t.r.Epoch || !a.Detached || a.Sent < t.s.sign || a.Lineage == 0 {
			_, lately := t.fresh(id)
			b.awaited = b.awaited || lately || !t.r.Stopped
			continue
		}
		b.count++
		t.weigh(&b, claimant{t.r.Name(id), t.r.Members[t.r.Name(id)], a})
	}
	t.decide(b)
}

// weigh compares the candidate with one who has answered.
func (t *step) weigh(b *ballot, c claimant) {
	at, _ := t.within(c.Lineage, c.Received)
	mine, _ := t.within(b.own.Lineage, b.own.Received)
	if _, comparable := t.cfg.Compare(at, mine); !comparable {
		b.puzzle = "the logs of " + b.own.name + " and " + c.name + " cannot be compared: somebody has to choose (drover failover)"
		return
	}
	if t.better(c, b.best) {
		b.best = c
	}
}

// decide ends the election, hands it on, or waits.
func (t *step) decide(b ballot) {
	_, strayed := t.within(b.own.Lineage, b.own.Received)
	waited := t.o.Now - t.s.sign
	ahead := t.ahead(b.best, b.own)
	switch {
	case t.forced() && waited >= t.cfg.TTL:
		t.win() // whoever asked for it has been told what may be lost
	case t.forced() && t.r.Mode == Off && !t.ended():
		t.d.Why = "waiting until the primary has certainly ended"
	case t.r.Mode != Off && t.r.Set.Acks == 0:
		t.d.Why = "nobody but the last primary is known to have all commits: somebody has to choose (drover failover)"
	case b.puzzle != "":
		t.d.Why = b.puzzle
	case b.count < b.need:
		t.d.Why = "too few of those who may know the last commits have answered"
	case t.r.Set.Acks == 0 && b.awaited && waited < t.cfg.TTL/2:
		t.d.Why = "waiting for those who may know more"
	case ahead && (b.best.member.Tags.NoFailover || b.best.name == ""):
		t.d.Why = "a member that may not be elected knows more than those who may"
	case ahead:
		t.write(func(r *Record) { r.Candidate = b.best.ID })
	case strayed:
		t.d.Why = "it has received what the last primary did not have"
	default:
		t.win()
	}
}

// ended reports whether the server of the last primary is known to have ended.
func (t *step) ended() bool {
	a := t.o.Answers[t.r.Primary]
	return t.r.Stopped || a.Epoch == t.r.Epoch && a.Down && a.Sent >= t.s.sign
}

// ahead reports whether a has more of the newest history than b, or nothing beside it where b has.
func (t *step) ahead(a, b claimant) bool {
	at, astray := t.within(a.Lineage, a.Received)
	bt, bstray := t.within(b.Lineage, b.Received)
	order, _ := t.cfg.Compare(at, bt)
	return order > 0 || order == 0 && bstray && !astray
}

// win makes the candidate the primary. Old commits stay looked for among those who acknowledged
// them, until enough of the new set have them (see sets.go).
func (t *step) win() {
	next := t.r.Clone()
	reason := "failover"
	if s := next.Switchover; s != nil {
		if reason = "switchover"; s.Force {
			reason = "failover by hand"
		}
	}
	next.Phase, next.Since, next.Primary = Running, next.Epoch, t.s.ID
	next.Candidate, next.Stopped, next.Switchover = "", false, nil
	next.Set.Acks = min(next.Set.Acks, t.target(t.attending()).Acks)
	from, strayed := t.within(t.s.Lineage, t.o.Database.Received)
	if strayed && from == "" { // by hand; others cannot be compared with it anyway
		from = t.o.Database.Received
	}
	reigns(next, Reign{Epoch: next.Epoch, Primary: t.s.ID, Reason: reason, Time: t.o.Clock, From: from})
	t.claim(next)
}

// attending are those of the set that have answered lately.
func (t *step) attending() []string {
	var ids []string
	for _, id := range t.r.Set.Members {
		if _, ok := t.fresh(id); ok && t.syncable(id) {
			ids = append(ids, id)
		}
	}
	return ids
}
