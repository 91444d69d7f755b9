package slots

import (
	"container/heap"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"drover/internal/volume/protocol"
)

// The simulation plays instances with real choosers and machines of the protocol on
// some slots, through crashes, lost disks, pauses, lost answers, stops and hand-overs. It checks
// at each event that no living instance has claims of two slots, that jobs never run on
// files of another slot or without what was committed, that nothing is overwritten that
// stands nowhere else; and in the end, when all is calm, that every slot that can be
// held is held.

const ttl = 10 * time.Second

type files map[int]int // what applications wrote → in which slot

type vol struct {
	seen  protocol.Seen
	tags  int
	snaps map[string]files
	kept  files // diverged
}

type rec struct {
	protocol.Record
	marker int
}

type inst struct {
	w       *sim
	id      string
	life    int
	part    int // grows with each tenure
	alive   bool
	c       *Chooser
	m       *protocol.Machine
	slot    int
	jobs    bool
	paused  time.Duration
	claims  map[string]int
	disk    files
	half    bool
	marker  int
	records map[int]*rec
}

type event struct {
	at time.Duration
	n  int
	do func()
}

type queue []event

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at < q[j].at || q[i].at == q[j].at && q[i].n < q[j].n }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(event)) }
func (q *queue) Pop() any          { l := (*q)[len(*q)-1]; *q = (*q)[:len(*q)-1]; return l }

type sim struct {
	rng    *rand.Rand
	now    time.Duration
	q      queue
	n, ids int
	calm   bool
	err    error
	vols   []*vol
	all    []*inst
	rule   Mutant
	prule  protocol.Mutant
	tries  int
}

func (w *sim) after(d time.Duration, do func()) {
	w.n++
	heap.Push(&w.q, event{w.now + d, w.n, do})
}
func (w *sim) upTo(d time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(d) + 1)) }
func (w *sim) chance(p float64) bool              { return w.rng.Float64() < p && !w.calm }
func (w *sim) id() string                         { w.ids++; return "w" + strconv.Itoa(w.ids) }
func (w *sim) failf(f string, a ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("at %s: %s", w.now, fmt.Sprintf(f, a...))
	}
}

// later does something in this life, in this tenure; a pause puts it off.
func (a *inst) later(d time.Duration, do func()) {
	life, part := a.life, a.part
	var run func()
	run = func() {
		switch {
		case a.life != life || a.part != part || !a.alive:
		case a.paused > a.w.now:
			a.w.after(a.paused-a.w.now, run)
		default:
			do()
		}
	}
	a.w.after(d, run)
}

// leftover is volume.FindLeftover.
func (a *inst) leftover() (slot int, unsettled bool) {
	slot = None
	for i, r := range a.records {
		if r.marker == 0 || r.marker != a.marker {
			continue
		}
		if r.Role == protocol.RoleHolder && !r.Restoring {
			return i, true
		}
		if r.Restoring {
			slot = i
		}
	}
	return slot, false
}

func (a *inst) start() {
	if a.alive {
		return
	}
	a.life++
	a.alive, a.jobs, a.m, a.claims, a.paused = true, false, nil, map[string]int{}, 0
	a.c = New(Config{Slots: len(a.w.vols), TTL: ttl, Spread: uint64(a.w.rng.Int64()), Mutant: a.w.rule})
	own, unsettled := a.leftover()
	if !unsettled {
		own = None
	}
	a.choose(Boot{Own: own})
}

func (a *inst) die() {
	a.alive, a.jobs, a.m = false, false, nil
	a.life++
	a.w.after(a.w.upTo(2*ttl), a.start)
}

func (a *inst) choose(in Input) {
	for _, act := range a.c.Step(a.w.now, in) {
		switch act := act.(type) {
		case ReadHead:
			sent := a.w.now
			a.later(a.w.upTo(200*time.Millisecond), func() {
				if a.w.chance(0.1) {
					a.choose(HeadRead{Slot: act.Slot, Sent: sent})
					return
				}
				seen := a.w.vols[act.Slot].seen
				a.choose(HeadRead{Slot: act.Slot, Sent: sent, Seen: &seen})
			})
		case Try:
			a.part++ // what was read for the choice comes to nothing
			a.try(act)
			return
		}
	}
	if at, ok := a.c.Deadline(); ok {
		a.later(max(0, at-a.w.now), func() {
			if a.m == nil {
				a.choose(Tick{})
			}
		})
	}
}

func (a *inst) try(t Try) {
	a.w.tries++
	left, unsettled := a.leftover()
	if unsettled && left != t.Slot {
		a.w.failf("%s tries slot %d with unsettled files of %d", a.id, t.Slot, left)
		return
	}
	if left != None && left != t.Slot { // volume.Inherit
		a.records[t.Slot] = &rec{protocol.Record{Restoring: true}, a.marker}
	}
	a.slot = t.Slot
	a.m = protocol.New(protocol.Config{
		Volume: "v", Self: protocol.Holder{ID: a.id}, TTL: ttl, Fence: protocol.FenceHistory,
		FinalCommit: true, Leave: true, NewID: a.w.id, Mutant: a.w.prule,
	})
	l := protocol.Local{FilesPresent: len(a.disk) > 0, SameBoot: true}
	if r := a.records[t.Slot]; r != nil {
		copied := r.Record
		l.Record, l.MarkersMatch = &copied, r.marker != 0 && r.marker == a.marker
	}
	a.input(protocol.Boot{Local: l, Watch: t.Watch})
}

