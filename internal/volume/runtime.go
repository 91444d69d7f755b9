package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/volume/protocol"
)

// Jobs is what the runtime asks of the supervisor.
type Jobs interface {
	// Start starts the jobs; it returns once they are started.
	Start(ctx context.Context) error
	// Stop stops them in order and gracefully; it returns when all are dead.
	Stop(ctx context.Context)
	// Kill kills all that runs in the instance, at once; it returns when all are
	// dead. It must not wait for a Stop under way.
	Kill(reason string)
}

// Options of a Runtime.
type Options struct {
	Protocol protocol.Config // NewID is filled in
	Watch    protocol.Watch  // what this process has counted of the head before
	Tree     TreeOptions
	Jobs     Jobs     // nil: none
	Changes  Changes  // nil: every capture walks everything
	Still    Stiller  // nil: files are read while the application runs
	DataDir  *DataDir // nil only if Protocol.Detached
	Log      *slog.Logger
	// Notify is called with each new status, from the loop: it must not block.
	Notify func(protocol.Status)
}

// Outcome is what became of a backup.
type Outcome struct {
	Head    protocol.Head
	Capture CaptureStats
}

// Runtime drives one protocol.Machine in the world: one loop takes inputs and
// starts what the machine asks for. All methods may be called at once.
type Runtime struct {
	v       *Volume
	opt     Options
	machine *protocol.Machine
	in      chan protocol.Input
	done    chan struct{} // closed when Run returns
	effects sync.WaitGroup

	mu       sync.Mutex
	status   protocol.Status
	stats    Stats
	requests uint64
	waiting  map[uint64]waiter
	queued   uint64             // the request of Queue that waits for a capture to start; 0: none
	scope    context.CancelFunc // of the capture or restore under way

	// Of the loop and its effects, which never run two at once of a kind:
	starting chan struct{} // closed when the last Start of the jobs has returned; nil: none yet
	sealed   []byte        // of the last PutHead
	lock     *repo.Lock
	lockStop func()
	pending  pending // what the last capture took from Changes
	restless bool    // the last capture could not make the application hold still
	counted  counted // the head's snapshot
	captured counted // the last captured one
	fresh    bool    // the index was loaded under this claim

	going atomic.Pointer[progress] // the restore or capture under way

	filled      bool          // there were files at the start, or we have put some there
	predecessor dead          // the holder that the claim under way deposes
	cleared     chan struct{} // closed when its lock was looked for; nil: there was none

	turned    chan struct{}          // closed, and made anew, when the status changed
	tenure    context.Context        // ends when this instance holds no more, or is told to stop; nil: it does not hold
	endTenure context.CancelFunc     // of tenure
	counting  map[format.ID]struct{} // packs that captures count on since somebody began to ask; nil: nobody asks
	abandoned int                    // captures that came to nothing, and may have left packs
	broken    distrust
}

// Stats is what status and metrics tell beside the machine's own status.
type Stats struct {
	Captured    time.Time     // wall clock at the start of the last committed capture
	LastBackup  CaptureStats  // of the last capture that ended, committed or not
	LastError   error         // of it, or why captures wait; nil if fine
	Restore     time.Duration // of the last restore; 0: none yet
	Restored    RestoreStats
	Diverged    []string // snapshots saved by this process
	Unavailable error    // the last answer of the store to a read or write of the head, if it was none
}

// waiter is a request that waits for its reply.
type waiter struct {
	ch   chan reply
	edit bool // of the condemned packs, no backup
}

type reply struct {
	head protocol.Head
	stat CaptureStats
	err  error
}

// NewRuntime prepares a runtime; Run starts it.
func NewRuntime(v *Volume, opt Options) *Runtime {
	opt.Protocol.NewID = newID
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &Runtime{
		v: v, opt: opt, machine: protocol.New(opt.Protocol),
		in: make(chan protocol.Input), done: make(chan struct{}),
		waiting: map[uint64]waiter{}, turned: make(chan struct{}),
	}
}

