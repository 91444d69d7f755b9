package sim

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"drover/internal/volume/protocol"
)

// agent is one instance: a machine of the protocol, what the runtime does for
// it, the jobs, and the server that they run on.
type agent struct {
	w     *world
	id    string
	life  int // grows with each start, so that what a dead process began comes to nothing
	alive bool

	m     *protocol.Machine
	cfg   protocol.Config
	ids   []string // made in this life
	inLog []logged // of this life, to roll back to

	disk  *disk
	boot  int
	clock clock

	paused  bool
	pending []protocol.Input
	held    []func()
	ops     map[string]uint64
	opCount uint64
	tick    uint64
	cutOff  time.Duration // the store is away for this one until then

	jobs    bool
	jobRun  int
	claim   string // under which the jobs were started
	lock    string
	known   set // packs in the index as loaded
	counted map[uint64]*request
	// counting is what the capture under way counts on.
	counting set
	stopBy   time.Duration // 0: not asked to stop
	ran      bool          // jobs ran in this life
	best     highest
	last     *snapshot // diverged one that was stored last
}

type logged struct {
	now protocol.Time
	in  protocol.Input
}

type op struct {
	life  int
	kind  string
	token uint64
}

type request struct {
	at      time.Duration
	backup  bool
	content set // on the disk when it was made
	reply   func(error)
}

// clock is one machine's: its rate is off by a bounded part, its zero is anywhere.
type clock struct {
	rate   float64
	base   time.Duration // of the world
	offset protocol.Time
}

func (c clock) read(now time.Duration) protocol.Time {
	return c.offset + protocol.Time(float64(now-c.base)*c.rate)
}

// until says when the clock will show t.
func (c clock) until(t protocol.Time) time.Duration {
	return c.base + time.Duration(float64(t-c.offset)/c.rate) + time.Nanosecond
}

// clockBound is how far rates are off under strict. The margin bears it, with
// little to spare: (TTL - margin)/(1 - bound) < TTL/(1 + bound).
const (
	clockBound   = 0.05
	strictMargin = ttl / 8
)

func (w *world) newClock(now time.Duration) clock {
	bound := 0.3
	if w.class == Strict {
		bound = clockBound
	}
	if w.class == Outage {
		bound = 0
	}
	return clock{rate: 1 + bound*(2*w.rng.Float64()-1), base: now, offset: w.between(0, 1000*time.Hour)}
}

func newAgent(w *world, id string) *agent {
	a := &agent{w: w, id: id, disk: w.newDisk(w.chance(0.15))}
	a.cfg = protocol.Config{
		Volume: "data", Self: protocol.Holder{ID: id}, TTL: ttl, Fence: protocol.FenceHistory, FinalCommit: true,
		AdoptFiles: w.adopt, DiscardImageFiles: w.discard, Warm: w.warm, NewID: a.newID, Mutant: w.opt.Mutant,
	}
	if w.class == Strict {
		a.cfg.Fence, a.cfg.Margin = protocol.FenceStrict, strictMargin
	}
	a.bootMachine()
	return a
}

// bootMachine starts the server anew: another boot id, another zero of its clock.
func (a *agent) bootMachine() {
	a.w.boots++
	a.boot = a.w.boots
	a.clock = a.w.newClock(a.w.now)
}

func (a *agent) newID() string {
	a.w.ids++
	id := "w" + strconv.Itoa(a.w.ids)
	a.ids = append(a.ids, id)
	return id
}

// start begins a new life of the process on the disk that is there.
func (a *agent) start() {
	if a.alive {
		return
	}
	a.w.logf("%s starts (boot %d): %s", a.id, a.boot, a.disk)
	a.life++
	a.alive, a.paused, a.jobs, a.ran, a.stopBy = true, false, false, false, 0
	a.ids, a.inLog, a.pending, a.held = nil, nil, nil, nil
	a.ops, a.counted, a.counting = map[string]uint64{}, map[uint64]*request{}, set{}
	a.lock, a.known, a.best, a.last = "", set{}, highest{}, nil
	a.m = protocol.New(a.cfg)
	a.input(protocol.Boot{Local: a.disk.local(a.boot)})
}

