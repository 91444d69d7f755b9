package failover

import (
	"maps"
	"slices"
	"time"
)

// reign is what the member does that leads.
func (t *step) reign() {
	if t.r.Phase == Bootstrapping {
		t.bootstrap()
		return
	}
	db := t.o.Database
	switch {
	case t.o.Busy:
		if !t.s.settled {
			t.d.Why = "becoming the primary"
		}
		return
	case t.o.Disk == nil || t.o.Disk.Empty:
		t.d.Why = "the local files are gone"
		if t.o.Process != Down {
			t.kill(t.d.Why)
			return
		}
		t.yield("its files are gone")
		return
	case t.o.Process == Down && t.s.was:
		t.over()
		return
	case t.o.Process == Down && t.s.starts >= 3 && t.replaceable():
		t.yield("its server does not start")
		return
	case t.o.Process == Down && t.o.Disk.Replica:
		t.start(Start{Standby: true}) // it was not promoted before: it must be, to have a history of its own
		return
	case t.o.Process == Down:
		t.led()
		t.start(Start{Set: t.target(t.attending())})
		return
	case db == nil || db.Incident != "":
		t.troubled()
		return
	}
	if !db.Primary {
		t.accede()
		return
	}
	t.s.was = true
	t.attend()
	t.govern()
}

// accede makes the elected replica a primary: those who are to acknowledge its commits are
// configured before it can have any.
func (t *step) accede() {
	t.d.Why = "becoming the primary"
	t.led()
	want := t.target(t.attending())
	if t.r.Set.Acks > want.Acks {
		t.write(func(r *Record) { r.Set.Acks = want.Acks })
		return
	}
	t.do(Synchronize{want})
	t.keep() // who follows finds it ready
	t.do(Promote{})
}

// led has remembered that these files are a primary's from here on.
func (t *step) led() {
	if t.s.Led != t.r.Epoch {
		t.s.Led, t.s.Lineage = t.r.Epoch, t.r.Epoch
		t.persist()
	}
}

// govern is the primary's daily work. It does one thing at a time that needs the record.
func (t *step) govern() {
	if t.chronicled() && t.enrolled() && t.configured() && t.feasible() && t.swept() && t.synchronized() {
		t.open()
	}
	t.keep()
}

// chronicled reports whether the record knows the timeline of this reign.
func (t *step) chronicled() bool {
	n, db := len(t.r.History), t.o.Database
	if n == 0 || t.r.History[n-1].Epoch != t.r.Epoch {
		return true
	}
	last := t.r.History[n-1]
	if order, ok := t.cfg.Compare(db.Began, last.From); ok && order < 0 {
		last.From = db.Began
	}
	last.Timeline = db.Timeline
	if last == t.r.History[n-1] {
		return true
	}
	t.write(func(r *Record) { r.History[n-1] = last })
	return false
}

// configured reports whether the record has the mode that this member is configured for, and no
// wish that is fulfilled. Without synchronous replication nobody knows all commits for certain.
func (t *step) configured() bool {
	done := t.r.Switchover != nil && t.r.Switchover.To == t.cfg.Name
	if t.r.Mode == t.cfg.Mode && !done {
		return true
	}
	t.write(func(r *Record) {
		if r.Mode = t.cfg.Mode; r.Mode == Off {
			r.Set.Acks = 0
		}
		if done {
			r.Switchover = nil
		}
	})
	return false
}

// swept reports whether the record has no member that has been gone for long; else it is taken out.
func (t *step) swept() bool {
	entered := map[string]time.Duration{}
	for _, m := range t.r.Members {
		since, known := t.s.entered[m.ID]
		if !known {
			since = t.o.Now
		}
		entered[m.ID] = since
	}
	t.s.entered = entered // who enters again begins anew: it may reach the coordinator, and not this member
	for _, name := range slices.Sorted(maps.Keys(t.r.Members)) {
		m := t.r.Members[name]
		if m.ID == t.s.ID || t.r.Set.Has(m.ID) || t.o.Now-entered[m.ID] < t.cfg.Forget || t.s.streamed[m.ID] == t.o.Now {
			continue
		}
		if a, ok := t.o.Answers[m.ID]; !ok || t.o.Now-a.Sent >= t.cfg.Forget {
			entered[m.ID] = t.o.Now // if it enters again at once
			t.write(func(r *Record) { delete(r.Members, name) })
			return false
		}
	}
	return true
}

