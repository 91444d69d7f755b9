package proctree_test

import (
	"bufio"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"drover/internal/proctree"
)

const leaderVar = "PROCTREE_TEST_LEADER_ENDS"

func init() {
	if os.Getenv(leaderVar) == "" {
		return
	}
	// The first thread ends, the process goes on: the kernel shows a zombie.
	runtime.LockOSThread()
	blocked := make(chan struct{})
	go func() {
		os.Stdout.WriteString("up\n")
		var b [1]byte
		_, _ = os.Stdin.Read(b[:])
		os.Exit(0)
	}()
	go func() { close(blocked) }()
	<-blocked
	_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLookupOfThisProcess(t *testing.T) {
	p, ok := proctree.Lookup(os.Getpid())
	if !ok {
		t.Fatal("this process is not in /proc")
	}
	session, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	if p.PPID != os.Getppid() || p.Group != unix.Getpgrp() || p.Session != session || p.Threads < 2 || p.Start == 0 || !p.Alive() {
		t.Errorf("%+v", p)
	}
	if _, ok := proctree.Lookup(1 << 30); ok {
		t.Error("found a process that cannot be")
	}
}

func TestNameWithParentheses(t *testing.T) {
	name := t.TempDir() + "/a) Z 1 (b\n"
	if err := os.Symlink("/bin/sleep", name); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	p, ok := proctree.Lookup(cmd.Process.Pid)
	if !ok || p.PPID != os.Getpid() || p.State == 'Z' {
		t.Errorf("%+v, %v", p, ok)
	}
}

func TestZombieLeaderWithThreadsIsAlive(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), leaderVar+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	var p proctree.Proc
	for p.State != 'Z' {
		var ok bool
		if p, ok = proctree.Lookup(cmd.Process.Pid); !ok {
			t.Fatal("the process is gone")
		}
		runtime.Gosched()
	}
	if !p.Alive() {
		t.Errorf("a running process counts as dead: %+v", p)
	}
	stdin.Close()
	_ = cmd.Wait()
}

// Each new process starts others in sessions of their own, as fast as it can,
// five generations of them, should nothing stop it.
func TestKillOutrunsAForkBomb(t *testing.T) {
	if err := proctree.BecomeSubreaper(); err != nil {
		t.Fatal(err)
	}
	killer, err := proctree.NewKiller()
	if err != nil {
		t.Fatal(err)
	}
	const script = `n=0; while [ $n -lt 4 ]; do n=$((n+1)); setsid sleep 600 &
		test $2 -gt 5 || setsid "$0" -c "$1" "$0" "$1" $(($2+1)) & done; echo up; wait`
	cmd := exec.Command("/bin/sh", "-c", script, "/bin/sh", script, "1")
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	self := killer.Self().PID
	n, err := killer.Kill(func(p *proctree.Proc) bool { return p.PPID == self })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("killed, at most %d at once", n)
	if left, err := killer.Count(func(p *proctree.Proc) bool { return p.PPID == self }); err != nil || left != 0 {
		t.Errorf("%d live after Kill returned (%v)", left, err)
	}
	_ = cmd.Wait()
	for {
		if n, err := killer.ReapZombies(func(*proctree.Proc) bool { return true }); err != nil || n == 0 {
			break
		}
	}
}

func TestKillAllocatesLittle(t *testing.T) {
	killer, err := proctree.NewKiller()
	if err != nil {
		t.Fatal(err)
	}
	nobody := func(p *proctree.Proc) bool { return false }
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const rounds = 10
	for range rounds {
		if _, err := killer.Kill(nobody); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	table := proctree.NewTable()
	if err := table.Read(); err != nil {
		t.Fatal(err)
	}
	each := float64(after.TotalAlloc-before.TotalAlloc) / rounds / float64(len(table.Procs))
	t.Logf("%.0f bytes for each of %d processes", each, len(table.Procs))
	if each > 200 {
		t.Errorf("reading the table allocates %.0f bytes a process", each)
	}
}

func BenchmarkRead(b *testing.B) {
	table := proctree.NewTable()
	for b.Loop() {
		if err := table.Read(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(table.Procs)), "processes")
}