// die ends the process and its jobs at once.
func (a *agent) die(how string) {
	a.w.logf("%s %s", a.id, how)
	a.alive, a.jobs, a.paused = false, false, false
	a.life++
}

// input gives one thing to the machine and does what it wants.
func (a *agent) input(in protocol.Input) {
	if !a.alive || a.w.err != nil {
		return
	}
	if a.paused {
		a.pending = append(a.pending, in)
		return
	}
	now := a.clock.read(a.w.now)
	a.inLog = append(a.inLog, logged{now: now, in: in})
	before := a.m.Status()
	a.best.learn(in, before.Head)
	actions := a.m.Step(now, in)
	if _, tick := in.(protocol.Tick); !tick || len(actions) > 0 {
		a.w.logf("%s ← %s", a.id, inputText(in))
	}
	for _, act := range actions {
		a.w.logf("%s    → %s", a.id, actionText(act))
		a.do(act, before)
	}
	a.w.checkStep(a)
	a.schedule(now)
}

// schedule asks for a Tick when the machine wants one.
func (a *agent) schedule(last protocol.Time) {
	at, ok := a.m.Deadline()
	if !ok || !a.alive {
		return
	}
	if at <= last {
		a.w.failf("%s wants a tick at %s, which was past at %s", a.id, at, last)
	}
	a.tick++
	tick := a.tick
	late := a.w.between(0, 50*time.Millisecond)
	a.local(max(0, a.clock.until(at)-a.w.now)+late, func() {
		if tick == a.tick {
			a.input(protocol.Tick{})
		}
	})
}

// local runs do later unless the process has died; a pause delays it.
func (a *agent) local(d time.Duration, do func()) {
	life := a.life
	a.w.after(d, func() {
		switch {
		case life != a.life:
		case a.paused:
			a.held = append(a.held, do)
		default:
			do()
		}
	})
}

func (a *agent) begin(kind string) op {
	if _, twice := a.ops[kind]; twice {
		a.w.failf("%s asks for %s while one is under way", a.id, kind)
	}
	a.opCount++
	a.ops[kind] = a.opCount
	return op{life: a.life, kind: kind, token: a.opCount}
}

func (a *agent) waits(o op) bool { return a.alive && o.life == a.life && a.ops[o.kind] == o.token }

func (a *agent) finish(o op, in protocol.Input) {
	a.finishWith(o, func() protocol.Input { return in })
}

func (a *agent) finishWith(o op, in func() protocol.Input) {
	if a.waits(o) {
		delete(a.ops, o.kind)
		a.input(in())
	}
}

func (a *agent) do(act protocol.Action, before protocol.Status) {
	switch act := act.(type) {
	case protocol.KillJobs:
		a.killJobs()
	case protocol.ReadHead:
		a.readHead()
	case protocol.PutHead:
		a.w.checkBase(a, act)
		a.putHead(act)
	case protocol.WriteRecord:
		a.writeRecord(act)
	case protocol.TakeLock:
		a.takeLock()
	case protocol.DropLock:
		delete(a.w.repo.locks, a.lock)
		a.lock = ""
	case protocol.CheckLock:
		a.checkLock()
	case protocol.SaveDiverged:
		a.saveDiverged(act)
	case protocol.Restore:
		a.restore(act)
	case protocol.StartJobs:
		a.startJobs()
	case protocol.StopJobs:
		a.stopJobs()
	case protocol.Capture:
		a.capture(act)
	case protocol.Cancel:
		a.cancel()
	case protocol.Reply:
		a.replied(act)
	case protocol.Became:
		a.became(act.Status, before)
	case protocol.Exit:
		a.exited(act.Err)
	}
}

func (a *agent) writeRecord(r protocol.WriteRecord) {
	w := a.w
	op := a.begin("record")
	if w.class == Plain && !w.calm && w.chance(0.01) {
		a.local(w.between(0, 20*time.Millisecond), func() { a.finish(op, protocol.RecordWritten{Err: errors.New("disk full")}) })
		return
	}
	a.local(w.between(0, 50*time.Millisecond), func() {
		d := a.disk
		rec := r.Record
		d.rec, d.recBoot = &rec, a.boot
		if r.Markers {
			w.ids++
			d.marker = w.ids
			d.recMarker = d.marker
		}
		a.local(w.between(0, 20*time.Millisecond), func() { a.finish(op, protocol.RecordWritten{}) })
	})
}