// open admits clients once nothing that they could read can be lost; or closes, when another one is to lead.
func (t *step) open() {
	if t.departing() {
		return
	}
	if !t.o.Database.Open {
		t.d.Why = "admitting clients"
		t.do(Admit{true})
	}
}

// keep has the log kept for members that may need it.
func (t *step) keep() {
	var ids []string
	for _, m := range t.r.Members {
		if m.ID != t.s.ID && m.Tags.ReplicateFrom == "" { // what is kept for nobody who comes fills the disk
			ids = append(ids, m.ID)
		}
	}
	slices.Sort(ids)
	if !slices.Equal(ids, t.s.kept) {
		t.do(Keep{ids})
	}
}

// Kept is the state after Keep succeeded.
func (s State) Kept(ids []string) State {
	s.kept = ids
	return s
}

// departing reports whether another one is to lead, and does the next thing towards it.
func (t *step) departing() bool {
	heir := t.heir()
	if heir == "" {
		if t.s.leaving && !t.o.Stopping {
			t.s.leaving = false
		}
		if !t.o.Stopping {
			return false
		}
	}
	t.s.leaving, t.s.leaver = true, heir
	t.d.Why = "handing over"
	if t.o.Database.Open && heir != "" {
		t.do(Admit{false})
		return true
	}
	t.do(Stop{})
	return true
}

// Relieved reports whether another member has, or gets, all that this one's server has: it need not store anything before it ends.
func (s State) Relieved() bool { return s.leads == 0 || s.leaving && s.leaver != "" }

// heir is the ID of who is to lead next; empty: nobody else, as yet.
func (t *step) heir() string {
	s := t.r.Switchover
	planned := s != nil && !t.o.Clock.Before(s.At) && !t.r.Paused
	if !planned && !t.o.Stopping {
		return ""
	}
	var best claimant
	for _, p := range t.o.Database.Replicas {
		name := t.r.Name(p.ID)
		m := t.r.Members[name]
		a, ok := t.fresh(p.ID)
		if name == "" || !ok || a.Leaving || !p.Streaming || m.Tags.NoFailover || !t.r.Set.Has(p.ID) {
			continue
		}
		if planned && s.To != "" && s.To != name {
			continue
		}
		a.Received = p.Flushed
		if c := (claimant{name, m, a}); best.name == "" || t.better(c, best) {
			best = c
		}
	}
	switch {
	case planned && (best.name == "" || t.r.Mode != Off && t.r.Set.Acks == 0):
		t.d.Why = "no replica is ready to take over"
		return ""
	case len(t.attending()) < t.r.Set.quorum():
		t.d.Why = "too few replicas answer to elect one of them"
		return ""
	}
	return best.ID
}

// troubled gives a server up that does not answer, or cannot write, for a TTL.
func (t *step) troubled() {
	t.d.Why = "the server does not answer"
	if t.o.Database != nil {
		t.d.Why = t.o.Database.Incident
	}
	if t.s.troubled == 0 {
		t.s.troubled = t.o.Now
	}
	patience := t.cfg.TTL
	if t.o.Process == Starting { // it may have much to recover, as long as nobody else can lead
		if !t.replaceable() {
			return
		}
		patience *= 5
	}
	if t.o.Now-t.s.troubled >= patience {
		t.s.was = true // it is not started again if another one can lead
		t.kill(t.d.Why)
	}
}

// over is for the end of a primary's server, whether it was asked for or not.
func (t *step) over() {
	if t.s.leaving && t.o.Stopping && t.s.leaver == "" {
		t.d.Why = "ended"
		t.resign()
		return
	}
	t.yield("the primary's server has ended")
}

