package supervise

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/proctree"
)

const (
	// pollEvery is how often a job whose first process has ended is looked at
	// while others of it live: nobody tells us about processes that are not
	// our children.
	pollEvery = 20 * time.Millisecond
	// giveUpAfter bounds the wait for a rest that survives SIGKILL: processes
	// that we may not signal.
	giveUpAfter = 10 * time.Second
)

// message is an Input for the loop, with what came of a spawn.
type message struct {
	input   Input
	process *os.Process
	pumps   []*pump
	start   uint64
	err     error
}

// driver is the loop's state: the machine's, and the means to act on it.
type driver struct {
	*Supervisor
	launch chan<- *job
	killer *proctree.Killer
	begin  time.Time
	state  State
	killAt []time.Time // when SIGKILL was first sent, by job
}

// loop feeds the machine and does what it says, until it is settled.
func (s *Supervisor) loop(launch chan<- *job) {
	defer close(launch)
	defer close(s.finished)
	killer, err := proctree.NewKiller()
	if err != nil {
		// /proc was there a moment ago, in New.
		s.log.Error("jobs cannot be supervised", "error", err)
		s.status = statusNotStarted
		return
	}
	d := &driver{
		Supervisor: s, launch: launch, killer: killer, begin: time.Now(),
		state:  State{Jobs: make([]JobState, len(s.jobs)), Seed: newSeed()},
		killAt: make([]time.Time, len(s.jobs)),
	}
	d.step(Input{Event: Start})
	killed := s.killed
	timer := time.NewTimer(0)
	defer timer.Stop()
	for d.state.Mode != Settled {
		timer.Reset(d.wait())
		select {
		case m := <-s.messages:
			d.receive(m)
		case <-killed:
			killed = nil
			d.step(Input{Event: Kill})
		case <-timer.C:
			d.look()
			d.step(Input{Event: Tick})
		}
	}
	d.cleanUp()
}

func newSeed() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return binary.LittleEndian.Uint64(b[:])
}

func (d *driver) now() time.Duration { return time.Since(d.begin) }

// wait is how long the loop may sleep.
func (d *driver) wait() time.Duration {
	wait := time.Hour
	if at, ok := d.state.Deadline(); ok {
		wait = max(0, at-d.now())
	}
	for i := range d.state.Jobs {
		if p := d.state.Jobs[i].Phase; p == Clearing || p == Killing {
			wait = min(wait, pollEvery)
		}
	}
	return wait
}

func (d *driver) receive(m message) {
	j := d.jobs[m.input.Job]
	switch m.input.Event {
	case Started:
		j.pid, j.start, j.exited, j.strays = m.process.Pid, m.start, false, map[recordedJob]bool{}
		j.pumps = append(j.running(), m.pumps...)
		d.log.Info("job started", "job", j.Name, "pid", j.pid)
	case Failed:
		if errors.Is(m.err, ErrKilled) {
			break
		}
		d.log.Error("job did not start", "job", j.Name, "error", m.err)
	case Exited:
		j.exited = true
		d.log.Info("job ended", "job", j.Name, "status", m.input.Status)
		left, err := d.killer.Count(d.isOf(j))
		if err != nil {
			d.log.Error("what a job left cannot be seen", "job", j.Name, "error", err)
		}
		m.input.Left = left > 0
	}
	d.step(m.input)
}

func (d *driver) step(in Input) {
	var actions []Action
	d.state, actions = Step(d.specs, d.state, in, d.now())
	for i, j := range d.jobs {
		j.mu.Lock()
		j.phase = d.state.Jobs[i].Phase
		j.mu.Unlock()
	}
	for _, a := range actions {
		d.act(a)
	}
}

func (d *driver) act(a Action) {
	switch a.Act {
	case Spawn:
		d.killAt[a.Job] = time.Time{}
		d.launch <- d.jobs[a.Job]
	case Signal:
		j := d.jobs[a.Job]
		d.log.Info("job is asked to stop", "job", j.Name, "signal", unix.SignalName(a.Signal))
		// A job that ends in this moment is reported by its waiter.
		_ = d.Supervisor.Signal(j.Name, a.Signal)
	case SignalRest:
		j := d.jobs[a.Job]
		if n, err := d.killer.Signal(d.isOf(j), a.Signal); err == nil {
			d.log.Info("processes of a job outlive its first", "job", j.Name, "count", n, "signal", unix.SignalName(a.Signal))
		}
	case KillJob:
		j := d.jobs[a.Job]
		d.killAt[a.Job] = time.Now()
		if n, err := d.killer.KillOnce(d.isOf(j)); err == nil && n > 0 {
			d.log.Warn("job is killed", "job", j.Name, "processes", n)
		}
	case Finish:
		d.status = a.Status
	}
}

// look finds out which jobs are gone whose first process has ended.
func (d *driver) look() {
	for i, j := range d.jobs {
		var n int
		var err error
		switch d.state.Jobs[i].Phase {
		case Clearing:
			n, err = d.killer.Count(d.isOf(j))
		case Killing:
			n, err = d.killer.KillOnce(d.isOf(j))
		default:
			continue
		}
		if err != nil || !j.exited {
			continue
		}
		if n > 0 && (d.killAt[i].IsZero() || time.Since(d.killAt[i]) < giveUpAfter) {
			continue
		}
		if n > 0 {
			d.log.Error("processes of a job cannot be killed", "job", j.Name, "count", n)
		}
		d.step(Input{Event: Cleared, Job: i})
	}
}

// cleanUp removes what no job was held to account for, and lets output end.
func (d *driver) cleanUp() {
	if n, err := d.killer.KillOnce(d.isJobs); err != nil {
		d.log.Error("what the jobs left cannot be seen", "error", err)
	} else if n > 0 {
		if _, err := d.killer.Kill(d.isJobs); err != nil {
			d.log.Error("what the jobs left cannot be killed", "error", err)
		}
	}
	deadline := time.Now().Add(flushLimit)
	for _, j := range d.jobs {
		for _, p := range j.pumps {
			if !p.finish(deadline) {
				d.log.Warn("the reader of a job's output is stuck; the end of it is lost", "job", j.Name)
			}
		}
	}
	d.removeRecord()
}

// running are the pumps of earlier runs that have not ended.
func (j *job) running() []*pump {
	var left []*pump
	for _, p := range j.pumps {
		select {
		case <-p.done:
		default:
			left = append(left, p)
		}
	}
	return left
}
