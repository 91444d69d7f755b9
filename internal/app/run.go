// Package app is the composition root: it makes the parts that a configuration
// asks for, starts them in order, and stops them in reverse. It is the only
// package that knows both the configuration and the backends.
//
// Run is the life of an agent; Ops are the commands that need a store and no
// agent. What the parts decide is theirs; what the user types is cli's.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"

	"drover/internal/config"
	"drover/internal/control"
	"drover/internal/objstore"
	"drover/internal/objstore/probe"
	"drover/internal/repo/archive"
	"drover/internal/supervise"
	"drover/internal/volume"
	"drover/internal/volume/protocol"
)

// Version is this build's; the linker sets it.
var Version = "dev"

// RunOptions of Run.
type RunOptions struct {
	Stdout, Stderr io.Writer
	Log            *slog.Logger
	// ShimGone is closed when nobody is left to forward signals; nil: never.
	ShimGone <-chan struct{}
}

// Run lives the life of an instance and returns its exit status: the main
// job's, 128 + signal, or 1 with an error.
func Run(ctx context.Context, cfg *config.Config, opt RunOptions) (status int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if cfg.Limits.Memory > 0 {
		debug.SetMemoryLimit(int64(cfg.Limits.Memory))
	}
	jobs, err := newJobs(cfg, opt.Stdout, opt.Stderr, opt.Log)
	if err != nil {
		return 1, err
	}
	a := &agent{cfg: cfg, log: opt.Log, jobs: jobs, started: time.Now(), mirror: newMirror(cfg, opt.Log)}
	a.stopping, a.stop = context.WithCancel(context.WithoutCancel(ctx))
	defer a.stop()
	a.registry = prometheus.NewRegistry()
	registerMetrics(a.registry, a)
	server := control.New(a, control.Options{
		Path: cfg.Socket, Log: opt.Log, JobUIDs: jobs.uids,
		Metrics: promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{EnableOpenMetrics: true}),
	})
	if err := server.Listen(); err != nil {
		return 1, err
	}
	var parts sync.WaitGroup
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	parts.Go(func() {
		if err := server.Serve(serving); err != nil {
			opt.Log.Error("serve control socket", "err", err)
		}
	})
	parts.Go(func() { a.signals(ctx, opt.ShimGone) })
	if cfg.Store.URL == "" {
		err = a.superviseOnly(ctx)
	} else {
		err = a.runVolume(ctx)
	}
	cancel()
	stopServing()
	parts.Wait()
	jobs.waits.Wait()
	return exitStatus(jobs.exitStatus(), err), err
}

func exitStatus(job int, err error) int {
	if job == 0 && err != nil {
		return 1
	}
	return job
}

// agent is one running instance; it answers the control API.
type agent struct {
	cfg      *config.Config
	log      *slog.Logger
	jobs     *jobs
	started  time.Time
	registry *prometheus.Registry
	mirror   *mirror // nil: none

	stopping context.Context // ends when the end is asked for
	stop     context.CancelFunc

	mu      sync.Mutex
	rt      *volume.Runtime // nil until the volume is open
	tracked *tracked
	upkeep  *volume.Upkeep // nil: none
	told    string         // the phase and reason last logged
}