// cancel ends a capture or restore early, or lets it be as it was nearly done.
func (a *agent) cancel() {
	w := a.w
	for _, kind := range []string{"capture", "restore"} {
		token, ok := a.ops[kind]
		if !ok || w.chance(0.3) {
			continue
		}
		op := op{life: a.life, kind: kind, token: token}
		a.local(w.between(0, 100*time.Millisecond), func() {
			if kind == "capture" {
				a.finish(op, protocol.Captured{Err: errors.New("cancelled")})
				return
			}
			a.finish(op, protocol.Restored{Err: errors.New("cancelled")})
		})
	}
}

func (a *agent) became(s, before protocol.Status) {
	landed := s.Head.Epoch > before.Head.Epoch && (s.Phase == protocol.PhaseRestoring || s.Phase == protocol.PhaseHolder)
	if landed {
		a.w.claims++
		a.w.removeLocks(before.Head.Holder.ID, a.lock)
	}
}

// ---- jobs

func (a *agent) startJobs() {
	w := a.w
	w.checkStart(a)
	a.jobs, a.ran, a.disk.half = true, true, false
	a.disk.ranAt = a.m.Status().Head.Epoch
	a.jobRun++
	a.claim = a.m.Status().Head.Claim
	a.work(a.jobRun)
}

// work is the application: it writes, and now and then wants a backup.
func (a *agent) work(run int) {
	w := a.w
	a.local(w.between(100*time.Millisecond, 4*time.Second), func() {
		if run != a.jobRun || !a.jobs {
			return
		}
		a.appWrites()
		if w.chance(0.5) || w.calm {
			a.backup()
		}
		if w.chance(0.03) && !w.calm && w.class != Outage {
			w.logf("%s's main job ends", a.id)
			a.jobs = false
			a.input(protocol.JobsExited{Main: true})
			return
		}
		a.work(run)
	})
}

func (a *agent) appWrites() {
	if a.w.chance(0.3) {
		return
	}
	if n, ok := a.w.newWrite(); ok {
		a.disk.cache.add(n)
		if a.w.chance(0.2) {
			a.disk.durable = a.disk.cache
		}
		a.w.logf("%s's job writes %d", a.id, n)
	}
}

// backup is the hook: what is on the disk now must be in every later restore.
func (a *agent) backup() {
	calm := a.w.calm
	id := a.request(func(err error) {
		if err == nil {
			a.w.acks++
			a.w.served = a.w.served || calm
		}
	})
	a.counted[id].backup = true
	a.input(protocol.BackupWanted{Request: id})
}

func (a *agent) request(reply func(error)) uint64 {
	a.opCount++
	a.counted[a.opCount] = &request{at: a.w.now, content: a.disk.cache, reply: reply}
	return a.opCount
}

func (a *agent) replied(r protocol.Reply) {
	for _, id := range r.Requests {
		req, ok := a.counted[id]
		if !ok {
			a.w.failf("%s answers request %d, which nobody made or which was answered", a.id, id)
			return
		}
		delete(a.counted, id)
		if r.Err == nil && req.backup {
			a.w.checkAck(a, req, r.Head)
		}
		if req.reply != nil {
			req.reply(r.Err)
		}
	}
}

func (a *agent) stopJobs() {
	op := a.begin("stop")
	a.local(a.w.between(0, 2*time.Second), func() {
		if a.waits(op) {
			if a.jobs {
				a.appWrites()
			}
			a.jobs = false
			a.finish(op, protocol.JobsExited{})
		}
	})
}

func (a *agent) killJobs() {
	op := a.begin("kill")
	a.jobs = false
	a.local(a.w.between(0, 100*time.Millisecond), func() { a.finish(op, protocol.JobsExited{}) })
}

// ---- the end of a life

func (a *agent) exited(err error) {
	w := a.w
	w.checkExit(a, err)
	a.die(fmt.Sprintf("exits: %v", err))
	if errors.Is(err, protocol.ErrFilesPresent) || w.chance(0.2) {
		a.disk = w.newDisk(false) // a person made room, or the scheduler chose another server
	}
	w.after(w.between(0, 2*ttl), a.start)
}

