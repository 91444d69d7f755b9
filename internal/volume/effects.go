package volume

import (
	"context"
	"errors"
	"time"

	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/volume/protocol"
)

// headTimeout bounds one attempt at the head: a hung connection must become an
// unknown answer while there is time to ask again, more than once, within a TTL.
func (r *Runtime) headTimeout() time.Duration {
	return max(r.opt.Protocol.TTL/4, minHeadTimeout)
}

// minHeadTimeout is what even a near store needs under load.
const minHeadTimeout = 250 * time.Millisecond

func (r *Runtime) readHead(ctx context.Context) protocol.Input {
	ctx, cancel := context.WithTimeout(ctx, r.headTimeout())
	defer cancel()
	sent := Now()
	seen, err := r.v.ReadHead(ctx)
	r.storeAnswered(err)
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		return protocol.HeadRead{Sent: sent, Missing: true, Err: err}
	case errors.Is(err, ErrNewer), errors.Is(err, errOtherVolume):
		return protocol.HeadRead{Sent: sent, Seen: &seen} // the machine sees that it is none of ours
	case err != nil:
		return protocol.HeadRead{Sent: sent, Err: err}
	}
	return protocol.HeadRead{Sent: sent, Seen: &seen}
}

func (r *Runtime) putHead(ctx context.Context, a protocol.PutHead) protocol.Input {
	ctx, cancel := context.WithTimeout(ctx, r.headTimeout())
	defer cancel()
	if !a.Repeat {
		sealed, err := r.v.encodeHead(a.Head)
		if err != nil {
			return protocol.HeadPut{Sent: Now(), Err: err}
		}
		r.sealed = sealed
	}
	sent := Now()
	tag, err := r.v.st.PutIf(ctx, headKey, r.sealed, objstore.IfMatch(objstore.ETag(a.Base)))
	r.storeAnswered(err)
	return protocol.HeadPut{Sent: sent, OK: err == nil, Tag: protocol.Tag(tag), Err: err}
}

// storeAnswered notes whether the store is there, for health.
func (r *Runtime) storeAnswered(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil || errors.Is(err, objstore.ErrConflict) || errors.Is(err, ErrNewer) || errors.Is(err, errOtherVolume) {
		r.stats.Unavailable = nil
		return
	}
	r.stats.Unavailable = err
}

func (r *Runtime) writeRecord(a protocol.WriteRecord) error {
	if r.opt.DataDir == nil {
		return nil
	}
	old, err := r.opt.DataDir.load(r.v.Name)
	if err != nil {
		return err
	}
	next := recordFile{Record: a.Record}
	if old != nil {
		next.Markers = old.Markers
	}
	if a.Markers && a.Unclaimed && marked(r.opt.Tree.Paths) {
		return errMarked
	}
	if a.Markers {
		if next.Markers, err = writeMarkers(r.opt.Tree.Paths); err != nil {
			return err
		}
	}
	next.Volume = r.v.Name
	next.Boot = bootID()
	return r.opt.DataDir.store(next)
}

// takeLock puts our shared lock beside those of others. The predecessor's is
// removed only when the claim has landed (removePredecessor): until then it may
// be alive.
func (r *Runtime) takeLock(ctx context.Context, predecessor string) protocol.Input {
	r.mu.Lock()
	r.predecessor = predecessorOf(r.status.Head.Holder, predecessor)
	r.mu.Unlock()
	r.stopLock()
	lock, err := r.holdLock(ctx, false)
	if err != nil {
		return protocol.Locked{Err: err}
	}
	return protocol.Locked{Lock: lock.ID().String()}
}

// holdLock locks the repository and keeps the lock fresh until stopLock.
func (r *Runtime) holdLock(ctx context.Context, exclusive bool) (*repo.Lock, error) {
	lock, err := r.v.Repo.Lock(ctx, repo.LockOptions{Hostname: lockHost(r.opt.Protocol.Self.ID), Exclusive: exclusive})
	if err != nil {
		return nil, err
	}
	stop := lock.KeepFresh(ctx)
	r.mu.Lock()
	r.lock, r.lockStop = lock, stop
	r.mu.Unlock()
	return lock, nil
}

// dead names a deposed holder's lock: by its id, or, since refreshing a lock
// makes a new object, by the host name in it.
type dead struct{ lock, host string }

func predecessorOf(h protocol.Holder, lock string) dead {
	if h.ID == "" {
		return dead{}
	}
	return dead{lock: lock, host: lockHost(h.ID)}
}

func lockHost(instance string) string { return "drover-" + instance }

