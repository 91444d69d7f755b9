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
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"

	"drover/internal/config"
	"drover/internal/control"
	"drover/internal/event"
	"drover/internal/gitkv"
	"drover/internal/initproc"
	"drover/internal/objstore"
	"drover/internal/supervise"
	"drover/internal/volume"
	"drover/internal/volume/protocol"
	"drover/internal/volume/slots"
)

// Version is this build's; the linker sets it.
var Version = "dev"

// RunOptions of Run.
type RunOptions struct {
	Stdout, Stderr io.Writer
	Log            *slog.Logger
	// Load reads the configuration again, for a reload; nil: there is none.
	Load func() (*config.Config, error)
	// ShimGone is closed when nobody is left to forward signals; nil: never.
	ShimGone <-chan struct{}

	made        func(*agent) // tests; nil: nobody
	coordinator *coordinator // tests; nil: the configured one
}

// Run lives the life of an instance and returns its exit status: the main
// job's, 128 + signal, or 1 with an error.
func Run(ctx context.Context, cfg *config.Config, opt RunOptions) (status int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if cfg.Limits.Memory > 0 {
		debug.SetMemoryLimit(int64(cfg.Limits.Memory))
	}
	cfg = cfg.Own()
	bus := event.NewBus(recentEvents)
	member, err := newMember(cfg, opt.Log)
	if err != nil {
		return 1, err
	}
	jobs, err := newJobs(cfg, member, bus, opt.Stdout, opt.Stderr, opt.Log)
	if err != nil {
		return 1, err
	}
	if status, err := jobs.missing(cfg.Paths()); err != nil {
		opt.Log.Error("job cannot start, so nothing was begun", "error", err)
		return status, nil
	}
	a := &agent{cfg: cfg, log: opt.Log, jobs: jobs, member: member, bus: bus, load: opt.Load, started: time.Now()}
	a.stopping, a.stop = context.WithCancel(context.WithoutCancel(ctx))
	defer a.stop()
	a.registry = prometheus.NewRegistry()
	a.checks = newChecks(cfg, jobs, opt.Log, a.maintenance.Load, a.askStop)
	a.metrics = newCustomMetrics(cfg, jobs, a.registry, opt.Log)
	co := opt.coordinator
	if co == nil {
		if co, err = openCoordinator(ctx, cfg, opt.Log); err != nil {
			return 1, err
		}
	}
	defer co.close()
	a.services = newServices(jobs, co.registry, opt.Log, a.maintenance.Load)
	if err := a.services.follow(cfg); err != nil {
		return 1, err
	}
	a.watches = newWatches(co.catalog, co.kv, bus, opt.Log)
	a.watches.follow(cfg)
	if a.git, err = newSyncer(cfg, co, bus, opt.Log); err != nil {
		return 1, err
	}
	hooks, err := listenForHooks(ctx, cfg)
	if err != nil {
		return 1, err
	}
	if a.secrets, err = openSecrets(cfg, opt.Log); err != nil {
		return 1, err
	}
	defer closeSecrets(ctx, a.secrets, opt.Log)
	a.renders = &renders{jobs: jobs, make: func(cfg *config.Config) (*templates, error) {
		rolls := rollOptions{co: co, prefix: cfg.CoordinatorPrefix(), healthy: a.healthyFor}
		return newTemplates(cfg, sourcesOf(co, a.secrets), rolls, jobs, bus, opt.Log)
	}}
	if err := a.renders.first(cfg); err != nil {
		return 1, err
	}
	a.registry.MustRegister(newCoordinatorCollector(a))
	registerMetrics(a.registry, a)
	registerJobs(a.registry, a)
	registerDatabase(a.registry, a)
	a.still = a.stiller()
	server := control.New(a, control.Options{
		Path: cfg.Socket, Listen: cfg.Listen, Log: opt.Log, JobUIDs: jobs.uids,
		Metrics: promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{EnableOpenMetrics: true}),
	})
	if err := server.Listen(); err != nil {
		return 1, err
	}
	if opt.made != nil {
		opt.made(a)
	}
	err = a.runParts(ctx, server, hooks, co, opt)
	return exitStatus(jobs.exitStatus(), err), err
}

// runParts runs all parts until the jobs, or the volume, have come to their end.
func (a *agent) runParts(ctx context.Context, server *control.Server, hooks net.Listener, co *coordinator, opt RunOptions) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts sync.WaitGroup
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	parts.Go(func() {
		if err := server.Serve(serving); err != nil {
			opt.Log.Error("serve control socket", "err", err)
		}
	})
	parts.Go(func() { a.signals(ctx, opt.ShimGone) })
	outside := a.jobs.subscribe()
	parts.Go(func() { a.jobs.listen(ctx, outside) })
	runs := a.checks.jobEvents(a.bus)
	parts.Go(func() { a.checks.run(ctx, runs) })
	parts.Go(func() { a.metrics.run(ctx) })
	ofServices := a.services.subscribe(a.bus)
	parts.Go(func() { a.services.run(ctx, ofServices) })
	parts.Go(func() { a.watches.run(ctx) })
	parts.Go(func() { a.renders.run(ctx) })
	parts.Go(func() { runGit(ctx, a.git, hooks, opt.Log) })
	parts.Go(func() { shrink(ctx) })
	switch {
	case a.member != nil:
		err = a.runDatabase(ctx, co)
	case a.cfg.HasVolume():
		err = a.runVolume(ctx)
	default:
		err = a.superviseOnly(ctx)
	}
	cancel()
	stopServing()
	parts.Wait()
	a.jobs.waits.Wait()
	return err
}