// Now reads the clock of the protocol: CLOCK_BOOTTIME, which counts through suspend.
func Now() protocol.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("read CLOCK_BOOTTIME: %v", err)) // every kernel since 2.6.39 has it
	}
	return protocol.Time(ts.Nano())
}

// Run lives the life of the instance until the machine exits or ctx ends; ctx's
// end is that of a crash: nothing is released. It returns what Exit said.
func (r *Runtime) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer r.finish(cancel)
	local, err := r.look(ctx)
	if err != nil {
		return err
	}
	in := protocol.Input(protocol.Boot{Local: local, Watch: r.opt.Watch})
	for {
		for _, a := range r.machine.Step(Now(), in) {
			if exit, ok := a.(protocol.Exit); ok {
				return exit.Err
			}
			r.do(ctx, a)
		}
		if in, err = r.next(ctx); err != nil {
			return err
		}
	}
}

// longestNap bounds a timer's sleep: Go's timers do not count a suspend, the
// protocol's clock does.
const longestNap = 500 * time.Millisecond

// next waits for an input or the machine's deadline.
func (r *Runtime) next(ctx context.Context) (protocol.Input, error) {
	for {
		var timer <-chan time.Time
		if at, ok := r.machine.Deadline(); ok {
			wait := at - Now()
			if wait <= 0 {
				return protocol.Tick{}, nil
			}
			timer = time.After(min(wait, r.nap()))
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case in := <-r.in:
			return in, nil
		case <-timer:
		}
	}
}

func (r *Runtime) nap() time.Duration {
	if r.opt.Protocol.Fence == protocol.FenceStrict {
		return longestNap
	}
	return time.Hour
}

// send gives an input to the loop; nobody listens after Run.
func (r *Runtime) send(in protocol.Input) {
	select {
	case r.in <- in:
	case <-r.done:
	}
}

func (r *Runtime) finish(cancel context.CancelFunc) {
	close(r.done)
	cancel()
	r.effects.Wait()
	r.stopLock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.endTenure != nil {
		r.endTenure()
	}
	for id, w := range r.waiting {
		w.ch <- reply{err: errors.New("agent ended before the backup was committed")}
		delete(r.waiting, id)
	}
}

// look finds out what the disk holds, and whether the volume's paths are ours: an
// instance that lacks one must not claim, since it could neither restore nor commit.
func (r *Runtime) look(ctx context.Context) (protocol.Local, error) {
	if r.opt.Protocol.Detached {
		return protocol.Local{}, nil
	}
	if in, ok := r.readHead(ctx).(protocol.HeadRead); ok && in.Seen != nil {
		if err := r.checkPaths(in.Seen.Head); err != nil {
			return protocol.Local{}, err
		}
	}
	present, err := anyFile(r.opt.Tree.Paths)
	if err != nil {
		return protocol.Local{}, err
	}
	r.filled = present
	local := protocol.Local{FilesPresent: present}
	rec, err := r.opt.DataDir.load(r.v.Name)
	if err != nil || rec == nil {
		return local, err
	}
	local.Record = &rec.Record
	local.MarkersMatch = markersMatch(r.opt.Tree.Paths, rec.Markers)
	local.SameBoot = rec.Boot != "" && rec.Boot == bootID()
	return local, nil
}

