package supervise

import (
	"context"
	"fmt"
	"time"
)

// JobStatus is what one job does now.
type JobStatus struct {
	Name     string
	Main     bool
	Phase    Phase
	PID      int // of its first process; 0: none
	Since    time.Time
	Ready    bool
	Held     bool // stopped by hand
	Restarts int  // in a row
	Runs     int  // begun since the agent started
	Ended    bool // Exit is that of the last run
	Exit     int
	Due      time.Time // of a restart, or of the next turn; zero: none
}

// Jobs tells of all jobs, in their order; nothing before Start.
func (s *Supervisor) Jobs() []JobStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view
}

// Await waits until the named job's status is as wanted, and returns it. The errors
// are ErrUnknownJob, ctx's, and ErrKilled if the jobs end first.
func (s *Supervisor) Await(ctx context.Context, name string, wanted func(JobStatus) bool) (JobStatus, error) {
	for {
		s.mu.Lock()
		view, changed := s.view, s.changed
		s.mu.Unlock()
		found := false
		for _, j := range view {
			if j.Name == name {
				if wanted(j) {
					return j, nil
				}
				found = true
			}
		}
		if !found && view != nil { // nil: just started
			return JobStatus{}, fmt.Errorf("wait for %s: %w", name, ErrUnknownJob)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return JobStatus{}, ctx.Err()
		case <-s.done:
			return JobStatus{}, ErrKilled
		}
	}
}

// show publishes the state of the jobs.
func (d *driver) show() {
	view := make([]JobStatus, 0, len(d.jobs))
	for i, j := range d.jobs {
		state := &d.state.Jobs[i]
		if j.Name == "" || state.Gone {
			continue
		}
		one := JobStatus{
			Name: j.Name, Main: j.Main, Phase: state.Phase, Since: j.since, Ready: state.Ready, Held: state.Held,
			Restarts: state.Restarts, Runs: j.runs, Exit: state.Status, Ended: j.exited,
		}
		if state.Phase.lives() && state.Phase != Starting && !j.exited {
			one.PID = j.kin.pid
		}
		switch {
		case state.Phase == Waiting:
			one.Due = d.begin.Add(state.Due)
		case state.Phase == Idle && d.specs[i].Every > 0:
			one.Due = d.begin.Add(state.Next)
		case state.Phase == Idle:
			one.Due = j.turn
		}
		view = append(view, one)
	}
	d.mu.Lock()
	d.view = view
	close(d.changed)
	d.changed = make(chan struct{})
	d.mu.Unlock()
}

// onlyOne tells whether there is one job, and no other.
func (s *Supervisor) onlyOne() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.jobs) == 1
}
