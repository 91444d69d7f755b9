package volume

import (
	"context"
	"maps"

	"drover/internal/repo/format"
	"drover/internal/volume/protocol"
)

// This file is what the upkeep and the captures of one Runtime know of each other.

// turn follows the status: a tenure begins when this instance is the holder, and ends
// with that, with the claim, and when it is told to stop. r.mu is held.
func (r *Runtime) turn(ctx context.Context) {
	if r.broken.snapshot != "" && r.status.Head.Snapshot == r.broken.snapshot {
		r.broken = distrust{nth: r.broken.nth}
	}
	holds := r.status.Phase == protocol.PhaseHolder
	if !holds && r.endTenure != nil {
		r.endTenure()
		r.tenure, r.endTenure = nil, nil
	}
	if holds && r.tenure == nil {
		r.tenure, r.endTenure = context.WithCancel(ctx)
	}
	close(r.turned)
	r.turned = make(chan struct{})
}

// awaitTenure waits until this instance holds. The context ends when it does no more,
// and with ctx.
func (r *Runtime) awaitTenure(ctx context.Context) (context.Context, context.CancelFunc, error) {
	for {
		r.mu.Lock()
		tenure, turned := r.tenure, r.turned
		r.mu.Unlock()
		if tenure != nil {
			held, cancel := context.WithCancel(ctx)
			stop := context.AfterFunc(tenure, cancel)
			return held, func() { stop(); cancel() }, nil
		}
		select {
		case <-turned:
		case <-r.done:
			return nil, nil, context.Canceled
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}

// head is the head as this instance last wrote it, if it holds.
func (r *Runtime) head() (protocol.Head, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status.Head, r.status.Phase == protocol.PhaseHolder
}

// countPacks begins to note the packs that captures count on: those that they stored,
// and those that hold what they did not store again.
func (r *Runtime) countPacks() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counting = map[format.ID]struct{}{}
}

// countedPacks are those noted since countPacks.
func (r *Runtime) countedPacks() map[format.ID]struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.counting)
}

// countOn notes what a capture counts on, before anybody hears of its snapshot.
func (r *Runtime) countOn(packs []format.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counting == nil {
		return
	}
	for _, p := range packs {
		r.counting[p] = struct{}{}
	}
}

// leftovers counts the captures that came to nothing.
func (r *Runtime) leftovers() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.abandoned
}

func (r *Runtime) abandon() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.abandoned++
}

// distrust is why captures trust nothing that is stored, until one of them is committed.
type distrust struct {
	why      string // "": they do trust
	nth      int    // counts the reasons
	snapshot string // which holds everything anew, if it becomes the head's
}

// suspect makes the next capture look at every file, and store again what the store has
// lost, and asks for one. It returns false if that is under way for the same reason.
func (r *Runtime) suspect(why string, gone []format.ID) bool {
	r.v.Repo.Bury(gone)
	isNew := r.doubt(why)
	if isNew {
		r.Queue()
	}
	return isNew
}

// doubt is suspect within a capture, or before one that is asked for anyway.
func (r *Runtime) doubt(why string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken.why == why {
		return false
	}
	r.broken = distrust{why: why, nth: r.broken.nth + 1}
	return true
}

// suspicion is what a capture that begins must know.
func (r *Runtime) suspicion() distrust {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.broken
}

// prepareDoubting is prepareIndex for a capture, which is forced if there is a reason.
// That index is younger than the reason, also if it was the index that gave it.
func (r *Runtime) prepareDoubting(ctx context.Context, a *protocol.Capture) (distrust, error) {
	for {
		d := r.suspicion()
		if d.why != "" {
			a.Force, a.Fresh = true, true
		}
		if err := r.prepareIndex(ctx, *a); err != nil {
			return d, err
		}
		if r.suspicion().nth == d.nth {
			return d, nil
		}
	}
}

// mended notes which snapshot holds everything anew, of a capture that began with d.
func (r *Runtime) mended(d distrust, snapshot string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d.why != "" && d.nth == r.broken.nth {
		r.broken.snapshot = snapshot
	}
}
