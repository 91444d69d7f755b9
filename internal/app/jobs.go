package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/config"
	"drover/internal/event"
	"drover/internal/supervise"
	"drover/internal/volume/slots"
)

// jobs starts a new supervisor for each time that the jobs may run, and tells
// when they ended by themselves.
type jobs struct {
	record   string
	log      *slog.Logger
	bus      *event.Bus
	journals *supervise.Journals
	define   func(*config.Config) ([]supervise.Job, error)

	mu        sync.Mutex
	list      []supervise.Job
	templates *templates // whose variables jobs get, and for which they wait; nil: none
	slot      int
	env       map[string]*string    // put into the environment of later runs; nil: taken out
	early     []supervise.Cause     // what happened before a start, and may cause runs
	exited    func()                // the main job ended by itself
	before    func(context.Context) // called before each start; quick
	current   *supervise.Supervisor
	asked     bool // Stop or Kill was called on current
	killing   *killing
	status    int // of the last main job that ended
	waits     sync.WaitGroup
}

func newJobs(cfg *config.Config, m *member, bus *event.Bus, stdout, stderr io.Writer, log *slog.Logger) (*jobs, error) {
	j := &jobs{log: log, bus: bus, slot: slots.None, journals: supervise.NewJournals(), env: map[string]*string{}}
	switch {
	case m != nil:
		j.record = filepath.Join(m.stateDir(), "jobs")
	case cfg.HasVolume():
		j.record = filepath.Join(cfg.DataDir, cfg.Volume, "jobs")
	}
	j.define = func(cfg *config.Config) ([]supervise.Job, error) {
		list, err := defineJobs(cfg, j.journals, stdout, stderr)
		for i := range list {
			name := list[i].Name
			if len(cfg.Jobs[name].EnvTemplates) > 0 {
				list[i].More = func() []string { return j.rendered().variables(name) }
			}
			if len(cfg.Jobs[name].FDTemplates) > 0 {
				list[i].Files = func() map[int]string { return j.rendered().files(name) }
			}
		}
		if m != nil && err == nil {
			server := m.job(stdout, stderr, len(list) > 0)
			server.Journal = j.journals.Of(server.Name)
			list = append(list, server)
		}
		return list, err
	}
	var err error
	j.list, err = j.define(cfg)
	return j, err
}

// missing fails early, before a volume is made or claimed, if the only job's command
// is nowhere. (With more than one, an earlier one may make the command of a later.)
func (j *jobs) missing(paths []string) (status int, err error) {
	list := j.all()
	if len(list) != 1 {
		return 0, nil
	}
	status, err = list[0].Missing(paths)
	if err != nil {
		err = fmt.Errorf("start job %s: %w", list[0].Name, err)
	}
	return status, err
}

// slotVar tells the jobs which slot they run in.
const slotVar = "DROVER_SLOT"

// prepare is called when none of the jobs runs: it says for which slot the next ones
// will, and whom to tell of them.
func (j *jobs) prepare(slot int, before func(context.Context), exited func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.before, j.exited = before, exited
	j.slot = slot
	j.list = inSlot(j.list, slot)
}

// inSlot tells jobs their slot.
func inSlot(list []supervise.Job, slot int) []supervise.Job {
	if slot == slots.None {
		return list
	}
	list = slices.Clone(list)
	for i := range list {
		list[i].Env = supervise.JobEnv(list[i].Env, []string{slotVar + "=" + strconv.Itoa(slot)})
	}
	return list
}

// all lists the jobs.
func (j *jobs) all() []supervise.Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.list
}

// Start starts a new supervisor. It is quick: processes are forked beside it.
func (j *jobs) Start(ctx context.Context) error {
	j.mu.Lock()
	list, before, exited, early, t := j.list, j.before, j.exited, j.early, j.templates
	j.early = nil
	j.mu.Unlock()
	if before != nil {
		before(ctx)
	}
	s, err := supervise.New(supervise.Config{Jobs: list, Record: j.record, Emit: j.tell, Happened: early, Hold: t.holds()}, j.log)
	if err != nil {
		return err
	}
	j.mu.Lock()
	j.current, j.asked = s, false
	s.PutEnv(maps.Clone(j.env))
	late := j.early
	j.early = nil
	j.killing = &killing{begun: make(chan struct{}), over: make(chan struct{})}
	j.mu.Unlock()
	if err := s.Start(ctx); err != nil {
		return err
	}
	for _, c := range late {
		s.Happened(c.Name, c.Source)
	}
	j.waits.Go(func() { j.wait(s, exited) })
	j.open() // the templates may have become ready meanwhile
	return nil
}

