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
type Killer struct {
	table *Table
	self  Proc
}

// NewKiller prepares for killing on behalf of the calling process.
func NewKiller() (*Killer, error) {
	k := &Killer{table: NewTable()}
	if err := k.table.Read(); err != nil {
		return nil, err
	}
	self := k.table.Find(unix.Getpid())
	if self == nil {
		return nil, fmt.Errorf("find process %d in /proc: it shows another PID namespace", unix.Getpid())
	}
	k.self = *self
	return k, nil
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
		if err := k.table.Read(); err != nil {
			return found, err
		}
		alive := k.table.Select(k.self.PID, root)
		if alive == 0 {
			return found, nil
		}
		found = max(found, alive)
		if k.signalSelected() == 0 {
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
		k.signalSelected()
	}
	return n, err
}

// signalSelected returns how many processes took the signal.
func (k *Killer) signalSelected() int {
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

// Signal sends sig once to each living process that root names and their
// descendants, and returns how many there were.
func (k *Killer) Signal(root func(*Proc) bool, sig unix.Signal) (int, error) {
	n, err := k.Count(root)
	if err != nil || n == 0 {
		return 0, err
	}
	k.table.Selected(func(p *Proc) { _ = unix.Kill(p.PID, sig) })
	return n, nil
}

// Count returns how many processes that root names, and descendants of them, live.
func (k *Killer) Count(root func(*Proc) bool) (int, error) {
	if err := k.table.Read(); err != nil {
		return 0, err
	}
	return k.table.Select(k.self.PID, root), nil
}

// ReapZombies collects the zombie children of the calling process that which
// names, and returns how many there were.
func (k *Killer) ReapZombies(which func(*Proc) bool) (int, error) {
	if err := k.table.Read(); err != nil {
		return 0, err
	}
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
	return n, nil
}