// signals stops on TERM, INT and QUIT, and passes the others to the main job. A
// second TERM cuts the last backup short.
func (a *agent) signals(ctx context.Context, shimGone <-chan struct{}) {
	ch := make(chan os.Signal, 8)
	signal.Notify(ch, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(ch)
	for {
		select {
		case <-ctx.Done():
			return
		case <-shimGone:
			a.jobs.Kill("the shim was killed")
			a.askStop()
			a.askStop()
			shimGone = nil
		case s := <-ch:
			switch sig := s.(unix.Signal); sig {
			case unix.SIGTERM, unix.SIGINT, unix.SIGQUIT:
				a.log.Info("stopping", "signal", sig.String())
				a.askStop()
			default:
				a.jobs.signal(sig)
			}
		}
	}
}

// stopGrace bounds the whole of an orderly end: what is not committed by then
// stays on this disk only. Schedulers kill much earlier by default.
const stopGrace = 5 * time.Minute

// askStop asks for the end; asked again, it asks for a quick one.
func (a *agent) askStop() {
	first := a.stopping.Err() == nil
	a.stop()
	a.mu.Lock()
	rt := a.rt
	a.mu.Unlock()
	if rt != nil && !first {
		rt.Stop(0)
	}
}

// superviseOnly runs the jobs of a configuration without a store.
func (a *agent) superviseOnly(ctx context.Context) error {
	ended := make(chan struct{})
	a.jobs.exited = func() { close(ended) }
	if err := a.jobs.Start(ctx); err != nil {
		return err
	}
	select {
	case <-ended:
	case <-a.stopping.Done():
		a.jobs.Stop(ctx)
	case <-ctx.Done():
		a.jobs.Kill("the agent ends")
	}
	return nil
}

// runVolume opens the volume and runs the protocol on it.
func (a *agent) runVolume(ctx context.Context) error {
	data, err := volume.OpenDataDir(a.cfg.DataDir, a.cfg.Volume)
	if err != nil {
		return err
	}
	defer func() { _ = data.Close() }()
	if err := a.makePaths(); err != nil {
		return err
	}
	n, err := supervise.KillSurvivors(a.jobs.record)
	if err != nil {
		return fmt.Errorf("kill what an earlier life of this agent left: %w", err)
	}
	if n > 0 {
		a.log.Warn("killed what an earlier life of this agent left", "processes", n)
	}
	opening, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.stopping, cancel)()
	v, st, err := a.openVolume(opening)
	if err != nil {
		if opening.Err() != nil && ctx.Err() == nil {
			return nil // told to stop before anything was begun
		}
		return err
	}
	if c, ok := st.(objstore.Closer); ok {
		defer func() { _ = c.Close() }()
	}
	rt, err := a.newRuntime(v, data)
	if err != nil {
		return err
	}
	return a.live(ctx, v, rt)
}

// makePaths makes the state paths that do not exist as empty directories of the
// main job's user, so that they can be marked and watched from the start. (A
// path that is to be a single file must be there.)
func (a *agent) makePaths() error {
	for _, path := range a.cfg.Paths() {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("make state path: %w", err)
		}
		if user := a.jobs.mainUser(); user != nil {
			if err := os.Chown(path, int(user.UID), int(user.GID)); err != nil {
				return fmt.Errorf("make state path: %w", err)
			}
		}
	}
	return nil
}

func (a *agent) openVolume(ctx context.Context) (*volume.Volume, objstore.Store, error) {
	var v *volume.Volume
	st, err := openStore(ctx, a.cfg, a.registry, 0, a.log)
	if err != nil {
		return nil, nil, err
	}
	err = untilAvailable(ctx, a.log, "open volume", func() error {
		if _, err := probe.Check(ctx, st, probe.Start); err != nil {
			return err
		}
		var created bool
		v, created, err = openVolume(ctx, st, a.cfg, a.cfg.Init == config.InitAuto, a.log)
		if created {
			a.log.Warn("initialised a NEW volume: there was nothing at this place in the store",
				"store", describe(st), "volume", a.cfg.Volume)
		}
		return err
	})
	return v, st, err
}

// treeCacheBytes bounds the local copies of directory listings.
const treeCacheBytes = 1 << 30

func (a *agent) newRuntime(v *volume.Volume, data *volume.DataDir) (*volume.Runtime, error) {
	cache, err := archive.OpenDirCache(data.Path("trees"), treeCacheBytes)
	if err != nil {
		return nil, fmt.Errorf("open tree cache: %w", err)
	}
	tree := a.treeOptions()
	tree.Cache = cache
	a.tracked = newTracked(a.cfg, a.log)
	a.jobs.before = a.tracked.start
	opt := volume.Options{
		Protocol: protocol.Config{
			Volume: a.cfg.Volume, Self: protocol.Holder{ID: a.cfg.ID, Address: hostname()},
			TTL: a.cfg.Lease.TTL.Std(), Fence: protocol.Fence(a.cfg.Fence),
			AdoptFiles:        a.cfg.FirstStart == config.FirstStartAdopt,
			DiscardImageFiles: a.cfg.ImageFiles == config.ImageFilesDrop,
			FinalCommit:       a.cfg.Backup.OnStop,
			Warm:              true,
		},
		Tree: tree, Jobs: a.jobs, Changes: a.tracked, Still: a.stiller(), DataDir: data, Log: a.log, Notify: a.notify,
	}
	rt := volume.NewRuntime(v, opt)
	a.jobs.exited = rt.JobsExited
	return rt, nil
}

