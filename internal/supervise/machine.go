package supervise

import (
	"time"

	"golang.org/x/sys/unix"
)

// The state machine of the jobs: Step decides, the Supervisor does. Step has no
// clock and touches nothing; times are durations since the supervisor started.

// Policy says when a job that ended is started again.
type Policy uint8

const (
	Never Policy = iota
	OnFailure
	Always
)

// Restart is a job's policy and its back-off.
type Restart struct {
	Policy Policy
	Count  int           // at most so many restarts in a row; 0: no limit
	Delay  time.Duration // before the first restart, doubled each time; 0: 500 ms
	Max    time.Duration // the longest delay; 0: 30 s
	Reset  time.Duration // an uptime after which the count and the delay begin again; 0: 30 s
}

const (
	defaultDelay = 500 * time.Millisecond
	defaultMax   = 30 * time.Second
	defaultReset = 30 * time.Second
	defaultGrace = 10 * time.Second
)

// Spec is what the machine needs to know of a job.
type Spec struct {
	Name       string
	Main       bool
	StopSignal unix.Signal
	StopGrace  time.Duration
	Restart    Restart
}

// Phase is where a job is in its life.
type Phase uint8

const (
	Idle     Phase = iota // not started yet
	Starting              // asked for, not yet known to run
	Running
	Stopping // asked to end, within its grace
	Clearing // its first process has ended, others of the job have not: within the grace
	Killing  // SIGKILL is on its way to all of it
	Waiting  // ended, to be started again
	Ended
)

var phaseNames = [...]string{"idle", "starting", "running", "stopping", "clearing", "killing", "waiting", "ended"}

func (p Phase) String() string { return phaseNames[p] }

// Mode is what the supervisor as a whole is doing.
type Mode uint8

const (
	Up      Mode = iota // jobs are started and restarted
	Down                // jobs are being stopped, the last first
	Dead                // everything is being killed
	Settled             // no job is left; final
)

var modeNames = [...]string{"up", "down", "dead", "settled"}

func (m Mode) String() string { return modeNames[m] }

// JobState is one job's part of the State.
type JobState struct {
	Phase    Phase
	Status   int           // exit status of the last run
	Since    time.Duration // when the last run started
	Due      time.Duration // end of the grace, or time of the restart
	Restarts int           // in a row
}

// State is the machine's whole state. Its zero value with one JobState for each
// Spec is where it begins.
type State struct {
	Mode Mode
	Jobs []JobState
	Seed uint64 // of the back-off's jitter
}

// Event is what happened.
type Event uint8

const (
	Start   Event = iota // begin: start all jobs in order
	Started              // Job runs
	Failed               // Job could not be started; Status says how a shell would put it
	Exited               // Job's first process ended with Status; Left: others of the job live
	Cleared              // the last process of Job is gone
	Stop                 // end everything in order
	Kill                 // everything has been killed from outside the machine
	Tick                 // time has passed
)

var eventNames = [...]string{"start", "started", "failed", "exited", "cleared", "stop", "kill", "tick"}

func (e Event) String() string { return eventNames[e] }

// Input is one event; Job, Status and Left are used where the event says so.
type Input struct {
	Event  Event
	Job    int
	Status int
	Left   bool
}

// Act is what to do.
type Act uint8

const (
	Spawn      Act = iota // start Job
	Signal                // send Signal to Job's first process
	SignalRest            // send Signal to all that is left of Job
	KillJob               // SIGKILL to all of Job, until it is gone
	Finish                // nothing is left; Status is the instance's
)

var actNames = [...]string{"spawn", "signal", "signal-rest", "kill-job", "finish"}

func (a Act) String() string { return actNames[a] }

// Action is one thing to do, in the order returned.
type Action struct {
	Act    Act
	Job    int
	Signal unix.Signal
	Status int
}

// Step returns the state after in and what is to be done. It does not change
// its arguments. An input that does not fit the state is ignored.
func Step(specs []Spec, old State, in Input, now time.Duration) (State, []Action) {
	m := &machine{specs: specs, now: now, State: old}
	m.Jobs = append([]JobState(nil), old.Jobs...)
	if m.Mode != Settled {
		m.take(in)
	}
	return m.State, m.actions
}

// Deadline is when the next Tick is needed; ok is false if none is.
func (s State) Deadline() (at time.Duration, ok bool) {
	for i := range s.Jobs {
		switch s.Jobs[i].Phase {
		case Stopping, Clearing, Waiting:
			if !ok || s.Jobs[i].Due < at {
				at, ok = s.Jobs[i].Due, true
			}
		}
	}
	return at, ok
}

type machine struct {
	State
	specs   []Spec
	now     time.Duration
	actions []Action
}

func (m *machine) do(a Action) { m.actions = append(m.actions, a) }

func (m *machine) take(in Input) {
	switch in.Event {
	case Start:
		m.startAll()
	case Started:
		m.started(in.Job)
	case Failed:
		if m.Jobs[in.Job].Phase == Starting {
			m.Jobs[in.Job].Status, m.Jobs[in.Job].Since = in.Status, m.now
			m.ended(in.Job)
		}
	case Exited:
		m.exited(in)
	case Cleared:
		if p := m.Jobs[in.Job].Phase; p == Clearing || p == Killing {
			m.ended(in.Job)
		}
	case Stop:
		m.goDown()
	case Kill:
		m.die()
	case Tick:
		m.tick()
	}
}

