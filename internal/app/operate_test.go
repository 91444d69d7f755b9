package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/client"
	"drover/internal/config"
	"drover/internal/event"
	"drover/internal/repo/fstest"
)

// supervisor is an agent without a store, in this process.
type supervisor struct {
	*agent
	t     *testing.T
	file  string
	log   *logBuffer
	sub   *event.Subscription
	ended chan int
}

// runs starts an agent with these jobs, and ends it with the test.
func runs(t *testing.T, jobs string) *supervisor {
	t.Helper()
	return runsWith(t, jobs, nil)
}

// runsWith is runs with a coordinator that is not the configured one.
func runsWith(t *testing.T, jobs string, co *coordinator) *supervisor {
	t.Helper()
	dir, err := os.MkdirTemp("", "s") //nolint:usetesting // short, for the socket
	fstest.Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &supervisor{t: t, file: filepath.Join(dir, "drover.yaml"), log: new(logBuffer), ended: make(chan int, 1)}
	s.write(jobs)
	load := func() (*config.Config, error) {
		return LoadConfig(config.Sources{File: s.file, Env: func(name string) (string, bool) {
			return map[string]string{"DROVER_SOCKET": dir + "/s"}[name], name == "DROVER_SOCKET"
		}})
	}
	cfg, err := load()
	fstest.Must(t, err)
	fstest.Must(t, cfg.CheckRun())
	made := make(chan *agent, 1)
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		status, err := Run(ctx, cfg, RunOptions{
			Stdout: s.log, Stderr: s.log, Log: slog.New(slog.NewTextHandler(s.log, nil)), Load: load, coordinator: co,
			made: func(a *agent) {
				s.sub = a.bus.Subscribe(event.Options{Queue: 10_000})
				made <- a
			},
		})
		if err != nil {
			t.Error(err)
		}
		s.ended <- status
	}()
	t.Cleanup(func() {
		stop()
		select {
		case status := <-s.ended:
			s.ended <- status
		case <-time.After(patience):
			t.Error("the agent does not end")
		}
		if t.Failed() {
			t.Log(s.log.String())
		}
	})
	s.agent = <-made
	return s
}

func (s *supervisor) write(jobs string) { fstest.Write(s.t, s.file, jobs) }

// event waits for the next event of that name and source, and passes over others.
func (s *supervisor) event(name, source string) event.Event {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	for {
		e, missed, err := s.sub.Next(ctx)
		if err != nil || missed > 0 {
			s.t.Fatalf("event %s:%s: missed %d, %v\n%s", name, source, missed, err, s.log)
		}
		if e.Name == name && e.Source == source {
			return e
		}
	}
}

func (s *supervisor) job(name string) client.Job {
	s.t.Helper()
	for _, j := range s.Status().Jobs {
		if j.Name == name {
			return j
		}
	}
	s.t.Fatalf("no job %s", name)
	return client.Job{}
}

// says waits until the job has said all of that, without line breaks.
func (s *supervisor) says(job, want string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	logs := s.Logs(job, 1000)
	for seen := ""; seen != want; {
		lines, err := logs.Wait(ctx)
		if err != nil {
			s.t.Fatalf("%s said %q, not %q: %v", job, seen, want, err)
		}
		for _, l := range lines {
			seen += l.Text
		}
	}
}

func kindOfError(err error) string {
	var e *client.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return fmt.Sprint(err)
}

