package app

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"drover/client"
	"drover/internal/config"
	"drover/internal/control"
	"drover/internal/event"
	"drover/internal/supervise"
)

// Bus is control.Agent's.
func (a *agent) Bus() *event.Bus { return a.bus }

// refused makes an error of the control API.
func refused(kind, format string, args ...any) error {
	return &client.Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// running is the supervisor of now, or why there is none.
func (a *agent) running() (*supervise.Supervisor, error) {
	if s := a.jobs.supervisor(); s != nil {
		return s, nil
	}
	return nil, refused(client.KindHeld, "the jobs do not run here: this instance is %s", a.Status().Role)
}

// explained translates what the supervisor says.
func explained(name string, err error) error {
	switch {
	case errors.Is(err, supervise.ErrUnknownJob):
		return refused(client.KindUnknown, "there is no job %q", name)
	case errors.Is(err, supervise.ErrBusy):
		return refused(client.KindBusy, "another reload is under way")
	case errors.Is(err, supervise.ErrKilled):
		return refused(client.KindHeld, "the jobs are ending")
	case errors.Is(err, supervise.ErrNotRunning):
		return refused(client.KindBusy, "job %s does not run", name)
	}
	return err
}

// StartJob is control.Agent's: it starts a job that does not run, whatever its
// conditions, and returns when it is ready, or has done its work.
func (a *agent) StartJob(ctx context.Context, name string) error {
	if err := a.serverJob(name); err != nil {
		return err
	}
	s, err := a.running()
	if err != nil {
		return err
	}
	before, err := s.Await(ctx, name, func(supervise.JobStatus) bool { return true })
	if err != nil {
		return explained(name, err)
	}
	if before.Phase == supervise.Running {
		return nil
	}
	if err := s.StartJob(ctx, name); err != nil {
		return explained(name, err)
	}
	return awaitRun(ctx, s, name, before.Runs)
}

// RestartJob is control.Agent's. A database's server is restarted by its member.
func (a *agent) RestartJob(ctx context.Context, name string) error {
	if a.serverJob(name) != nil {
		_, err := a.RestartDatabase(ctx, client.RestartRequest{})
		return err
	}
	s, err := a.running()
	if err != nil {
		return err
	}
	before, err := s.Await(ctx, name, func(supervise.JobStatus) bool { return true })
	if err != nil {
		return explained(name, err)
	}
	if err := s.RestartJob(ctx, name); err != nil {
		return explained(name, err)
	}
	return awaitRun(ctx, s, name, before.Runs)
}

// awaitRun waits until a run after the first so many is ready, or over.
func awaitRun(ctx context.Context, s *supervise.Supervisor, name string, runs int) error {
	j, err := s.Await(ctx, name, func(j supervise.JobStatus) bool {
		if j.Runs <= runs {
			return false
		}
		return j.Phase == supervise.Running && j.Ready || j.Ended && j.Phase != supervise.Starting && j.Phase != supervise.Running
	})
	switch {
	case err != nil:
		return explained(name, err)
	case j.Phase != supervise.Running && j.Exit != 0:
		return refused(client.KindFailed, "job %s ended with status %d", name, j.Exit)
	}
	return nil
}

// StopJob is control.Agent's: it returns when nothing of the job lives.
func (a *agent) StopJob(ctx context.Context, name string) error {
	if err := a.serverJob(name); err != nil {
		return err
	}
	s, err := a.running()
	if err != nil {
		return err
	}
	if err := s.StopJob(ctx, name); err != nil {
		return explained(name, err)
	}
	_, err = s.Await(ctx, name, func(j supervise.JobStatus) bool { return j.Held })
	return explained(name, err)
}

// SignalJob is control.Agent's. The signal is passed on as the job has it.
func (a *agent) SignalJob(name, text string) error {
	if err := a.serverJob(name); err != nil {
		return err
	}
	s, err := a.running()
	if err != nil {
		return err
	}
	var sig config.Signal
	if err := sig.UnmarshalText([]byte(text)); err != nil {
		return refused(client.KindInvalid, "%v", err)
	}
	if sig.Number() == unix.SIGKILL || sig.Number() == unix.SIGSTOP {
		a.log.Warn("a job gets a signal that it cannot refuse", "job", name, "signal", string(sig))
	}
	return explained(name, s.Signal(name, sig.Number()))
}

// PutEnv is control.Agent's.
func (a *agent) PutEnv(change map[string]*string) error {
	for name, value := range change {
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00") || value != nil && strings.ContainsRune(*value, 0):
			return refused(client.KindInvalid, "%q is not the name of a variable", name)
		case strings.HasPrefix(name, "DROVER_"):
			return refused(client.KindInvalid, "%s is Drover's own", name)
		}
	}
	a.jobs.putEnv(change)
	return nil
}

// Webhook is control.Agent's. A webhook is known if a job is caused by it.
func (a *agent) Webhook(name string) error {
	if !a.jobs.causedBy(eventWebhook, name) {
		return refused(client.KindUnknown, "no job is caused by webhook:%s", name)
	}
	a.bus.Publish(event.Event{Name: eventWebhook, Source: name})
	return nil
}

// Maintenance is control.Agent's. While it is on the jobs run on, and what the agent
// does by itself waits: backups on change and on schedule, upkeep, restore tests,
// restarts by checks. What somebody asks for is done.
func (a *agent) Maintenance(on bool) error {
	if a.maintenance.Swap(on) == on {
		return nil
	}
	source := map[bool]string{true: "on", false: "off"}[on]
	a.log.Warn("maintenance is " + source)
	a.bus.Publish(event.Event{Name: eventMaintenance, Source: source})
	if t := a.current(); t != nil && !on && t.tracked.dirty.Load() && a.cfg.Backup.OnChange > 0 {
		a.queueUnasked(t.rt)
	}
	return nil
}

// lines are the newest lines of jobs, for the control API.
type lines struct{ f *supervise.Follower }

// Logs is control.Agent's.
func (a *agent) Logs(job string, newest int) control.Lines {
	return &lines{a.jobs.journals.Follow(job, newest)}
}

// Missed is how many lines were lost before those that were returned last.
func (l *lines) Missed() int { return l.f.Missed() }

// Next returns what came since the last call.
func (l *lines) Next() []client.LogLine { return told(l.f.Next()) }

// Wait waits until something comes.
func (l *lines) Wait(ctx context.Context) ([]client.LogLine, error) {
	got, err := l.f.Wait(ctx)
	return told(got), err
}

func told(got []supervise.Line) []client.LogLine {
	list := make([]client.LogLine, len(got))
	for i, l := range got {
		list[i] = client.LogLine{Time: l.Time, Job: l.Job, Stream: map[int]string{1: "stdout", 2: "stderr"}[l.Stream], Text: l.Text}
	}
	return list
}
