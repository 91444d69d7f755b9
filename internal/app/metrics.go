package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"drover/client"
	"drover/internal/config"
	"drover/internal/supervise"
)

// customMetrics are the metrics of the application: commands give them values at their
// intervals, and the application does by the control API.
type customMetrics struct {
	jobs     *jobs
	registry *prometheus.Registry
	log      *slog.Logger

	mu      sync.Mutex
	metrics map[string]*customMetric
	ctx     context.Context // of run; nil before
	group   sync.WaitGroup
}

type customMetric struct {
	config.Metric
	collector prometheus.Collector
	observe   func(float64) error
	cancel    context.CancelFunc
}

func newCustomMetrics(cfg *config.Config, jobs *jobs, registry *prometheus.Registry, log *slog.Logger) *customMetrics {
	c := &customMetrics{jobs: jobs, registry: registry, log: log, metrics: map[string]*customMetric{}}
	c.follow(cfg)
	return c
}

// follow makes the metrics those of a configuration; one that did not change keeps its
// values.
func (c *customMetrics) follow(cfg *config.Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, m := range c.metrics {
		if now, ok := cfg.Metrics[name]; !ok || fmt.Sprint(now) != fmt.Sprint(m.Metric) {
			c.registry.Unregister(m.collector)
			m.cancel()
			delete(c.metrics, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Metrics)) {
		if c.metrics[name] == nil {
			m := newCustomMetric(name, cfg.Metrics[name])
			if err := c.registry.Register(m.collector); err != nil {
				c.log.Error("metric is not shown", "metric", name, "err", err)
				continue
			}
			c.metrics[name] = m
			c.collect(name, m)
		}
	}
}

func newCustomMetric(name string, cfg config.Metric) *customMetric {
	m := &customMetric{Metric: cfg, cancel: func() {}}
	help := cfg.Help
	if help == "" {
		help = "A metric of the application."
	}
	switch cfg.Type {
	case config.MetricCounter:
		counter := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		m.collector = counter
		m.observe = func(v float64) error {
			if v < 0 {
				return errors.New("a counter does not fall")
			}
			counter.Add(v)
			return nil
		}
	case config.MetricHistogram:
		opts := prometheus.HistogramOpts{Name: name, Help: help}
		for _, b := range cfg.Buckets {
			opts.Buckets = append(opts.Buckets, float64(b))
		}
		histogram := prometheus.NewHistogram(opts)
		m.collector, m.observe = histogram, func(v float64) error { histogram.Observe(v); return nil }
	default:
		gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		m.collector, m.observe = gauge, func(v float64) error { gauge.Set(v); return nil }
	}
	return m
}

// run collects until ctx ends.
func (c *customMetrics) run(ctx context.Context) {
	c.mu.Lock()
	c.ctx = ctx
	for name, m := range c.metrics {
		c.collect(name, m)
	}
	c.mu.Unlock()
	<-ctx.Done()
	c.group.Wait()
}

// collect begins to run a metric's command; with c.mu held.
func (c *customMetrics) collect(name string, m *customMetric) {
	if c.ctx == nil || len(m.Command) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	m.cancel = cancel
	c.group.Go(func() {
		tick := time.NewTicker(m.Every.Std())
		defer tick.Stop()
		for {
			if err := c.sample(ctx, m); err != nil && ctx.Err() == nil {
				c.log.Warn("metric has no value", "metric", name, "err", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
}

// sample runs the command once, as the main job would be run.
func (c *customMetrics) sample(ctx context.Context, m *customMetric) error {
	ctx, cancel := context.WithTimeout(ctx, m.Timeout.Std())
	defer cancel()
	command := supervise.Command{Argv: m.Command}
	if job := c.jobs.mainJob(); job != nil {
		command.Env, command.Dir, command.User = job.Env, job.Dir, job.User
	}
	text, group, err := command.Output(ctx)
	supervise.KillGroup(group)
	if err != nil {
		return err
	}
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return errors.New("its command printed nothing")
	}
	v, err := parseValue(fields[len(fields)-1])
	if err != nil {
		return err
	}
	return m.observe(v)
}

func parseValue(text string) (float64, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	return v, nil
}

// PutMetric is control.Agent's: all of the values, or none.
func (a *agent) PutMetric(values map[string]float64) error {
	c := a.metrics
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, v := range values {
		m := c.metrics[name]
		switch {
		case m == nil:
			return refused(client.KindUnknown, "there is no metric %q: the configuration names those that are put", name)
		case math.IsNaN(v) || math.IsInf(v, 0):
			return refused(client.KindInvalid, "the value of %s is not a number", name)
		case m.Type == config.MetricCounter && v < 0:
			return refused(client.KindInvalid, "%s is a counter, which does not fall", name)
		}
	}
	for name, v := range values {
		if err := c.metrics[name].observe(v); err != nil {
			return refused(client.KindInvalid, "%s: %v", name, err)
		}
	}
	return nil
}

// jobLabel is not "job", which Prometheus sets itself to the scraped target's: it would
// rename ours.
const jobLabel = "job_name"

// registerJobs registers what the jobs do: one time series for each.
func registerJobs(reg *prometheus.Registry, a *agent) {
	reg.MustRegister(&jobCollector{
		agent:    a,
		up:       prometheus.NewDesc("drover_job_up", "1 while the job's first process runs.", []string{jobLabel}, nil),
		ready:    prometheus.NewDesc("drover_job_ready", "1 while the job runs and is ready.", []string{jobLabel}, nil),
		starts:   prometheus.NewDesc("drover_job_starts_total", "Runs of the job that were begun since the jobs were started.", []string{jobLabel}, nil),
		restarts: prometheus.NewDesc("drover_job_restarts", "Restarts in a row by the job's policy.", []string{jobLabel}, nil),
		status:   prometheus.NewDesc("drover_job_exit_status", "Exit status of the last run that ended.", []string{jobLabel}, nil),
		check:    prometheus.NewDesc("drover_check_healthy", "1 while the check passes, 0 while it fails, -1 while it is not known.", []string{jobLabel, "check", "level"}, nil),
		took:     prometheus.NewDesc("drover_check_duration_seconds", "How long the last run of the check took.", []string{jobLabel, "check", "level"}, nil),
	})
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "drover", Name: "maintenance", Help: "1 while maintenance is on."},
		func() float64 { return truth(a.maintenance.Load()) }))
}

type jobCollector struct {
	agent                                            *agent
	up, ready, starts, restarts, status, check, took *prometheus.Desc
}

func (c *jobCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.up, c.ready, c.starts, c.restarts, c.status, c.check, c.took} {
		ch <- d
	}
}

func (c *jobCollector) Collect(ch chan<- prometheus.Metric) {
	for _, job := range c.agent.jobStates() {
		gauge := func(d *prometheus.Desc, v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{job.Name}, labels...)...)
		}
		gauge(c.up, truth(job.PID > 0))
		gauge(c.ready, truth(job.Ready))
		ch <- prometheus.MustNewConstMetric(c.starts, prometheus.CounterValue, float64(job.Runs), job.Name)
		gauge(c.restarts, float64(job.Restarts))
		if job.Exit != nil {
			gauge(c.status, float64(*job.Exit))
		}
		for _, check := range job.Checks {
			value := map[string]float64{"healthy": 1, "unhealthy": 0}
			v, known := value[check.Health]
			if !known {
				v = -1
			}
			gauge(c.check, v, check.Name, check.Level)
			gauge(c.took, check.Seconds, check.Name, check.Level)
		}
	}
}
