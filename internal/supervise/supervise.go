// Package supervise runs the jobs of an instance: starts them when their conditions
// hold, by turns or at events, restarts them by their policy, stops them in reverse
// order, and kills them when the instance may no longer run them.
//
// A job is the tree of everything that its command starts. It promises:
//
//   - Stop asks first (signal, grace) and leaves nothing behind.
//   - Kill returns when every process of every job is dead, wherever it has put
//     itself; it needs no disk, no allocation to speak of and no lock that
//     something slow may hold. No job starts after it.
//   - When the agent dies, the kernel kills the first process of each job
//     (PR_SET_PDEATHSIG, unless the job executed a set-user-ID program); what
//     lives on is found by KillSurvivors at the next start.
//   - A job's last output is written before Done, unless its reader is stuck.
//
// It relies on the calling process being a child subreaper, which New makes it.
// Jobs run in sessions of their own, and that is how they are known: a
// descendant in another session than the agent's belongs to a job. Hence only
// one Supervisor may run at a time in a process, and whatever else the agent
// executes must stay in the agent's session.
//
// What decides is Step, a pure function. When to run (claims, restores) and
// what the exit status means is left to the packages above.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"drover/internal/proctree"
)

var (
	// ErrNotRunning: the job is not running now.
	ErrNotRunning = errors.New("job is not running")
	// ErrUnknownJob: no job has that name.
	ErrUnknownJob = errors.New("no such job")
	// ErrKilled: Kill came before Start.
	ErrKilled = errors.New("supervisor was killed")
)

// Config is what New needs.
type Config struct {
	Jobs []Job
	// Emit is told each event of the jobs and of the machine, in order; it must
	// be quick. nil: nobody is.
	Emit func(Emitted)
	// Happened are events that came before the start and may cause runs.
	Happened []Cause
	// Hold keeps jobs that are not early from starting until Open is called.
	Hold bool
	// Record is the file that names running jobs for KillSurvivors; empty: none.
	// It belongs on a file system that does not outlive the boot, or need not.
	Record string
}

// Emitted is one event; Source is a job's name, or empty. Status is that of exit,
// succeeded and failed.
type Emitted struct {
	Name, Source string
	Status       int
}

// Supervisor runs the jobs of a Config once.
type Supervisor struct {
	log      *slog.Logger
	run      string // this supervisor's mark in the environment of its jobs
	record   string
	stall    time.Duration // how long a slow reader may hold a job up
	emit     func(Emitted)
	happened []Cause
	hold     bool

	mu      sync.Mutex // guards jobs (the loop alone changes it), view, putEnv
	jobs    []*job     // as the machine's; a place that is free has a job without a name
	view    []JobStatus
	changed chan struct{} // closed when view changes, and replaced
	putEnv  map[string]*string

	group    sync.WaitGroup
	started  atomic.Bool
	messages chan message
	killed   chan struct{} // closed by Kill
	killOnce sync.Once
	finished chan struct{} // no process is left; the launcher and the census end
	done     chan struct{}
	status   int

	// The fence: no fork begins once fenced is set; one that had begun before
	// shows in forking until its process can be found in /proc.
	fenced  atomic.Bool
	forking atomic.Bool
	fence   sync.Mutex // serialises Kill; held for nothing but killing
	killer  *proctree.Killer
	census  *census

	// births is held from a fork until the new process is in first, and while
	// orphans are reaped: first processes have an owner that waits for them.
	births sync.Mutex
	pids   sync.Mutex // guards first
	first  map[int]*job
}

// New checks the configuration and prepares; it starts nothing. It makes the
// calling process a child subreaper.
func New(cfg Config, log *slog.Logger) (*Supervisor, error) {
	if err := proctree.BecomeSubreaper(); err != nil {
		return nil, err
	}
	killer, err := proctree.NewKiller()
	if err != nil {
		return nil, fmt.Errorf("prepare to kill: %w", err)
	}
	s := &Supervisor{
		log:      log,
		run:      newRunID(),
		record:   cfg.Record,
		stall:    stallLimit,
		emit:     cfg.Emit,
		happened: cfg.Happened,
		hold:     cfg.Hold,
		changed:  make(chan struct{}),
		messages: make(chan message, 4*len(cfg.Jobs)+4),
		killed:   make(chan struct{}),
		finished: make(chan struct{}),
		done:     make(chan struct{}),
		killer:   killer,
		first:    make(map[int]*job),
	}
	if s.census, err = newCensus(s); err != nil {
		return nil, fmt.Errorf("prepare to look for processes: %w", err)
	}
	if s.emit == nil {
		s.emit = func(Emitted) {}
	}
	if err := checkJobs(cfg.Jobs); err != nil {
		return nil, err
	}
	for i := range cfg.Jobs {
		s.jobs = append(s.jobs, s.newJob(i, cfg.Jobs[i]))
	}
	return s, nil
}

// Start starts the jobs and returns. The jobs' life is bound to ctx: when it
// ends, they are killed as by Kill.
func (s *Supervisor) Start(ctx context.Context) error {
	if s.fenced.Load() {
		return ErrKilled
	}
	if !s.started.CompareAndSwap(false, true) {
		return errors.New("start jobs: started already")
	}
	if err := s.writeRecord(); err != nil {
		close(s.done)
		return err
	}
	launch := make(chan *job)
	stopWatching := context.AfterFunc(ctx, func() {
		if err := s.Kill(); err != nil {
			s.log.Error("the jobs' context ended, and some of them live", "error", err)
		}
	})
	s.group.Go(func() { s.launcher(launch) })
	s.group.Go(s.census.run)
	s.group.Go(func() {
		defer stopWatching()
		s.loop(launch)
	})
	// Not before the census has ended: it would take the jobs of the next
	// Supervisor for orphans.
	go func() {
		s.group.Wait()
		close(s.done)
	}()
	return nil
}

// Stop ends the jobs in reverse order of their start, each with its signal and
// its grace, and returns when nothing of them is left. When ctx ends first, the
// rest is killed, and the error is ctx's.
func (s *Supervisor) Stop(ctx context.Context) error {
	if !s.started.Load() {
		s.fenced.Store(true)
		return nil
	}
	select {
	case s.messages <- message{input: Input{Event: Stop}}:
	case <-s.done:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		if err := s.Kill(); err != nil {
			return errors.Join(ctx.Err(), err)
		}
		<-s.done
		return ctx.Err()
	}
}

// Done is closed when no process of any job is left and their output is
// written. It is never closed if Start was not called.
func (s *Supervisor) Done() <-chan struct{} { return s.done }

// Status is the exit status of the main job, 128 + n if signal n ended it;
// without a main job that of the first job that failed, or 0. It is valid
// once Done is closed.
func (s *Supervisor) Status() int { return s.status }
