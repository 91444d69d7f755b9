package supervise

import (
	"time"

	"golang.org/x/sys/unix"
)

// The state machine of the jobs: Step decides, the Supervisor does. Step has no
// clock and touches nothing; times are durations since the supervisor started.
// This file has its words; decide.go what follows from an input, order.go who may
// start and who may be stopped.

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
	// hookLimit bounds a run that the end of another job, or of all, waits for.
	hookLimit = 30 * time.Second
	// statusTimedOut is the status of a run that took too long, as timeout(1) has it.
	statusTimedOut = 124
	// statusNeverStarted is that of a job whose conditions cannot come true, where
	// what it waited for has no status to give.
	statusNeverStarted = 1
)

// Milestone is what a job can have come to since it was defined; once true it stays.
type Milestone uint8

const (
	WasStarted   Milestone = 1 << iota // a first process ran
	WasReady                           // it said so; without a way to say, started
	WasHealthy                         // all its checks passed
	HasCompleted                       // it ended, and was not to be started again
	HasSucceeded                       // a run of it ended with 0
)

// After is one condition of a start.
type After struct {
	Job int // index
	Is  Milestone
}

// Cause names events: those of one source, or of any if Source is empty.
type Cause struct{ Name, Source string }

func (c Cause) matches(name, source string) bool {
	return c.Name == name && (c.Source == "" || c.Source == source)
}

// Spec is what the machine needs to know of a job. A job with a cause or a turn runs
// when that comes; one with BeforeStop or AfterStop as part of the end of those jobs;
// any other from the start on. All wait until every After has come true.
type Spec struct {
	Name       string
	Main       bool
	StopSignal unix.Signal
	StopGrace  time.Duration
	StopBy     bool // a command asks it to stop, not the signal
	KillRest   bool // what outlives its first process is killed at once
	// Drain is the longest time between its being told of as stopping and its stop signal:
	// others are to stop sending it work. Drained ends it earlier. 0: none.
	Drain      time.Duration
	Restart    Restart
	Timeout    time.Duration // of a run; 0: none
	TellsReady bool          // it is ready when it says so
	ReadyLimit time.Duration // from its start; 0: none

	After      []After
	On         []Cause       // run at each of these
	Once       []Cause       // run at the first of these
	Every      time.Duration // run at this interval; 0: not
	Turns      bool          // run when the input Turn says so
	Early      bool          // it does not wait for Open
	BeforeStop []int         // jobs before whose stop it runs
	AfterStop  []int         // jobs after whose end it runs
}

func (s *Spec) timed() bool  { return s.Every > 0 || s.Turns }
func (s *Spec) caused() bool { return len(s.On)+len(s.Once) > 0 }
func (s *Spec) hook() bool   { return len(s.BeforeStop)+len(s.AfterStop) > 0 }

// plain: it runs from the start on.
func (s *Spec) plain() bool { return !s.timed() && !s.caused() && !s.hook() }

// limit is the longest that a run may take; 0: any time.
func (s *Spec) limit(m Mode) time.Duration {
	if s.Timeout == 0 && (s.hook() || m == Down) {
		return hookLimit
	}
	return s.Timeout
}

// Phase is where a job is in its life.
type Phase uint8

const (
	Idle     Phase = iota // does not run, and may
	Starting              // asked for, not yet known to run
	Running
	Draining // it runs on until others know that it will end
	Stopping // asked to end, within its grace
	Clearing // its first process has ended, others of the job have not: within the grace
	Killing  // SIGKILL is on its way to all of it
	Waiting  // ended, to be started again
	Ended    // it starts only if somebody asks for it
)

var phaseNames = [...]string{"idle", "starting", "running", "draining", "stopping", "clearing", "killing", "waiting", "ended"}

func (p Phase) String() string { return phaseNames[p] }

// lives: there may be processes of it.
func (p Phase) lives() bool { return p >= Starting && p <= Killing }

// Mode is what the supervisor as a whole is doing.
type Mode uint8

const (
	Up      Mode = iota // jobs are started and restarted
	Down                // jobs are being stopped
	Dead                // everything is being killed
	Settled             // no job is left; final
)

var modeNames = [...]string{"up", "down", "dead", "settled"}

func (m Mode) String() string { return modeNames[m] }

// Then is what becomes of a job that was told to stop.
type Then uint8

const (
	ThenPolicy  Then = iota // what its policy says
	ThenHeld                // it stays stopped until somebody starts it
	ThenAgain               // it is started again at once
	ThenReplace             // it gets its new definition, and begins anew
	ThenRemove              // it is forgotten
)

// JobState is one job's part of the State.
type JobState struct {
	Phase    Phase
	Status   int           // exit status of the last run
	Since    time.Duration // when the last run started
	Due      time.Duration // end of the grace, or time of the restart
	Restarts int           // in a row

	Reached  Milestone
	Ready    bool          // now
	Pending  bool          // a run is due as soon as its conditions hold
	Fired    bool          // a cause of Once has come
	Next     time.Duration // the next turn of Every
	Over     time.Duration // when this run has taken too long; 0: never
	ReadyBy  time.Duration // when it is too late to become ready; 0: never
	TimedOut bool          // this run was stopped for that
	Asked    bool          // this run was asked to end
	Told     bool          // to stop, with Then to follow; its hooks may run first
	Then     Then
	Hooked   bool // the hooks before its stop were started
	Closing  bool // the hooks after its end run
	Forced   bool // started by hand: its conditions do not matter
	Held     bool // stopped by hand
	Gone     bool // removed; its place is free
	Changing bool // it has ended for its new definition, which is on its way
}

