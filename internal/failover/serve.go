package failover

import "time"

// serve is what a member does that neither leads nor was the last to.
func (t *step) serve(newID string) {
	if t.o.Database != nil && t.o.Database.Primary || t.s.Led != 0 && t.o.Process != Down && !t.o.Busy {
		t.kill("another member is the primary") // whether it answers or not
		return
	}
	if t.o.Stopping {
		t.leave()
		return
	}
	if t.r.Phase == Electing {
		t.elect()
		return
	}
	t.s.vacant = t.vacancy()
	if t.s.vacant != 0 && t.stand("the primary is silent") {
		return
	}
	if t.forced() && t.stand("failover by hand") {
		return
	}
	t.replicate(newID)
}

// replicate keeps the local files and server a replica's of the primary.
func (t *step) replicate(newID string) {
	primary, up := t.fresh(t.r.Primary)
	up = up && primary.Primary && primary.Epoch == t.r.Epoch
	disk := t.o.Disk
	switch {
	case disk == nil:
		t.d.Why = "the local files cannot be looked at"
	case t.o.Busy:
		if disk.Empty || t.s.Torn {
			t.d.Why = "copying from another member"
		}
	case !disk.Empty && disk.System != t.r.System && !t.leftover():
		t.d.Why = "the local files are of another database (" + disk.System + ", not " + t.r.System + "): they are kept, and nothing is done with them"
	case disk.Empty || disk.System != t.r.System:
		t.renew(up, Clone{t.r.Primary, newID}, newID)
	case t.s.Led != 0 || t.s.Torn:
		t.renew(up, Rewind{t.r.Primary, newID}, newID)
	case !t.enrolled():
	default:
		t.follow(up, newID)
	}
}

// renew makes the files new ones, under a new ID.
func (t *step) renew(up bool, a Action, newID string) {
	if !up {
		t.d.Why = "waiting for the primary to copy from"
		t.revive()
		return
	}
	t.d.Why = "copying from another member"
	t.kill("its files are made a replica's anew")
	t.do(a)
}

// revive begins again with the newest backup, when all members have been gone for so long that
// nobody is waited for any more.
func (t *step) revive() {
	if t.r.Paused || t.cfg.Self.Tags.NoFailover || t.cfg.Lost == 0 || t.silent() < t.cfg.Lost || t.o.Disk == nil || !t.o.Disk.Empty {
		return
	}
	for _, m := range t.r.Members {
		if a, ok := t.fresh(m.ID); ok && a.Lineage != 0 {
			return
		}
	}
	switch {
	case t.o.Unsure:
		t.d.Why += ", " + unsure
		return
	case !t.o.Backup:
		t.d.Why += ", and there is no backup to begin with instead"
		return
	}
	next := t.r.Clone()
	next.Epoch++
	next.Phase, next.Primary, next.Set, next.Members = Bootstrapping, t.s.ID, SyncSet{}, nil
	next.Candidate, next.Stopped, next.Switchover = "", false, nil
	enrol(next, t.cfg.Name, t.own())
	t.claim(next)
}

// Renewing is the state to write down before Clone or Rewind touches the files: what was said of
// them counts no more, and they are started by nobody.
func (s State) Renewing(id string) State {
	s.ID, s.Lineage, s.Torn = id, 0, true
	return s
}

// Renewed is the state after it succeeded: it is another copy.
func (s State) Renewed(id string) State {
	s.Persistent = Persistent{ID: id, Epoch: s.Epoch}
	s.rewound = s.rewound || s.unfed != 0
	s.unfed = 0
	return s
}

// follow has the server follow the primary.
func (t *step) follow(up bool, newID string) {
	db, upstream := t.o.Database, t.upstream()
	switch {
	case t.o.Process == Down && t.s.starts >= 20 && up && !t.r.Set.Has(t.s.ID):
		t.s.starts = 0
		t.renew(up, Clone{t.r.Primary, newID}, newID) // nobody counts on this copy, and it is none that can be started
		return
	case t.o.Process == Down:
		t.start(Start{Standby: true, Upstream: upstream})
		return
	case db == nil:
		t.d.Why = "the server does not answer"
		t.hung()
		return
	case db.Upstream != upstream:
		t.do(Follow{upstream})
		return
	}
	if db.Receiving {
		t.s.unfed, t.s.rewound = 0, false
		if t.s.Lineage != t.r.Epoch {
			t.s.Lineage = t.r.Epoch
			t.persist()
		}
		if !db.Open {
			t.do(Admit{true})
		}
		return
	}
	relay, late := upstream != t.r.Primary, t.cfg.Self.Tags.Delayed
	if t.d.Why = "it receives nothing from the primary"; relay {
		t.d.Why = "it receives nothing from " + t.cfg.Self.Tags.ReplicateFrom
	}
	if late != 0 {
		t.d.Why += " before it has applied what it has, " + late.String() + " late"
		if !db.Open { // it is there to be looked at
			t.do(Admit{true})
		}
	}
	switch {
	case !relay:
		t.starve(up, newID)
	case t.hungry() >= t.cfg.TTL+late:
		t.s.unfed, t.s.shunned = 0, t.o.Now
	}
}

