package supervise

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"drover/internal/proctree"
)

// agentVar makes the test binary an agent: it runs one job, a script, with the
// record named before the first space, and then waits to be killed.
const agentVar = "SUPERVISE_TEST_AGENT"

func agent(what string) int {
	record, script, _ := strings.Cut(what, " ")
	job := sh("main", script)
	job.Main, job.Stdout = true, os.Stdout
	s, err := New(Config{Jobs: []Job{job}, Record: record}, slog.New(slog.DiscardHandler))
	if err == nil {
		err = s.Start(context.Background())
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	// Threads come and go; the job's parent-death signal must not.
	for range 20 {
		ended := make(chan struct{})
		go func() { defer close(ended); runtime.LockOSThread() }()
		<-ended
	}
	<-s.Done()
	return s.Status()
}

func TestJobsOfAnAgentThatDies(t *testing.T) {
	if err := proctree.BecomeSubreaper(); err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(t.TempDir(), "jobs")
	// Not in the job's own shell: it is to be asked for by its PID.
	const script = `setsid sh -c 'echo daemon $$; exec sleep 600' & sleep 600 & sleep 0.3; echo child $!; echo first $$; wait`
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), agentVar+"="+record+" "+script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pids := map[string]int{}
	for lines := bufio.NewScanner(out); len(pids) < 3 && lines.Scan(); {
		var name string
		var pid int
		if n, _ := fmt.Sscan(lines.Text(), &name, &pid); n == 2 {
			pids[name] = pid
		}
	}
	if len(pids) != 3 {
		t.Fatalf("the job said %v", pids)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = cmd.Process.Wait()
	// The kernel kills the first process. It is an orphan of ours now, unless a
	// thread of the dying agent has collected it with its last breath.
	var status unix.WaitStatus
	if _, err := unix.Wait4(pids["first"], &status, 0, nil); err != unix.ECHILD && (err != nil || status.Signal() != unix.SIGKILL) {
		t.Errorf("the first process: %v, signal %v", err, status.Signal())
	}
	for _, name := range []string{"child", "daemon"} {
		if p, ok := proctree.Lookup(pids[name]); !ok || !p.Alive() {
			t.Errorf("the test proves nothing: the %s is dead already", name)
		}
	}
	n, err := KillSurvivors(record)
	if err != nil || n < 2 {
		t.Errorf("found %d survivors, %v", n, err)
	}
	for name, pid := range pids {
		if p, ok := proctree.Lookup(pid); ok && p.Alive() {
			t.Errorf("the %s lives", name)
		}
	}
	for _, name := range []string{"child", "daemon"} {
		_, _ = unix.Wait4(pids[name], nil, 0, nil)
	}
}