func (m *machine) startAll() {
	if m.Mode != Up {
		return
	}
	for i := range m.Jobs {
		if m.Jobs[i].Phase == Idle {
			m.spawn(i)
		}
	}
	m.settle()
}

func (m *machine) spawn(i int) {
	m.Jobs[i].Phase = Starting
	m.do(Action{Act: Spawn, Job: i})
}

func (m *machine) started(i int) {
	job := &m.Jobs[i]
	if job.Phase != Starting {
		return
	}
	job.Phase, job.Since = Running, m.now
	switch m.Mode {
	case Dead:
		m.kill(i)
	case Down:
		m.stopNext()
	}
}

func (m *machine) exited(in Input) {
	job := &m.Jobs[in.Job]
	switch job.Phase {
	case Running, Stopping, Killing:
	default:
		return
	}
	job.Status = in.Status
	if !in.Left {
		m.ended(in.Job)
		return
	}
	// The rest gets the same signal and grace: the first process may have been
	// a shell that died of the signal while the application still shuts down.
	switch job.Phase {
	case Running:
		job.Due = m.now + m.specs[in.Job].StopGrace
		fallthrough
	case Stopping:
		job.Phase = Clearing
		m.do(Action{Act: SignalRest, Job: in.Job, Signal: m.specs[in.Job].StopSignal})
	}
}

// ended decides what follows when all of a job is gone.
func (m *machine) ended(i int) {
	job, spec := &m.Jobs[i], &m.specs[i]
	if m.Mode == Up && m.again(i) {
		if m.longUp(i) {
			job.Restarts = 0
		}
		job.Phase, job.Due = Waiting, m.now+m.delay(i)
		job.Restarts++
		return
	}
	job.Phase = Ended
	if spec.Main && m.Mode == Up {
		m.goDown()
		return
	}
	if m.Mode == Down {
		m.stopNext()
		return
	}
	m.settle()
}

func (m *machine) again(i int) bool {
	job, restart := &m.Jobs[i], &m.specs[i].Restart
	wanted := restart.Policy == Always || restart.Policy == OnFailure && job.Status != 0
	return wanted && (restart.Count == 0 || m.longUp(i) || job.Restarts < restart.Count)
}

func (m *machine) longUp(i int) bool {
	return m.now-m.Jobs[i].Since >= orDefault(m.specs[i].Restart.Reset, defaultReset)
}

// delay is the back-off with a jitter of up to a fifth either way, so that jobs
// that failed together do not come back together.
func (m *machine) delay(i int) time.Duration {
	restart := &m.specs[i].Restart
	delay, longest := orDefault(restart.Delay, defaultDelay), orDefault(restart.Max, defaultMax)
	for n := 0; n < m.Jobs[i].Restarts && delay < longest; n++ {
		delay *= 2
	}
	delay = min(delay, longest)
	if m.Seed == 0 {
		return delay
	}
	// splitmix64 (Steele, Lea, Flood 2014), one step per use.
	m.Seed += 0x9e3779b97f4a7c15
	z := m.Seed
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	const steps = 1000
	fifth := delay / 5
	return delay - fifth + 2*fifth/steps*time.Duration(z%steps)
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

func (m *machine) goDown() {
	if m.Mode != Up {
		return
	}
	m.Mode = Down
	m.startNone()
	m.stopNext()
}

// stopNext asks the last job that is not gone to end, and waits for it before
// it turns to the one before: the reverse of the start.
func (m *machine) stopNext() {
	for i := len(m.Jobs) - 1; i >= 0; i-- {
		job := &m.Jobs[i]
		switch job.Phase {
		case Ended:
			continue
		case Running:
			job.Phase, job.Due = Stopping, m.now+m.specs[i].StopGrace
			m.do(Action{Act: Signal, Job: i, Signal: m.specs[i].StopSignal})
		}
		return
	}
	m.settle()
}

// die: whatever lives is being killed already; no job starts any more.
func (m *machine) die() {
	m.Mode = Dead
	m.startNone()
	for i := range m.Jobs {
		switch m.Jobs[i].Phase {
		case Running, Stopping, Clearing:
			m.kill(i)
		}
	}
	m.settle()
}

// startNone: what does not run will not.
func (m *machine) startNone() {
	for i := range m.Jobs {
		if p := m.Jobs[i].Phase; p == Idle || p == Waiting {
			m.Jobs[i].Phase = Ended
		}
	}
}

func (m *machine) kill(i int) {
	m.Jobs[i].Phase = Killing
	m.do(Action{Act: KillJob, Job: i})
}

func (m *machine) tick() {
	for i := range m.Jobs {
		if m.now < m.Jobs[i].Due {
			continue
		}
		switch m.Jobs[i].Phase {
		case Stopping, Clearing:
			m.kill(i)
		case Waiting:
			m.spawn(i)
		}
	}
}

// settle ends the machine when no job will do anything any more.
func (m *machine) settle() {
	for i := range m.Jobs {
		if m.Jobs[i].Phase != Ended {
			return
		}
	}
	m.Mode = Settled
	m.do(Action{Act: Finish, Status: m.status()})
}

// status is the main job's; without one, that of the first job that failed.
func (m *machine) status() int {
	first := 0
	for i := range m.Jobs {
		if m.specs[i].Main {
			return m.Jobs[i].Status
		}
		if first == 0 {
			first = m.Jobs[i].Status
		}
	}
	return first
}
