package sim

import (
	"slices"
	"strconv"
	"time"

	"drover/internal/volume/protocol"
)

// repo is the repository: packs, an index of what is in them, snapshot objects
// and locks.
type repo struct {
	exist     set         // packs
	contents  map[int]set // of each pack
	index     set         // packs that some index object names
	packs     int
	snapshots map[string]*snapshot
	locks     map[string]*repoLock
}

type snapshot struct {
	id        string
	upon      string // the head's snapshot at the capture
	epoch     uint64
	content   set
	packs     set
	diverged  bool
	pinned    bool // diverged: the lock that it was stored under was there afterwards
	committed bool
	object    bool // its object is stored
}

type repoLock struct {
	owner string
	since time.Duration
}

func newRepo() repo {
	return repo{
		contents: map[int]set{}, snapshots: map[string]*snapshot{"": {committed: true, object: true}}, locks: map[string]*repoLock{},
	}
}

// intact says whether all packs of a snapshot are there.
func (r *repo) intact(id string) bool {
	s := r.snapshots[id]
	return s != nil && s.packs.within(r.exist) && s.content.within(r.inPacks(s.packs))
}

func (r *repo) inPacks(packs set) set {
	var all set
	for _, p := range packs.members() {
		all = all.union(r.contents[p])
	}
	return all
}

// needed is what no pruning may take: all that a snapshot object reaches.
func (r *repo) needed() set {
	var all set
	for _, s := range r.snapshots {
		if s.object {
			all = all.union(s.packs)
		}
	}
	return all
}

// saved is all that can be restored from a committed or a diverged snapshot.
func (r *repo) saved() set {
	var all set
	for id, s := range r.snapshots {
		if s.object && (s.committed || s.diverged) && r.intact(id) {
			all = all.union(s.content)
		}
	}
	return all
}

// store puts content into packs: into those of known that have it, and what
// none has into a new one. It returns the packs that the content counts on.
func (r *repo) store(content, known set) (set, bool) {
	var use set
	missing := content
	for _, p := range known.members() {
		if r.contents[p].minus(r.contents[p].minus(missing)) != (set{}) {
			use.add(p)
			missing = missing.minus(r.contents[p])
		}
	}
	if missing == (set{}) {
		return use, true
	}
	if r.packs >= setSize {
		return use, false
	}
	p := r.packs
	r.packs++
	r.contents[p] = missing
	r.exist.add(p)
	use.add(p)
	return use, true
}

func packNames(s set) []string {
	var names []string
	for _, p := range s.members() {
		names = append(names, strconv.Itoa(p))
	}
	return names
}

func packSet(names []string) set {
	var s set
	for _, n := range names {
		p, err := strconv.Atoi(n)
		if err != nil {
			panic(err)
		}
		s.add(p)
	}
	return s
}

// prune is what the holder does now and then: forget snapshots that it does not
// need, condemn what then nobody reaches, delete it later, forgive what is gone.
func (a *agent) prune() {
	w := a.w
	head := a.m.Status().Head
	for _, id := range sorted(w.repo.snapshots) {
		s := w.repo.snapshots[id]
		old := s.committed || s.epoch < head.Epoch // no older epoch can commit any more
		if id != "" && id != w.store.seen.Head.Snapshot && id != head.Snapshot && s.object && old && !s.diverged {
			s.object = false
			w.logf("%s forgets %s", a.id, id)
		}
	}
	drop := w.repo.exist.minus(w.repo.needed()).minus(packSet(head.Condemned)).minus(a.counting)
	if drop != (set{}) {
		a.local(w.between(0, 5*time.Second), func() { a.condemn(drop, head) })
	}
	if gone := packSet(head.Condemned).minus(w.repo.exist).minus(w.repo.index); gone != (set{}) {
		a.input(protocol.ForgiveWanted{Request: a.request(nil), Packs: packNames(gone)})
	}
}

func (a *agent) condemn(drop set, head protocol.Head) {
	w := a.w
	life := a.life
	id := a.request(func(err error) {
		if err == nil {
			a.drop(drop, life)
		}
	})
	w.logf("%s condemns %v", a.id, drop)
	a.input(protocol.CondemnWanted{Request: id, Packs: packNames(drop), Epoch: head.Epoch, Seq: head.Seq})
}

// NoSecondLook breaks a rule of the pruner, which is not the machine's.
const NoSecondLook protocol.Mutant = "no-second-look"

