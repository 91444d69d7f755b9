package supervise

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrBusy: another reload is under way.
var ErrBusy = errors.New("another reload is under way")

const (
	// settleTime is how long a job that does not tell when it is ready must run to
	// count as started.
	settleTime = time.Second
	// reloadLimit bounds a reload.
	reloadLimit = 2 * time.Minute
)

// reload is a new definition of the jobs, on its way.
type reload struct {
	jobs     []Job
	former   []Job
	reply    chan<- error
	changed  []string // that are to start
	back     error    // why the former definition is being put back; nil: it is not
	deadline time.Duration
	settles  time.Duration // when to look again
	defining bool          // the machine is being told; what it says meanwhile is not the end
}

// Reload changes the jobs to a new definition: those whose Version is the same go on
// untouched, changed ones are stopped and started again, others are stopped, or
// started, each when its conditions hold. It returns when the changed ones that may
// start are ready (or ran for a second, or succeeded). If one fails instead, the former
// definition is put back, and the error says why. The end of ctx ends the wait alone.
func (s *Supervisor) Reload(ctx context.Context, jobs []Job) error {
	if err := checkJobs(jobs); err != nil {
		return err
	}
	return s.ask(ctx, message{reload: jobs})
}

// ask sends a message and waits for the answer.
func (s *Supervisor) ask(ctx context.Context, m message) error {
	reply := make(chan error, 1)
	m.reply = reply
	if !s.started.Load() || !s.send(m) {
		return ErrKilled
	}
	select {
	case err := <-reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		select {
		case err := <-reply:
			return err
		default:
			return ErrKilled
		}
	}
}

// StartJob starts a job that does not run, whatever its conditions.
func (s *Supervisor) StartJob(ctx context.Context, name string) error {
	return s.ask(ctx, message{name: name, input: Input{Event: StartJob}})
}

// StopJob begins to stop a job; it stays stopped.
func (s *Supervisor) StopJob(ctx context.Context, name string) error {
	return s.ask(ctx, message{name: name, input: Input{Event: StopJob}})
}

// RestartJob begins to stop a job, and starts it again then.
func (s *Supervisor) RestartJob(ctx context.Context, name string) error {
	return s.ask(ctx, message{name: name, input: Input{Event: RestartJob}})
}

// Happened tells of an event that no job made; it may cause runs.
func (s *Supervisor) Happened(name, source string) {
	s.send(message{input: Input{Event: Happened, Name: name, Source: source}})
}

// Ready tells that a job is ready whose Readiness is Told.
func (s *Supervisor) Ready(name string) { s.send(message{name: name, input: Input{Event: Ready}}) }

// Drained tells that nobody counts on a job any more that is being stopped.
func (s *Supervisor) Drained(name string) {
	s.send(message{name: name, input: Input{Event: Drained}})
}

// Open lets the jobs start that were held.
func (s *Supervisor) Open() { s.send(message{input: Input{Event: Open}}) }

// Health tells that a job is healthy now, or is not.
func (s *Supervisor) Health(name string, healthy bool) {
	event := Unhealthy
	if healthy {
		event = Healthy
	}
	s.send(message{name: name, input: Input{Event: event}})
}

func (d *driver) startReload(jobs []Job, reply chan<- error) {
	switch {
	case d.reload != nil:
		reply <- ErrBusy
		return
	case d.state.Mode != Up:
		reply <- ErrKilled
		return
	}
	r := &reload{jobs: jobs, reply: reply, deadline: d.now() + reloadLimit}
	for i, j := range d.jobs {
		switch {
		case j.Name == "" || d.state.Jobs[i].Gone:
		case j.next != nil:
			r.former = append(r.former, *j.next)
		default:
			r.former = append(r.former, j.Job)
		}
	}
	d.reload = r
	d.define(jobs)
	d.lookAtReload()
}