// do starts one action. Only quick things happen in the loop itself.
func (r *Runtime) do(ctx context.Context, a protocol.Action) {
	switch a := a.(type) {
	case protocol.KillJobs:
		r.effect(afterStart(r.starting, func() { r.jobsKill(a.Reason) }))
	case protocol.ReadHead:
		r.effect(func() protocol.Input { return r.readHead(ctx) })
	case protocol.PutHead:
		r.effect(func() protocol.Input { return r.putHead(ctx, a) })
	case protocol.WriteRecord:
		r.effect(func() protocol.Input { return protocol.RecordWritten{Err: r.writeRecord(a)} })
	case protocol.TakeLock:
		r.effect(func() protocol.Input { return r.takeLock(ctx, a.Predecessor) })
	case protocol.DropLock:
		r.dropLock(ctx)
	case protocol.CheckLock:
		r.effect(func() protocol.Input { return r.checkLock(ctx) })
	case protocol.SaveDiverged:
		r.effect(func() protocol.Input { return r.saveDiverged(ctx, a) })
	case protocol.Restore:
		r.scoped(ctx, func(ctx context.Context) protocol.Input {
			// Not synced: the application need not wait for the disk. After a power
			// cut before the first commit the files are restored again.
			untouched, err := r.restore(ctx, a)
			return protocol.Restored{Untouched: untouched, Err: err}
		})
	case protocol.StartJobs:
		r.startJobs(ctx)
	case protocol.StopJobs:
		r.effect(afterStart(r.starting, func() { r.jobsStop(ctx) }))
	case protocol.Capture:
		r.mu.Lock()
		r.queued = 0 // what is queued from now on wants another one
		r.mu.Unlock()
		starting := r.starting
		r.scoped(ctx, func(ctx context.Context) protocol.Input {
			if starting != nil { // who is being started can neither hold still nor be left out
				select {
				case <-starting:
				case <-ctx.Done():
				}
			}
			return r.capture(ctx, a)
		})
	case protocol.Cancel:
		r.cancelScope()
	case protocol.Reply:
		r.reply(a)
	case protocol.Became:
		r.became(ctx, a.Status)
	}
}

// effect runs f beside the loop and gives its answer to the loop.
func (r *Runtime) effect(f func() protocol.Input) {
	r.effects.Go(func() {
		if in := f(); in != nil {
			r.send(in)
		}
	})
}

func (r *Runtime) became(ctx context.Context, s protocol.Status) {
	r.mu.Lock()
	landed := r.status.Phase == protocol.PhaseClaiming &&
		(s.Phase == protocol.PhaseRestoring || s.Phase == protocol.PhaseHolder)
	if s.Phase != r.status.Phase && s.Phase != protocol.PhaseHolder && s.Phase != protocol.PhaseStopping {
		r.fresh = false
	}
	if s.Phase == protocol.PhaseStandby && s.Phase != r.status.Phase {
		r.stats.LastError = nil // backups are another's business now
	}
	r.status = s
	r.turn(ctx)
	r.mu.Unlock()
	if landed {
		r.removePredecessor(ctx)
	}
	if r.opt.Notify != nil {
		r.opt.Notify(s)
	}
}

// Status returns the machine's status and the runtime's figures.
func (r *Runtime) Status() (protocol.Status, Stats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	stats := r.stats
	stats.Diverged = append([]string(nil), stats.Diverged...)
	return r.status, stats
}

// Stop asks for the orderly end: last commit, release. After grace it ends without.
func (r *Runtime) Stop(grace time.Duration) {
	r.send(protocol.StopWanted{Grace: grace, Running: runningGrace})
}

// runningGrace is how long the last backup but one, made while the jobs still
// run, may put off their stopping: half of what the hastiest scheduler leaves.
const runningGrace = 5 * time.Second

// JobsExited tells that the main job ended by itself.
func (r *Runtime) JobsExited() { r.send(protocol.JobsExited{Main: true}) }

// Done is closed when Run has returned.
func (r *Runtime) Done() <-chan struct{} { return r.done }

// Backup asks for a commit of what is on the disk now, and waits for it; ctx
// ends only the wait. Errors: ErrHeld, ErrIncomplete, ErrShrunk, ctx's.
func (r *Runtime) Backup(ctx context.Context) (Outcome, error) {
	return r.request(ctx, false, func(id uint64) protocol.Input { return protocol.BackupWanted{Request: id} })
}

