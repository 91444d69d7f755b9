package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/proctree"
)

// descendants are the living processes below this one, by command line.
func descendants(t *testing.T) []string {
	t.Helper()
	table := proctree.NewTable()
	if err := table.Read(); err != nil {
		t.Fatal(err)
	}
	self := os.Getpid()
	table.Select(0, func(p *proctree.Proc) bool { return p.PPID == self })
	var found []string
	table.Selected(func(p *proctree.Proc) {
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
		found = append(found, strings.ReplaceAll(string(command), "\x00", " "))
	})
	return found
}

func run(t *testing.T, jobs ...Job) *Supervisor {
	t.Helper()
	return runWith(t, Config{Jobs: jobs})
}

// await waits until the job is in the phase.
func await(t *testing.T, s *Supervisor, name string, phase Phase) JobStatus {
	t.Helper()
	j, err := s.Await(t.Context(), name, func(j JobStatus) bool { return j.Phase == phase })
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestStatusIsTheMainJobs(t *testing.T) {
	for script, want := range map[string]int{
		"exit 0": 0, "exit 1": 1, "exit 77": 77, "exit 255": 255,
		"kill -TERM $$": 128 + 15, "kill -KILL $$": 128 + 9, "kill -SEGV $$": 128 + 11,
	} {
		main := sh("main", script)
		main.Main = true
		s := run(t, main)
		<-s.Done()
		if s.Status() != want {
			t.Errorf("%s: status %d, want %d", script, s.Status(), want)
		}
	}
}

func TestCommandThatCannotStart(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]int{"no-such-command": 127, "/no/such/command": 127, plain: 126} {
		s := run(t, Job{Name: "main", Main: true, Command: []string{command}})
		<-s.Done()
		if s.Status() != want {
			t.Errorf("%s: status %d, want %d", command, s.Status(), want)
		}
	}
}

