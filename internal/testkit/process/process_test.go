package process_test

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/internal/testkit/leak"
	"drover/internal/testkit/process"
)

func TestMain(m *testing.M) { leak.Main(m) }

func start(t *testing.T, script string, grace time.Duration) *process.Process {
	t.Helper()
	p := process.New(t, "the script", syscall.SIGTERM, grace)
	if err := p.Start(exec.CommandContext(context.Background(), "sh", "-c", script)); err != nil {
		t.Fatal(err)
	}
	return p
}

func said(p *process.Process, what string) func(context.Context) error {
	return func(context.Context) error {
		if !strings.Contains(p.Output(), what) {
			return errors.New("it has not said " + what)
		}
		return nil
	}
}

func TestEndBeforeReadyIsAnError(t *testing.T) {
	p := start(t, "exit 1", time.Minute)
	if err := p.Until(said(p, "ready")); err == nil || !strings.Contains(err.Error(), "it ended before it was ready: it has not said ready") {
		t.Errorf("got %v", err)
	}
}

func TestStopOfThePausedAndOfTheDeaf(t *testing.T) {
	for name, trap := range map[string]string{"paused": "trap 'exit 0' TERM", "deaf": "trap '' TERM"} {
		t.Run(name, func(t *testing.T) {
			p := start(t, trap+"; echo ready; while :; do :; done", 100*time.Millisecond)
			if err := p.Until(said(p, "ready")); err != nil {
				t.Fatal(err)
			}
			pid := p.Pid()
			if name == "paused" {
				p.Pause()
			}
			p.Stop()
			p.Stop()
			if p.Running() || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
				t.Error("it is still there")
			}
		})
	}
}
