package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/rpc"
	"os"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"time"

	"go.uber.org/goleak"

	"drover/client"
	"drover/internal/config"
	"drover/internal/testkit/leak"
)

// soakVar names the directory of a soak: this process is its agent.
const soakVar = "DROVER_TEST_SOAK"

// soakLeft is the status of an agent that leaves something behind.
const soakLeft = 97

// soakAgent is a real agent, shim and worker. It takes calls on its standard input and
// answers on its standard output, beside the control socket.
func soakAgent(dir string) int {
	status, err := Supervised(context.Background(), func(ctx context.Context, shimGone <-chan struct{}) (int, error) {
		return soakRun(ctx, dir, shimGone)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		return 1
	}
	return status
}

func soakRun(ctx context.Context, dir string, shimGone <-chan struct{}) (int, error) {
	load := func() (*config.Config, error) {
		return LoadConfig(config.Sources{File: dir + "/drover.yaml", Env: func(name string) (string, bool) {
			return map[string]string{"DROVER_SOCKET": dir + "/s"}[name], name == "DROVER_SOCKET"
		}})
	}
	cfg, err := load()
	if err != nil {
		return 1, err
	}
	s := &soaked{made: make(chan struct{})}
	calls := rpc.NewServer()
	if err := calls.RegisterName("Soak", s); err != nil {
		return 1, err
	}
	ended := make(chan struct{})
	go func() { defer close(ended); calls.ServeConn(standard{os.Stdin, os.Stdout}) }()
	if file := os.Getenv("DROVER_SOAK_PROFILE"); file != "" {
		stop, err := profile(file)
		if err != nil {
			return 1, err
		}
		defer stop()
	}
	before := goleak.IgnoreCurrent()
	status, err := Run(ctx, cfg, RunOptions{
		Stdout: io.Discard, Stderr: io.Discard, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Load: load, ShimGone: shimGone,
		made: func(a *agent) { s.agent = a; close(s.made) },
	})
	<-ended // the test has closed our input
	if err := goleak.Find(before); err != nil {
		fmt.Fprintln(os.Stderr, "soak: goroutines are left:", err)
		status = soakLeft
	}
	if children, err := leak.Children(); err != nil || len(children) > 0 {
		fmt.Fprintln(os.Stderr, "soak: processes are left:", children, err)
		status = soakLeft
	}
	return status, err
}

// profile writes where the worker's CPU time goes, until stop.
func profile(file string) (stop func(), err error) {
	to, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(to); err != nil {
		return nil, errors.Join(err, to.Close())
	}
	return func() { pprof.StopCPUProfile(); _ = to.Close() }, nil
}

// standard is a connection by the standard files.
type standard struct {
	io.Reader
	io.WriteCloser
}

// soaked answers the calls of the test; net/rpc asks for exported names.
type soaked struct {
	agent *agent
	made  chan struct{}
}

// SoakCall is what somebody does by hand.
type SoakCall struct{ Do, Name, Value string }

// soakPatience bounds a call's wait for a job: some are never ready.
const soakPatience = 3 * time.Second

// Do does it, and replies with the kind of the error.
func (s *soaked) Do(c SoakCall, kind *string) error {
	<-s.made
	ctx, cancel := context.WithTimeout(context.Background(), soakPatience)
	defer cancel()
	var err error
	switch c.Do {
	case "start":
		err = s.agent.StartJob(ctx, c.Name)
	case "stop":
		err = s.agent.StopJob(ctx, c.Name)
	case "restart":
		err = s.agent.RestartJob(ctx, c.Name)
	case "signal":
		err = s.agent.SignalJob(c.Name, c.Value)
	case "reload":
		_, err = s.agent.Reload(ctx)
	case "maintenance":
		err = s.agent.Maintenance(c.Value == "on")
	case "webhook":
		err = s.agent.Webhook(c.Name)
	case "env":
		change := map[string]*string{c.Name: &c.Value}
		if c.Value == "" {
			change[c.Name] = nil
		}
		err = s.agent.PutEnv(change)
	case "metric":
		err = s.agent.PutMetric(map[string]float64{c.Name: 1})
	case "logs":
		_, err = s.agent.Logs(c.Name, 20).Wait(ctx)
	default:
		return fmt.Errorf("nobody does %q", c.Do)
	}
	*kind = "done"
	switch {
	case err != nil && ctx.Err() != nil:
		*kind = "waits"
	case err != nil:
		*kind = kindOfError(err)
	}
	return nil
}

// SoakFigures are the worker's, of this moment.
type SoakFigures struct {
	PID, Goroutines int
	Heap            uint64        // bytes that live
	Loop            time.Duration // a call that the loop of the supervisor answers
	Jobs            []client.Job
}

// Look tells them.
func (s *soaked) Look(jobs bool, f *SoakFigures) error {
	<-s.made
	f.PID, f.Goroutines = os.Getpid(), runtime.NumGoroutine()
	heap := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(heap)
	f.Heap = heap[0].Value.Uint64()
	if jobs {
		f.Jobs = s.agent.jobStates()
	}
	if s := s.agent.jobs.supervisor(); s != nil {
		began := time.Now()
		if err := s.StartJob(context.Background(), soakMain); err != nil { // it runs: nothing follows
			return err
		}
		f.Loop = time.Since(began)
	}
	return nil
}
