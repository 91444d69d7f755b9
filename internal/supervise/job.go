package supervise

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Job is one command to supervise.
type Job struct {
	Name    string
	Command []string // looked up in the PATH of Env if it has no slash
	Dir     string   // empty: the agent's
	Env     []string // the whole environment (see JobEnv); DROVER_JOB and DROVER_RUN are added
	User    *User    // nil: the agent's own
	Limits  Limits
	More    func() []string // added to Env at each start, as "NAME=value"; nil: nothing. It is quick.
	// Files are what it has open in memory, by descriptor from 3, asked for at each start;
	// nil: nothing. It is quick.
	Files   func() map[int]string
	Early   bool // it does not wait for Open
	Main    bool // its end ends all jobs, and its status is the instance's
	Restart Restart
	Timeout time.Duration // of a run; 0: none

	After                 map[string]Milestone // by name: it starts when each has come so far
	On, Once              []Cause
	Every                 time.Duration
	Schedule              Schedule // nil: none
	BeforeStop, AfterStop []string

	Ready Readiness

	StopSignal  unix.Signal   // 0: SIGTERM
	StopCommand []string      // in place of the signal
	StopGrace   time.Duration // from the signal to SIGKILL; 0: 10 s
	// KillRest: what outlives the first process is killed at once, and gets no signal before.
	KillRest bool
	Signals  map[unix.Signal]unix.Signal // what a signal becomes that is passed on
	// Drain is how long it runs on, at most, after it was told of as stopping; Supervisor.Drained
	// ends that. 0: not.
	Drain time.Duration

	// Stdin is /dev/null if nil.
	Stdin *os.File
	// Output. An *os.File is given to the job as it is: nothing stands between.
	// Any other writer gets what the job writes, through a bounded buffer, in the
	// given form. nil discards it. Writers must be safe for concurrent use if they
	// are given twice.
	Stdout, Stderr io.Writer
	Form           Form
	Prefix         string   // of lines, with FormPrefix
	Journal        *Journal // keeps the newest lines; nil: none

	// Version tells definitions apart: a reload leaves a job alone whose Version is
	// the same.
	Version string
}

// Schedule says when the next turn after t is; the zero time: never.
type Schedule interface{ Next(t time.Time) time.Time }

// Readiness is how a job tells that it is ready; at most one way.
type Readiness struct {
	FD     int            // it writes a line to this file descriptor
	Notify bool           // READY=1 to NOTIFY_SOCKET
	Log    *regexp.Regexp // a line of its output matches
	Told   bool           // somebody calls Supervisor.Ready
	Limit  time.Duration  // 0: none
}

func (r Readiness) tells() bool { return r.FD > 0 || r.Notify || r.Log != nil || r.Told }

// job is a Job and what runs of it.
type job struct {
	Job
	index int
	env   []string
	next  *Job // its new definition, once it has stopped; the loop's own

	mu      sync.Mutex
	process *os.Process // nil: not running

	// The loop's own, of the last run, and what carries its output.
	kin     *kin
	exited  bool
	pumps   []*pump
	streams *streams
	since   time.Time // of the last change of its state, for people
	runs    int
	turn    time.Time // the next one of its Schedule
}

func (s *Supervisor) newJob(index int, j Job) *job {
	if j.StopSignal == 0 {
		j.StopSignal = unix.SIGTERM
	}
	j.StopGrace = orDefault(j.StopGrace, defaultGrace)
	return &job{Job: j, index: index, env: s.environment(&j), since: time.Now()}
}

// checkJobs holds what a Supervisor relies on.
func checkJobs(jobs []Job) error {
	mains, names := 0, make(map[string]bool)
	for i := range jobs {
		j := &jobs[i]
		if j.Name == "" || names[j.Name] {
			return fmt.Errorf("job %d: its name %q is empty or taken", i, j.Name)
		}
		names[j.Name] = true
		if len(j.Command) == 0 || j.Command[0] == "" {
			return fmt.Errorf("job %s: no command", j.Name)
		}
		if j.Main {
			mains++
		}
	}
	if mains > 1 {
		return fmt.Errorf("%d jobs are main; one may be", mains)
	}
	for i := range jobs {
		for _, other := range jobs[i].others() {
			if !names[other] || other == jobs[i].Name {
				return fmt.Errorf("job %s: %w: %s", jobs[i].Name, ErrUnknownJob, other)
			}
		}
	}
	return nil
}

// others are the jobs that j names.
func (j *Job) others() []string {
	var names []string
	for name := range j.After {
		names = append(names, name)
	}
	return append(append(names, j.BeforeStop...), j.AfterStop...)
}

// specs are the jobs as the machine knows them.
func specs(jobs []*job) []Spec {
	index := make(map[string]int, len(jobs))
	for i, j := range jobs {
		if j.Name != "" {
			index[j.Name] = i
		}
	}
	all := make([]Spec, len(jobs))
	for i, j := range jobs {
		spec := Spec{
			Name: j.Name, Main: j.Main, StopSignal: j.StopSignal, StopGrace: j.StopGrace, StopBy: len(j.StopCommand) > 0, KillRest: j.KillRest, Drain: j.Drain, Early: j.Early,
			Restart: j.Restart, Timeout: j.Timeout, TellsReady: j.Ready.tells(), ReadyLimit: j.Ready.Limit,
			On: j.On, Once: j.Once, Every: j.Every, Turns: j.Schedule != nil,
			BeforeStop: indexes(index, j.BeforeStop), AfterStop: indexes(index, j.AfterStop),
		}
		for name, is := range j.After {
			if at, ok := index[name]; ok {
				spec.After = append(spec.After, After{at, is})
			}
		}
		all[i] = spec
	}
	return all
}

// Signal sends sig to the first process of the named job, or what the job has it be.
func (s *Supervisor) Signal(name string, sig unix.Signal) error {
	j := s.find(name)
	if j == nil {
		return fmt.Errorf("signal %s: %w", name, ErrUnknownJob)
	}
	if other, ok := j.Signals[sig]; ok {
		sig = other
	}
	return j.signal(sig)
}

func (j *job) signal(sig unix.Signal) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.process == nil {
		return fmt.Errorf("signal %s: %w", j.Name, ErrNotRunning)
	}
	if err := j.process.Signal(sig); err != nil {
		if errors.Is(err, os.ErrProcessDone) {
			err = ErrNotRunning
		}
		return fmt.Errorf("signal %s: %w", j.Name, err)
	}
	return nil
}

// find is nil if there is no such job.
func (s *Supervisor) find(name string) *job {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.jobs {
		if j.Name == name && name != "" {
			return j
		}
	}
	return nil
}

func indexes(index map[string]int, names []string) []int {
	var list []int
	for _, name := range names {
		if at, ok := index[name]; ok {
			list = append(list, at)
		}
	}
	return list
}
