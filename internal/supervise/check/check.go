// Package check asks the jobs of an instance how they are: by HTTP, a TCP
// connection, a command or gRPC's health protocol.
//
// It promises:
//
//   - Each check goes its own way: one that is slow, or never returns, delays no
//     other check, no caller and not the end of Run.
//   - One probe of a check at a time.
//   - A change is told once, in the order of the changes of its check, by a
//     goroutine that holds no lock.
//   - A command is killed with its group when its time is over, and leaves no
//     zombie; it dies with the agent.
//
// Commands stay in the agent's session, so that they are not taken for jobs.
// What leaves that session belongs to the jobs' supervisor. What leaves only its
// group is collected when it has been a zombie for two looks in a row: whoever
// executes something in the agent must wait for it at once.
//
// What decides is Step, a pure function. What follows from a change, and when a
// job counts as running, is left to the packages above.
package check

import (
	"context"
	"time"
)

// Prober asks once. It must be safe for use by one goroutine at a time, and
// should return soon after ctx has ended; an error is what is wrong, in words
// for a person.
type Prober interface {
	Probe(ctx context.Context) error
}

// Level is what a check is about.
type Level uint8

const (
	Ready Level = iota // the job can do its work
	Alive              // the job is not beyond help
)

var levelNames = [...]string{"ready", "alive"}

func (l Level) String() string { return levelNames[l] }

// OnFailure is what is to follow when a check becomes unhealthy. It is only
// carried here.
type OnFailure uint8

const (
	Ignore OnFailure = iota
	Restart
	Shutdown
)

var onFailureNames = [...]string{"ignore", "restart", "shutdown"}

func (o OnFailure) String() string { return onFailureNames[o] }

const (
	defaultEvery     = 10 * time.Second
	defaultTimeout   = 3 * time.Second
	defaultThreshold = 3
)

// Check is one check of one job.
type Check struct {
	Name, Job   string
	Prober      Prober
	Level       Level
	Every       time.Duration // from the beginning of one probe to that of the next; 0: 10 s
	Timeout     time.Duration // of one probe; 0: 3 s
	StartPeriod time.Duration // since the job's start, in which failures do not count; a success ends it
	Threshold   int           // failures in a row that make it unhealthy; 0: 3
	OnFailure   OnFailure
}

// Change is a check's turn from one health to another.
type Change struct {
	Check    Check
	From, To Health
	At       time.Time
	Failures int    // in a row
	Error    string // of the last probe; "": it passed, or there was none
}

// State is how a check stands.
type State struct {
	Name, Job string
	Level     Level
	Health    Health
	Since     time.Time     // of Health
	Failures  int           // in a row
	Error     string        // of the last probe; "": it passed, or there was none
	Took      time.Duration // the last probe
}
