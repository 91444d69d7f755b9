package supervise

import (
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/proctree"
)

// relative starts a command as a job's first process would be, of a Supervisor that
// runs nothing itself.
func relative(t *testing.T, s *Supervisor, i int, script string) (*kin, *exec.Cmd) {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = s.jobs[i].env
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // SIGKILL, or it was waited for
		s.census.reap()
	})
	if _, err := out.Read(make([]byte, 3)); err != nil { // "up\n"
		t.Fatal(err)
	}
	p, _ := proctree.Lookup(cmd.Process.Pid)
	return &kin{job: i, name: s.jobs[i].Name, pid: p.PID, start: p.Start}, cmd
}

// messages takes the messages that are there.
func (c *census) messages(t *testing.T) (events []string) {
	t.Helper()
	for {
		select {
		case m := <-c.s.messages:
			text := m.input.Event.String() + " " + m.kin.name
			if m.input.Left {
				text += " left"
			}
			events = append(events, text)
		default:
			return events
		}
	}
}

func never(t *testing.T, jobs ...string) *Supervisor {
	t.Helper()
	var list []Job
	for _, name := range jobs {
		list = append(list, sh(name, "exit 1"))
	}
	s, err := New(Config{Jobs: list}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func lookNow(c *census) {
	select {
	case <-c.asked:
		c.fresh = true
	default:
	}
	c.look()
}

// One reading answers for all jobs, and each gets its own answer.
func TestOneReadingForAll(t *testing.T) {
	s := never(t, "empty", "session", "stray", "alive")
	empty, first := relative(t, s, 0, "echo up; exec sleep 600 >&-")
	session, second := relative(t, s, 1, "sleep 600 >&- & echo up; wait")
	stray, third := relative(t, s, 2, "setsid sleep 600 >&- & echo up; wait")
	alive, _ := relative(t, s, 3, "echo up; exec sleep 600 >&-")
	for _, cmd := range []*exec.Cmd{first, second, third} {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	c := s.census
	c.ended(empty, 0)
	c.ended(session, 1)
	c.ended(stray, 2)
	c.signal(alive, unix.SIGWINCH)
	var told []string
	for len(told) < 3 { // more than one reading, should an orphan be in the middle of an exec
		lookNow(c)
		told = append(told, c.messages(t)...)
	}
	slices.Sort(told)
	if got := strings.Join(told, ", "); got != "exited empty, exited session left, exited stray left" {
		t.Errorf("told %q", got)
	}
	if len(c.open) != 2 {
		t.Errorf("%d runs are open, want the two of which something is left", len(c.open))
	}
	// What is left lives: no reading before its time.
	read := c.read
	c.look()
	if time.Since(read) < readEvery && c.read != read {
		t.Error("the table was read for what was known")
	}
	c.kill(session)
	c.kill(stray)
	for told = nil; !slices.Contains(told, "cleared session") || !slices.Contains(told, "cleared stray"); {
		lookNow(c)
		told = append(told, c.messages(t)...)
	}
	if p, ok := proctree.Lookup(alive.pid); !ok || !p.Alive() {
		t.Error("the job that was not asked about is dead")
	}
	// The loop may not know yet; what looks like the old run may be of the next one.
	if c.kill(stray); len(c.open) != 0 {
		t.Error("a run that is gone is looked at again")
	}
}

// A wish that comes during a reading waits for the next one.
func TestLateWishWaits(t *testing.T) {
	s := never(t, "one", "two")
	k, cmd := relative(t, s, 0, "echo up; exec sleep 600 >&-")
	c := s.census
	c.signal(k, unix.SIGWINCH)
	open := c.begin()
	if err := c.killer.Look(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	c.ended(k, 9)
	if m, over := c.answer(open[0], true); m.kin != nil || over {
		t.Errorf("told %v of what came too late", m.input.Event)
	}
	c.close(nil)
	lookNow(c)
	if got := strings.Join(c.messages(t), ", "); got != "exited one" || len(c.open) > 0 {
		t.Errorf("told %q", got)
	}
}

// Orphans are collected, also while nobody asks anything; what others wait for is not.
func TestOrphansAreCollected(t *testing.T) {
	s := never(t, "one")
	k, cmd := relative(t, s, 0, "(setsid true &) & wait; echo up; exec sleep 600 >&-")
	s.first[k.pid] = s.jobs[0]
	_ = cmd.Process.Kill()
	c := s.census
	table := proctree.NewTable()
	orphans := func() (n int) {
		if err := table.Read(); err != nil {
			t.Fatal(err)
		}
		for i := range table.Procs {
			if p := &table.Procs[i]; s.isJobs(p) && p.PID != k.pid {
				n++
			}
		}
		return n
	}
	for orphans() > 0 {
		c.zombies = time.Now().Add(-reapEvery)
		c.look()
	}
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("somebody else took the status of a first process: %v", err)
	}
}
