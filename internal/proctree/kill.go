package proctree

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Pauses between two readings while killed processes end; and how many readings
// in a row may find only processes that refuse our signals.
const (
	firstPause = 200 * time.Microsecond
	longPause  = 20 * time.Millisecond
	maxRefused = 50
)

// Killer kills selections of processes. It must not be shared between
// goroutines. Its memory is allocated by NewKiller.
//
// Who has questions about several selections takes one reading for all of them:
// Look, and then Select, and what acts on the selection, for each.
type Killer struct {
	table *Table
	self  Proc
}

// NewKiller prepares for killing on behalf of the calling process.
func NewKiller() (*Killer, error) {
	self, ok := lookup("self")
	if !ok || self.PID != unix.Getpid() {
		return nil, fmt.Errorf("find process %d in /proc: it is not mounted, or shows another PID namespace", unix.Getpid())
	}
	return &Killer{table: NewTable(), self: self}, nil
}

// Self is the calling process, as it was when the Killer was made.
func (k *Killer) Self() Proc { return k.self }

// Kill sends SIGKILL to the processes that root names and to all their
// descendants until none of them lives, and returns how many it found at
// first. root is asked again at every reading. Zombies count as dead.
//
// There is no time limit: a process in an uninterruptible sleep is not dead.
// The only error besides an unreadable /proc is a process that we may not
// signal (it runs as another user).
//
// Whoever forks while being killed is caught because a process group is
// signalled in one step (a fork by a member that has a fatal signal pending
// fails), and whoever leaves its group in time is a descendant at the next reading.
func (k *Killer) Kill(root func(*Proc) bool) (int, error) {
	found := 0
	pause := firstPause
	for refused := 0; ; {
		if err := k.Look(); err != nil {
			return found, err
		}
		alive := k.Select(root)
		if alive == 0 {
			return found, nil
		}
		found = max(found, alive)
		if k.KillSelected() == 0 {
			refused++
		} else {
			refused = 0
		}
		if refused > maxRefused {
			return found, fmt.Errorf("kill %d processes of another user: %w", alive, unix.EPERM)
		}
		time.Sleep(pause)
		pause = min(pause*2, longPause)
	}
}

// KillOnce sends SIGKILL to what Kill would, once, and returns how many
// processes it found alive.
func (k *Killer) KillOnce(root func(*Proc) bool) (int, error) {
	n, err := k.Count(root)
	if err == nil && n > 0 {
		k.KillSelected()
	}
	return n, err
}

// Look takes a new reading.
func (k *Killer) Look() error { return k.table.Read() }

// Select chooses the processes of the last reading that root names, and all their
// descendants, and returns how many of them live.
func (k *Killer) Select(root func(*Proc) bool) int { return k.table.Select(k.self.PID, root) }

// Selected calls f for every living process of the selection.
func (k *Killer) Selected(f func(*Proc)) { k.table.Selected(f) }

// Find returns the process of the last reading that has this PID, or nil.
func (k *Killer) Find(pid int) *Proc { return k.table.Find(pid) }

// KillSelected sends SIGKILL to the selection, and returns how many took it.
func (k *Killer) KillSelected() int {
	taken := 0
	lastGroup := 0
	k.table.Selected(func(p *Proc) {
		// A group lies within one session, and a selected process in another
		// session than ours got there through a setsid of its own tree, so
		// the whole group is of that tree.
		if p.Session != k.self.Session && p.Group > 1 && p.Group != lastGroup {
			lastGroup = p.Group
			_ = unix.Kill(-p.Group, unix.SIGKILL)
		}
		if err := unix.Kill(p.PID, unix.SIGKILL); err != unix.EPERM {
			taken++
		}
	})
	return taken
}

// SignalSelected sends sig to the selection.
func (k *Killer) SignalSelected(sig unix.Signal) {
	k.table.Selected(func(p *Proc) { _ = unix.Kill(p.PID, sig) })
}

// Count returns how many processes that root names, and descendants of them, live.
func (k *Killer) Count(root func(*Proc) bool) (int, error) {
	if err := k.Look(); err != nil {
		return 0, err
	}
	return k.Select(root), nil
}

// ReapZombies collects the zombie children of the calling process that which
// names, and returns how many there were.
func (k *Killer) ReapZombies(which func(*Proc) bool) (int, error) {
	if err := k.Look(); err != nil {
		return 0, err
	}
	return k.ReapSeen(which), nil
}

// ReapSeen is ReapZombies by the last reading.
func (k *Killer) ReapSeen(which func(*Proc) bool) int {
	n := 0
	for i := range k.table.Procs {
		p := &k.table.Procs[i]
		if p.PPID != k.self.PID || p.Alive() || !which(p) {
			continue
		}
		if pid, err := unix.Wait4(p.PID, nil, unix.WNOHANG, nil); err == nil && pid == p.PID {
			n++
		}
	}
	return n
}

// AnyZombie tells whether any child of the calling process has ended and was not
// collected yet. It is the cheap question: one system call.
func AnyZombie() bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && info.Signo != 0
}
