package app

import (
	"context"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"sync"

	"drover/client"
	"drover/internal/config"
	"drover/internal/event"
	"drover/internal/supervise"
	"drover/internal/supervise/check"
)

// checks runs the checks of the jobs, and tells the supervisor what they say.
type checks struct {
	jobs   *jobs
	runner *check.Runner
	log    *slog.Logger
	quiet  func() bool // maintenance: nothing follows from a failure
	stop   func()      // ends the instance

	mu      sync.Mutex
	cfg     *config.Config
	healthy map[string]bool // of jobs that have checks, as last told
}

func newChecks(cfg *config.Config, jobs *jobs, log *slog.Logger, quiet func() bool, stop func()) *checks {
	c := &checks{jobs: jobs, log: log, cfg: cfg, quiet: quiet, stop: stop, healthy: map[string]bool{}}
	var all []check.Check
	for _, name := range slices.Sorted(maps.Keys(cfg.Jobs)) {
		all = append(all, c.of(cfg, name)...)
	}
	c.runner = check.New(all, c.changed, log)
	return c
}

// of translates the checks of one job.
func (c *checks) of(cfg *config.Config, name string) []check.Check {
	job := cfg.Jobs[name]
	var list []check.Check
	for _, key := range slices.Sorted(maps.Keys(job.Checks)) {
		from := job.Checks[key]
		list = append(list, check.Check{
			Name: key, Job: name, Prober: c.prober(name, from), Level: levels[from.Level],
			Every: from.Every.Std(), Timeout: from.Timeout.Std(), StartPeriod: from.StartPeriod.Std(),
			Threshold: from.Threshold, OnFailure: onFailures[from.OnFailure],
		})
	}
	return list
}

var (
	levels     = map[config.Level]check.Level{config.LevelAlive: check.Alive, config.LevelReady: check.Ready}
	onFailures = map[config.OnFailure]check.OnFailure{
		config.FailureIgnore: check.Ignore, config.FailureRestart: check.Restart, config.FailureShutdown: check.Shutdown,
	}
)

func (c *checks) prober(name string, from config.Check) check.Prober {
	switch {
	case from.HTTP.URL != "":
		h := &check.HTTP{URL: from.HTTP.URL, Method: from.HTTP.Method, Headers: from.HTTP.Headers, CA: from.HTTP.CA, Insecure: from.HTTP.Insecure}
		for _, text := range from.HTTP.Status {
			status, _ := check.ParseStatus(text) // checked when it was read
			h.Status = append(h.Status, status)
		}
		if len(h.Status) == 0 {
			h.Status = []check.Status{{From: 200, To: 399}}
		}
		if from.HTTP.Body != "" {
			h.Body = regexp.MustCompile(string(from.HTTP.Body))
		}
		return h
	case from.TCP != "":
		return &check.TCP{Address: from.TCP}
	case from.GRPC.Address != "":
		return &check.GRPC{Address: from.GRPC.Address, Service: from.GRPC.Service, TLS: from.GRPC.TLS, CA: from.GRPC.CA}
	}
	return &inJob{c.jobs, name, from.Exec}
}

// inJob runs a command as a job would be run now.
type inJob struct {
	jobs    *jobs
	name    string
	command []string
}

func (e *inJob) Probe(ctx context.Context) error {
	exec := check.Exec{Command: e.command}
	for _, job := range e.jobs.all() {
		if job.Name == e.name {
			exec.Dir, exec.Env, exec.Credential = job.Dir, job.Env, job.User.Credential()
		}
	}
	return exec.Probe(ctx)
}

// follow gives the jobs the checks of a new configuration, and returns the former.
func (c *checks) follow(cfg *config.Config) *config.Config {
	c.mu.Lock()
	old := c.cfg
	c.cfg = cfg
	c.mu.Unlock()
	names := maps.Clone(cfg.Jobs)
	maps.Copy(names, old.Jobs)
	for name := range names {
		c.runner.Replace(name, c.of(cfg, name))
	}
	return old
}

