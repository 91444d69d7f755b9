package sim

import (
	"time"

	"drover/internal/volume/protocol"
)

// fault does something bad to somebody, and comes again until it is calm.
func (w *world) fault() {
	if w.calm {
		return
	}
	all := w.faults()
	a := w.agents[w.rng.IntN(len(w.agents))]
	all[w.rng.IntN(len(all))](a)
	w.after(w.between(200*time.Millisecond, 8*time.Second), w.fault)
}

func (w *world) faults() []func(*agent) {
	if w.class == Outage {
		return []func(*agent){w.storeAway}
	}
	all := []func(*agent){
		w.crash, w.crash, w.losePower, w.loseDisk, w.swapFiles, w.pause, w.pause, w.cut, w.askStop, w.wish, w.handOver,
		func(*agent) { w.outage = w.now + w.between(0, 2*ttl) },
	}
	switch w.class {
	case Strict:
		all = append(all, w.clone, w.clone, w.cutHolder, w.cutHolder)
	case Twins:
		all = append(all, w.clone, w.clone, w.rollBack, w.rollBack, w.rollBack, w.jump)
	case Pruning:
		all = append(all, w.pruneSoon, w.pruneSoon, w.pruneSoon, w.pruneSoon, w.byForce)
	case PutBack:
		all = append(all, w.putBack)
	}
	return all
}

// storeAway takes the store away for everybody, after all had time to renew.
func (w *world) storeAway(*agent) {
	if w.now > w.outage+ttl {
		w.outage = w.now + w.between(0, 4*ttl)
		w.logf("the store is away until %s", w.outage)
	}
}

func (w *world) crash(a *agent) {
	if a.alive {
		a.die("crashes")
		w.after(w.between(0, 2*ttl), a.start)
	}
}

func (w *world) losePower(a *agent) {
	if a.alive {
		a.die("loses power")
	}
	a.disk.losePower(w)
	a.bootMachine()
	w.after(w.between(time.Second, 3*ttl), a.start)
}

func (w *world) loseDisk(a *agent) {
	if a.alive {
		a.die("is lost, disk and all")
	}
	a.disk = w.newDisk(w.chance(0.3))
	a.bootMachine()
	w.after(w.between(time.Second, 2*ttl), a.start)
}

// swapFiles mounts something else in the place of the volume's paths; the record
// stays where it was.
func (w *world) swapFiles(a *agent) {
	if a.alive {
		a.die("is started with other files mounted")
	}
	d := w.newDisk(w.chance(0.7))
	d.rec, d.recBoot, d.recMarker = a.disk.rec, a.disk.recBoot, a.disk.recMarker
	a.disk = d
	w.after(w.between(0, ttl), a.start)
}

func (w *world) pause(a *agent) {
	if a.alive && !a.paused {
		a.pause(w.between(0, 4*ttl))
	}
}

func (w *world) cut(a *agent) {
	w.logf("%s loses its way to the store", a.id)
	a.cutOff = w.now + w.between(0, 3*ttl)
}

// cutHolder takes the way to the store from whoever holds.
func (w *world) cutHolder(*agent) {
	for _, a := range w.agents {
		if a.alive && a.m.Status().Phase == protocol.PhaseHolder {
			w.cut(a)
			return
		}
	}
}

func (w *world) askStop(a *agent) {
	if a.alive && !a.paused {
		grace := w.between(time.Second, 2*ttl)
		a.stopBy = w.now + time.Duration(float64(grace)/a.clock.rate) + time.Second
		a.input(protocol.StopWanted{Grace: grace})
	}
}

// handOver asks for a switch. When it is answered well, nothing is left behind.
func (w *world) handOver(a *agent) {
	if !a.alive || a.paused {
		return
	}
	id := a.request(func(err error) {
		if lost := a.disk.cache.minus(w.repo.saved()); err == nil && lost != (set{}) {
			w.failf("%s hands over and leaves %v uncommitted", a.id, lost)
		}
	})
	a.input(protocol.HandOverWanted{Request: id, Grace: w.between(time.Second, 2*ttl)})
}

// wish is a backup asked for out of turn, of whoever it may be.
func (w *world) wish(a *agent) {
	if a.alive {
		a.backup()
	}
}

// clone starts another instance on a copy of a's disk, as it would be after a
// power cut.
func (w *world) clone(a *agent) {
	b := w.agents[w.rng.IntN(len(w.agents))]
	if a == b || a.disk.rec == nil {
		return
	}
	if b.alive {
		b.die("is replaced by a clone of " + a.id)
	}
	b.disk = a.disk.copy()
	b.disk.losePower(w)
	b.bootMachine()
	if w.chance(0.2) {
		b.disk.marker, b.disk.half = 0, false // copied file by file: other inodes; nobody can tell what they are
	}
	w.after(w.between(0, time.Second), b.start)
}

func (w *world) rollBack(a *agent) {
	if !a.alive || a.paused {
		return
	}
	im := a.snapshot()
	w.after(w.between(time.Second, 3*ttl), func() { a.rollBack(im) })
}

// jump sets a clock forward, as if it had counted what never was.
func (w *world) jump(a *agent) {
	w.logf("%s's clock jumps", a.id)
	a.clock.offset += w.between(0, 2*ttl)
	if a.alive && !a.paused {
		a.input(protocol.Tick{})
	}
}

func (w *world) pruneSoon(a *agent) {
	for _, b := range w.agents {
		if b.alive && !b.paused && b.m.Status().Phase == protocol.PhaseHolder {
			a = b
		}
	}
	if a.alive && !a.paused && a.m.Status().Phase == protocol.PhaseHolder {
		a.prune()
	}
}

func (w *world) byForce(*agent) { w.pruneByForce() }

// putBack has somebody with the bucket's keys put an older head in the place of
// the right one, and the right one back later.
func (w *world) putBack(*agent) {
	s := &w.store
	if s.back != nil || len(s.past) < 3 {
		return
	}
	old := s.past[w.rng.IntN(len(s.past)-1)].seen
	if old.Head.Epoch == s.seen.Head.Epoch && old.Head.Seq == s.seen.Head.Seq {
		return // not to be told from a late reader's view
	}
	right := s.seen
	s.back = &right
	s.seen = old
	w.tampered = true
	w.logf("somebody puts back the head of epoch %d seq %d", old.Head.Epoch, old.Head.Seq)
	w.after(w.between(0, 2*ttl), w.mendHead)
}

func (w *world) mendHead() {
	if w.store.back != nil {
		w.logf("the right head is put back")
		w.store.seen, w.store.back = *w.store.back, nil
	}
}

// becalm ends all faults.
func (w *world) becalm() {
	w.logf("---- calm")
	w.calm, w.calmAt, w.outage = true, w.now, 0
	w.mendHead()
	for _, a := range w.agents {
		a.cutOff = 0
		a.resume()
		w.after(w.between(0, time.Second), a.start)
	}
}
