package databasetest

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/internal/testkit/process"
)

// Process is a server with all that it has started.
type Process struct {
	cmd  *exec.Cmd
	out  process.Output
	done chan struct{} // closed when cmd was waited for
}

// Start starts one, and kills it at the end of the test.
func Start(t testing.TB, command []string, user *syscall.Credential) *Process {
	t.Helper()
	p := &Process{cmd: exec.Command(command[0], command[1:]...), done: make(chan struct{})} //nolint:noctx // it is killed by its tree
	p.cmd.Dir = "/"
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s said:\n%s", strings.Join(command, " "), p.Said())
		}
	})
	return p
}

// Ended says whether the process has ended, whatever is left of those that it started.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Said is the end of what it has printed.
func (p *Process) Said() string {
	all := p.out.String()
	if skip := len(all) - 3<<10; skip > 0 {
		return "…" + all[skip:]
	}
	return all
}

// Signal reaches the process and all its descendants, the parents first, and returns who they are.
func (p *Process) Signal(sig syscall.Signal) []int {
	pids := []int{p.cmd.Process.Pid}
	for i := 0; i < len(pids); i++ {
		if !p.Ended() || i > 0 {
			_ = syscall.Kill(pids[i], sig)
		}
		pids = append(pids, children(pids[i])...)
	}
	return pids
}

// Kill ends all of them, and waits until none is left.
func (p *Process) Kill() {
	pids := p.Signal(syscall.SIGSTOP) // so that none starts another one
	for _, pid := range pids {
		if pid != p.cmd.Process.Pid || !p.Ended() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	<-p.done
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); {
		alive := false
		for _, pid := range pids {
			alive = alive || living(pid)
		}
		if !alive {
			return
		}
		<-time.After(5 * time.Millisecond)
	}
}

func children(pid int) []int {
	var found []int
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	for f := range strings.FieldsSeq(string(text)) {
		if n, err := strconv.Atoi(f); err == nil {
			found = append(found, n)
		}
	}
	return found
}

// living says whether a process is there, and no zombie that somebody else has to wait for.
func living(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}