func (a *inst) input(in protocol.Input) {
	m := a.m
	if m == nil || a.w.err != nil {
		return
	}
	for _, act := range m.Step(a.w.now, in) {
		if exit, ok := act.(protocol.Exit); ok {
			a.exit(exit.Err)
			return
		}
		a.do(act)
	}
	if at, ok := m.Deadline(); ok {
		a.later(max(1, at-a.w.now), func() { a.input(protocol.Tick{}) })
	}
}

func (a *inst) exit(err error) {
	slot := a.slot
	a.m = nil
	a.part++
	unfit := errors.Is(err, protocol.ErrUnfit)
	if !unfit && !errors.Is(err, protocol.ErrHeld) {
		a.die()
		return
	}
	if a.jobs {
		a.w.failf("%s leaves slot %d with its jobs", a.id, slot)
	}
	a.choose(Ended{Slot: slot, Unfit: unfit})
}

func (a *inst) answer(in protocol.Input) {
	a.later(a.w.upTo(200*time.Millisecond), func() { a.input(in) })
}

var errAway = errors.New("away")

func (a *inst) do(act protocol.Action) {
	w, v := a.w, a.w.vols[a.slot]
	switch act := act.(type) {
	case protocol.ReadHead:
		sent := w.now
		a.later(w.upTo(200*time.Millisecond), func() {
			if w.chance(0.1) {
				a.input(protocol.HeadRead{Sent: sent, Err: errAway})
				return
			}
			seen := v.seen
			a.answer(protocol.HeadRead{Sent: sent, Seen: &seen})
		})
	case protocol.PutHead:
		a.put(v, act)
	case protocol.WriteRecord:
		a.later(w.upTo(50*time.Millisecond), func() {
			r := &rec{act.Record, 0}
			if old := a.records[a.slot]; old != nil {
				r.marker = old.marker
			}
			if act.Markers {
				w.ids++
				a.marker, r.marker = w.ids, w.ids
			}
			a.records[a.slot] = r
			a.answer(protocol.RecordWritten{})
		})
	case protocol.TakeLock:
		a.answer(protocol.Locked{Lock: w.id()})
	case protocol.CheckLock:
		a.answer(protocol.LockChecked{Present: true})
	case protocol.SaveDiverged:
		slot := a.slot
		a.later(w.upTo(time.Second), func() {
			a.pure("keeps as diverged", slot)
			maps.Copy(v.kept, a.disk)
			a.input(protocol.DivergedSaved{Snapshot: w.id()})
		})
	case protocol.Restore:
		a.restore(v, act.Head.Snapshot)
	case protocol.StartJobs:
		a.jobs = true
		a.pure("starts jobs", a.slot)
		for n := range v.snaps[v.seen.Head.Snapshot] {
			if _, ok := a.disk[n]; !ok && v.seen.Head.Claim == a.m.Status().Head.Claim || a.half {
				w.failf("%s starts jobs in slot %d without %d", a.id, a.slot, n)
			}
		}
		a.work()
	case protocol.StopJobs, protocol.KillJobs:
		a.jobs = false
		a.answer(protocol.JobsExited{})
	case protocol.Capture:
		a.later(w.upTo(500*time.Millisecond), func() {
			id := w.id()
			v.snaps[id] = maps.Clone(a.disk)
			a.answer(protocol.Captured{Snapshot: id, Tree: id, Synced: true})
		})
	}
}

// pure: what is on the disk is of one slot.
func (a *inst) pure(what string, slot int) {
	for n, of := range a.disk {
		if of != slot {
			a.w.failf("%s %s in slot %d with %d of slot %d", a.id, what, slot, n, of)
		}
	}
}

func (a *inst) restore(v *vol, snapshot string) {
	a.later(a.w.upTo(time.Second), func() {
		for n, of := range a.disk {
			saved := a.w.vols[of]
			_, kept := saved.kept[n]
			_, committed := saved.snaps[saved.seen.Head.Snapshot][n]
			if _, wanted := v.snaps[snapshot][n]; !kept && !committed && !wanted && !a.half {
				a.w.failf("%s overwrites %d of slot %d, which stands nowhere else", a.id, n, of)
			}
		}
		a.half = true
		a.later(a.w.upTo(2*time.Second), func() {
			if a.w.chance(0.1) {
				a.input(protocol.Restored{Err: errAway})
				return
			}
			a.half, a.disk = false, maps.Clone(v.snaps[snapshot])
			if a.disk == nil {
				a.disk = files{}
			}
			a.answer(protocol.Restored{})
		})
	})
}

