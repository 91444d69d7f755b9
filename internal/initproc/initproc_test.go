package initproc_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/initproc"
	"drover/internal/proctree"
)

// agent is one shim with its worker, run from the test binary.
type agent struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
}

// start runs the shim; asInit makes it PID 1 of a PID namespace of its own.
func start(t *testing.T, role string, asInit bool) *agent {
	t.Helper()
	a := &agent{cmd: exec.Command("/proc/self/exe")}
	a.cmd.Env = append(os.Environ(), roleVar+"="+role)
	a.cmd.Stderr = &a.stderr
	// What the killed processes held open must not keep Wait waiting.
	a.cmd.WaitDelay = 10 * time.Second
	if asInit {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		if a.cmd.Path, err = exec.LookPath("unshare"); err != nil {
			t.Fatal(err)
		}
		a.cmd.Args = []string{"unshare", "--pid", "--fork", "--mount-proc", "--kill-child"}
		if os.Geteuid() != 0 {
			a.cmd.Args = append(a.cmd.Args, "--map-root-user")
		}
		a.cmd.Args = append(a.cmd.Args, exe)
	}
	var err error
	if a.stdin, err = a.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	a.out = bufio.NewReader(out)
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.cmd.Process.Kill() })
	return a
}

func (a *agent) line(t *testing.T) string {
	t.Helper()
	line, err := a.out.ReadString('\n')
	if err != nil {
		_ = a.cmd.Wait()
		t.Fatalf("read a line: %v; stderr: %s", err, a.stderr.String())
	}
	return strings.TrimSpace(line)
}

func (a *agent) exit(t *testing.T) int {
	t.Helper()
	_ = a.cmd.Wait()
	return a.cmd.ProcessState.ExitCode()
}

func eachMode(t *testing.T, f func(t *testing.T, asInit bool)) {
	t.Run("subreaper", func(t *testing.T) { f(t, false) })
	t.Run("pid1", func(t *testing.T) { f(t, true) })
}

func TestExitStatusIsTheWorkers(t *testing.T) {
	eachMode(t, func(t *testing.T, asInit bool) {
		for _, code := range []int{0, 1, 7, 255} {
			a := start(t, fmt.Sprint("exit ", code), asInit)
			if got := a.exit(t); got != code {
				t.Errorf("exit status %d, want %d", got, code)
			}
			if a.stderr.Len() != 0 {
				t.Errorf("an ordinary end says %q", a.stderr.String())
			}
		}
	})
}

func TestDeadWorkerIsReported(t *testing.T) {
	eachMode(t, func(t *testing.T, asInit bool) {
		a := start(t, "die", asInit)
		if got := a.exit(t); got != 128+9 {
			t.Errorf("exit status %d, want 137", got)
		}
		if said := a.stderr.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "the worker died of SIGKILL") {
			t.Errorf("says %q", said)
		}
	})
}

func TestPID1ExitedZeroWhenTheWorkerFailed(t *testing.T) {
	a := start(t, "panic", false)
	if got := a.exit(t); got == 0 {
		t.Error("exit status 0 after a panic")
	}
}

func TestSignalsAreForwarded(t *testing.T) {
	a := start(t, "signals 15", false)
	if got := a.line(t); got != "ready" {
		t.Fatalf("worker says %q", got)
	}
	for _, sig := range []unix.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH,
		unix.SIGALRM, unix.SIGPWR, 35, 40, 64, unix.SIGTERM,
	} {
		if signal.Ignored(sig) { // nohup: it stays so
			continue
		}
		if err := a.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if got, want := a.line(t), fmt.Sprint("got ", int(sig)); got != want {
			t.Errorf("after %d: %q", sig, got)
		}
	}
	if got := a.exit(t); got != 0 {
		t.Errorf("exit status %d", got)
	}
}

// escapists start processes that try not to be found. Each prints one line when
// all of them run.
var escapists = map[string]string{
	"child":       `sleep 600 & echo up; wait`,
	"setsid":      `setsid sleep 600 & echo up; wait`,
	"double fork": `(setsid sh -c 'sleep 600 & sleep 601 & wait' &) ; echo up; sleep 600`,
	"orphans":     `for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 600 &) ; done; echo up`,
	"deaf":        `trap '' TERM INT HUP; (trap '' TERM; setsid sleep 600 &); echo up; while :; do sleep 1; done`,
}

