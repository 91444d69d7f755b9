// Package freeze makes process trees hold still for a moment, so that their files
// can be read as a power cut would leave them.
//
// It promises: while a Frozen stands, no selected process runs, not one thread of
// one of them, and Thaw says so only if it was true to the end; everything goes on
// when Thaw is called, when the context ends and when the limit is over, whichever
// is first and whatever the caller's goroutine is doing; a process that was stopped
// before stays stopped after.
//
// Which processes are meant, and what is read meanwhile, is the caller's to say.
// DESIGN.md says what happens when the agent itself dies in such a moment.
package freeze

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/proctree"
)

var (
	// ErrLimit: the limit was over before Thaw.
	ErrLimit = errors.New("the limit of the freeze was over")
	// ErrRan: something ran meanwhile that should not have, or could not be stopped.
	ErrRan = errors.New("not everything held still")
)

// Freezer freezes selections of processes, one at a time.
type Freezer struct {
	table *proctree.Table
	self  int
	root  func(*proctree.Proc) bool
}

// New returns a Freezer of the processes that root names and all their
// descendants, never the calling process. root is asked at every reading.
func New(root func(*proctree.Proc) bool) *Freezer {
	f := &Freezer{table: proctree.NewTable(), self: unix.Getpid()}
	f.root = func(p *proctree.Proc) bool { return root(p) && !f.starting(p) }
	return f
}

// starting says whether p is a program that this process is about to execute. Until it
// does, the thread that forked it waits for it, and the runtime for that thread: to
// stop it would stop whoever is to let it go on. (An application's own process that
// forked and executed nothing has another executable.)
func (f *Freezer) starting(p *proctree.Proc) bool {
	if p.PPID != f.self || !p.Unexecuted {
		return false
	}
	ours, err := os.Readlink("/proc/self/exe")
	theirs, err2 := os.Readlink("/proc/" + strconv.Itoa(p.PID) + "/exe")
	return err == nil && err2 == nil && ours == theirs
}

// id names a process for as long as the machine is up.
type id struct {
	pid   int
	start uint64
}

// Frozen is a time in which nothing selected runs.
type Frozen struct {
	f     *Freezer
	ctx   context.Context
	end   context.CancelCauseFunc
	timer *time.Timer
	began time.Time
	known map[id]bool // seen; true: stopped by us, false: it had been before

	mu      sync.Mutex // guards what follows; held while signals are sent
	stopped []int      // by us, parents first
	over    bool
	pause   time.Duration
}

// Freeze stops the selected processes and returns when all of them have stopped,
// with a pause of at most limit counted from its first signal. On an error
// everything goes on already. Errors: ErrLimit, ErrRan, ctx's cause.
func (f *Freezer) Freeze(ctx context.Context, limit time.Duration) (*Frozen, error) {
	if err := f.read(); err != nil {
		return nil, err
	}
	inner, end := context.WithCancelCause(ctx)
	z := &Frozen{f: f, ctx: inner, end: end, began: time.Now(), known: make(map[id]bool)}
	z.mu.Lock() // a short limit may be over before the timer is known
	z.timer = time.AfterFunc(limit, func() { z.release(ErrLimit) })
	z.mu.Unlock()
	// Whoever cancels need not wait for a reader that hangs.
	context.AfterFunc(inner, func() { z.release(context.Cause(inner)) })
	if err := z.settle(); err != nil {
		z.release(err)
		return nil, err
	}
	return z, nil
}

// Context ends when the processes go on.
func (z *Frozen) Context() context.Context { return z.ctx }

// Processes is how many were stopped.
func (z *Frozen) Processes() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return len(z.stopped)
}

// Thaw lets everything go on and returns how long it stood. The error says that
// what was read meanwhile may not be one moment's. Again it does nothing and says
// the same pause.
func (z *Frozen) Thaw() (time.Duration, error) {
	err := context.Cause(z.ctx)
	if err == nil {
		err = z.check()
	}
	z.release(errThawed)
	if cause := context.Cause(z.ctx); err == nil && cause != errThawed {
		err = cause
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.pause, err
}

// errThawed is the context's cause after an orderly end.
var errThawed = errors.New("thawed")

// release lets everything go on: children first, so that a parent which waits
// for stopped children finds none.
func (z *Frozen) release(cause error) {
	z.end(cause) // the first cause stands
	z.mu.Lock()
	defer z.mu.Unlock()
	z.timer.Stop()
	if z.over {
		return
	}
	z.over = true
	for _, pid := range slices.Backward(z.stopped) {
		_ = unix.Kill(pid, unix.SIGCONT)
	}
	z.pause = time.Since(z.began)
}

// read reads the process table and selects.
func (f *Freezer) read() error {
	if err := f.table.Read(); err != nil {
		return err
	}
	f.table.Select(f.self, f.root)
	return nil
}