func (a *agent) pause(d time.Duration) {
	a.w.logf("%s is paused for %s", a.id, d)
	a.paused = true
	life := a.life
	a.w.after(d, func() {
		if a.life == life {
			a.resume()
		}
	})
}

// resume lets the process see the time before anything else.
func (a *agent) resume() {
	if !a.paused {
		return
	}
	a.w.logf("%s goes on", a.id)
	a.paused = false
	pending, held := a.pending, a.held
	a.pending, a.held = nil, nil
	a.input(protocol.Tick{})
	life := a.life
	for _, in := range pending {
		if a.life == life {
			a.input(in)
		}
	}
	for _, do := range held {
		if a.life == life {
			do()
		}
	}
}

// ---- a machine that is rolled back, memory and disk

type image struct {
	life     int
	inputs   int
	ids      int
	disk     *disk
	now      protocol.Time
	ops      map[string]uint64
	counted  map[uint64]*request
	jobs     bool
	claim    string
	lock     string
	known    set
	counting set
	taken    time.Duration
	stopBy   time.Duration
	ran      bool
}

func (a *agent) snapshot() *image {
	return &image{
		life: a.life, inputs: len(a.inLog), ids: len(a.ids), disk: a.disk.copy(), now: a.clock.read(a.w.now),
		ops: maps.Clone(a.ops), counted: maps.Clone(a.counted), jobs: a.jobs, claim: a.claim, lock: a.lock, known: a.known, counting: a.counting,
		taken: a.w.now, stopBy: a.stopBy, ran: a.ran,
	}
}

// rollBack puts the machine where it was: the same thoughts by the same inputs,
// the disk and the clock of that time. Its connections are gone, and what it now
// draws at random it never drew before.
func (a *agent) rollBack(im *image) {
	w := a.w
	if !a.alive || a.life != im.life || a.paused {
		return
	}
	w.logf("%s is rolled back by %s", a.id, a.clock.read(w.now)-im.now)
	ids := a.ids[:im.ids]
	cfg := a.cfg
	drawn := 0
	cfg.NewID = func() string {
		if drawn < len(ids) {
			drawn++
			return ids[drawn-1]
		}
		return a.newID()
	}
	a.m = protocol.New(cfg)
	for _, l := range a.inLog[:im.inputs] {
		a.m.Step(l.now, l.in)
	}
	a.life++
	a.ids, a.inLog = ids, a.inLog[:im.inputs:im.inputs]
	a.disk, a.clock.base, a.clock.offset = im.disk, w.now, im.now
	a.ops, a.counted, a.jobs, a.claim = im.ops, im.counted, im.jobs, im.claim
	a.lock, a.known, a.counting = im.lock, im.known, im.counting
	if a.stopBy = im.stopBy; a.stopBy > 0 {
		a.stopBy += w.now - im.taken
	}
	a.ran = im.ran
	a.failOps()
	if a.jobs {
		a.jobRun++
		a.work(a.jobRun)
	}
	a.schedule(a.inLog[len(a.inLog)-1].now)
}

// failOps ends what was under way when the image was made.
func (a *agent) failOps() {
	failed := map[string]protocol.Input{
		"read": protocol.HeadRead{Err: errAway}, "put": protocol.HeadPut{Err: errAway},
		"record": protocol.RecordWritten{Err: errAway}, "lock": protocol.Locked{Err: errAway}, "check": protocol.LockChecked{Err: errAway},
		"diverged": protocol.DivergedSaved{Err: errAway}, "restore": protocol.Restored{Err: errAway},
		"capture": protocol.Captured{Err: errAway, Transient: true}, "stop": protocol.JobsExited{}, "kill": protocol.JobsExited{},
	}
	for _, kind := range sorted(a.ops) {
		op := op{life: a.life, kind: kind, token: a.ops[kind]}
		a.local(a.w.between(0, time.Second), func() {
			if kind == "stop" {
				a.jobs = false
			}
			a.finish(op, failed[kind])
		})
	}
}