func TestJobsByHand(t *testing.T) {
	s := runs(t, `
jobs:
  app: {command: [sleep, "600"], main: true}
  once: {command: [/nonexistent], on: [webhook:go]}
  web: {command: "trap 'echo hup' HUP; echo up; while :; do sleep 0.01; done"}
`)
	s.event("ready", "web")
	ctx := t.Context()
	pid := s.job("web").PID
	s.says("web", "up")
	fstest.Must(t, s.StopJob(ctx, "web"))
	if j := s.job("web"); j.State != "exited" || !j.Held || j.PID != 0 {
		t.Errorf("%+v", j)
	}
	fstest.Must(t, s.StartJob(ctx, "web"))
	fstest.Must(t, s.StartJob(ctx, "web"))
	if j := s.job("web"); j.State != "running" || j.PID == pid || j.Runs != 2 {
		t.Errorf("%+v", j)
	}
	s.says("web", "upup")
	fstest.Must(t, s.RestartJob(ctx, "web"))
	if j := s.job("web"); j.State != "running" || j.Runs != 3 {
		t.Errorf("%+v", j)
	}
	s.says("web", "upupup") // its trap is set
	fstest.Must(t, s.SignalJob("web", "hup"))
	s.says("web", "upupuphup")
	if err := s.StartJob(ctx, "once"); kindOfError(err) != client.KindFailed {
		t.Error(err)
	}
	fstest.Must(t, s.Webhook("go"))
	if e := s.event("failed", "once"); e.Status == nil || *e.Status != 127 {
		t.Errorf("%+v", e)
	}
	for what, err := range map[string]error{
		client.KindUnknown: errors.Join(s.StopJob(ctx, "none")), client.KindInvalid: s.SignalJob("web", "nosuch"),
	} {
		if kindOfError(err) != what {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := s.Webhook("other"); kindOfError(err) != client.KindUnknown {
		t.Error(err)
	}
	// The main job, stopped by hand, does not end the instance; its own end does.
	fstest.Must(t, s.RestartJob(ctx, "app"))
	fstest.Must(t, s.SignalJob("app", "KILL"))
	if status := <-s.ended; status != 137 {
		t.Errorf("status %d", status)
	} else {
		s.ended <- status
	}
}

func TestReload(t *testing.T) {
	const kept = "\n  kept: {command: [sleep, \"600\"]}\n"
	s := runs(t, "jobs:\n  app: {command: [sleep, \"600\"], main: true}"+kept+"  gone: {command: [sleep, \"600\"]}\nmetrics: {app_a: {}}\n")
	for range 3 {
		s.event("ready", "kept")
		break
	}
	ctx := t.Context()
	pid := s.job("kept").PID
	s.write("jobs:\n  app: {command: [sleep, \"601\"], main: true}" + kept + "  added: {command: [sleep, \"600\"]}\nmetrics: {app_b: {}}\n")
	r, err := s.Reload(ctx)
	fstest.Must(t, err)
	if want := (client.Reload{Started: []string{"added"}, Stopped: []string{"gone"}, Changed: []string{"app"}, Kept: []string{"kept"}}); fmt.Sprint(r) != fmt.Sprint(want) {
		t.Errorf("%+v", r)
	}
	if j := s.job("kept"); j.PID != pid {
		t.Errorf("%+v", j)
	}
	fstest.Must(t, s.PutMetric(map[string]float64{"app_b": 3}))
	if err := s.PutMetric(map[string]float64{"app_a": 3}); kindOfError(err) != client.KindUnknown {
		t.Error(err)
	}
	pids := func() (all []int) {
		for _, j := range s.Status().Jobs {
			all = append(all, j.PID)
		}
		return all
	}
	before := pids()
	for what, bad := range map[string]string{
		"not valid":          "jobs: {app: {command: [sleep, x], main: true, after: {none: ready}}}",
		"new start":          "volume: other\njobs:\n  app: {command: [sleep, \"601\"], main: true}\n",
		"is no job":          "jobs: {app: {command: [sleep, x], main: true, after: {none: ready}}}",
		"drover.yaml:1:":     "nosuchkey: 1",
		"nothing was change": "jobs: {app: {command: [a], user: nosuchuser, main: true}}",
	} {
		s.write(bad)
		if _, err := s.Reload(ctx); err == nil || !strings.Contains(err.Error(), what) || kindOfError(err) != client.KindInvalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.write("jobs:\n  app: {command: [sleep, \"601\"], main: true}" + kept + "  added: {command: [/nonexistent]}\n")
	if _, err := s.Reload(ctx); err == nil || !strings.Contains(err.Error(), "is back") {
		t.Error(err)
	}
	after := pids()
	if len(after) != len(before) || !slices.Contains(after, pid) {
		t.Errorf("processes before %v, after %v", before, after)
	}
	for _, j := range s.Status().Jobs {
		if j.State != "running" {
			t.Errorf("%+v", j)
		}
	}
}

// Checks make a job ready and healthy; a failing one restarts it, but not in a maintenance.
func TestChecksOfAJob(t *testing.T) {
	web := http.NewServeMux()
	state := make(chan int, 1)
	state <- 200
	web.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		now := <-state
		state <- now
		w.WriteHeader(now)
	})
	set := func(status int) { <-state; state <- status }
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	fstest.Must(t, err)
	server := &http.Server{Handler: web}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	set(503)
	s := runs(t, fmt.Sprintf(`
jobs:
  app: {command: [sleep, "600"], main: true, after: {web: healthy}}
  alarm: {command: [echo, alarm], on: [unhealthy:web]}
  web:
    command: [sleep, "600"]
    ready: {check: http}
    checks:
      http: {http: "http://%s/", every: 100ms, threshold: 2, on_failure: restart}
      exec: {exec: 'test "$DROVER_JOB" = "" && test -n "$DROVER_SOCKET"', every: 100ms, level: alive}
`, listener.Addr()))
	s.event("started", "web")
	if j := s.job("web"); j.Ready {
		t.Errorf("%+v", j)
	}
	set(200)
	s.event("ready", "web")
	s.event("started", "app")
	pid := s.job("web").PID
	set(500)
	s.event("unhealthy", "web")
	set(200)
	s.event("started", "web")
	s.event("healthy", "web")
	s.says("alarm", "alarm")
	if j := s.job("web"); j.PID == pid || j.Health != "healthy" || len(j.Checks) != 2 {
		t.Errorf("%+v", j)
	}
	if h := s.Health("ready"); !h.Healthy {
		t.Errorf("%+v", h)
	}
	fstest.Must(t, s.Maintenance(true))
	pid = s.job("web").PID
	set(500)
	s.event("unhealthy", "web")
	if h := s.Health("ready"); h.Healthy || s.Health("alive").Healthy == false {
		t.Errorf("%+v, alive %+v", h, s.Health("alive"))
	}
	if st := s.Status(); !st.Maintenance || st.Health != "degraded" || s.job("web").PID != pid {
		t.Errorf("%+v", st)
	}
}

func TestMetricsOfTheApplication(t *testing.T) {
	s := runs(t, `
jobs: {app: {command: [sleep, "600"], main: true, env: {DEPTH: "7"}}}
metrics:
  app_depth: {help: Depth., command: "echo depth $DEPTH", every: 1s}
  app_served: {type: counter}
  app_size: {type: histogram, buckets: [1, 10]}
  app_bad: {command: "echo nonsense", every: 1s}
`)
	s.event("started", "app")
	fstest.Must(t, s.PutMetric(map[string]float64{"app_served": 2, "app_size": 5}))
	fstest.Must(t, s.PutMetric(map[string]float64{"app_served": 3}))
	if err := s.PutMetric(map[string]float64{"app_served": -1}); kindOfError(err) != client.KindInvalid {
		t.Error(err)
	}
	want := []string{"app_depth 7", "app_served 5", "app_size 1", "drover_job_up 1"}
	var got []string
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); len(got) < len(want) && time.Now().Before(deadline); <-tick.C {
		got = nil
		families, err := s.registry.Gather()
		fstest.Must(t, err)
		for _, f := range families {
			for _, m := range f.Metric {
				for _, line := range []string{
					fmt.Sprint(f.GetName(), " ", m.GetGauge().GetValue()), fmt.Sprint(f.GetName(), " ", m.GetCounter().GetValue()),
					fmt.Sprint(f.GetName(), " ", m.GetHistogram().GetSampleCount()),
				} {
					if slices.Contains(want, line) {
						got = append(got, line)
					}
				}
			}
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// A job that a reload brings is ready by a check that the same reload brings.
func TestReloadBringsChecksWithTheirJob(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	fstest.Must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	s := runs(t, "jobs: {app: {command: [sleep, \"600\"], main: true}}\n")
	s.event("started", "app")
	s.write(fmt.Sprintf(`
jobs:
  app: {command: [sleep, "600"], main: true}
  web: {command: [sleep, "600"], ready: {check: tcp, timeout: 20s}, checks: {tcp: {tcp: "%s", every: 100ms}}}
`, listener.Addr()))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := s.Reload(ctx); err != nil {
		t.Error(err)
	}
	if j := s.job("web"); !j.Ready || len(j.Checks) != 1 {
		t.Errorf("%+v", j)
	}
}
