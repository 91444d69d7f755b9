package supervise

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"drover/internal/proctree"
)

// survivor starts a process in a session of its own, as a job of an earlier
// life would be found.
func survivor(t *testing.T, env []string, script string) *exec.Cmd {
	t.Helper()
	out := newBuffer()
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout = out
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		_ = cmd.Wait()
	})
	out.waitFor(t, "up")
	return cmd
}

func record(t *testing.T, lines ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "jobs")
	if err := os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func bootLine(t *testing.T) string {
	t.Helper()
	id, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	return "boot " + id
}

func startOf(t *testing.T, pid int) uint64 {
	t.Helper()
	p, ok := proctree.Lookup(pid)
	if !ok {
		t.Fatalf("no process %d", pid)
	}
	return p.Start
}

func TestSurvivorsAreKilledExactly(t *testing.T) {
	job := survivor(t, nil, "sleep 600 & echo up; wait")
	marked := survivor(t, []string{"DROVER_RUN=abc"}, "echo up; sleep 600")
	stranger := survivor(t, []string{"DROVER_RUN=abcd"}, "echo up; sleep 600")
	reused := survivor(t, nil, "echo up; sleep 600") // its PID is recorded with another start time
	name := record(t, recordHeader, bootLine(t), "run abc",
		fmt.Sprintf("job %d %d", job.Process.Pid, startOf(t, job.Process.Pid)),
		fmt.Sprintf("job %d %d", reused.Process.Pid, startOf(t, reused.Process.Pid)-1))
	n, err := KillSurvivors(name)
	if err != nil {
		t.Fatal(err)
	}
	if n < 3 {
		t.Errorf("found %d processes", n)
	}
	for what, want := range map[*exec.Cmd]bool{job: false, marked: false, stranger: true, reused: true} {
		p, ok := proctree.Lookup(what.Process.Pid)
		if alive := ok && p.Alive(); alive != want {
			t.Errorf("%v: alive %v, want %v", what.Args, alive, want)
		}
	}
	if _, err := os.Stat(name); err == nil {
		t.Error("the record is still there")
	}
}

// The kernel killed the first process with the agent; its session lives on.
func TestSessionOfADeadJobIsKilled(t *testing.T) {
	job := survivor(t, nil, "trap '' TERM; sleep 600 & sleep 601 & echo up; read x")
	start := startOf(t, job.Process.Pid)
	if err := job.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Collect it without waiting for the end of its output.
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(job.Process.Pid, &ws, 0, nil); err != nil {
		t.Fatal(err)
	}
	n, err := KillSurvivors(record(t, recordHeader, bootLine(t), "run abc", fmt.Sprintf("job %d %d", job.Process.Pid, start)))
	if err != nil || n != 2 {
		t.Errorf("found %d processes (%v), want the two sleeps", n, err)
	}
}

func TestRecordOfAnotherBootKillsNobody(t *testing.T) {
	job := survivor(t, []string{"DROVER_RUN=abc"}, "echo up; sleep 600")
	n, err := KillSurvivors(record(t, recordHeader, "boot another", "run abc",
		fmt.Sprintf("job %d %d", job.Process.Pid, startOf(t, job.Process.Pid))))
	if err != nil || n != 0 {
		t.Errorf("%d, %v", n, err)
	}
	if p, ok := proctree.Lookup(job.Process.Pid); !ok || !p.Alive() {
		t.Error("a process of this boot was killed by its number")
	}
}

func TestBadRecords(t *testing.T) {
	if n, err := KillSurvivors(filepath.Join(t.TempDir(), "none")); n != 0 || err != nil {
		t.Errorf("no record: %d, %v", n, err)
	}
	for _, lines := range [][]string{
		{""}, {"something else"}, {recordHeader}, {recordHeader, "boot x"},
		{recordHeader, "boot x", "run y", "job 1 5"}, {recordHeader, "boot x", "run y", "job -5 5"},
		{recordHeader, "boot x", "run y", "job many"}, {recordHeader, "boot x", "run y", "joke 5 5"},
	} {
		name := record(t, lines...)
		if _, err := KillSurvivors(name); err == nil {
			t.Errorf("%q was accepted", lines)
		}
		if _, err := os.Stat(name); err != nil {
			t.Errorf("%q: the record was removed", lines)
		}
	}
}

// A whole life: the agent dies by SIGKILL, its jobs in part, the next one finds the rest.
func TestRecordIsWrittenAndRemoved(t *testing.T) {
	name := filepath.Join(t.TempDir(), "run", "jobs")
	out := newBuffer()
	job := sh("main", "echo up; exec sleep 600")
	job.Stdout = out
	s, err := New(Config{Jobs: []Job{job}, Record: name}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "up")
	want := fmt.Sprintf("job %d %d\n", firstOf(s).Pid, startOf(t, firstOf(s).Pid))
	for {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), want) {
			break
		}
	}
	n, err := KillSurvivors(name)
	if err != nil || n != 1 {
		t.Errorf("killed %d, %v", n, err)
	}
	<-s.Done()
	if _, err := os.Stat(name); err == nil {
		t.Error("the record is still there")
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(recordHeader + "\nboot b\nrun r\njob 5 6\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, jobs, err := parseRecord(data)
		if err != nil {
			return
		}
		for _, j := range jobs {
			if j.pid <= 1 {
				t.Errorf("accepted process %d", j.pid)
			}
		}
	})
}
