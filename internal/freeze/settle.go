package freeze

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/proctree"
)

// settle stops everything: until a reading of the table, begun when all that was
// known had stopped, finds nobody new.
func (z *Frozen) settle() error {
	for first := true; ; first = false {
		fresh, err := z.stop()
		if err != nil {
			return err
		}
		if fresh == 0 && !first {
			return nil
		}
		if err := z.await(); err != nil {
			return err
		}
		if err := z.f.read(); err != nil {
			return err
		}
	}
}

// stop sends SIGSTOP to the selected processes that are not known yet, parents
// before children, so that no parent sees its child stopped first. It returns how
// many were not known.
func (z *Frozen) stop() (fresh int, err error) {
	type found struct {
		id
		depth int
		still bool
	}
	var all []found
	z.f.table.Selected(func(p *proctree.Proc) {
		n := id{p.PID, p.Start}
		if _, ok := z.known[n]; !ok {
			all = append(all, found{n, z.f.depth(p), standing(p.State) && standsStill(p.PID)})
		}
	})
	slices.SortStableFunc(all, func(a, b found) int { return a.depth - b.depth })
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.over {
		return 0, context.Cause(z.ctx)
	}
	for _, p := range all {
		z.known[p.id] = !p.still
		if p.still {
			continue
		}
		switch err := unix.Kill(p.pid, unix.SIGSTOP); err {
		case nil:
			z.stopped = append(z.stopped, p.pid)
		case unix.ESRCH:
		default:
			return 0, fmt.Errorf("%w: stop process %d: %w", ErrRan, p.pid, err)
		}
	}
	return len(all), nil
}

// depth is how far a process is below the calling one.
func (f *Freezer) depth(p *proctree.Proc) int {
	const most = 1000 // a table that was read while processes moved may have a circle
	n := 0
	for p != nil && p.PID != f.self && n < most {
		p = f.table.Find(p.PPID)
		n++
	}
	return n
}

// Pauses between looks at processes that are stopping; and how long one may take
// to do so before its children are let go for a moment.
const (
	firstPause = 50 * time.Microsecond
	longPause  = time.Millisecond
	nudgeAfter = 3 * time.Millisecond
)

// await waits until all that was signalled has stopped.
func (z *Frozen) await() error {
	pause, nudge := firstPause, time.Now().Add(nudgeAfter)
	waiting := slices.Clone(z.stopped)
	for {
		waiting = slices.DeleteFunc(waiting, standsStill)
		if len(waiting) == 0 {
			return nil
		}
		if time.Now().After(nudge) {
			waiting = append(waiting, z.nudge(waiting)...)
			nudge = time.Now().Add(nudgeAfter)
		}
		select {
		case <-z.ctx.Done():
			return context.Cause(z.ctx)
		case <-time.After(pause):
		}
		pause = min(2*pause, longPause)
	}
}

// nudge lets the children of processes that do not stop run for a moment, and
// returns them: a parent in vfork(2) sleeps uninterruptibly until its child
// executes another program or ends, which a stopped child never does.
func (z *Frozen) nudge(waiting []int) []int {
	if z.f.read() != nil {
		return nil
	}
	var children []int
	z.f.table.Selected(func(p *proctree.Proc) {
		if slices.Contains(waiting, p.PPID) && z.known[id{p.PID, p.Start}] && !slices.Contains(waiting, p.PID) {
			children = append(children, p.PID)
		}
	})
	z.signal(children, unix.SIGCONT)
	select {
	case <-z.ctx.Done():
	case <-time.After(longPause):
	}
	z.signal(children, unix.SIGSTOP)
	return children
}

// signal signals some of the stopped, while they are to be.
func (z *Frozen) signal(pids []int, sig unix.Signal) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.over {
		return
	}
	for _, pid := range pids {
		_ = unix.Kill(pid, sig)
	}
}

// check tells whether everything still stands and nobody came.
func (z *Frozen) check() error {
	if err := z.f.read(); err != nil {
		return err
	}
	ran := 0
	z.f.table.Selected(func(p *proctree.Proc) {
		if _, ok := z.known[id{p.PID, p.Start}]; !ok || !standsStill(p.PID) {
			ran = p.PID
		}
	})
	if ran != 0 {
		return fmt.Errorf("%w: process %d ran", ErrRan, ran)
	}
	return nil
}