// survivors are the living descendants of this test process besides known ones.
func survivors(t *testing.T) []string {
	t.Helper()
	table := proctree.NewTable()
	if err := table.Read(); err != nil {
		t.Fatal(err)
	}
	self := os.Getpid()
	table.Select(0, func(p *proctree.Proc) bool { return p.PPID == self })
	var found []string
	table.Selected(func(p *proctree.Proc) {
		command, _ := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/cmdline")
		found = append(found, strings.ReplaceAll(string(command), "\x00", " "))
	})
	return found
}

// The test process is a subreaper itself: what escapes the shim shows up here.
func TestNothingSurvivesTheWorker(t *testing.T) {
	if err := proctree.BecomeSubreaper(); err != nil {
		t.Fatal(err)
	}
	ends := map[string]func(t *testing.T, a *agent){
		"in order": func(t *testing.T, a *agent) { a.stdin.Close() },
		"by SIGKILL": func(t *testing.T, a *agent) {
			if err := unix.Kill(workerOf(t, a.cmd.Process.Pid), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, script := range escapists {
		for how, end := range ends {
			t.Run(name+" "+how, func(t *testing.T) {
				a := start(t, "sh "+script, false)
				if got := a.line(t); got != "up" {
					t.Fatalf("job says %q", got)
				}
				end(t, a)
				code := a.exit(t)
				if left := survivors(t); len(left) != 0 {
					t.Errorf("survivors: %q", left)
				}
				if how == "by SIGKILL" && code != 137 {
					t.Errorf("exit status %d", code)
				}
				if !strings.Contains(a.stderr.String(), "killed the ") {
					t.Errorf("says %q, not that it had to kill", a.stderr.String())
				}
			})
		}
	}
}

func workerOf(t *testing.T, shim int) int {
	t.Helper()
	table := proctree.NewTable()
	if err := table.Read(); err != nil {
		t.Fatal(err)
	}
	for i := range table.Procs {
		if table.Procs[i].PPID == shim {
			return table.Procs[i].PID
		}
	}
	t.Fatal("the shim has no child")
	return 0
}

func TestWorkerNoticesThatTheShimIsGone(t *testing.T) {
	if err := proctree.BecomeSubreaper(); err != nil {
		t.Fatal(err)
	}
	a := start(t, "sh sleep 600 & echo up; wait", false)
	if got := a.line(t); got != "up" {
		t.Fatalf("job says %q", got)
	}
	worker := workerOf(t, a.cmd.Process.Pid)
	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := a.line(t); got != "shim gone" {
		t.Errorf("worker says %q", got)
	}
	killer, err := proctree.NewKiller()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := killer.Kill(func(p *proctree.Proc) bool { return p.PPID == killer.Self().PID }); err != nil {
		t.Fatal(err)
	}
	a.exit(t)
	if _, err := killer.ReapZombies(func(p *proctree.Proc) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if p, ok := proctree.Lookup(worker); ok && p.Alive() {
		t.Error("the worker still runs")
	}
}

func TestShimIsSmall(t *testing.T) {
	a := start(t, "sh echo up", false)
	a.line(t)
	status, err := os.ReadFile("/proc/" + strconv.Itoa(a.cmd.Process.Pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kilobytes int
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kilobytes); n == 1 {
			t.Logf("the shim's resident set: %d kB", kilobytes)
			// The race detector's shadow memory is not the shim's fault.
			if kilobytes > 10<<10 && !raceEnabled {
				t.Errorf("the shim's resident set is %d kB, want under 10 MiB", kilobytes)
			}
		}
	}
	a.stdin.Close()
	a.exit(t)
}

func TestAttachOutsideAShim(t *testing.T) {
	if initproc.IsWorker() {
		t.Error("the test process takes itself for a worker")
	}
	if _, err := initproc.Attach(); err == nil {
		t.Error("Attach succeeded without a shim")
	}
}