// hungry is for how long a replica has got nothing.
func (t *step) hungry() time.Duration {
	if applied := t.o.Database.Applied; t.s.unfed == 0 || applied != t.s.reached {
		t.s.unfed, t.s.reached = t.o.Now, applied // what it takes from an archive feeds it, too
	}
	return t.o.Now - t.s.unfed
}

// upstream is whom a replica takes the log from: the primary, or the replica that its tag names, as long as that one lives and
// has this reign's history: then what is received from it is that, too. Who takes it from another one itself is passed over,
// and for a while who does not give it.
func (t *step) upstream() string {
	relay, is := t.r.Members[t.cfg.Self.Tags.ReplicateFrom]
	a, ok := t.o.Answers[relay.ID]
	switch {
	case !is || relay.ID == t.s.ID || relay.Tags.ReplicateFrom != "":
	case !ok || t.o.Now-a.Sent > t.cfg.TTL || a.Lineage != t.r.Epoch || a.Led != 0 || a.Down || a.Leaving:
	case t.s.shunned != 0 && t.o.Now-t.s.shunned < 20*t.cfg.TTL:
	default:
		return relay.ID
	}
	return t.r.Primary
}

// starve goes back, or copies all anew, when the primary is there but does not feed this replica.
func (t *step) starve(up bool, newID string) {
	if !up {
		t.s.unfed = 0
		return
	}
	hungry := t.hungry()
	_, strayed := t.within(t.s.Lineage, t.o.Database.Received)
	delayed := t.cfg.Self.Tags.Delayed // it asks for more only when it has applied what it has
	patience := 5*t.cfg.TTL + delayed  // it may be a primary with much to do, and this copy may be needed yet
	if strayed && (delayed == 0 || t.o.Database.Received != "") {
		patience = t.cfg.TTL / 4
	}
	switch {
	case hungry < patience:
	case t.s.rewound:
		t.renew(up, Clone{t.r.Primary, newID}, newID)
	default:
		t.renew(up, Rewind{t.r.Primary, newID}, newID)
	}
}

// hung kills a server that has not answered for a TTL.
func (t *step) hung() {
	if t.o.Process != Up {
		t.s.troubled = 0
		return
	}
	if t.s.troubled == 0 {
		t.s.troubled = t.o.Now
	}
	if t.o.Now-t.s.troubled >= t.cfg.TTL {
		t.s.troubled = 0
		t.kill("it has not answered for " + t.cfg.TTL.String())
	}
}

// leave ends a replica in order, and takes it out of the record.
func (t *step) leave() {
	t.d.Why = "ending"
	if t.o.Process != Down {
		t.do(Stop{})
		return
	}
	if t.r.Members[t.cfg.Name].ID == t.s.ID {
		t.write(func(r *Record) { delete(r.Members, t.cfg.Name) })
	}
}

// within is how far a log of that lineage and length goes in the history of the newest reign: its own
// position, or where that history leaves it; strayed says that it goes on beyond that. Empty: it is not known.
func (t *step) within(lineage uint64, received string) (position string, strayed bool) {
	if lineage < t.r.Forgotten {
		return "", true
	}
	position = received
	for _, reign := range t.r.History {
		if reign.Epoch <= lineage || reign.From == "" {
			continue
		}
		if order, ok := t.cfg.Compare(position, reign.From); !ok || order > 0 {
			position, strayed = reign.From, true
		}
	}
	return position, strayed
}

// vacancy is since when this member could stand for election; 0: it cannot.
func (t *step) vacancy() time.Duration {
	if t.r.Paused || t.silent() < t.cfg.TTL || !t.electable() {
		return 0
	}
	if t.s.vacant != 0 {
		return t.s.vacant
	}
	return t.o.Now
}
