package repo

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/objstore/mem"
	"drover/internal/proctree"
)

// A lock goes, when it is in the way, if it is certain that its process is gone, and
// stays in every doubt.
func TestLockOfADeadProcess(t *testing.T) {
	own := ownOrigin()
	if own == nil {
		t.Fatal("this process cannot say which one it is")
	}
	living, zombie, gone := process(t), process(t), process(t)
	starts := map[*exec.Cmd]uint64{}
	for _, p := range []*exec.Cmd{living, zombie, gone} {
		starts[p] = startOf(t, p.Process.Pid)
	}
	for _, p := range []*exec.Cmd{zombie, gone} {
		if err := p.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	_ = gone.Wait() // killed; and now nobody has its number
	awaitZombie(t, zombie.Process.Pid)
	of := func(p *exec.Cmd, change func(*origin)) lockJSON {
		o := *own
		o.Start = starts[p]
		change(&o)
		return lockJSON{Time: time.Now(), Exclusive: true, Hostname: "h", Username: "u", PID: p.Process.Pid, Origin: &o}
	}
	as := func(*origin) {}
	unknown := of(gone, as)
	unknown.Origin = nil
	for name, c := range map[string]struct {
		lock lockJSON
		dead bool
	}{
		"living":             {of(living, as), false},
		"gone":               {of(gone, as), true},
		"not collected":      {of(zombie, as), true},
		"number given again": {of(living, func(o *origin) { o.Start++ }), true},
		"another boot":       {of(gone, func(o *origin) { o.Boot = "other" }), false},
		"another container":  {of(gone, func(o *origin) { o.Spaces = "pid:[1]" }), false},
		"restic's":           {unknown, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t, mem.New(), Options{})
			id := putLock(t, r, c.lock)
			for _, exclusive := range []bool{true, false} {
				l, err := r.Lock(t.Context(), LockOptions{Exclusive: exclusive})
				if !c.dead {
					wantError(t, err, ErrLocked)
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				unlock(t, l)
				if left := keys(t, r.st, "locks/"); len(left) != 0 {
					t.Errorf("left: %v", left)
				}
				id = putLock(t, r, c.lock)
			}
			if locks, err := r.Locks(t.Context()); err != nil || len(locks) != 1 || locks[0].ID != id || locks[0].Dead != c.dead {
				t.Errorf("%+v, %v", locks, err)
			}
		})
	}
}

// Our own locks say who we are, and a refresh does not forget it.
func TestLockSaysWhoseItIs(t *testing.T) {
	r := newRepo(t, mem.New(), Options{})
	l, err := r.Lock(t.Context(), LockOptions{Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if o := l.json.Origin; o == nil || *o != *ownOrigin() || o.Start != startOf(t, os.Getpid()) {
		t.Errorf("%+v", o)
	}
	unlock(t, l)
}

func process(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func startOf(t *testing.T, pid int) uint64 {
	t.Helper()
	p, ok := proctree.Lookup(pid)
	if !ok {
		t.Fatalf("process %d is not there", pid)
	}
	return p.Start
}

// awaitZombie waits until the kernel has ended a process that was killed, and leaves
// it uncollected.
func awaitZombie(t *testing.T, pid int) {
	t.Helper()
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
}
