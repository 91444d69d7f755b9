// Package process starts, stops and pauses the process of a real server for a test. Each of
// the packages beside it that run a server knows its program, its arguments and when it is
// ready; what they have in common is here.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Process is one server: running, stopped or paused. It ends with the test, which prints what
// it said if it has failed.
type Process struct {
	t       testing.TB
	name    string
	stop    syscall.Signal
	grace   time.Duration
	output  Output
	running *exec.Cmd     // nil: stopped
	ended   chan struct{} // closed when running was waited for
}

// New is a process that does not run yet. name is what messages call it; stop asks it to end,
// and what is left of it after grace is killed.
func New(t testing.TB, name string, stop syscall.Signal, grace time.Duration) *Process {
	t.Helper()
	p := &Process{t: t, name: name, stop: stop, grace: grace}
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, p.Output())
		}
	})
	return p
}

// Start runs cmd, which was not started and belongs to no context that ends before the test. It
// does not wait until the server is ready: Until does.
func (p *Process) Start(cmd *exec.Cmd) error {
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL // should the test be killed
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { // ends with the process, which Stop waits for
		_ = cmd.Wait()
		close(ended)
	}()
	p.running, p.ended = cmd, ended
	return nil
}

// Until asks until the answer is no error. It gives up when the process ends, or in a minute.
func (p *Process) Until(ask func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("it ended before it was ready: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("it is not ready: %w", err)
		case <-tick.C:
		}
	}
}

// Running tells whether it was started and not stopped.
func (p *Process) Running() bool { return p.running != nil }

// Pid is that of a running process.
func (p *Process) Pid() int { return p.running.Process.Pid }

// Output is what it has printed so far, in all its lives.
func (p *Process) Output() string { return p.output.String() }

// Stop ends the server: its port refuses connections. Stopping twice is fine.
func (p *Process) Stop() {
	if p.running == nil {
		return
	}
	_ = p.running.Process.Signal(syscall.SIGCONT)
	_ = p.running.Process.Signal(p.stop)
	grace := time.NewTimer(p.grace)
	defer grace.Stop()
	select {
	case <-p.ended:
	case <-grace.C:
		_ = p.running.Process.Kill()
		<-p.ended
	}
	p.running = nil
}

// Pause makes the server hang: connections are accepted and nothing is answered.
// It returns when every thread of it has stopped.
func (p *Process) Pause() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	for {
		err := unix.Waitid(unix.P_PID, p.Pid(), nil, unix.WSTOPPED, nil)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EINTR) {
			p.t.Fatalf("pause %s: %v", p.name, err)
		}
	}
}

// Resume ends a pause.
func (p *Process) Resume() {
	p.t.Helper()
	p.signal(syscall.SIGCONT)
}

func (p *Process) signal(sig syscall.Signal) {
	p.t.Helper()
	if p.running == nil {
		p.t.Fatalf("signal %s: it is stopped", p.name)
	}
	if err := p.running.Process.Signal(sig); err != nil {
		p.t.Fatalf("signal %s: %v", p.name, err)
	}
}

// FreeAddresses are n different addresses of the loopback interface on which nobody listens at
// present. Another process may take one before the server does: who starts one tries again.
func FreeAddresses(t testing.TB, n int) []string {
	t.Helper()
	addrs := make([]string, 0, n)
	for range n {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }() // at the end, so that they differ
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

// Output collects what a process prints. It may be given twice, as stdout and stderr.
type Output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

// String is all of it as yet.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
