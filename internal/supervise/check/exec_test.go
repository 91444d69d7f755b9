package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/proctree"
	"drover/internal/testkit/leak"
)

func sh(script string) *Exec {
	return &Exec{Command: []string{"sh", "-c", script}, Env: os.Environ()}
}

// within is a context for a probe whose time runs out soon.
func within(t *testing.T, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, errors.New("its time is over"))
	t.Cleanup(cancel)
	return ctx
}

// alive tells whether a process runs; a zombie does not.
func alive(pid int) bool {
	p, ok := proctree.Lookup(pid)
	return ok && p.Alive()
}

// children are those of this process, zombies included.
func children(t *testing.T) []string {
	list, err := leak.Children()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// eventually waits for a condition that nobody tells of.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not after 20 s: %s", what)
		}
	}
}

// readPID reads what a script wrote by `echo PID > file`.
func readPID(t *testing.T, file string) (pid int) {
	t.Helper()
	eventually(t, file+" is written", func() bool {
		data, err := os.ReadFile(file)
		text, whole := strings.CutSuffix(string(data), "\n")
		if err != nil || !whole {
			return false
		}
		pid, err = strconv.Atoi(text)
		return err == nil
	})
	return pid
}

func TestExecTellsWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CHECK_TEST_SECRET", "the agent's")
	for _, c := range []struct {
		exec Exec
		want string // "": nothing; else a part of the error
	}{
		{Exec{Command: []string{"true"}}, ""},
		{Exec{Command: []string{"sh", "-c", "echo chatter; pwd; exit 0"}}, ""},
		{Exec{Command: []string{"sh", "-c", "echo out; echo no room >&2; exit 3"}}, "run sh: exit status 3: out\nno room"},
		{Exec{Command: []string{"false"}}, "run false: exit status 1"},
		{Exec{Command: []string{"sh", "-c", "kill -SEGV $$"}}, "signal: segmentation fault"},
		{Exec{Command: []string{"sh", "-c", "pwd; exit 1"}, Dir: dir}, dir},
		{Exec{Command: []string{"sh", "-c", "echo $A$HOME; exit 1"}, Env: []string{"A=b=c"}}, "exit status 1: b=c"},
		{Exec{Command: []string{"sh", "-c", "echo [$CHECK_TEST_SECRET]; exit 1"}}, "exit status 1: []"},
		{Exec{Command: []string{"nothing-of-that-name"}}, "find \"nothing-of-that-name\" in PATH"},
		{Exec{Command: []string{filepath.Join(dir, "nothing")}}, "no such file"},
		{Exec{Command: []string{"mine"}, Env: []string{"PATH=" + dir}}, "mine was here"},
		{Exec{Command: []string{"mine"}, Dir: dir, Env: []string{"PATH=."}}, "mine was here"},
	} {
		if err := os.WriteFile(filepath.Join(dir, "mine"), []byte("#!/bin/sh\necho mine was here; exit 1\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		err := c.exec.Probe(t.Context())
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.exec.Command, err, c.want)
		}
	}
	if err := (&Exec{Command: []string{"nowhere"}}).Probe(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	err := sh(`i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; exit 1`).Probe(t.Context())
	if text := err.Error(); len(text) > outputTail+100 || !strings.HasSuffix(text, "line 1999") {
		t.Errorf("%d bytes: %q", len(text), text)
	}
}

func TestExecBelongsToTheAgentsSession(t *testing.T) {
	file := filepath.Join(t.TempDir(), "stat")
	if err := sh("cat /proc/$$/stat > " + file).Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var pid, parent, group, session int
	var name, state string
	if _, err := fmt.Sscan(string(data), &pid, &name, &state, &parent, &group, &session); err != nil {
		t.Fatal(err)
	}
	self, _ := proctree.Lookup(os.Getpid())
	if session != self.Session || group != pid || parent != self.PID {
		t.Errorf("pid %d, parent %d, group %d, session %d; the agent is %+v", pid, parent, group, session, self)
	}
}

// At its timeout a command dies whatever it does about signals, with all that
// it has started, and none of it is left as a zombie (TestMain looks).
func TestExecIsKilledAtItsTimeout(t *testing.T) {
	if err := proctree.BecomeSubreaper(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, script := range map[string]string{
		"deaf":       `trap '' TERM INT HUP; echo waiting; echo $$ > FILE; while :; do sleep 600; done`,
		"child":      `sleep 600 & echo $! > FILE; echo waiting; wait`,
		"background": `(sleep 600 & echo $! > FILE); echo waiting; sleep 600`,
		"group":      `echo waiting; timeout 600 sh -c 'echo $$ > FILE; sleep 600'`,
		"session":    `echo waiting; setsid -w sh -c 'echo $$ > FILE; sleep 600'`,
		"stopped":    `echo $$ > FILE; echo waiting; kill -STOP $$`,
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, name)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			result := make(chan error, 1)
			go func() { result <- sh(strings.ReplaceAll(script, "FILE", file)).Probe(ctx) }()
			pid := readPID(t, file)
			cancel(errors.New("its time is over"))
			err := <-result
			if err == nil || !strings.Contains(err.Error(), "its time is over") {
				t.Errorf("%v", err)
			}
			eventually(t, "it is dead", func() bool { return !alive(pid) })
			var s strays
			eventually(t, "nothing of it is left", func() bool {
				if name == "session" { // the supervisor's to collect
					_, _ = unix.Wait4(-1, nil, unix.WNOHANG, nil)
				} else if err := s.collect(); err != nil {
					t.Fatal(err)
				}
				return len(children(t)) == 0
			})
		})
	}
	if err := sh("true").Probe(within(t, 0)); err == nil {
		t.Error("a probe whose time was over before it began")
	}
}