// open lets the jobs start if their templates are ready. It is called when either comes.
func (j *jobs) open() {
	j.mu.Lock()
	s, t := j.current, j.templates
	j.mu.Unlock()
	if s != nil && !t.holds() {
		s.Open()
	}
}

// follow makes these the templates of runs that start from now on.
func (j *jobs) follow(t *templates) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.templates = t
}

// rendered are the templates of now; nil: none.
func (j *jobs) rendered() *templates {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.templates
}

// wait tells when the jobs end unasked.
func (j *jobs) wait(s *supervise.Supervisor, exited func()) {
	<-s.Done()
	j.mu.Lock()
	j.status = s.Status()
	asked := j.asked
	if j.current == s {
		j.current = nil
	}
	j.mu.Unlock()
	if !asked {
		j.log.Info("jobs ended", "status", s.Status())
		exited()
	}
}

func (j *jobs) ask() *supervise.Supervisor {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.asked = true
	return j.current
}

// Stop stops the jobs in order; it returns when all are dead.
func (j *jobs) Stop(ctx context.Context) {
	if s := j.ask(); s != nil {
		if err := s.Stop(ctx); err != nil {
			j.log.Warn("stop jobs", "err", err)
		}
	}
}

// Kill kills the jobs at once; it returns when all are dead.
func (j *jobs) Kill(reason string) {
	if s := j.ask(); s != nil {
		defer j.noteKill()()
		err := s.Kill()
		j.log.Error("killed the jobs", "reason", reason)
		if err != nil {
			j.log.Error("some processes of the jobs live on", "err", err)
		}
	}
}

// killing tells of the first Kill of a supervisor.
type killing struct{ begun, over chan struct{} }

// noteKill notes that a kill begins, and by what it returns that it is over.
func (j *jobs) noteKill() (over func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	k := j.killing
	select {
	case <-k.begun:
		return func() {}
	default:
		close(k.begun)
		return func() { close(k.over) }
	}
}

// killBegins is how long a kill takes to begin, at most, after the capture's
// context has ended for the same reason.
const killBegins = 100 * time.Millisecond

// letKill waits until the jobs are dead, if they are being killed.
func (j *jobs) letKill() {
	j.mu.Lock()
	k := j.killing
	j.mu.Unlock()
	if k == nil {
		return
	}
	select {
	case <-k.begun:
		<-k.over
	case <-time.After(killBegins):
	}
}

// Running reports whether there may be processes of jobs.
func (j *jobs) Running() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.current != nil
}

// signal makes sig an event if a job is caused by it, and passes it on to the main job else.
func (j *jobs) signal(sig unix.Signal) {
	name := strings.TrimPrefix(unix.SignalName(sig), "SIG")
	if name != "" && j.causedBy(eventSignal, name) { // those of real time have none
		j.bus.Publish(event.Event{Name: eventSignal, Source: name})
		return
	}
	s, main := j.supervisor(), j.mainJob()
	if s == nil || main == nil {
		return
	}
	if err := s.Signal(main.Name, sig); err != nil {
		j.log.Warn("pass on signal", "signal", sig, "err", err)
	}
}

// exitStatus is that of the last main job.
func (j *jobs) exitStatus() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.status
}

// mainUser is whom the main job runs as; nil: the agent's own user.
func (j *jobs) mainUser() *supervise.User {
	if job := j.mainJob(); job != nil {
		return job.User
	}
	return nil
}

// mainJob is nil if no job is main.
func (j *jobs) mainJob() *supervise.Job {
	list := j.all()
	for i := range list {
		if list[i].Main || len(list) == 1 {
			return &list[i]
		}
	}
	return nil
}

func (j *jobs) uids() []uint32 {
	var all []uint32
	for _, job := range j.all() {
		if job.User != nil {
			all = append(all, job.User.UID)
		}
	}
	return all
}

// supervisor is the current one; nil: none.
func (j *jobs) supervisor() *supervise.Supervisor {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.current
}