// What is not there yet but comes with the volume is not missing, by whatever way
// the command's name leads to it.
func TestMissing(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	for link, to := range map[string]string{"direct": "state/bin/app", "chain": "direct", "tree": "state/opt", "loop": "loop", "away": "nowhere/app"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for command, want := range map[string]int{
		"sh": 0, "/bin/sh": 0, "no-such-command": 127, "/no/such/command": 127, "./app": 127,
		state: 0, state + "/bin/app": 0, state + "x/app": 127,
		dir + "/direct": 0, dir + "/chain": 0, dir + "/tree/deep/app": 0, dir + "/away": 127, dir + "/loop": 0, dir + "/loop/app": 127,
	} {
		for _, exists := range []bool{false, true} {
			if exists {
				if err := os.MkdirAll(state, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			job := Job{Name: "main", Command: []string{command}, Dir: dir, Env: []string{"PATH=/usr/bin:/bin"}}
			if got, err := job.Missing([]string{state}); got != want || (err != nil) != (want != 0) {
				t.Errorf("%s (state there: %t): %d, %v; want %d", command, exists, got, err, want)
			}
		}
		if err := os.RemoveAll(state); err != nil {
			t.Fatal(err)
		}
	}
	job := Job{Name: "main", Command: []string{"app"}, Env: []string{"PATH=/usr/bin:" + dir + "/tree"}}
	if got, err := job.Missing([]string{state}); got != 0 {
		t.Errorf("in a PATH that leads into the volume: %d, %v", got, err)
	}
}

func TestStopAsksFirst(t *testing.T) {
	out := newBuffer()
	job := sh("main", `trap 'echo stopping; exit 3' TERM; echo up; while :; do sleep 0.01; done`)
	job.Main, job.Stdout, job.StopGrace = true, out, time.Minute
	s := run(t, job)
	out.waitFor(t, "up")
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Status() != 3 || !strings.Contains(out.String(), "stopping") {
		t.Errorf("status %d, output %q", s.Status(), out.String())
	}
}

func TestStopKillsTheDeafAfterTheirGrace(t *testing.T) {
	out := newBuffer()
	const grace = 300 * time.Millisecond
	job := sh("main", `trap '' TERM; echo up; while :; do sleep 0.05; done`)
	job.Main, job.Stdout, job.StopGrace = true, out, grace
	s := run(t, job)
	out.waitFor(t, "up")
	begin := time.Now()
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < grace {
		t.Errorf("killed after %v, before its grace of %v", took, grace)
	}
	if s.Status() != 128+9 {
		t.Errorf("status %d", s.Status())
	}
}

// The wrapper dies of the signal at once; the application behind it saves its
// state first, and is let do so.
func TestApplicationBehindAShellGetsItsGrace(t *testing.T) {
	out := newBuffer()
	job := sh("main", `sh -c 'trap "sleep 0.3; echo saved; exit 0" TERM; echo up; while :; do sleep 0.01; done'; echo not reached`)
	job.Main, job.Stdout, job.StopGrace = true, out, time.Minute
	s := run(t, job)
	out.waitFor(t, "up")
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "saved") || strings.Contains(got, "not reached") {
		t.Errorf("output %q", got)
	}
}

func TestStopIsTheReverseOfStart(t *testing.T) {
	out := newBuffer()
	var jobs []Job
	for i, name := range []string{"one", "two", "three"} {
		job := sh(name, `trap 'sleep 0.1; echo end '$DROVER_JOB'; exit 0' TERM; echo up; while :; do sleep 0.01; done`)
		job.Stdout = out
		if i > 0 {
			job.After = map[string]Milestone{jobs[i-1].Name: WasStarted}
		}
		jobs = append(jobs, job)
	}
	s := run(t, jobs...)
	for strings.Count(out.String(), "up") < len(jobs) {
		<-out.grew
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.ReplaceAll(out.String(), "up\n", ""); got != "end three\nend two\nend one\n" {
		t.Errorf("order %q", got)
	}
}

// escapists try not to be found; each prints "up" when all of it runs.
var escapists = map[string]string{
	"setsid":      `setsid sleep 600 & echo up; wait`,
	"double fork": `(setsid sh -c 'sleep 600 & sleep 601 & wait' &) ; sleep 0.1; echo up; sleep 600`,
	"orphans":     `for i in 1 2 3 4 5; do (sleep 600 &) ; done; echo up; sleep 600`,
	"deaf":        `trap '' TERM INT HUP; (trap '' TERM; setsid sleep 600 &); echo up; while :; do sleep 1; done`,
	"bare daemon": `(env -i setsid /bin/sleep 600 &); sleep 0.1; echo up; sleep 600`,
	"stopped":     `setsid sh -c 'kill -STOP $$' & sleep 0.1; echo up; sleep 600`,
}

func TestKillLeavesNothing(t *testing.T) {
	for name, script := range escapists {
		t.Run(name, func(t *testing.T) {
			out := newBuffer()
			job, other := sh("main", script), sh("other", "exec sleep 600")
			job.Main, job.Stdout = true, out
			s := run(t, job, other)
			out.waitFor(t, "up")
			begin := time.Now()
			if err := s.Kill(); err != nil {
				t.Fatal(err)
			}
			t.Logf("killed in %v", time.Since(begin))
			if left := descendants(t); len(left) != 0 {
				t.Errorf("alive after Kill: %q", left)
			}
			<-s.Done()
			if s.Status() != 128+9 {
				t.Errorf("status %d", s.Status())
			}
		})
	}
}

func TestStopLeavesNothing(t *testing.T) {
	for name, script := range escapists {
		t.Run(name, func(t *testing.T) {
			out := newBuffer()
			job, other := sh("main", script), sh("other", "exec sleep 600")
			job.Main, job.Stdout, job.StopGrace = true, out, 200*time.Millisecond
			s := run(t, job, other)
			out.waitFor(t, "up")
			if err := s.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			if left := descendants(t); len(left) != 0 {
				t.Errorf("alive after Stop: %q", left)
			}
		})
	}
}

// What a job leaves when it ends by itself goes with it, and only that.
func TestEndedJobTakesItsDaemonsAlong(t *testing.T) {
	out := newBuffer()
	other := sh("other", "echo other up; exec sleep 600")
	other.Stdout = out
	leaver := sh("leaver", `(setsid sleep 601 &); sleep 0.1; echo leaver up; exit 0`)
	leaver.Stdout, leaver.StopGrace = out, 100*time.Millisecond
	s := run(t, other, leaver)
	out.waitFor(t, "leaver up")
	out.waitFor(t, "other up")
	for len(descendants(t)) != 1 {
		runtime.Gosched()
	}
	if left := descendants(t); !strings.Contains(left[0], "sleep 600") {
		t.Errorf("the wrong one is left: %q", left)
	}
	select {
	case <-s.Done():
		t.Error("the supervisor ended while a job runs")
	default:
	}
}

func TestEndOfTheContextKills(t *testing.T) {
	out := newBuffer()
	job := sh("main", `trap '' TERM; echo up; while :; do sleep 1; done`)
	job.Main, job.Stdout, job.StopGrace = true, out, time.Hour
	s, err := New(Config{Jobs: []Job{job}}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "up")
	cancel()
	<-s.Done()
	if s.Status() != 128+9 || len(descendants(t)) != 0 {
		t.Errorf("status %d, left %q", s.Status(), descendants(t))
	}
}

func TestNoJobStartsAfterKill(t *testing.T) {
	for round := range 60 {
		var jobs []Job
		for i := range 4 {
			job := sh(fmt.Sprint("j", i), "exec sleep 600")
			job.Restart = Restart{Policy: Always, Delay: time.Nanosecond}
			jobs = append(jobs, job)
		}
		s, err := New(Config{Jobs: jobs}, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		// In the middle of the starts, a little later each time.
		for range round * 100 {
			runtime.Gosched()
		}
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		if left := descendants(t); len(left) != 0 {
			t.Fatalf("alive after Kill: %q", left)
		}
		<-s.Done()
		if left := descendants(t); len(left) != 0 {
			t.Fatalf("alive after Done: %q", left)
		}
	}
	s, err := New(Config{Jobs: []Job{sh("j", "exit 0")}}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); !errors.Is(err, ErrKilled) {
		t.Errorf("Start after Kill: %v", err)
	}
}

func TestKillSparesTheAgentsOwnChildren(t *testing.T) {
	own, err := os.StartProcess("/bin/sleep", []string{"sleep", "600"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	out := newBuffer()
	job := sh("j", "(true &); echo up; exec sleep 600")
	job.Stdout = out
	s := run(t, job)
	out.waitFor(t, "up")
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	if err := own.Kill(); err != nil {
		t.Errorf("the agent's own child is gone: %v", err)
	}
	state, err := own.Wait()
	if err != nil {
		t.Errorf("somebody else took the exit status: %v", err)
	} else if ws := state.Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL {
		t.Errorf("%v", state)
	}
}

func TestSignal(t *testing.T) {
	out := newBuffer()
	job := sh("main", `trap 'echo hup' HUP; echo up; while :; do sleep 0.01; done`)
	job.Stdout = out
	s := run(t, job)
	out.waitFor(t, "up")
	if err := s.Signal("main", unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "hup")
	if j := await(t, s, "main", Running); j.PID != firstOf(s).Pid || !j.Ready || j.Runs != 1 {
		t.Errorf("%+v, process %d", j, firstOf(s).Pid)
	}
	if err := s.Signal("nobody", unix.SIGHUP); !errors.Is(err, ErrUnknownJob) {
		t.Error(err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Signal("main", unix.SIGHUP); !errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
	if j := s.Jobs()[0]; j.Phase != Ended || j.PID != 0 || !j.Ended || j.Exit != 128+15 {
		t.Errorf("%+v", j)
	}
}

func TestFailingJobIsRestarted(t *testing.T) {
	count := filepath.Join(t.TempDir(), "count")
	job := sh("main", `echo x >> `+count+`; test $(wc -l < `+count+`) -ge 4 || exit 5`)
	job.Main, job.Restart = true, Restart{Policy: OnFailure, Delay: time.Millisecond}
	s := run(t, job)
	<-s.Done()
	if got, _ := os.ReadFile(count); string(got) != "x\nx\nx\nx\n" || s.Status() != 0 {
		t.Errorf("status %d after %q", s.Status(), got)
	}
}

func TestOutputIsWhole(t *testing.T) {
	const lines = 200_000
	out := newBuffer()
	job := sh("main", fmt.Sprintf("seq 1 %d; printf 'no newline'", lines))
	job.Main, job.Stdout, job.Prefix = true, out, "main | "
	s := run(t, job)
	<-s.Done()
	got := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(got) != lines+1 || got[0] != "main | 1" || got[lines-1] != fmt.Sprint("main | ", lines) || got[lines] != "main | no newline" {
		t.Errorf("%d lines, the last %q", len(got), got[len(got)-1])
	}
}

func TestFileGetsOutputDirectly(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	job := sh("main", "readlink /proc/self/fd/1; echo to stderr >&2")
	job.Main, job.Stdout, job.Stderr = true, file, file
	s := run(t, job)
	<-s.Done()
	if got, _ := os.ReadFile(file.Name()); string(got) != file.Name()+"\nto stderr\n" {
		t.Errorf("output %q", got)
	}
}

// stuck never returns from Write until it is released.
type stuck chan struct{}

func (s stuck) Write(p []byte) (int, error) { <-s; return len(p), nil }

func TestStuckReaderHoldsNothingUpForEver(t *testing.T) {
	reader := make(stuck)
	job := sh("main", "seq 1 200000; echo done")
	job.Main, job.Stdout = true, reader
	s, err := New(Config{Jobs: []Job{job}}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	s.stall = 50 * time.Millisecond
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	if s.Status() != 0 {
		t.Errorf("status %d", s.Status())
	}
	close(reader)
}

// A daemon outside the job that holds the job's output open does not keep Done.
func TestOutputHeldOpenByOthers(t *testing.T) {
	out := newBuffer()
	hold := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(hold, 0o600); err != nil {
		t.Fatal(err)
	}
	job := sh("main", "echo up; read x < "+hold+"; echo last words")
	job.Main, job.Stdout = true, out
	s := run(t, job)
	out.waitFor(t, "up")
	matches, err := os.Open(fmt.Sprintf("/proc/%d/fd/1", firstOf(s).Pid))
	if err == nil {
		defer matches.Close()
	}
	theirs, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/1", firstOf(s).Pid), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	fifo, err := os.OpenFile(hold, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(fifo, "go\n")
	fifo.Close()
	<-s.Done()
	if !strings.Contains(out.String(), "last words") {
		t.Errorf("output %q", out.String())
	}
}

func firstOf(s *Supervisor) *os.Process {
	s.jobs[0].mu.Lock()
	defer s.jobs[0].mu.Unlock()
	return s.jobs[0].process
}

func TestManyShortJobsLeakNothing(t *testing.T) {
	// Once before counting: the runtime keeps threads and descriptors of its own.
	<-run(t, sh("warm-up", "exit 0")).Done()
	fds, goroutines := openFiles(t), runtime.NumGoroutine()
	const total, together = 200, 20
	for range total / together {
		var jobs []Job
		for i := range together {
			job := sh(fmt.Sprint("j", i), `(sleep 0.01 &); echo out; echo err >&2; exit 1`)
			job.Stdout, job.Stderr, job.Prefix = newBuffer(), newBuffer(), "p "
			jobs = append(jobs, job)
		}
		s, err := New(Config{Jobs: jobs}, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-s.Done()
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); openFiles(t) > fds || runtime.NumGoroutine() > goroutines; {
		select {
		case <-tick.C: // who has told of its end may not be gone yet
		case <-deadline:
			t.Fatalf("%d open files, %d before; %d goroutines, %d before", openFiles(t), fds, runtime.NumGoroutine(), goroutines)
		}
	}
	table := proctree.NewTable()
	if err := table.Read(); err != nil {
		t.Fatal(err)
	}
	for i := range table.Procs {
		if p := &table.Procs[i]; p.PPID == os.Getpid() {
			t.Errorf("a child is left: %+v", *p)
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
