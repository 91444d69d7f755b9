package supervise

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// message is an Input for the loop, with what came of a spawn; or something that
// somebody asks of it.
type message struct {
	input   Input
	process *os.Process
	streams *streams
	kin     *kin // of the run that started, or that the census tells of
	err     error
	sent    chan struct{} // closed when the message is with the loop

	name   string       // of the job, where the sender cannot know its index
	run    *os.Process  // the run that the input is about; nil: any
	reload []Job        // a new definition of all jobs
	reply  chan<- error // capacity 1; nil: nobody waits
}

// driver is the loop's state: the machine's, and the means to act on it.
type driver struct {
	*Supervisor
	begin  time.Time
	specs  []Spec
	state  State
	queue  []*job // to launch
	reload *reload
}

// loop feeds the machine and does what it says, until it is settled.
func (s *Supervisor) loop(launch chan<- *job) {
	defer close(launch)
	defer close(s.finished)
	d := &driver{
		Supervisor: s, begin: time.Now(), specs: specs(s.jobs),
		state: State{Jobs: make([]JobState, len(s.jobs)), Seed: newSeed(), Shut: s.hold},
	}
	d.step(Input{Event: Start})
	for _, c := range s.happened {
		d.step(Input{Event: Happened, Name: c.Name, Source: c.Source})
	}
	d.show()
	d.loop(launch)
	d.endReload(ErrKilled)
	d.cleanUp()
}

func (d *driver) loop(launch chan<- *job) {
	killed := d.killed
	timer := time.NewTimer(0)
	defer timer.Stop()
	for d.state.Mode != Settled {
		timer.Reset(d.wait())
		// The launcher may be waiting for us to take its message: never wait for it.
		var next *job
		var to chan<- *job
		if len(d.queue) > 0 {
			next, to = d.queue[0], launch
		}
		select {
		case to <- next:
			d.queue = d.queue[1:]
			continue
		case m := <-d.messages:
			d.receive(m)
		case <-killed:
			killed = nil
			d.step(Input{Event: Kill})
		case <-timer.C:
			d.turns()
			d.step(Input{Event: Tick})
		}
		d.show()
	}
	d.show()
}

func newSeed() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return binary.LittleEndian.Uint64(b[:])
}

func (d *driver) now() time.Duration { return time.Since(d.begin) }

// longestWait bounds a sleep: a wall clock that is set shifts the turns of a Schedule.
const longestWait = time.Minute

// wait is how long the loop may sleep.
func (d *driver) wait() time.Duration {
	wait := longestWait
	if at, ok := d.state.Deadline(d.specs); ok {
		wait = min(wait, max(0, at-d.now()))
	}
	if d.reload != nil {
		wait = min(wait, max(0, d.reload.settles-d.now()))
	}
	for _, j := range d.jobs {
		if j.Schedule != nil && j.turn.IsZero() { // a new one
			j.turn = j.Schedule.Next(time.Now())
		}
		if j.Schedule != nil && !j.turn.IsZero() {
			wait = min(wait, max(0, time.Until(j.turn)))
		}
	}
	return wait
}

// turns gives the jobs with a Schedule their turns.
func (d *driver) turns() {
	now := time.Now()
	for i, j := range d.jobs {
		if j.Schedule == nil {
			continue
		}
		if !j.turn.IsZero() && !now.Before(j.turn) {
			d.step(Input{Event: Turn, Job: i})
			j.turn = time.Time{}
		}
		// Anew each time: the clock may have been set.
		if next := j.Schedule.Next(now); j.turn.IsZero() || next.Before(j.turn) {
			j.turn = next
		}
	}
}