// State is the machine's whole state. Its zero value with one JobState for each
// Spec is where it begins.
type State struct {
	Mode Mode
	Shut bool // until Open jobs do not start that are not early, unless by hand
	Jobs []JobState
	Seed uint64 // of the back-off's jitter
}

// Event is what happened.
type Event uint8

const (
	Start      Event = iota // begin
	Started                 // Job runs
	Failed                  // Job could not be started; Status says how a shell would put it
	Exited                  // Job's first process ended with Status; Left: others of the job live
	Cleared                 // the last process of Job is gone
	Stop                    // end everything in order
	Kill                    // everything has been killed from outside the machine
	Tick                    // time has passed
	Ready                   // Job says that it is ready
	Healthy                 // all checks of Job pass
	Unhealthy               // one does not
	Happened                // an event Name of Source that no job of the machine made
	Turn                    // it is time for a run of Job
	StartJob                // somebody asks for Job, whatever its conditions
	StopJob                 // Job is to stop, and stay so
	RestartJob              // Job is to stop and to start
	Change                  // Job has a new definition
	Remove                  // Job is not defined any more
	Replaced                // Job's Spec is the new one now
	StopFailed              // the command that should stop Job failed
	Drained                 // nobody counts on Job any more
	Open                    // what the jobs need is there
)

var eventNames = [...]string{
	"start", "started", "failed", "exited", "cleared", "stop", "kill", "tick", "ready", "healthy", "unhealthy",
	"happened", "turn", "start-job", "stop-job", "restart-job", "change", "remove", "replaced", "stop-failed", "drained", "open",
}

func (e Event) String() string { return eventNames[e] }

// Input is one event; the other fields are used where the event says so.
type Input struct {
	Event        Event
	Job          int
	Status       int
	Left         bool
	Name, Source string
}

// Act is what to do.
type Act uint8

const (
	Spawn       Act = iota // start Job
	Signal                 // send Signal to Job's first process
	RunStop                // run the command that stops Job
	SignalRest             // send Signal to all that is left of Job
	KillJob                // SIGKILL to all of Job, until it is gone
	Finish                 // nothing is left; Status is the instance's
	Emit                   // tell the event Name of Source; Status with it
	Replace                // put the new definition of Job in its place, then Replaced
	NeverStarts            // tell that Job cannot start because of Source
)

var actNames = [...]string{"spawn", "signal", "run-stop", "signal-rest", "kill-job", "finish", "emit", "replace", "never-starts"}

func (a Act) String() string { return actNames[a] }

// Action is one thing to do, in the order returned.
type Action struct {
	Act          Act
	Job          int
	Signal       unix.Signal
	Status       int
	Name, Source string
}

// Step returns the state after in and what is to be done. It does not change
// its arguments. An input that does not fit the state is ignored.
func Step(specs []Spec, old State, in Input, now time.Duration) (State, []Action) {
	m := &machine{specs: specs, now: now, State: old}
	m.Jobs = append(make([]JobState, 0, len(specs)), old.Jobs...)
	for len(m.Jobs) < len(specs) { // added by a new configuration
		m.Jobs = append(m.Jobs, JobState{})
		m.arm(len(m.Jobs) - 1)
	}
	if m.Mode != Settled {
		m.take(in)
		m.advance()
	}
	return m.State, m.actions
}

// Deadline is when the next Tick is needed; ok is false if none is.
func (s State) Deadline(specs []Spec) (at time.Duration, ok bool) {
	earliest := func(t time.Duration) {
		if !ok || t < at {
			at, ok = t, true
		}
	}
	for i := range s.Jobs {
		job := &s.Jobs[i]
		switch job.Phase {
		case Draining, Stopping, Clearing, Waiting:
			earliest(job.Due)
		case Running:
			if job.Over > 0 {
				earliest(job.Over)
			}
			if job.ReadyBy > 0 {
				earliest(job.ReadyBy)
			}
		}
		if s.Mode == Up && job.Next > 0 && i < len(specs) && specs[i].Every > 0 {
			earliest(job.Next)
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

// emit tells an event of a job, and lets it cause what it causes here.
func (m *machine) emit(name string, i int) {
	m.do(Action{Act: Emit, Job: i, Name: name, Source: m.specs[i].Name, Status: m.Jobs[i].Status})
	m.happened(name, m.specs[i].Name)
}

// tell tells an event of the instance.
func (m *machine) tell(name string) {
	m.do(Action{Act: Emit, Name: name})
	m.happened(name, "")
}

// happened marks the runs that an event causes. On the way down only the end itself
// causes any.
func (m *machine) happened(name, source string) {
	if m.Mode != Up && (m.Mode != Down || name != EventShutdown) {
		return
	}
	for i := range m.specs {
		spec, job := &m.specs[i], &m.Jobs[i]
		if job.Gone || job.Phase == Ended || job.Told && job.Then != ThenAgain {
			continue
		}
		if anyMatches(spec.On, name, source) || !job.Fired && anyMatches(spec.Once, name, source) {
			job.Pending = true
		}
		job.Fired = job.Fired || anyMatches(spec.Once, name, source)
	}
}

func anyMatches(causes []Cause, name, source string) bool {
	for _, c := range causes {
		if c.matches(name, source) {
			return true
		}
	}
	return false
}

// Names of the events that the machine makes: of a job, with its name as the source,
// and of the instance.
const (
	EventStarted   = "started"
	EventReady     = "ready"
	EventHealthy   = "healthy"
	EventUnhealthy = "unhealthy"
	EventExit      = "exit"      // a run ended, with its status
	EventSucceeded = "succeeded" // with 0
	EventFailed    = "failed"    // not with 0, or it could not start
	EventStopping  = "stopping"  // it is being asked to end
	EventStopped   = "stopped"   // it was asked, and is gone
	EventStartup   = "startup"
	EventShutdown  = "shutdown"
)