// Queue asks for a commit and does not wait for it. However often it is called
// while no capture starts, one is wanted: an outage of the store costs no memory.
func (r *Runtime) Queue() {
	r.mu.Lock()
	if r.queued != 0 {
		r.mu.Unlock()
		return
	}
	id := r.enlist(make(chan reply, 1), false)
	r.queued = id
	r.mu.Unlock()
	r.send(protocol.BackupWanted{Request: id})
}

// HandOver makes room for a standby: the jobs end, the last commit is made, the volume
// is released and for a TTL left to others. What is not done after grace is given up,
// and the jobs start again; ctx ends only the wait. Errors: ErrHeld,
// protocol.ErrUnfinished, protocol.ErrDeposed, protocol.ErrStopping.
func (r *Runtime) HandOver(ctx context.Context, grace time.Duration) error {
	_, err := r.request(ctx, true, func(id uint64) protocol.Input {
		return protocol.HandOverWanted{Request: id, Grace: grace}
	})
	return err
}

// Condemn adds packs to the head's list, if it is still at the epoch and seq of
// h, for which they were computed. Errors: protocol.ErrStale.
func (r *Runtime) Condemn(ctx context.Context, h protocol.Head, packs []string) error {
	_, err := r.request(ctx, true, func(id uint64) protocol.Input {
		return protocol.CondemnWanted{Request: id, Packs: packs, Epoch: h.Epoch, Seq: h.Seq}
	})
	return err
}

// Forgive takes packs off the list that are in neither index/ nor data/.
func (r *Runtime) Forgive(ctx context.Context, packs []string) error {
	_, err := r.request(ctx, true, func(id uint64) protocol.Input {
		return protocol.ForgiveWanted{Request: id, Packs: packs}
	})
	return err
}

// enlist notes a request under a new id. r.mu is held.
func (r *Runtime) enlist(ch chan reply, edit bool) uint64 {
	r.requests++
	r.waiting[r.requests] = waiter{ch: ch, edit: edit}
	return r.requests
}

// request sends an input that Reply answers, and waits for that; ctx ends the wait.
func (r *Runtime) request(ctx context.Context, edit bool, input func(id uint64) protocol.Input) (Outcome, error) {
	ch := make(chan reply, 1)
	r.mu.Lock()
	id := r.enlist(ch, edit)
	r.mu.Unlock()
	select {
	case r.in <- input(id):
	case <-ctx.Done():
		r.strike(id)
		return Outcome{}, context.Cause(ctx)
	case <-r.done:
		r.strike(id)
		return Outcome{}, errors.New("agent has ended")
	}
	select {
	case <-ctx.Done():
		return Outcome{}, context.Cause(ctx)
	case rep := <-ch:
		return Outcome{Head: rep.head, Capture: rep.stat}, rep.err
	}
}

// strike forgets a request that the loop never heard of.
func (r *Runtime) strike(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting, id)
}

// reply ends requests. A capture whose files changed while they were read is
// committed, but is no success.
func (r *Runtime) reply(a protocol.Reply) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep := reply{head: a.Head, err: a.Err}
	switch {
	case errors.Is(a.Err, protocol.ErrNotHolder):
		rep.err = fmt.Errorf("%w by another instance: %s", ErrHeld, r.status.Head.Holder.ID)
	case errors.Is(a.Err, protocol.ErrStopping), !r.backups(a.Requests):
	default:
		rep.stat = r.stats.LastBackup
		if rep.err == nil {
			rep.err = rep.stat.incomplete()
			r.stats.Captured = rep.stat.Start
		}
		r.stats.LastError = rep.err
	}
	for _, id := range a.Requests {
		if w, ok := r.waiting[id]; ok {
			w.ch <- rep
			delete(r.waiting, id)
		}
		if id == r.queued {
			r.queued = 0
		}
	}
}

// backups reports whether any of the requests is for one. r.mu is held.
func (r *Runtime) backups(requests []uint64) bool {
	for _, id := range requests {
		if w, ok := r.waiting[id]; ok && !w.edit {
			return true
		}
	}
	return false
}
