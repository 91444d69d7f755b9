package failover

import "slices"

// Who acknowledges. Two things are always true of the record's set of k members and n acknowledgements:
//
//   - every acknowledged commit is on stable storage of n of them at least;
//   - the server acknowledges nothing that n of them have not.
//
// So any k-n+1 of them know every acknowledged commit, and once so many receive nothing more, no
// further one can be acknowledged. A member is added to the record before the server waits for it, and taken
// out of the record only when enough of the others have all that it may have vouched for.

// syncable reports whether commits may wait for that member.
func (t *step) syncable(id string) bool {
	name := t.r.Name(id)
	tags := t.r.Members[name].Tags
	return name != "" && id != t.s.ID && !tags.NoSync && tags.ReplicateFrom == ""
}

// attend notes which replicas stream and have written down whose history they have. Others may
// have acknowledgements, but no one may count on them: what they received in this reign would be taken for the rest of another.
func (t *step) attend() {
	for _, p := range t.o.Database.Replicas {
		if !p.Streaming || !t.swears(p.ID) {
			continue
		}
		t.s.streamed[p.ID] = t.o.Now
		if !slices.Contains(t.s.sworn, p.ID) {
			t.s.sworn = append(t.s.sworn[:len(t.s.sworn):len(t.s.sworn)], p.ID)
		}
	}
}

// swears reports whether a member has written down that its files are of this reign's history.
func (t *step) swears(id string) bool {
	a, ok := t.o.Answers[id]
	return slices.Contains(t.s.sworn, id) || ok && a.Led == 0 && t.current(a.Lineage)
}

// current reports whether a lineage is this reign's: no reign since has left its history.
func (t *step) current(lineage uint64) bool {
	left := func(r Reign) bool { return r.Epoch > lineage && r.From != "" }
	return lineage != 0 && lineage >= t.r.Forgotten && !slices.ContainsFunc(t.r.History, left)
}

// present are those whom commits are to wait for.
func (t *step) present() []string {
	ids := map[string]bool{}
	for id, last := range t.s.streamed {
		patient := t.r.Set.Has(id) && t.o.Now-last < t.cfg.Missing
		if t.syncable(id) && (last == t.o.Now || patient) {
			ids[id] = true
		}
	}
	if t.r.Mode == Strict {
		for _, id := range t.r.Set.Members { // never fewer than acknowledge
			if len(ids) < t.cfg.Acks && t.syncable(id) {
				ids[id] = true
			}
		}
	}
	return sortedIDs(ids)
}

// target is what the server is to wait for, given who is there.
func (t *step) target(ids []string) SyncSet {
	switch t.r.Mode {
	case Off:
		return SyncSet{}
	case Strict:
		return SyncSet{Members: ids, Acks: t.cfg.Acks}
	}
	return SyncSet{Members: ids, Acks: min(t.cfg.Acks, len(ids))}
}

// synchronized reports whether server and record are as they are to be; else it does the next
// step towards that.
func (t *step) synchronized() bool {
	ids := t.present()
	want := t.target(ids)
	record := SyncSet{Members: ids, Acks: min(want.Acks, len(ids))}
	unsworn := func(id string) bool { return !slices.Contains(t.s.sworn, id) }
	want.Members = slices.DeleteFunc(slices.Clone(want.Members), unsworn)
	have := t.r.Set
	wider := have
	for _, id := range ids {
		if !wider.Has(id) {
			wider.Members = append(slices.Clone(wider.Members), id)
		}
	}
	slices.Sort(wider.Members)
	wider.Acks = min(have.Acks, record.Acks)
	if !wider.Equal(have) || !t.covered(want) {
		t.d.Why = "changing who acknowledges commits"
		t.write(func(r *Record) { r.Set = wider })
		return t.s.settled
	}
	if !t.s.settled && len(want.Members) < record.Acks {
		t.d.Why = "waiting until enough replicas follow"
		return false
	}
	if !t.o.Database.Set.Equal(want) || t.s.change == "" {
		t.d.Why = "changing who acknowledges commits"
		t.s.change = ""
		t.do(Synchronize{want})
		return t.s.settled
	}
	if t.flushed(want.Members) < record.Acks {
		t.d.Why = "waiting until enough replicas have all commits"
		return t.s.settled
	}
	t.s.settled = true
	if !record.Equal(have) {
		t.write(func(r *Record) { r.Set = record })
	}
	return true
}

// covered reports whether the record covers what the server is to wait for, whichever
// of the writes under way has been done.
func (t *step) covered(want SyncSet) bool {
	return !slices.ContainsFunc(t.s.asked, func(set SyncSet) bool {
		lacks := func(id string) bool { return !set.Has(id) }
		return set.Acks > want.Acks || slices.ContainsFunc(want.Members, lacks)
	})
}

// flushed is how many of these have everything up to the last change of the server's set.
func (t *step) flushed(ids []string) int {
	n := 0
	for _, p := range t.o.Database.Replicas {
		order, ok := t.cfg.Compare(p.Flushed, t.s.change)
		if ok && order >= 0 && slices.Contains(ids, p.ID) {
			n++
		}
	}
	return n
}

// Synchronized is the state after Synchronize succeeded, in effect at a position.
func (s State) Synchronized(position string) State {
	s.change = position
	return s
}