// drop takes condemned packs out of the index, and deletes them when nobody can
// count on them any more; the DELETE may arrive any time later.
func (a *agent) drop(packs set, life int) {
	w := a.w
	condemned := w.now
	w.repo.index = w.repo.index.minus(packs)
	a.known = a.known.minus(packs)
	var attempt func()
	attempt = func() {
		if !a.alive || a.life != life || a.m.Status().Phase != protocol.PhaseHolder {
			return
		}
		for _, l := range w.repo.locks {
			if l.owner != a.id && l.since <= condemned {
				w.after(ttl, attempt)
				return
			}
		}
		// A writer beside the head may have stored a snapshot after the set was
		// computed and before the condemnation landed: look again.
		late := packs.minus(packs.minus(w.repo.needed()))
		if late != (set{}) && w.opt.Mutant != NoSecondLook {
			w.repo.index = w.repo.index.union(late)
			packs = packs.minus(late)
		}
		w.after(w.between(0, 2*ttl), func() { w.deletePacks(packs, a.id) })
	}
	w.after(w.between(0, ttl), attempt)
}

func (w *world) deletePacks(packs set, who string) {
	w.repo.exist = w.repo.exist.minus(packs)
	w.logf("%s deletes packs %v", who, packs)
	w.checkPacks()
}

// pruneByForce is a person with stock restic: unlock, then prune at once.
func (w *world) pruneByForce() {
	w.repo.locks = map[string]*repoLock{}
	drop := w.repo.exist.minus(w.repo.needed())
	w.logf("restic unlock --remove-all, prune: packs %v", drop)
	w.repo.exist = w.repo.exist.minus(drop)
	w.repo.index = w.repo.index.minus(drop)
}

// ---- what the runtime does in the repository, for the agent

func (a *agent) takeLock() {
	w := a.w
	op := a.begin("lock")
	w.after(w.latency(), func() {
		if w.away(a) {
			w.after(w.latency(), func() { a.finish(op, protocol.Locked{Err: errAway}) })
			return
		}
		w.ids++
		id := "lock" + strconv.Itoa(w.ids)
		w.repo.locks[id] = &repoLock{owner: a.id, since: w.now}
		w.after(w.latency(), func() {
			a.finishWith(op, func() protocol.Input { a.lock = id; return protocol.Locked{Lock: id} })
		})
	})
}

func (a *agent) checkLock() {
	w := a.w
	op, id := a.begin("check"), a.lock
	w.after(w.latency(), func() {
		in := protocol.LockChecked{Present: w.repo.locks[id] != nil}
		if w.away(a) {
			in = protocol.LockChecked{Err: errAway}
		}
		if in.Present && a.last != nil && a.waits(op) {
			a.last.pinned = true
		}
		w.after(w.latency(), func() { a.finish(op, in) })
	})
}

// removeLocks removes those of a dead predecessor, once our claim has landed.
func (w *world) removeLocks(owner, but string) {
	for id, l := range w.repo.locks {
		if l.owner == owner && id != but {
			delete(w.repo.locks, id)
		}
	}
}

// usable is what a capture may deduplicate against.
func (a *agent) usable(c protocol.Capture) set {
	if c.Fresh {
		a.known = a.w.repo.index.minus(a.w.repo.index.minus(a.w.repo.exist))
	}
	if a.w.opt.Mutant == protocol.ReuseCondemned && !c.Fresh {
		return a.known
	}
	return a.known.minus(packSet(c.Head.Condemned))
}

// capture reads the files at one moment of its duration, stores packs, and
// later the index and the snapshot object.
func (a *agent) capture(c protocol.Capture) {
	w := a.w
	op := a.begin("capture")
	a.local(w.between(0, 500*time.Millisecond), func() {
		if !a.waits(op) {
			return
		}
		if w.away(a) {
			a.finish(op, protocol.Captured{Err: errAway, Transient: true})
			return
		}
		content := a.disk.cache
		if base := w.repo.snapshots[c.Head.Snapshot]; !c.Force && c.Head.Snapshot != "" && base.content == content {
			a.finish(op, protocol.Captured{Unchanged: true, Snapshot: c.Head.Snapshot})
			return
		}
		packs, ok := w.repo.store(content, a.usable(c))
		if !ok {
			a.finish(op, protocol.Captured{Err: errAway})
			return
		}
		a.counting = packs
		synced := w.chance(0.7)
		if synced {
			a.disk.durable = a.disk.cache
		}
		w.ids++
		s := &snapshot{id: "s" + strconv.Itoa(w.ids), upon: c.Head.Snapshot, epoch: c.Head.Epoch, content: content, packs: packs}
		a.local(w.between(0, time.Second), func() { a.storeSnapshot(op, s, synced) })
	})
}

