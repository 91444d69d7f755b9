package protocol

import "slices"

// Machine is one instance's part in a volume's history. It is not for use by
// two goroutines at once.
//
// Each Step takes in what happened, and then lets every rule act until none
// has anything to do. A rule looks at what is known (the head as last seen, the
// record as it is on the disk, what is under way) and never at how it came to
// be, so a late or repeated answer cannot lead it astray.
type Machine struct {
	cfg    Config
	now    Time
	out    []Action
	booted bool
	since  Time // when it was booted
	exited bool
	told   Status

	// The head.
	seen      *Seen // as last read, or written by us
	highEpoch uint64
	highSeq   uint64
	fault     string // why nothing may be written; "" if all is well
	read      reading
	watch     Watch
	write     *write
	own       *tenure // nil: we do not hold, or do not know it yet
	intent    *intent
	deposed   string // by whom, until what was left is settled
	shy       Time   // until then the volume is left to others, after it was given back …
	yieldErr  error  // … because of this
	yields    int    // how often, since jobs last started here

	// The disk and the jobs on it.
	local     Local
	rec       Record // as it is on the disk
	hasRec    bool
	recording *WriteRecord
	recRetry  retry
	recErr    error // why the last one could not be written
	work      fileWork
	copied    copied
	saved     bool // diverged files are stored; whether our lock outlived that is open
	jobs      jobs

	// The repository's lock.
	lock  lock
	check check

	// Requests.
	waiting     []uint64
	commit      *commit
	commitRetry retry
	fresh       bool // the next capture trusts no cache
	force       bool // nor that what the head names is all there
	edits       []edit
	stop        *stopping
}

// New returns a machine that waits for Boot.
func New(cfg Config) *Machine {
	if cfg.Margin == 0 {
		cfg.Margin = cfg.TTL / 5
	}
	return &Machine{cfg: cfg}
}

// Step takes in what happened by now and returns what to do, in order.
func (m *Machine) Step(now Time, in Input) []Action {
	if m.exited {
		return nil
	}
	m.now, m.out = now, nil
	m.take(in)
	for m.booted && !m.exited && m.act() {
		continue
	}
	m.tell()
	return m.out
}

// take notes an input; it decides as little as it can.
func (m *Machine) take(in Input) {
	switch in := in.(type) {
	case Boot:
		m.takeBoot(in)
	case HeadRead:
		m.takeRead(in)
	case HeadPut:
		m.takePut(in)
	case RecordWritten:
		m.takeRecord(in)
	case Locked:
		m.takeLocked(in)
	case LockChecked:
		m.takeChecked(in)
	case DivergedSaved:
		m.takeDiverged(in)
	case Restored:
		m.takeRestored(in)
	case Captured:
		m.takeCaptured(in)
	case JobsExited:
		m.takeExited(in)
	case BackupWanted:
		m.takeBackup(in)
	case HandOverWanted:
		m.takeHandOver(in)
	case CondemnWanted:
		m.takeEdit(edit{request: in.Request, packs: in.Packs, condemn: true, epoch: in.Epoch, seq: in.Seq})
	case ForgiveWanted:
		m.takeEdit(edit{request: in.Request, packs: in.Packs})
	case StopWanted:
		m.takeStop(in)
	}
}

// act lets the first rule act that has something to do. The order is that of
// urgency: the fence first, and of the writes that compete for the head the
// renewal last, since each of the others renews too.
func (m *Machine) act() bool {
	return m.actFence() || m.actStop() || m.actResend() || m.actRead() ||
		m.actSettle() || m.actClaim() || m.actLeave() || m.actYield() || m.actPrepare() || m.actStartJobs() ||
		m.actFollow() || m.actCommit() || m.actEdit() || m.actRenew() || m.actDropLock()
}

func (m *Machine) takeBoot(in Boot) {
	local := in.Local
	m.booted, m.since = true, m.now
	m.local, m.watch = local, in.Watch
	if rec := local.Record; rec != nil {
		m.rec, m.hasRec = *rec, true
		m.highEpoch, m.highSeq = rec.SeenEpoch, rec.SeenSeq
		m.forgetUnsynced()
	}
	m.local.Record = nil
}

// emit adds an action; KillJobs goes before all others of the step.
func (m *Machine) emit(a Action) {
	if _, kill := a.(KillJobs); kill {
		m.out = slices.Insert(m.out, 0, a)
		return
	}
	m.out = append(m.out, a)
}

func (m *Machine) reply(requests []uint64, head Head, err error) {
	if len(requests) > 0 {
		m.emit(Reply{Requests: requests, Head: head, Err: err})
	}
}

func (m *Machine) exit(err error) {
	m.exited = true
	m.tell()
	m.emit(Exit{Err: err})
}

func (m *Machine) broken(rule Mutant) bool { return m.cfg.Mutant == rule }

func (m *Machine) strict() bool { return m.cfg.Fence == FenceStrict }

// Deadline returns when a Tick is wanted next; false: only an input matters.
func (m *Machine) Deadline() (Time, bool) {
	if m.exited || !m.booted {
		return 0, false
	}
	var at Time
	found := false
	m.timers(func(t Time) {
		if t > m.now && (!found || t < at) {
			at, found = t, true
		}
	})
	return at, found
}

// timers yields all moments at which a rule may begin to apply by itself.
func (m *Machine) timers(yield func(Time)) {
	for _, r := range []*retry{&m.recRetry, &m.work.retry, &m.lock.retry, &m.check.retry, &m.commitRetry, &m.read.retry} {
		yield(r.at)
	}
	if at, ok := m.nextRead(); ok {
		yield(at)
	}
	if m.write != nil {
		yield(m.write.retry.at)
	}
	yield(m.shy)
	if m.cfg.Leave {
		yield(m.since + m.cfg.TTL)
	}
	if m.own != nil {
		yield(m.renewDue())
		if m.own.failing {
			yield(m.own.yieldDue(m.cfg.TTL))
		}
		if m.strict() {
			yield(m.own.deadline)
		}
	}
	if s := m.stop; s != nil && s.limited {
		yield(s.half)
		yield(s.deadline)
	}
}