// define brings the jobs to a new definition.
func (d *driver) define(jobs []Job) {
	d.reload.changed, d.reload.defining = nil, true
	defer func() { d.reload.defining = false }()
	var change, remove, added []int
	kept := map[string]bool{}
	for i, j := range d.jobs {
		if j.Name == "" || d.state.Jobs[i].Gone {
			continue
		}
		at := slices.IndexFunc(jobs, func(other Job) bool { return other.Name == j.Name })
		switch {
		case at < 0:
			remove = append(remove, i)
			continue
		case jobs[at].Version != j.Version, d.onItsWay(i):
			j.next = &jobs[at]
			change = append(change, i)
			d.reload.changed = append(d.reload.changed, j.Name)
		default:
			j.next = nil
		}
		kept[j.Name] = true
	}
	for at := range jobs {
		if !kept[jobs[at].Name] {
			added = append(added, d.add(jobs[at]))
			d.reload.changed = append(d.reload.changed, jobs[at].Name)
		}
	}
	d.specs = specs(d.jobs)
	for _, i := range remove {
		d.step(Input{Event: Remove, Job: i})
	}
	for _, i := range change {
		d.step(Input{Event: Change, Job: i})
	}
	for _, i := range added {
		d.step(Input{Event: Replaced, Job: i})
	}
}

// onItsWay says whether a job is stopping to get another definition, or none.
func (d *driver) onItsWay(i int) bool {
	job := &d.state.Jobs[i]
	return job.Told && job.Then >= ThenReplace
}

// add gives a new job a place, a free one if there is any.
func (d *driver) add(j Job) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, old := range d.jobs {
		if old.Name == "" && len(old.running()) == 0 {
			d.jobs[i] = d.newJob(i, j)
			d.state.Jobs = slices.Clone(d.state.Jobs)
			d.state.Jobs[i] = JobState{}
			return i
		}
	}
	d.jobs = append(d.jobs, d.newJob(len(d.jobs), j))
	return len(d.jobs) - 1
}

// replace puts the new definition of a job that has stopped in its place, or frees it.
func (d *driver) replace(i int) {
	old := d.jobs[i]
	next := &job{index: i}
	if old.next != nil && !d.state.Jobs[i].Gone {
		next = d.newJob(i, *old.next)
	}
	next.pumps, next.runs = old.running(), old.runs
	d.mu.Lock()
	d.jobs[i] = next
	d.mu.Unlock()
	d.specs = specs(d.jobs)
	if next.Name != "" {
		d.step(Input{Event: Replaced, Job: i})
	}
}

// lookAtReload ends the reload that has come to its end, or turns it back.
func (d *driver) lookAtReload() {
	r := d.reload
	if r == nil || r.defining {
		return
	}
	r.settles = r.deadline
	open := false
	for _, name := range r.changed {
		done, err := d.hasStarted(name)
		if err != nil && r.back == nil {
			d.turnBack(fmt.Errorf("job %s %w: the former configuration is back", name, err))
			return
		}
		open = open || !done && err == nil
	}
	switch {
	case d.state.Mode != Up:
		d.endReload(ErrKilled)
	case !open && !d.changing():
		d.endReload(r.back)
	case d.now() >= r.deadline && r.back == nil:
		d.turnBack(fmt.Errorf("the jobs did not change within %s: the former configuration is back", reloadLimit))
	case d.now() >= r.deadline:
		d.endReload(r.back)
	}
}

// changing says whether jobs are still stopping for their new definition.
func (d *driver) changing() bool {
	for i := range d.state.Jobs {
		if d.onItsWay(i) {
			return true
		}
	}
	return false
}

// hasStarted says whether a changed job is where it should be, or why it never will be.
func (d *driver) hasStarted(name string) (bool, error) {
	for i, j := range d.jobs {
		if j.Name != name {
			continue
		}
		job := &d.state.Jobs[i]
		switch {
		case j.next != nil || job.Told: // still the old one
			return false, nil
		case job.Phase == Waiting, job.Phase == Ended && job.Status != 0, job.Phase == Idle && j.exited && job.Status != 0:
			return false, fmt.Errorf("ended with status %d", job.Status)
		case job.Phase == Ended, job.Phase == Idle: // or its conditions do not hold yet
			return true, nil
		case job.Phase == Running && job.Ready && d.specs[i].TellsReady:
			return true, nil
		case job.Phase == Running && job.Ready:
			at := job.Since + settleTime
			d.reload.settles = min(d.reload.settles, at)
			return d.now() >= at, nil
		}
		return false, nil
	}
	return true, nil
}

func (d *driver) turnBack(why error) {
	d.log.Error("the new configuration does not start", "error", why)
	d.reload.back, d.reload.deadline = why, d.now()+reloadLimit
	d.define(d.reload.former)
	d.lookAtReload()
}

func (d *driver) endReload(err error) {
	if d.reload == nil {
		return
	}
	d.reload.reply <- err
	d.reload = nil
}