func (a *agent) storeSnapshot(op op, s *snapshot, synced bool) {
	w := a.w
	if !a.waits(op) {
		return
	}
	if w.away(a) || w.class == Pruning && !w.calm && w.chance(0.2) {
		if w.chance(0.5) { // the index object got there, the snapshot's did not
			w.repo.index = w.repo.index.union(s.packs.minus(s.packs.minus(w.repo.exist)))
			a.known = a.known.union(s.packs)
		}
		a.counting = set{}
		a.finish(op, protocol.Captured{Err: errAway, Transient: true})
		return
	}
	s.object = true
	w.repo.snapshots[s.id] = s
	w.repo.index = w.repo.index.union(s.packs.minus(s.packs.minus(w.repo.exist)))
	a.known = a.known.union(s.packs)
	w.logf("%s stored %s upon %q: %v in packs %v", a.id, s.id, s.upon, s.content, s.packs)
	a.finish(op, protocol.Captured{
		Snapshot: s.id, Tree: "tree-" + s.id, Paths: []string{"/data"}, Time: time.Unix(0, 0).Add(w.between(0, 1000*time.Hour)),
		Packs: packNames(s.packs), Synced: synced,
	})
}

func (a *agent) saveDiverged(d protocol.SaveDiverged) {
	w := a.w
	op := a.begin("diverged")
	if a.disk.half {
		w.failf("%s keeps half a restored tree as diverged", a.id)
	}
	a.local(w.between(0, time.Second), func() {
		base := w.repo.snapshots[d.Head.Snapshot]
		switch {
		case !a.waits(op):
			return
		case w.away(a):
			a.finish(op, protocol.DivergedSaved{Err: errAway})
			return
		case base.content == a.disk.cache:
			a.finish(op, protocol.DivergedSaved{})
			return
		}
		usable := w.repo.index.minus(w.repo.index.minus(w.repo.exist)).minus(packSet(w.store.seen.Head.Condemned))
		content := a.disk.cache
		packs, ok := w.repo.store(content, usable)
		a.local(w.between(0, 2*time.Second), func() {
			if !a.waits(op) {
				return
			}
			if w.away(a) || !ok || !packs.within(w.repo.exist) {
				a.finish(op, protocol.DivergedSaved{Err: errAway})
				return
			}
			w.ids++
			s := &snapshot{id: "d" + strconv.Itoa(w.ids), content: content, packs: packs, diverged: true, object: true}
			w.repo.snapshots[s.id] = s
			a.last = s
			w.repo.index = w.repo.index.union(packs)
			w.kept++
			w.logf("%s kept %s: %v", a.id, s.id, s.content)
			a.finish(op, protocol.DivergedSaved{Snapshot: s.id})
		})
	})
}

func (a *agent) restore(r protocol.Restore) {
	w := a.w
	op := a.begin("restore")
	d := a.disk
	w.checkOverwrite(a, r.Head)
	s := w.repo.snapshots[r.Head.Snapshot]
	old := d.cache
	untouched := w.away(a) && w.chance(0.5)
	become := s.content
	if r.Base != "" {
		become = w.delta(old, w.repo.snapshots[r.Base].content, s.content)
	}
	if !untouched {
		d.half = true
		d.cache = w.mix(old, become)
	}
	a.local(w.between(0, 3*time.Second), func() {
		switch {
		case !a.waits(op):
		case untouched:
			a.finish(op, protocol.Restored{Err: errAway, Untouched: true})
		case d.full && !(w.calm && a == w.agents[0]): // in the end somebody has room
			a.finish(op, protocol.Restored{Err: errFull})
		case w.away(a):
			a.finish(op, protocol.Restored{Err: errAway})
		case !w.repo.intact(s.id) && s.id != "":
			if !w.damaged && !r.Follow { // who follows may be behind, and reads the head again
				w.failf("%s cannot restore %s: packs are missing", a.id, s.id)
			}
			a.finish(op, protocol.Restored{Err: errAway})
		default:
			d.cache, d.half, d.brought = become, false, true
			synced := w.chance(0.5)
			if synced { // else what was removed may be back after a power cut
				d.durable, d.image = d.cache, set{}
			}
			w.logf("%s restored %q upon %q: %v", a.id, s.id, r.Base, d.cache)
			a.finish(op, protocol.Restored{Synced: synced})
		}
	})
}

// delta is what becomes of files when only what differs from base is brought: right,
// if they are what base says.
func (w *world) delta(have, base, want set) set {
	both := base.minus(base.minus(want))
	kept := both.minus(both.minus(have))  // not looked at
	stray := have.minus(base).minus(want) // seen only where something differs
	return want.minus(both).union(kept).union(w.mix(set{}, stray))
}

// sorted keeps the order of maps out of the schedule.
func sorted[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
