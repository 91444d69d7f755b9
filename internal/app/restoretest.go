package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"drover/client"
	"drover/internal/config"
	"drover/internal/event"
	"drover/internal/supervise"
	"drover/internal/volume"
	"drover/internal/volume/protocol"
)

// RestoreTestOptions of RestoreTest.
type RestoreTestOptions struct {
	Database bool // also if the configuration has none
	Progress func(Progress)
}

// RestoreTest restores the newest commit into scratch space, reads it back, has the
// configured command check it, and removes it again. The outcome is told to whoever
// asks for the volume's status. Errors: the outcome's.
func (o *Ops) RestoreTest(ctx context.Context, opt RestoreTestOptions) (client.RestoreTest, error) {
	v, err := o.open(ctx)
	if err != nil {
		return client.RestoreTest{}, err
	}
	var t volume.RestoreTest
	if opt.Database || o.cfg.HasDatabase() {
		if t, err = o.testDatabase(ctx, v, opt); t.Time.IsZero() {
			return client.RestoreTest{}, err
		}
	} else {
		_, sn, latest := v.Latest(ctx)
		if latest != nil {
			return client.RestoreTest{}, latest
		}
		topt := restoreTestOptions(o.cfg, os.Environ(), nil, o.log)
		topt.Progress = counted("restore test", opt.Progress, sn)
		t, err = v.TestRestore(ctx, topt)
	}
	if ctx.Err() == nil {
		if saveErr := v.SaveRestoreTest(ctx, t); saveErr != nil {
			o.log.Warn("tell the outcome of the restore test", "err", saveErr)
		}
	}
	return *restoreTestOf(&t), err
}

// restoreTestOptions says where tests are made, and what checks them, with env and as
// user; nil: as the agent's own.
func restoreTestOptions(cfg *config.Config, env []string, user *supervise.User, log *slog.Logger) volume.RestoreTestOptions {
	base := cfg.RestoreTest.Dir
	if base == "" {
		base = cfg.DataDir
	}
	opt := volume.RestoreTestOptions{
		Instance: cfg.ID, Log: log, Scratch: filepath.Join(base, ".restore-test", cfg.Volume),
	}
	if user != nil {
		opt.Owner = &volume.Owner{UID: user.UID, GID: user.GID}
	}
	if c := cfg.RestoreTest.Check; len(c.Command) > 0 {
		check := restoreCheck{command: c.Command, timeout: c.Timeout.Std(), env: supervise.JobEnv(env, nil), user: user}
		opt.Check = check.run
	}
	return opt
}

// check is the user's command that looks at restored files.
type restoreCheck struct {
	command config.Command
	timeout time.Duration
	env     []string
	user    *supervise.User
}

// run runs the command in the directory of the restored files. It is told of that by
// DROVER_RESTORED. Nothing that it started is left.
func (c restoreCheck) run(ctx context.Context, restored string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("it ran for longer than %s", c.timeout))
	defer cancel()
	group, err := supervise.Command{Argv: c.command, Env: append(c.env, "DROVER_RESTORED="+restored), Dir: restored, User: c.user}.Run(ctx)
	if group > 0 {
		supervise.KillGroup(group)
	}
	if errors.Is(err, os.ErrPermission) {
		err = fmt.Errorf("%w; may the user that it runs as enter %s?", err, restored)
	}
	return err
}

// restoreTests makes restore tests on a schedule while this instance holds the volume.
type restoreTests struct {
	every  time.Duration
	log    *slog.Logger
	holder func() (epoch uint64, ok bool) // ok: it holds, and there is something to test
	load   func(context.Context) (*volume.RestoreTest, error)
	test   func(context.Context) (volume.RestoreTest, error)
	tell   func(event.Event)
	save   func(context.Context, volume.RestoreTest) error

	mu    sync.Mutex
	last  *volume.RestoreTest
	epoch uint64    // of last; the next holder looks for what others have done
	tried time.Time // of the last attempt that told nothing
}

// restoreTestLook is how often it is looked whether a test is due, at most.
const restoreTestLook = time.Minute

// restoreTestAgain is the pause after a test that could not be made.
const restoreTestAgain = time.Hour

func (t *restoreTests) run(ctx context.Context) {
	pause := min(restoreTestLook, max(t.every/4, 100*time.Millisecond))
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if t.due(ctx) {
			t.make(ctx)
		}
	}
}