// shrinkAfter is when the start is over, as a rule.
const shrinkAfter = 5 * time.Second

// shrink gives back, once, the pages of code that only the start has run.
func shrink(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(shrinkAfter):
		initproc.DropFilePages()
	}
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
	bus      *event.Bus
	started  time.Time
	registry *prometheus.Registry
	still    volume.Stiller // nil: none
	checks   *checks
	metrics  *customMetrics
	services *services
	watches  *watches
	renders  *renders
	secrets  *secrets
	member   *member                        // nil: there is no database
	git      *gitkv.Syncer                  // nil: there are no repositories
	load     func() (*config.Config, error) // nil: there is nothing to reload

	reloading   sync.Mutex
	maintenance atomic.Bool

	stopping context.Context // ends when the end is asked for
	stop     context.CancelFunc

	mu         sync.Mutex
	tenure     *tenure      // nil until a volume is open, and while no slot is tried
	walArchive walArchive   // of the instance's database; nil: none
	relieved   gate         // of pushes of its log: another member makes them
	detached   gate         // of fetches of it: the server is to receive nothing
	silence    storeSilence // of the store, to fetches
	waits      string       // why none is, for people
	told       string       // the phase and reason last logged
	volume     happenings
}

// current is the tenure of now; nil: none.
func (a *agent) current() *tenure {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tenure
}

// signals stops on TERM, INT and QUIT, and passes the others to the main job. A
// second TERM cuts the last backup short.
func (a *agent) signals(ctx context.Context, shimGone <-chan struct{}) {
	ch := make(chan os.Signal, 8)
	signal.Notify(ch, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT)
	signal.Notify(ch, passedOn()...)
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

// passedOn are the signals that mean something to some application, and nothing to the
// agent. WINCH is the size of a terminal, and how Apache's image has Docker stop it.
func passedOn() []os.Signal {
	list := []os.Signal{unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGALRM, unix.SIGPWR}
	const firstRealTime, lastRealTime = 35, 64 // C libraries keep 32 to 34, and Go does not deliver them
	for n := unix.Signal(firstRealTime); n <= lastRealTime; n++ {
		list = append(list, n)
	}
	return list
}

// stopGrace bounds the whole of an orderly end: what is not committed by then
// stays on this disk only. Schedulers kill much earlier by default.
const stopGrace = 5 * time.Minute

// askStop asks for the end; asked again, it asks for a quick one.
func (a *agent) askStop() {
	first := a.stopping.Err() == nil
	a.stop()
	if t := a.current(); t != nil && !first {
		t.rt.Stop(0)
	}
}

// superviseOnly runs the jobs of a configuration without a store.
func (a *agent) superviseOnly(ctx context.Context) error {
	ended := make(chan struct{})
	a.jobs.prepare(slots.None, nil, func() { close(ended) })
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

// runVolume opens the store and runs the protocol on the volume, or on one slot after
// another. The data directory of the volume's own name keeps a second agent out.
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
	st, err := openStore(ctx, a.cfg, a.registry, 0, a.log)
	if err != nil {
		return err
	}
	if c, ok := st.(objstore.Closer); ok {
		defer func() { _ = c.Close() }()
	}
	if a.cfg.Ownership == config.OwnershipSlot {
		return a.runSlots(ctx, st)
	}
	v, err := a.openVolume(ctx, st, a.cfg)
	if v == nil || err != nil {
		return err
	}
	t, err := a.newTenure(v, data, tenureOptions{cfg: a.cfg})
	if err != nil {
		return err
	}
	return a.live(ctx, t)
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

// queueUnasked asks for a backup that nobody asked for, if this instance may make one.
// Changes during a maintenance wait for its end.
func (a *agent) queueUnasked(rt *volume.Runtime) {
	if s, _ := rt.Status(); s.Phase == protocol.PhaseHolder && !a.maintenance.Load() {
		rt.Queue()
	}
}

// schedulerGrace is what most schedulers leave between TERM and KILL (Docker's default).
const schedulerGrace = 10 * time.Second

// warnOfGrace says, once, when the last backup at a stop would not fit.
func (a *agent) warnOfGrace(ctx context.Context, now func() volume.Stats) {
	tick := time.NewTicker(schedulerGrace)
	defer tick.Stop()
	for a.cfg.Backup.OnStop {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if took := time.Duration(now().LastBackup.Seconds * float64(time.Second)); took > schedulerGrace {
			a.log.Warn("a backup took longer than most schedulers wait after TERM: raise the stop grace (Docker: --stop-timeout, Compose: stop_grace_period), or the last changes may stay behind",
				"took", took.Round(time.Second), "usual_grace", schedulerGrace)
			return
		}
	}
}

// notify logs each change of phase, and tells what happened.
func (a *agent) notify(s protocol.Status) {
	a.mu.Lock()
	same := a.told == string(s.Phase)+s.Reason
	a.told = string(s.Phase) + s.Reason
	events := a.volume.of(s)
	a.mu.Unlock()
	for _, e := range events {
		a.bus.Publish(e)
	}
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