// removePredecessor removes the lock of the holder that our claim deposed.
func (r *Runtime) removePredecessor(ctx context.Context) {
	r.mu.Lock()
	gone, mine := r.predecessor, r.lock
	r.predecessor = dead{}
	r.mu.Unlock()
	if gone.host == "" || mine == nil {
		return
	}
	cleared := make(chan struct{})
	r.mu.Lock()
	r.cleared = cleared
	r.mu.Unlock()
	r.effect(func() protocol.Input {
		defer close(cleared)
		locks, err := r.v.Repo.Locks(ctx)
		for _, l := range locks {
			if l.ID == mine.ID() || l.Exclusive || l.Hostname != gone.host && l.ID.String() != gone.lock {
				continue
			}
			err = errors.Join(err, r.v.Repo.RemoveLock(ctx, l.ID))
		}
		if err != nil && ctx.Err() == nil {
			r.opt.Log.Warn("remove the former holder's repository lock", "err", err)
		}
		return nil
	})
}

// awaitCleared waits until the lock of the holder before is gone, or cannot be removed.
func (r *Runtime) awaitCleared(ctx context.Context) {
	r.mu.Lock()
	cleared := r.cleared
	r.mu.Unlock()
	if cleared == nil {
		return
	}
	select {
	case <-cleared:
	case <-ctx.Done():
	}
}

// stopLock ends the refreshing; the lock object stays.
func (r *Runtime) stopLock() *repo.Lock {
	r.mu.Lock()
	lock, stop := r.lock, r.lockStop
	r.lock, r.lockStop = nil, nil
	r.mu.Unlock()
	if stop != nil {
		stop()
	}
	return lock
}

// unlockTimeout bounds the giving back of a lock that nobody waits for.
const unlockTimeout = 5 * time.Second

func (r *Runtime) dropLock(ctx context.Context) {
	lock := r.stopLock()
	if lock == nil {
		return
	}
	r.effect(func() protocol.Input {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
		defer cancel()
		if err := lock.Unlock(ctx); err != nil {
			r.opt.Log.Warn("remove our repository lock; restic calls it stale after 30 minutes", "err", err)
		}
		return nil
	})
}

func (r *Runtime) checkLock(ctx context.Context) protocol.Input {
	r.mu.Lock()
	lock := r.lock
	r.mu.Unlock()
	if lock == nil {
		return protocol.LockChecked{Present: false}
	}
	err := lock.Check(ctx)
	if errors.Is(err, repo.ErrLockLost) {
		r.opt.Log.Error("our repository lock is gone: somebody removed it (restic unlock), and may have pruned by force; all files are looked at anew, and what the store lacks is stored again", "lock", lock.ID().Short())
		return protocol.LockChecked{Present: false}
	}
	return protocol.LockChecked{Present: err == nil, Err: err}
}

func (r *Runtime) startJobs(ctx context.Context) {
	if r.opt.Jobs == nil {
		return
	}
	r.filled = true // from now on they are for the machine to know
	started := make(chan struct{})
	r.starting = started
	r.effect(func() protocol.Input {
		defer close(started)
		if err := r.opt.Jobs.Start(ctx); err != nil {
			r.opt.Log.Error("start jobs", "err", err)
			return protocol.JobsExited{Main: true}
		}
		return nil
	})
}

// afterStart ends the jobs with f when the Start before has returned: effects run
// side by side, and jobs that start after they were killed would run on.
func afterStart(started <-chan struct{}, f func()) func() protocol.Input {
	return func() protocol.Input {
		if started != nil {
			<-started
		}
		f()
		return protocol.JobsExited{}
	}
}

func (r *Runtime) jobsStop(ctx context.Context) {
	if r.opt.Jobs != nil {
		r.opt.Jobs.Stop(ctx)
	}
}

func (r *Runtime) jobsKill(reason string) {
	if r.opt.Jobs != nil {
		r.opt.Jobs.Kill(reason)
	}
}

// scoped runs a capture or a restore under a context that Cancel ends: work done
// as the holder ends with the claim.
func (r *Runtime) scoped(ctx context.Context, f func(context.Context) protocol.Input) {
	ctx, cancel := context.WithCancel(ctx)
	r.mu.Lock()
	r.scope = cancel
	r.mu.Unlock()
	r.effect(func() protocol.Input {
		defer cancel()
		return f(ctx)
	})
}

func (r *Runtime) cancelScope() {
	r.mu.Lock()
	cancel := r.scope
	r.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// capture makes one attempt; the machine repeats it while the store is away.
func (r *Runtime) capture(ctx context.Context, a protocol.Capture) protocol.Input {
	in, stats, err := r.captureOnce(ctx, a)
	r.mu.Lock()
	r.stats.LastBackup = stats
	if ctx.Err() == nil { // else nobody wanted it any more
		r.stats.LastError = err
	}
	r.mu.Unlock()
	if err == nil {
		return in
	}
	transient := errors.Is(err, objstore.ErrUnavailable)
	if transient {
		r.opt.Log.Warn("backup waits for the store", "err", err)
	}
	return protocol.Captured{Transient: transient, Err: err}
}
