package supervise

import (
	"errors"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// told collects what a Supervisor emits.
type told struct {
	mu     sync.Mutex
	events []string
}

func (e *told) emit(x Emitted) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.events = append(e.events, strings.TrimSuffix(x.Name+":"+x.Source, ":"))
}

func (e *told) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.events)
}

// runWith starts a Supervisor of a Config, as run does.
func runWith(t *testing.T, cfg Config) *Supervisor {
	t.Helper()
	s, err := New(cfg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Kill(); err != nil {
			t.Error(err)
		}
		<-s.Done()
		if left := descendants(t); len(left) != 0 {
			t.Errorf("left behind: %q", left)
		}
	})
	return s
}

// tellNotify is a Python program that tells readiness as systemd's services do.
const tellNotify = `
import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
name = os.environ["NOTIFY_SOCKET"]
s.connect("\0" + name[1:] if name[0] == "@" else name)
s.send(b"STATUS=nearly")
s.send(b"STATUS=there\nREADY=1")
print("told")
`

// Each way to tell readiness is believed when it is told, and not before.
func TestReadiness(t *testing.T) {
	gate := t.TempDir() + "/gate"
	wait := "while [ ! -e " + gate + " ]; do sleep 0.01; done; "
	const notify = "python3 -c '" + tellNotify + "'; "
	ways := map[string]Job{
		"fd":     {Command: []string{"sh", "-c", wait + "echo >&5; exec sleep 600"}, Ready: Readiness{FD: 5}},
		"notify": {Command: []string{"sh", "-c", wait + notify + "exec sleep 600"}, Ready: Readiness{Notify: true}},
		"log":    {Command: []string{"sh", "-c", "echo not serving; " + wait + "printf 'now '; echo serving 1; exec sleep 600"}, Ready: Readiness{Log: regexp.MustCompile("^now serving [0-9]")}},
	}
	var jobs []Job
	after := map[string]Milestone{}
	for name, job := range ways {
		job.Name, job.Env = name, os.Environ()
		jobs = append(jobs, job)
		after[name] = WasReady
	}
	out := newBuffer()
	app := sh("app", "echo up; exec sleep 600")
	app.After, app.Stdout = after, out
	s := runWith(t, Config{Jobs: append(jobs, app)})
	for name := range ways {
		if j := await(t, s, name, Running); j.Ready {
			t.Errorf("%s is ready before it said so", name)
		}
	}
	if out.String() != "" {
		t.Error("the application runs before what it waits for is ready")
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "up")
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The ancestor cut values of the environment at a second =, and its per-job stop
// timeout never fired; see the checks in the packages config and check for others.
func TestEnvValuesCutAtASecondEquals(t *testing.T) {
	out := newBuffer()
	job := sh("main", `echo "[$A][$B][$C]"`)
	job.Env = JobEnv(os.Environ(), []string{"A=x=y=z", "B==", "C=user=1,host=2"})
	job.Main, job.Stdout = true, out
	s := runWith(t, Config{Jobs: []Job{job}})
	<-s.Done()
	if out.String() != "[x=y=z][=][user=1,host=2]\n" {
		t.Errorf("%q", out.String())
	}
}

func TestPerJobStopTimeoutNeverFired(t *testing.T) {
	deaf := sh("deaf", `trap '' TERM; echo up; while :; do sleep 0.05; done`)
	out := newBuffer()
	deaf.Stdout, deaf.StopGrace = out, 300*time.Millisecond
	other := sh("other", "exec sleep 600")
	other.StopGrace = time.Hour
	s := runWith(t, Config{Jobs: []Job{deaf, other}})
	out.waitFor(t, "up")
	if err := s.StopJob(t.Context(), "deaf"); err != nil {
		t.Fatal(err)
	}
	if j := await(t, s, "deaf", Ended); j.Exit != 128+9 || !j.Held {
		t.Errorf("%+v", j)
	}
	if j := await(t, s, "other", Running); j.Runs != 1 {
		t.Errorf("%+v", j)
	}
}

func TestShutdownAlwaysSleptTheFullTimeout(t *testing.T) {
	out := newBuffer()
	var jobs []Job
	for _, name := range []string{"a", "b", "c"} {
		j := sh(name, "echo up; exec sleep 600")
		j.StopGrace, j.Stdout = time.Hour, out
		jobs = append(jobs, j)
	}
	s := runWith(t, Config{Jobs: jobs})
	for strings.Count(out.String(), "up") < 3 {
		<-out.grew
	}
	if err := s.Stop(t.Context()); err != nil { // with an hour of grace, this would not end
		t.Fatal(err)
	}
}

// A chain: prepare, then serve, then at each event, and at the end; with the hooks of a stop.
func TestJobsByEvents(t *testing.T) {
	out, events := newBuffer(), &told{}
	say := func(name string) Job {
		j := sh(name, "echo $DROVER_JOB")
		j.Stdout = out
		return j
	}
	prep, app, on, drain, bye := say("prep"), sh("app", `trap 'echo app ends; exit 3' TERM; echo app; while :; do sleep 0.01; done`), say("on"), say("drain"), say("bye")
	prepared := newBuffer() // what two jobs write comes in any order
	prep.Stdout = prepared
	app.Main, app.Stdout, app.After = true, out, map[string]Milestone{"prep": HasSucceeded}
	on.On = []Cause{{Name: "committed"}}
	drain.BeforeStop, bye.AfterStop = []string{"app"}, []string{"app"}
	s := runWith(t, Config{Jobs: []Job{prep, on, drain, bye, app}, Emit: events.emit})
	prepared.waitFor(t, "prep\n")
	out.waitFor(t, "app\n")
	s.Happened("committed", "")
	out.waitFor(t, "on\n")
	if _, err := s.Await(t.Context(), "on", func(j JobStatus) bool { return j.Phase == Idle && j.Runs == 1 }); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(strings.ReplaceAll(out.String(), "app ends", "app-ends")); strings.Join(got, " ") != "app on drain app-ends bye" {
		t.Errorf("%q", got)
	}
	want := []string{"startup", "started:prep", "ready:prep", "exit:prep", "succeeded:prep", "started:app", "ready:app",
		"started:on", "ready:on", "exit:on", "succeeded:on", "shutdown", "started:drain", "ready:drain", "exit:drain", "succeeded:drain",
		"stopping:app", "exit:app", "stopped:app", "started:bye", "ready:bye", "exit:bye", "succeeded:bye"}
	if got := events.all(); !slices.Equal(got, want) {
		t.Errorf("events\n%v\nwant\n%v", got, want)
	}
	if s.Status() != 3 {
		t.Errorf("status %d", s.Status())
	}
}

func TestTurnsAndTimeout(t *testing.T) {
	out := newBuffer()
	every := sh("every", "echo turn; exec sleep 600")
	every.Every, every.Timeout, every.Stdout = 50*time.Millisecond, 100*time.Millisecond, out
	s := runWith(t, Config{Jobs: []Job{every}})
	for strings.Count(out.String(), "turn") < 3 {
		<-out.grew
	}
	j, err := s.Await(t.Context(), "every", func(j JobStatus) bool { return j.Phase == Idle })
	if err != nil || j.Exit != 124 || j.Due.IsZero() {
		t.Errorf("%+v, %v", j, err)
	}
}

// everySecond is a Schedule.
type everySecond struct{}

func (everySecond) Next(t time.Time) time.Time { return t.Truncate(time.Second).Add(time.Second) }

func TestSchedule(t *testing.T) {
	out := newBuffer()
	job := sh("cron", "echo turn")
	job.Schedule, job.Stdout = everySecond{}, out
	s := runWith(t, Config{Jobs: []Job{job}})
	for strings.Count(out.String(), "turn") < 2 {
		<-out.grew
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestSignalsAreRewritten(t *testing.T) {
	out := newBuffer()
	job := sh("main", `trap 'echo usr1' USR1; echo up; while :; do sleep 0.01; done`)
	job.Stdout, job.Signals = out, map[unix.Signal]unix.Signal{unix.SIGHUP: unix.SIGUSR1}
	s := runWith(t, Config{Jobs: []Job{job}})
	out.waitFor(t, "up")
	if err := s.Signal("main", unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "usr1")
}

func TestStopCommand(t *testing.T) {
	flag := t.TempDir() + "/stop"
	out := newBuffer()
	job := sh("main", `trap 'echo signalled' TERM; echo up; while [ ! -e `+flag+` ]; do sleep 0.01; done; echo by command`)
	job.Main, job.Stdout, job.StopCommand = true, out, []string{"touch", flag}
	failing := sh("failing", `trap 'echo by signal; exit 0' TERM; echo up; while :; do sleep 0.01; done`)
	failing.Stdout, failing.StopCommand, failing.StopGrace = out, []string{"false"}, time.Hour
	s := runWith(t, Config{Jobs: []Job{failing, job}})
	for strings.Count(out.String(), "up") < 2 {
		<-out.grew
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Contains(got, "signalled") || !strings.Contains(got, "by command") || !strings.Contains(got, "by signal") {
		t.Errorf("%q", got)
	}
}

// The program never runs without its limits, and the agent keeps its own.
func TestLimits(t *testing.T) {
	var before, after unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	out := newBuffer()
	job := sh("main", `ulimit -n; ulimit -c; nice; cat /proc/self/oom_score_adj; trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done`)
	job.Main, job.Stdout = true, out
	job.Limits = Limits{Resources: map[int]uint64{unix.RLIMIT_NOFILE: 77, unix.RLIMIT_CORE: 0}, Nice: 5, OOM: 300}
	bad := sh("bad", "echo never")
	bad.Stdout, bad.Limits = out, Limits{Resources: map[int]uint64{99: 1}}
	s := runWith(t, Config{Jobs: []Job{bad, job}})
	out.waitFor(t, "up")
	if j := await(t, s, "bad", Ended); j.Exit != 126 {
		t.Errorf("%+v", j)
	}
	s.pids.Lock()
	if len(s.first) != 1 {
		t.Errorf("%d first processes; what could not be limited is not collected", len(s.first))
	}
	s.pids.Unlock()
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != "77\n0\n5\n300\nup\nbye\n" {
		t.Errorf("%q", got)
	}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &after); err != nil || before != after {
		t.Errorf("the agent's limit was %v and is %v, %v", before, after, err)
	}
}

func TestPutEnv(t *testing.T) {
	out := newBuffer()
	job := sh("main", `echo "[$A][$B][$DROVER_JOB]"; exec sleep 600`)
	job.Env, job.Stdout = append(os.Environ(), "A=old", "B=old"), out
	s := runWith(t, Config{Jobs: []Job{job}})
	out.waitFor(t, "[old][old][main]")
	fresh := "new=value"
	s.PutEnv(map[string]*string{"A": &fresh, "B": nil, "DROVER_JOB": &fresh})
	if err := s.RestartJob(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "[new=value][][main]")
}

func TestUnknownJobs(t *testing.T) {
	s := runWith(t, Config{Jobs: []Job{sh("main", "exec sleep 600")}})
	for _, ask := range []func() error{
		func() error { return s.StartJob(t.Context(), "none") },
		func() error { return s.StopJob(t.Context(), "none") },
		func() error { return s.RestartJob(t.Context(), "none") },
		func() error { return s.Signal("none", unix.SIGHUP) },
	} {
		if err := ask(); !errors.Is(err, ErrUnknownJob) {
			t.Error(err)
		}
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.StartJob(t.Context(), "main"); !errors.Is(err, ErrKilled) {
		t.Error(err)
	}
}

// A job can be quicker than the news of its start: that it is ready comes after that
// it was started, in whatever way it tells.
func TestReadyComesAfterStarted(t *testing.T) {
	ways := map[string]Job{
		"fd":     {Command: []string{"sh", "-c", "echo >&5; echo told; exec sleep 600"}, Ready: Readiness{FD: 5}},
		"notify": {Command: []string{"python3", "-c", tellNotify}, Ready: Readiness{Notify: true}},
		"log":    {Command: []string{"sh", "-c", "echo told; exec sleep 600"}, Ready: Readiness{Log: regexp.MustCompile("told")}},
	}
	for name, job := range ways {
		t.Run(name, func(t *testing.T) {
			runtime.LockOSThread() // the first process dies with the thread that forked it
			defer runtime.UnlockOSThread()
			said := newBuffer()
			job.Name, job.Env, job.Stdout = name, os.Environ(), said
			s, err := New(Config{Jobs: []Job{job}}, testLog(t))
			if err != nil {
				t.Fatal(err)
			}
			j := s.jobs[0]
			m, err := s.spawn(j)
			if err != nil {
				t.Fatal(err)
			}
			if name != "log" { // its line is held back until the start is known
				said.waitFor(t, "told")
			}
			s.messages <- m
			close(m.sent)
			for _, want := range []Event{Started, Ready} {
				if got := <-s.messages; got.input.Event != want {
					t.Errorf("%v, want %v", got.input.Event, want)
				}
			}
			if err := s.Kill(); err != nil {
				t.Error(err)
			}
			_, _ = m.process.Wait() // SIGKILL
			m.streams.stopWaiting()
			s.group.Wait()
			m.streams.pumps[0].finish(time.Now().Add(time.Minute))
		})
	}
}