func (a *agent) treeOptions() volume.TreeOptions { return treeOptions(a.cfg) }

// live runs rt and what asks it for backups, until rt ends.
func (a *agent) live(ctx context.Context, v *volume.Volume, rt *volume.Runtime) error {
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	a.mu.Lock()
	a.rt, a.upkeep = rt, newUpkeep(a.cfg, rt, a.log)
	upkeep := a.upkeep
	a.mu.Unlock()
	if upkeep != nil {
		parts.Go(func() { upkeep.Run(ctx) })
	}
	parts.Go(func() {
		select {
		case <-a.stopping.Done():
			rt.Stop(stopGrace)
		case <-ctx.Done():
		}
	})
	parts.Go(func() { a.tracked.run(ctx) })
	if a.mirror != nil {
		parts.Go(func() { a.mirror.run(ctx, v, rt) })
	}
	parts.Go(func() { a.warnOfGrace(ctx, rt) })
	parts.Go(func() {
		triggers{
			onChange: a.cfg.Backup.OnChange.Std(), every: a.cfg.Backup.Every.Std(),
			changed: a.tracked.changed, backup: func() { a.queue(rt) },
		}.run(ctx)
	})
	err := rt.Run(ctx)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// queue asks for a backup if this instance may make one.
func (a *agent) queue(rt *volume.Runtime) {
	if s, _ := rt.Status(); s.Phase == protocol.PhaseHolder {
		rt.Queue()
	}
}

// schedulerGrace is what most schedulers leave between TERM and KILL (Docker's default).
const schedulerGrace = 10 * time.Second

// warnOfGrace says, once, when the last backup at a stop would not fit.
func (a *agent) warnOfGrace(ctx context.Context, rt *volume.Runtime) {
	tick := time.NewTicker(schedulerGrace)
	defer tick.Stop()
	for a.cfg.Backup.OnStop {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, stats := rt.Status()
		if took := time.Duration(stats.LastBackup.Seconds * float64(time.Second)); took > schedulerGrace {
			a.log.Warn("a backup took longer than most schedulers wait after TERM: raise the stop grace (Docker: --stop-timeout, Compose: stop_grace_period), or the last changes may stay behind",
				"took", took.Round(time.Second), "usual_grace", schedulerGrace)
			return
		}
	}
}

// notify logs each change of phase.
func (a *agent) notify(s protocol.Status) {
	a.mu.Lock()
	same := a.told == string(s.Phase)+s.Reason
	a.told = string(s.Phase) + s.Reason
	a.mu.Unlock()
	if same {
		return
	}
	level := slog.LevelInfo
	if s.Phase == protocol.PhaseRestoring && s.Reason != "" {
		level = slog.LevelWarn
	}
	if s.Phase == protocol.PhaseFault || s.Phase == protocol.PhaseDeposed || s.Phase == protocol.PhaseFenced {
		level = slog.LevelError
	}
	a.log.Log(context.Background(), level, "now "+string(s.Phase),
		"reason", s.Reason, "epoch", s.Head.Epoch, "seq", s.Head.Seq, "holder", s.Head.Holder.ID)
}

// treeOptions translates the configuration of the volume's paths.
func treeOptions(cfg *config.Config) volume.TreeOptions {
	host := cfg.Service
	if host == "" {
		host = cfg.Volume
	}
	t := volume.TreeOptions{
		Host: host, Version: Version, Exclude: cfg.Exclude,
		SkipUnreadable: cfg.Backup.OnUnreadable == config.UnreadableSkip,
		AllowShrink:    cfg.Backup.AllowShrink,
	}
	for _, s := range cfg.State {
		t.Paths = append(t.Paths, filepath.Clean(s.Path))
		for _, p := range s.Exclude {
			t.Exclude = append(t.Exclude, below(s.Path, p))
		}
	}
	return t
}

// below makes a relative pattern of one path's own match below that path only.
func below(path, pattern string) string {
	negated := strings.HasPrefix(pattern, "!")
	p := strings.TrimPrefix(pattern, "!")
	if !strings.HasPrefix(p, "/") {
		p = filepath.Clean(path) + "/**/" + p
	}
	if negated {
		return "!" + p
	}
	return p
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}
