package freeze_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/freeze"
	"drover/internal/proctree"
	"drover/internal/testkit/leak"
)

// writerVar makes this binary an application that keeps an invariant: it appends
// to a log, and then writes the log's length to another file.
const writerVar = "FREEZE_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerVar); dir != "" {
		write(dir)
	}
	if os.Getenv(forkerVar) != "" {
		freezeWhileForking()
	}
	leak.Main(m)
}

// forkerVar makes this binary an agent that starts programs while it freezes all below it.
const forkerVar = "FREEZE_TEST_FORKER"

// forkingTime is enough for a hang to be likely where one can be.
const forkingTime = 10 * time.Second

func freezeWhileForking() {
	var work sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for range 4 {
		work.Go(func() {
			for ctx.Err() == nil {
				cmd := exec.Command("/bin/true")
				cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
				if err := cmd.Run(); err != nil {
					panic(err)
				}
			}
		})
	}
	f := freeze.New(jobs())
	for began := time.Now(); time.Since(began) < forkingTime; {
		if z, err := f.Freeze(ctx, long); err == nil {
			_, _ = z.Thaw() // that a newcomer spoils it is expected
		}
	}
	cancel()
	work.Wait()
	os.Exit(0)
}

// What the agent itself starts (a job, a check, a hook) is never stopped between fork
// and exec: the thread that waits for it could not be stopped for the collection of
// garbage either, and nobody would be left to let anything go on.
func TestFreezeWhileTheAgentStartsPrograms(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), forkerVar+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v (it hung, if it was killed)\n%s", err, out)
	}
}

func write(dir string) {
	log, err1 := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	length, err2 := os.OpenFile(filepath.Join(dir, "length"), os.O_CREATE|os.O_WRONLY, 0o644)
	if err := errors.Join(err1, err2); err != nil {
		panic(err)
	}
	os.Stdout.WriteString("up\n")
	for n := uint64(1); ; n++ {
		_, err1 := log.Write([]byte{'x'})
		_, err2 := length.WriteAt(binary.BigEndian.AppendUint64(nil, n), 0)
		if err := errors.Join(err1, err2); err != nil {
			panic(err)
		}
		if n%(1<<16) == 0 { // keep the log short
			if err := errors.Join(length.Truncate(0), log.Truncate(0)); err != nil {
				panic(err)
			}
			n = 0
		}
	}
}

// start starts a process as the supervisor does, in a session of its own, and
// waits for its first line.
func start(t testing.TB, env string, command ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	if err := proctree.BecomeSubreaper(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env)
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		killer, err := proctree.NewKiller()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := killer.Kill(jobs()); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait()
		_, _ = killer.ReapZombies(func(*proctree.Proc) bool { return true })
	})
	lines := bufio.NewReader(out)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return cmd, lines
}

func startWriter(t *testing.T) (dir string, cmd *exec.Cmd) {
	dir = t.TempDir()
	cmd, _ = start(t, writerVar+"="+dir, "/proc/self/exe")
	return dir, cmd
}

// jobs names what start started, as the supervisor knows its jobs.
func jobs() func(*proctree.Proc) bool {
	self, _ := proctree.Lookup(os.Getpid())
	return func(p *proctree.Proc) bool { return p.PPID == self.PID && p.Session != self.Session }
}

func mustFreeze(t testing.TB, limit time.Duration) *freeze.Frozen {
	t.Helper()
	z, err := freeze.New(jobs()).Freeze(t.Context(), limit)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func mustThaw(t testing.TB, z *freeze.Frozen) time.Duration {
	t.Helper()
	pause, err := z.Thaw()
	if err != nil {
		t.Fatal(err)
	}
	return pause
}

const long = time.Minute

// image reads the two files, the log first: what is written meanwhile shows.
func image(t *testing.T, dir string) (log int64, length uint64) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "length"))
	if err != nil {
		t.Fatal(err)
	}
	if len(text) == 8 {
		length = binary.BigEndian.Uint64(text)
	}
	return int64(len(data)), length
}

// eventually waits for a condition of another process.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(long)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("%s: not within %s", what, long)
		case <-tick.C:
		}
	}
}

func TestInvariantAcrossFiles(t *testing.T) {
	dir, _ := startWriter(t)
	// The test can fail: without the freeze the image breaks.
	eventually(t, "a live image that breaks the invariant", func() bool {
		log, length := image(t, dir)
		return length > uint64(log)
	})
	var before uint64
	moved := 0
	for began := time.Now(); time.Since(began) < forkingTime; {
		z := mustFreeze(t, long)
		log, length := image(t, dir)
		again, lengthAgain := image(t, dir)
		mustThaw(t, z)
		if length > uint64(log) {
			t.Fatalf("length %d is beyond the log of %d", length, log)
		}
		if again != log || lengthAgain != length {
			t.Fatalf("it wrote while it was frozen: %d, %d became %d, %d", log, length, again, lengthAgain)
		}
		if length != before {
			moved++
		}
		before = length
	}
	if moved < 100 {
		t.Errorf("it moved between only %d of 300 freezes: did it go on?", moved)
	}
}