func (d *driver) receive(m message) {
	if m.reload != nil {
		d.startReload(m.reload, m.reply)
		return
	}
	if m.name != "" {
		j := d.find(m.name)
		if j == nil {
			m.answer(ErrUnknownJob)
			return
		}
		m.input.Job = j.index
	}
	j := d.jobs[m.input.Job]
	if m.run != nil && !j.isRun(m.run) || m.kin != nil && m.process == nil && m.kin != j.kin {
		return // of an earlier run
	}
	switch m.input.Event {
	case Started:
		j.kin, j.exited = m.kin, false
		j.pumps = append(j.running(), m.streams.pumps...)
		j.streams = m.streams
		d.log.Info("job started", "job", j.Name, "pid", j.kin.pid)
	case Failed:
		j.exited = true
		if errors.Is(m.err, ErrKilled) {
			break
		}
		d.log.Error("job did not start", "job", j.Name, "error", m.err)
	case Exited:
		j.exited = true
		d.log.Info("job ended", "job", j.Name, "status", m.input.Status)
	}
	if m.input.Event != Started || m.process != nil {
		d.step(m.input)
	}
	m.answer(nil)
}

func (m *message) answer(err error) {
	if m.reply != nil {
		m.reply <- err
	}
}

func (d *driver) step(in Input) {
	var actions []Action
	before := d.state.Jobs
	d.state, actions = Step(d.specs, d.state, in, d.now())
	for i, j := range d.jobs {
		if i >= len(before) || before[i].Phase == d.state.Jobs[i].Phase {
			continue
		}
		j.since = time.Now()
		if before[i].Phase.lives() && !d.state.Jobs[i].Phase.lives() {
			j.streams.stopWaiting()
		}
	}
	for _, a := range actions {
		d.act(a)
	}
	d.lookAtReload()
}

func (d *driver) act(a Action) {
	j := d.jobs[a.Job]
	switch a.Act {
	case Spawn:
		d.queue = append(d.queue, j)
		j.runs++
	case Signal:
		d.log.Info("job is asked to stop", "job", j.Name, "signal", unix.SignalName(a.Signal))
		// A job that ends in this moment is reported by its waiter.
		_ = j.signal(a.Signal)
	case RunStop:
		d.runStop(j)
	case SignalRest:
		d.census.signal(j.kin, a.Signal)
	case KillJob:
		d.census.kill(j.kin)
	case Finish:
		d.status = a.Status
	case Emit:
		d.emit(Emitted{Name: a.Name, Source: a.Source, Status: a.Status})
	case Replace:
		d.replace(a.Job)
	case NeverStarts:
		d.log.Error("job will not start: what it waits for has ended and did not come so far", "job", j.Name, "waits_for", a.Source)
	}
}

// runStop runs the command that asks a job to end; should it fail, the signal follows.
func (d *driver) runStop(j *job) {
	d.log.Info("job is asked to stop", "job", j.Name, "command", j.StopCommand[0])
	run := j.processNow()
	d.group.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), j.StopGrace)
		defer cancel()
		go func() {
			defer cancel()
			select {
			case <-d.finished:
			case <-ctx.Done():
			}
		}()
		group, err := Command{Argv: j.StopCommand, Env: j.env, Dir: j.Dir, User: j.User}.Run(ctx)
		KillGroup(group)
		if err != nil {
			d.log.Warn("the command that stops a job failed", "job", j.Name, "error", err)
			d.send(message{input: Input{Event: StopFailed, Job: j.index}, run: run})
		}
	})
}

// send gives the loop a message, unless it has ended.
func (s *Supervisor) send(m message) bool {
	select {
	case s.messages <- m:
		return true
	case <-s.finished:
		return false
	}
}

// cleanUp removes what no job was held to account for, and lets output end.
func (d *driver) cleanUp() {
	d.killRest()
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

// killRest kills what no job was held to account for.
func (d *driver) killRest() {
	d.fence.Lock() // the killer is Kill's
	defer d.fence.Unlock()
	if _, err := d.killer.Kill(d.isJobs); err != nil {
		d.log.Error("what the jobs left cannot be killed", "error", err)
	}
}

// processNow is the first process of the run, nil if there is none.
func (j *job) processNow() *os.Process {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.process
}

func (j *job) isRun(p *os.Process) bool { return j.processNow() == p }

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
