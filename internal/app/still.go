package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"drover/internal/config"
	"drover/internal/freeze"
	"drover/internal/proctree"
	"drover/internal/supervise"
	"drover/internal/volume"
)

// stiller is what makes the jobs hold still for a backup, as configured; nil: nothing.
func (a *agent) stiller() volume.Stiller {
	b := a.cfg.Backup
	if b.Consistency == config.ConsistencyLive {
		return nil
	}
	pauses := prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "drover", Name: "freeze_seconds", Help: "How long the jobs were held still for a backup.",
		Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
	})
	a.registry.MustRegister(pauses)
	m := measured{pauses, a.log}
	if b.Consistency == config.ConsistencyHook {
		return &hooked{jobs: a.jobs, quiesce: b.Quiesce, resume: b.Resume, measured: m}
	}
	return &frozen{jobs: a.jobs, limit: b.FreezeLimit.Std(), freezer: freeze.New(isJob()), measured: m}
}

// isJob names the jobs' processes as supervise knows them: children of the agent
// in sessions of their own.
func isJob() func(*proctree.Proc) bool {
	self, _ := proctree.Lookup(os.Getpid())
	return func(p *proctree.Proc) bool { return p.PPID == self.PID && p.Session != self.Session }
}

// measured tells how long the jobs stood.
type measured struct {
	pauses prometheus.Observer
	log    *slog.Logger
}

func (m measured) observe(pause time.Duration, err error) {
	m.pauses.Observe(pause.Seconds())
	m.log.Debug("the jobs were held still", "pause", pause, "err", err)
}

// frozen holds the jobs still by stopping their processes.
type frozen struct {
	measured
	jobs    *jobs
	limit   time.Duration
	freezer *freeze.Freezer
}

func (f *frozen) Still(ctx context.Context) (volume.Stillness, error) {
	if !f.jobs.running() {
		return nil, nil
	}
	began := time.Now()
	z, err := f.freezer.Freeze(ctx, f.limit)
	if err != nil {
		f.observe(time.Since(began), err)
		return nil, fmt.Errorf("%w: %w", volume.ErrRestless, err)
	}
	return &frozenNow{z, f}, nil
}

type frozenNow struct {
	*freeze.Frozen
	f *frozen
}

func (n *frozenNow) Resume() (time.Duration, error) {
	pause, err := n.Thaw()
	n.f.observe(pause, err)
	if err != nil {
		err = fmt.Errorf("%w: %w", volume.ErrRestless, err)
	}
	return pause, err
}

// hooked holds the application still by the user's commands.
type hooked struct {
	measured
	jobs            *jobs
	quiesce, resume config.Hook
	groups          []int // process groups of hooks that may still have members
}

func (h *hooked) Still(ctx context.Context) (volume.Stillness, error) {
	if !h.jobs.running() {
		return nil, nil
	}
	n := &hookedNow{ctx, h, time.Now()}
	if err := h.run(ctx, "quiesce", h.quiesce); err != nil {
		_, resumed := n.Resume()
		return nil, errors.Join(err, resumed)
	}
	return n, nil
}

type hookedNow struct {
	ctx   context.Context
	h     *hooked
	began time.Time
}

// Context is the capture's: a hook's stillness has no limit of its own.
func (n *hookedNow) Context() context.Context { return n.ctx }

// Resume runs whatever became of the capture. Of a deposed instance the jobs are
// killed first.
func (n *hookedNow) Resume() (time.Duration, error) {
	if n.ctx.Err() != nil {
		n.h.jobs.letKill()
	}
	err := n.h.run(context.WithoutCancel(n.ctx), "resume", n.h.resume)
	pause := time.Since(n.began)
	n.h.observe(pause, err)
	return pause, err
}

// outputTail is how much of a hook's last output an error tells.
const outputTail = 1 << 10

// run runs a hook. It is no job, and is not killed with them.
func (h *hooked) run(ctx context.Context, name string, hook config.Hook) error {
	ctx, cancel := context.WithTimeout(ctx, hook.Timeout.Std())
	defer cancel()
	var env []string
	var dir string
	var user *supervise.User
	if job := h.jobs.mainJob(); job != nil {
		env, dir, user = job.Env, job.Dir, job.User
	}
	group, err := runCommand(ctx, hook.Command, env, dir, user)
	if group > 0 {
		h.reap(group, err != nil)
	}
	if err != nil {
		return fmt.Errorf("%s hook: %w", name, err)
	}
	return nil
}

// runCommand runs a command of the user's in a process group of its own, in the agent's
// session, and returns the group; 0: it did not start. When ctx ends the group is killed.
// An error has the cause, and the last of what the command said.
func runCommand(ctx context.Context, command, env []string, dir string, user *supervise.User) (group int, err error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env, cmd.Dir = env, dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: credential(user)}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second // for a grandchild that holds our pipe
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	if cmd.Process != nil {
		group = cmd.Process.Pid
	}
	if err == nil {
		return group, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if said := strings.TrimSpace(string(out)); said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return group, err
}

// killGroup kills what is left of a group, and collects what of it was left to us.
func killGroup(group int) {
	_ = unix.Kill(-group, unix.SIGKILL)
	for {
		if _, err := unix.Wait4(-group, nil, 0, nil); err != nil && err != unix.EINTR {
			return // ECHILD
		}
	}
}

// reap collects what hooks started and left to us: the supervisor leaves alone
// what is in the agent's session. A hook that went well may leave something
// running, such as a client that holds a lock until the resume; one that failed may not.
func (h *hooked) reap(group int, failed bool) {
	if failed {
		killGroup(group)
	}
	h.groups = slices.DeleteFunc(append(h.groups, group), func(g int) bool {
		for {
			pid, err := unix.Wait4(-g, nil, unix.WNOHANG, nil)
			if err == nil && pid == 0 {
				return false
			}
			if err != nil && err != unix.EINTR {
				return true
			}
		}
	})
}

// credential is nil where there is nothing to change.
func credential(u *supervise.User) *syscall.Credential {
	if u == nil || os.Geteuid() != 0 && int(u.UID) == os.Geteuid() && int(u.GID) == os.Getegid() {
		return nil
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}

// tail keeps the end of what is written to it.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	*t = (*t)[max(0, len(*t)-outputTail):]
	return len(p), nil
}