// What a command leaves running does not outlive it, if it is of its group, and
// does not hold up the probe, if it is not.
func TestExecLeavesSomethingRunning(t *testing.T) {
	if err := proctree.BecomeSubreaper(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "group")
	if err := sh("sleep 600 & echo $! > " + file).Probe(t.Context()); err != nil {
		t.Error(err)
	}
	if _, there := proctree.Lookup(readPID(t, file)); there {
		t.Error("it outlives its command")
	}

	// Forks twice and leaves group and session, with the pipe in its hands.
	file = filepath.Join(dir, "session")
	began := time.Now()
	if err := sh(`(setsid sh -c 'echo $$ > ` + file + `; exec sleep 600' &); while ! [ -s ` + file + ` ]; do :; done`).Probe(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the probe took %v", took)
	}
	pid := readPID(t, file)
	self, _ := proctree.Lookup(os.Getpid())
	p, ok := proctree.Lookup(pid)
	if !ok || !p.Alive() || p.PPID != self.PID || p.Session == self.Session {
		t.Errorf("%+v is to be the supervisor's", p)
	}
	// Its end is the supervisor's affair.
	_ = unix.Kill(pid, unix.SIGKILL)
	eventually(t, "it is dead", func() bool { return !alive(pid) })
	var s strays
	for range 3 {
		if err := s.collect(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
		t.Errorf("it was taken from the supervisor: %v", err)
	}
}

// A stray leaves its group, not our session: the supervisor leaves it alone. It
// ends some time after the probe, and a Runner collects it.
func TestRunnerCollectsStrays(t *testing.T) {
	if err := proctree.BecomeSubreaper(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	healthy := make(chan struct{})
	r := New([]Check{{Name: "c", Job: "a", Every: time.Hour, Prober: sh(
		`(timeout 600 sh -c 'echo $PPID > ` + file + `; exec sleep 600' >/dev/null 2>&1 &); while ! [ -s ` + file + ` ]; do :; done`,
	)}}, func(c Change) {
		if c.To == Healthy {
			close(healthy)
		}
	}, testLog(t))
	r.sweep = 10 * time.Millisecond
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	r.Started("a")
	<-healthy
	pid := readPID(t, file)
	self, _ := proctree.Lookup(os.Getpid())
	p, ok := proctree.Lookup(pid)
	if !ok || !p.Alive() || p.PPID != self.PID || p.Session != self.Session || p.Group != pid {
		t.Errorf("the test proves nothing: the stray is %+v", p)
	}
	// A command that is waited for is not taken from whoever waits.
	own := exec.Command("sh", "-c", "exit 7")
	var exit *exec.ExitError
	if err := own.Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("%v", err)
	}
	_ = unix.Kill(-pid, unix.SIGKILL)
	eventually(t, "what it left is collected", func() bool { return len(children(t)) == 0 })
	cancel()
	<-done
}

// Whoever waits for a child has the time between two looks to do it.
func TestStraysAreSeenTwice(t *testing.T) {
	child := exec.Command("true")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	pid := child.Process.Pid
	awaitEnd(pid)
	var s strays
	for look := range 2 {
		if _, there := proctree.Lookup(pid); !there {
			t.Fatalf("taken at look %d", look)
		}
		if err := s.collect(); err != nil {
			t.Fatal(err)
		}
	}
	if _, there := proctree.Lookup(pid); there {
		t.Error("still there")
	}
	_ = child.Process.Release()
}

func TestExecDiesWithTheAgent(t *testing.T) {
	if err := proctree.BecomeSubreaper(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pid")
	agent := exec.Command("/proc/self/exe")
	agent.Env = append(os.Environ(), agentVar+"=echo $$ > "+file+"; exec sleep 600")
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	pid := readPID(t, file)
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = agent.Process.Wait()
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.ECHILD && (err != nil || status.Signal() != unix.SIGKILL) {
		t.Errorf("%v, %v", err, status)
	}
}

func TestExecAsAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	e := sh("id -u; id -g; exit 1")
	e.Credential = &syscall.Credential{Uid: 65534, Gid: 65533}
	if err := e.Probe(t.Context()); err == nil || !strings.HasSuffix(err.Error(), "65534\n65533") {
		t.Errorf("%v", err)
	}
}