// run runs the checks, from a job's start to its end, until ctx ends.
func (c *checks) run(ctx context.Context, sub *event.Subscription) {
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { c.runner.Run(ctx) })
	defer sub.Close()
	for {
		e, _, err := sub.Next(ctx)
		if err != nil {
			return
		}
		switch e.Name {
		case supervise.EventStarted:
			c.runner.Started(e.Source)
		case supervise.EventStopping, supervise.EventExit:
			c.runner.Stopped(e.Source)
			c.mu.Lock()
			delete(c.healthy, e.Source)
			c.mu.Unlock()
		}
	}
}

// jobEvents subscribes to what begins and ends checks. Of a job that comes and goes the
// newest counts.
func (c *checks) jobEvents(bus *event.Bus) *event.Subscription {
	return bus.Subscribe(event.Options{Coalesce: true, Only: func(e event.Event) bool {
		return e.Name == supervise.EventStarted || e.Name == supervise.EventStopping || e.Name == supervise.EventExit
	}})
}

// changed acts on one check's change.
func (c *checks) changed(change check.Change) {
	name := change.Check.Job
	s := c.jobs.supervisor()
	if s == nil || change.To == check.Unknown {
		return
	}
	c.mu.Lock()
	job := c.cfg.Jobs[name]
	now := c.runner.Healthy(name, check.Ready)
	before, told := c.healthy[name]
	c.healthy[name] = now
	c.mu.Unlock()
	if change.To == check.Healthy && job.Ready.Check == change.Check.Name {
		s.Ready(name)
	}
	if now && !before || !now && (before || !told) && change.To == check.Unhealthy {
		s.Health(name, now)
	}
	if change.To != check.Unhealthy {
		c.log.Info("check passes", "job", name, "check", change.Check.Name)
		return
	}
	c.log.Warn("check fails", "job", name, "check", change.Check.Name, "failures", change.Failures, "error", change.Error)
	if c.quiet() {
		return
	}
	switch change.Check.OnFailure {
	case check.Restart:
		if err := s.RestartJob(context.Background(), name); err != nil {
			c.log.Warn("restart job", "job", name, "err", err)
		}
	case check.Shutdown:
		c.log.Error("the instance ends: a check fails", "job", name, "check", change.Check.Name)
		c.stop()
	}
}

// show adds what the checks say to the jobs' states.
func (c *checks) show(jobs []client.Job) {
	states := c.runner.States()
	for i := range jobs {
		for _, s := range states {
			if s.Job != jobs[i].Name {
				continue
			}
			one := client.Check{Name: s.Name, Level: s.Level.String(), Health: s.Health.String(), Since: s.Since, Failures: s.Failures, Error: s.Error, Seconds: s.Took.Seconds()}
			jobs[i].Checks = append(jobs[i].Checks, one)
			jobs[i].Health = worse(jobs[i].Health, one.Health)
		}
	}
}

// worse of two healths: unhealthy, unknown, healthy.
func worse(a, b string) string {
	rank := map[string]int{"": 0, check.Healthy.String(): 1, check.Unknown.String(): 2, check.Unhealthy.String(): 3}
	if rank[a] > rank[b] {
		return a
	}
	return b
}

// Health is control.Agent's: whether all jobs are alive, or ready.
func (a *agent) Health(level string) client.Health {
	h := client.Health{Level: level, Healthy: true}
	fail := func(what string) { h.Healthy, h.Failing = false, append(h.Failing, what) }
	status := a.Status()
	for _, job := range status.Jobs {
		for _, c := range job.Checks {
			if c.Health == check.Unhealthy.String() && (level == check.Ready.String() || c.Level == check.Alive.String()) {
				fail(job.Name + "/" + c.Name)
			}
		}
		if level == check.Ready.String() && job.State == "running" && !job.Ready {
			fail(job.Name)
		}
	}
	if level == check.Ready.String() && status.Role != "supervisor" && status.Role != "holder" {
		fail("role " + status.Role)
	}
	return h
}
