package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
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
	if !f.jobs.Running() {
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
	if !h.jobs.Running() {
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
	group, err := supervise.Command{Argv: hook.Command, Env: env, Dir: dir, User: user}.Run(ctx)
	if group > 0 {
		h.reap(group, err != nil)
	}
	if err != nil {
		return fmt.Errorf("%s hook: %w", name, err)
	}
	return nil
}

// reap collects what hooks started and left to us: the supervisor leaves alone
// what is in the agent's session. A hook that went well may leave something
// running, such as a client that holds a lock until the resume; one that failed may not.
func (h *hooked) reap(group int, failed bool) {
	if failed {
		supervise.KillGroup(group)
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