// due looks for the last test, of this or another instance, and counts from that. Its
// time is perhaps another machine's, and decides only when to test again; one in the
// future is a clock's mistake.
func (t *restoreTests) due(ctx context.Context) bool {
	epoch, ok := t.holder()
	if !ok {
		return false
	}
	t.mu.Lock()
	known := t.epoch == epoch
	t.mu.Unlock()
	if !known {
		last, err := t.load(ctx)
		if err != nil {
			t.log.Debug("look for the last restore test", "err", err)
			return false
		}
		t.mu.Lock()
		t.last, t.epoch = last, epoch
		t.mu.Unlock()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if !t.tried.IsZero() && now.Sub(t.tried) < min(t.every, restoreTestAgain) {
		return false
	}
	return t.last == nil || !t.last.Begun || now.Sub(t.last.Time) >= t.every || t.last.Time.After(now)
}

func (t *restoreTests) make(ctx context.Context) {
	r, err := t.test(ctx)
	if ctx.Err() != nil {
		return // the instance ends: it says nothing
	}
	of, newest := fmt.Sprintf("commit %d", r.Seq), "commit"
	line := []any{"snapshot", r.Snapshot, "seq", r.Seq, "files", r.Files, "bytes", r.Bytes, "seconds", r.Seconds}
	if r.Backup != nil {
		of, newest = "the base backup of "+r.Backup.UTC().Format(time.RFC3339), "base backup"
		line = append(line, "backup", *r.Backup, "reached", r.Reached)
	}
	switch {
	case r.Passed:
		t.log.Info("restore test passed", line...)
		t.tell(event.Event{Name: eventTestPassed, Text: fmt.Sprintf("%s, restored in %s", of, roundSeconds(r.Restore))})
	case r.Begun:
		t.log.Error("restore test FAILED: the newest "+newest+" cannot be restored as it should", append(line, "err", err)...)
		t.tell(event.Event{Name: eventTestFailed, Text: fmt.Sprintf("%s: %v", of, err)})
	default:
		t.log.Warn("restore test could not be made", append(line, "err", err)...)
	}
	t.mu.Lock()
	t.last, t.tried = &r, time.Time{}
	if !r.Begun {
		t.tried = time.Now()
	}
	t.mu.Unlock()
	if err := t.save(ctx, r); err != nil {
		t.log.Warn("tell the outcome of the restore test", "err", err)
	}
}

// outcome is the last one that is known; nil: none.
func (t *restoreTests) outcome() *volume.RestoreTest {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// newRestoreTests returns nil if none are configured.
func (a *agent) newRestoreTests(part *tenure) *restoreTests {
	if part.cfg.RestoreTest.Every == 0 {
		return nil
	}
	opt := restoreTestOptions(part.cfg, os.Environ(), nil, a.log)
	if job := a.jobs.mainJob(); job != nil {
		opt = restoreTestOptions(part.cfg, job.Env, job.User, a.log)
	}
	return &restoreTests{
		every: part.cfg.RestoreTest.Every.Std(), log: a.log,
		holder: func() (uint64, bool) {
			s, _ := part.rt.Status()
			return s.Head.Epoch, s.Phase == protocol.PhaseHolder && s.Head.Seq > 0 && !a.maintenance.Load()
		},
		load: part.v.LastRestoreTest, save: part.v.SaveRestoreTest, tell: a.bus.Publish,
		test: func(ctx context.Context) (volume.RestoreTest, error) { return part.v.TestRestore(ctx, opt) },
	}
}

// restoreTestOf tells an outcome as the API does; nil: there is none.
func restoreTestOf(t *volume.RestoreTest) *client.RestoreTest {
	if t == nil {
		return nil
	}
	return &client.RestoreTest{
		Snapshot: t.Snapshot, Seq: t.Seq, Instance: t.Instance, Time: t.Time, Passed: t.Passed, Begun: t.Begun,
		Error: t.Error, Files: t.Files, Bytes: t.Bytes, Seconds: t.Seconds, Restore: t.Restore, Backup: t.Backup, Reached: t.Reached,
	}
}

// restoreTestHealth says what is wrong, "" if nothing is.
func restoreTestHealth(t *client.RestoreTest) string {
	switch {
	case t == nil || t.Passed:
		return ""
	case t.Begun:
		return "the last restore test failed: " + t.Error
	}
	return "the last restore test could not be made: " + t.Error
}