func TestLimitLetsGoWhateverTheCallerDoes(t *testing.T) {
	_, cmd := startWriter(t)
	z := mustFreeze(t, 500*time.Millisecond)
	// The caller hangs: it does nothing more until the process runs again.
	eventually(t, "the process goes on", func() bool { return state(t, cmd) != 'T' })
	<-z.Context().Done()
	pause, err := z.Thaw()
	if !errors.Is(err, freeze.ErrLimit) || pause < 500*time.Millisecond {
		t.Errorf("%v, %v", pause, err)
	}
}

func TestCancelLetsGo(t *testing.T) {
	_, cmd := startWriter(t)
	ctx, cancel := context.WithCancel(t.Context())
	z, err := freeze.New(jobs()).Freeze(ctx, long)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	eventually(t, "the process goes on", func() bool { return state(t, cmd) != 'T' })
	if _, err := z.Thaw(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := freeze.New(jobs()).Freeze(ctx, long); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	eventually(t, "the process goes on", func() bool { return state(t, cmd) != 'T' })
}

func state(t *testing.T, cmd *exec.Cmd) byte {
	t.Helper()
	p, ok := proctree.Lookup(cmd.Process.Pid)
	if !ok {
		t.Fatal("the process is gone")
	}
	return p.State
}

func TestStoppedBeforeStaysStopped(t *testing.T) {
	dir, cmd := startWriter(t)
	_, lines := start(t, "X=", "/bin/sh", "-c", "sleep 600 & echo up; echo $!; wait")
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(line[:len(line)-1])
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(child, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := func() bool { p, _ := proctree.Lookup(child); return p.State == 'T' }
	eventually(t, "the child stops", stopped)
	z := mustFreeze(t, long)
	if n := z.Processes(); n != 2 {
		t.Errorf("%d were stopped, want the writer and the shell", n)
	}
	mustThaw(t, z)
	_, length := image(t, dir)
	eventually(t, "the writer goes on", func() bool { _, now := image(t, dir); return now != length })
	if !stopped() {
		t.Error("a process that was stopped before runs")
	}
	if state(t, cmd) == 'T' {
		t.Error("the writer stands")
	}
}

func TestNewcomerSpoilsTheMoment(t *testing.T) {
	startWriter(t)
	z := mustFreeze(t, long)
	start(t, "X=", "/bin/sh", "-c", "echo up; exec sleep 600")
	if _, err := z.Thaw(); !errors.Is(err, freeze.ErrRan) {
		t.Errorf("%v, want ErrRan", err)
	}
}

func TestWhoIsContinuedByOthersSpoilsTheMoment(t *testing.T) {
	_, cmd := startWriter(t)
	z := mustFreeze(t, long)
	if err := cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it runs", func() bool { return state(t, cmd) != 'T' })
	if _, err := z.Thaw(); !errors.Is(err, freeze.ErrRan) {
		t.Errorf("%v, want ErrRan", err)
	}
}

func TestKillReachesTheFrozen(t *testing.T) {
	startWriter(t)
	z := mustFreeze(t, long)
	killer, err := proctree.NewKiller()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := killer.Kill(jobs()); err != nil {
		t.Fatal(err)
	}
	mustThaw(t, z)
}

func TestNobodyToFreeze(t *testing.T) {
	z := mustFreeze(t, long)
	if n := z.Processes(); n != 0 {
		t.Errorf("%d", n)
	}
	mustThaw(t, z)
}

// Shells and Python start programs by vfork(2): the parent cannot stop while a
// stopped child has not executed its program.
func TestProcessesThatStartOthers(t *testing.T) {
	const script = `import os, subprocess
print("up", flush=True)
n = 0
while True:
    subprocess.run(["/bin/true"])
    n += 1
    with open(os.environ["COUNT"], "w") as f: f.write(str(n))
`
	count := filepath.Join(t.TempDir(), "count")
	start(t, "COUNT="+count, "python3", "-c", script)
	start(t, "X=", "/bin/sh", "-c", "echo up; while :; do (/bin/true; /bin/true) | /bin/true; done")
	var longest time.Duration
	for range 200 {
		longest = max(longest, mustThaw(t, mustFreeze(t, long)))
	}
	t.Logf("longest pause %v", longest)
	before, _ := os.ReadFile(count)
	eventually(t, "it goes on", func() bool {
		now, err := os.ReadFile(count)
		return err == nil && len(now) > 0 && string(now) != string(before)
	})
}

// A full pipe to a reader that reads nothing keeps nobody from stopping.
func TestFullPipe(t *testing.T) {
	_, lines := start(t, "X=", "/bin/sh", "-c", "echo up; exec yes")
	for range 20 {
		mustThaw(t, mustFreeze(t, long))
	}
	if _, err := io.CopyN(io.Discard, lines, 1<<20); err != nil {
		t.Error(err)
	}
}

// BenchmarkFreeze reports how long a shell and a program that sleep stand, with
// nothing done meanwhile.
func BenchmarkFreeze(b *testing.B) {
	start(b, "X=", "/bin/sh", "-c", "echo up; sleep 600 & wait")
	var pauses []time.Duration
	for b.Loop() {
		pauses = append(pauses, mustThaw(b, mustFreeze(b, long)))
	}
	slices.Sort(pauses)
	b.ReportMetric(pauses[len(pauses)/2].Seconds()*1e3, "ms-p50")
	b.ReportMetric(pauses[len(pauses)*99/100].Seconds()*1e3, "ms-p99")
}