// resign has it lead no more in this epoch, though it stays the last primary.
func (t *step) resign() {
	t.d.Beat, t.d.LeadUntil = 0, 0
	t.s.leads, t.s.tried = 0, 0
}

// yield lets the others elect, if there are any who may be; else this member leads again.
func (t *step) yield(reason string) {
	t.d.Why = reason
	next, ok := t.successor()
	if !ok {
		t.resign() // it has to ask for the lead anew
		return
	}
	t.write(func(r *Record) {
		r.Epoch++
		r.Phase, r.Candidate, r.Stopped = Electing, next, true
	})
}

// replaceable reports whether another one can lead.
func (t *step) replaceable() bool {
	_, ok := t.successor()
	return ok
}

// successor is the best of those who may be elected, as far as is known; ok is false if nobody may.
func (t *step) successor() (id string, ok bool) {
	if t.r.Mode != Off && t.r.Set.Acks == 0 || t.r.Paused {
		return "", false
	}
	if t.s.leaver != "" && t.s.leaving {
		return t.s.leaver, true
	}
	var best claimant
	for _, id := range t.r.Set.Members {
		name := t.r.Name(id)
		a, fresh := t.fresh(id)
		if id == t.s.ID || name == "" || !fresh || a.Leaving || t.r.Members[name].Tags.NoFailover || a.Lineage == 0 || a.Received == "" {
			continue
		}
		if c := (claimant{name, t.r.Members[name], a}); best.name == "" || t.better(c, best) {
			best = c
		}
	}
	return best.ID, best.name != ""
}

// reclaim is for the member that was the last primary and does not lead: it was started again, or
// could not prove itself in time.
func (t *step) reclaim() {
	t.d.Why = "the last primary, not leading"
	if t.r.Phase == Running {
		t.s.vacant = 0
	}
	if t.o.Process != Down || t.o.Busy {
		t.kill("it does not lead any more")
		return
	}
	if t.o.Disk == nil {
		return
	}
	if t.o.Stopping {
		t.d.Why = "ended"
		return
	}
	if t.r.Phase == Bootstrapping {
		t.again()
		return
	}
	if t.o.Disk.Empty {
		t.d.Why = "the files of the last primary are gone"
		t.revive()
		return
	}
	if t.o.Now-t.s.sign < t.cfg.TTL/4 && len(t.attending()) < len(t.r.Set.Members) {
		t.d.Why = "asking whether another member can lead"
		return
	}
	if t.r.Phase == Running && t.replaceable() {
		t.yield("the primary was started again")
		return
	}
	if t.r.Phase == Running || t.needed() {
		t.again()
	}
}

// needed reports whether the others can hardly elect one of them without this member: too few
// of those who must be asked are there, or nobody acknowledged, or they have tried for long.
func (t *step) needed() bool {
	if t.s.vacant == 0 {
		t.s.vacant = t.o.Now
	}
	waited := t.o.Now - t.s.vacant
	asked := t.r.Switchover != nil && t.r.Switchover.Force
	few := len(t.attending()) < t.r.Set.quorum() || t.r.Mode != Off && t.r.Set.Acks == 0 && !asked
	return waited >= 3*t.cfg.TTL || few && waited >= t.cfg.TTL/2
}

// again has the last primary lead anew, on the history that it has: nobody was made primary
// since, so nothing was acknowledged that is not in its files.
func (t *step) again() {
	next := t.r.Clone()
	next.Epoch++
	if next.Phase == Electing {
		next.Phase = Running
	}
	next.Since, next.Candidate, next.Stopped, next.Switchover = next.Epoch, "", false, nil
	if next.Phase == Running {
		next.Set.Acks = min(next.Set.Acks, t.target(t.attending()).Acks)
		reigns(next, Reign{Epoch: next.Epoch, Primary: t.s.ID, Reason: "restart", Time: t.o.Clock})
	}
	t.claim(next)
}