func (a *inst) put(v *vol, p protocol.PutHead) {
	w, slot, life, claims := a.w, a.slot, a.life, a.claims
	if p.Head.State == protocol.Held {
		claims[p.Head.Claim] = slot
	}
	arrive := func() bool {
		if v.seen.Tag != p.Base {
			return false
		}
		v.tags++
		v.seen = protocol.Seen{Head: p.Head, Tag: protocol.Tag(fmt.Sprint("t", v.tags))}
		held := 0
		for _, o := range w.vols {
			if _, mine := claims[o.seen.Head.Claim]; mine && o.seen.Head.State == protocol.Held {
				held++
			}
		}
		if held > 1 && a.life == life {
			w.failf("%s holds %d slots", a.id, held)
		}
		return true
	}
	sent := w.now
	a.later(w.upTo(200*time.Millisecond), func() {
		if w.chance(0.2) { // unknown: lost, landed, or on its way
			if w.chance(0.7) {
				w.after(w.upTo(ttl), func() { arrive() })
			}
			a.later(ttl/4, func() { a.input(protocol.HeadPut{Sent: sent, Err: errAway}) })
			return
		}
		ok := arrive()
		a.answer(protocol.HeadPut{Sent: sent, OK: ok, Tag: v.seen.Tag, Err: map[bool]error{false: errAway}[ok]})
	})
}

// work is the application, which writes and wants backups.
func (a *inst) work() {
	a.later(100*time.Millisecond+a.w.upTo(4*time.Second), func() {
		if !a.jobs || a.m == nil {
			return
		}
		a.w.ids++
		a.disk[a.w.ids] = a.slot
		if a.w.rng.Float64() < 0.5 {
			a.w.ids++
			a.input(protocol.BackupWanted{Request: uint64(a.w.ids)})
		}
		a.work()
	})
}

func (w *sim) fault() {
	if w.calm {
		return
	}
	a := w.all[w.rng.IntN(len(w.all))]
	switch w.rng.IntN(6) {
	case 0, 1:
		if a.alive {
			a.die()
		}
	case 2:
		if a.alive {
			a.die()
		}
		a.disk, a.half, a.marker, a.records = files{}, false, 0, map[int]*rec{}
	case 3:
		a.paused = w.now + w.upTo(4*ttl)
	case 4:
		a.input(protocol.StopWanted{Grace: w.upTo(2 * ttl)})
	case 5:
		w.ids++
		a.input(protocol.HandOverWanted{Request: uint64(w.ids), Grace: w.upTo(2 * ttl)})
	}
	w.after(w.upTo(8*time.Second), w.fault)
}

// serving says how many slots have a holder whose jobs run.
func (w *sim) serving() int {
	n := 0
	for _, a := range w.all {
		if a.jobs && a.m != nil && w.vols[a.slot].seen.Head.Claim == a.m.Status().Head.Claim {
			n++
		}
	}
	return n
}

func play(seed uint64, rule Mutant, prule protocol.Mutant) *sim {
	w := &sim{rng: rand.New(rand.NewPCG(seed, 0x5107)), rule: rule, prule: prule}
	for range 1 + w.rng.IntN(3) {
		w.vols = append(w.vols, &vol{seen: protocol.Seen{Tag: "t0", Head: protocol.Head{
			Version: protocol.HeadVersion, Volume: "v", State: protocol.Free, TTL: protocol.Duration(ttl), Write: "first"}},
			snaps: map[string]files{}, kept: files{}})
	}
	for i := range 2 + w.rng.IntN(3) {
		a := &inst{w: w, id: string(rune('A' + i)), disk: files{}, records: map[int]*rec{}}
		w.all = append(w.all, a)
		w.after(w.upTo(3*time.Second), a.start)
	}
	w.after(w.upTo(5*time.Second), w.fault)
	w.after(2*time.Minute, func() { w.calm = true })
	want := min(len(w.vols), len(w.all))
	for w.err == nil && len(w.q) > 0 {
		e := heap.Pop(&w.q).(event)
		w.now = e.at
		e.do()
		if w.calm && w.serving() == want {
			return w
		}
		if w.now > 2*time.Minute+60*ttl {
			w.failf("calm for long, and %d of %d slots are served", w.serving(), want)
		}
	}
	return w
}

func TestSimulation(t *testing.T) {
	tries := 0
	for seed := range uint64(1500) {
		w := play(seed, "", "")
		if tries += w.tries; w.err != nil {
			t.Fatalf("seed %d: %v", seed, w.err)
		}
	}
	t.Logf("%d tries of a slot", tries)
}

func TestMutantsAreFound(t *testing.T) {
	for _, m := range []struct {
		rule  Mutant
		prule protocol.Mutant
	}{{OwnForgotten, ""}, {Unwatched, ""}, {"", protocol.LeaveUnresolved}, {"", protocol.LeaveUnsettled}} {
		var err error
		for seed := uint64(0); seed < 1500 && err == nil; seed++ {
			err = play(seed, m.rule, m.prule).err
		}
		if err == nil {
			t.Errorf("nobody noticed %s%s", m.rule, m.prule)
		}
		t.Logf("%s%s: %v", m.rule, m.prule, err)
	}
}
