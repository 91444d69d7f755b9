package check

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Run probes until ctx ends. Then it ends what is under way; a probe that does
// not return within a second is left behind. It may be called once.
func (r *Runner) Run(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	// Probes end only once their failing is no longer counted.
	probes, endProbes := context.WithCancel(context.WithoutCancel(ctx))
	defer endProbes()
	group.Go(func() { r.deliver(probes.Done()) })
	group.Go(func() { r.sweeper(probes) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		timer.Reset(r.turn(probes))
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-timer.C:
		}
	}
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	endProbes()
	r.await()
}

// turn begins what is due and returns how long nothing more is.
func (r *Runner) turn(ctx context.Context) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, wait := r.now(), time.Hour
	for _, it := range r.checks {
		if !it.track.Up {
			continue
		}
		if now >= it.track.Next {
			r.step(it, Tick)
		}
		wait = min(wait, it.track.Next-now)
	}
	for len(r.queue) > 0 && r.held < slots {
		p := r.queue[0]
		r.queue = r.queue[1:]
		if p.cancelled {
			r.count(p, context.Canceled, 0)
			continue
		}
		p.holds = true
		r.held++
		r.flying[p] = true
		var timed context.Context
		timed, p.cancel = context.WithTimeoutCause(ctx, p.Timeout, fmt.Errorf("no answer within %v", p.Timeout))
		go r.run(timed, p)
	}
	return max(wait, 0)
}

// run is one probe. It may never return; what must not wait for it does not.
func (r *Runner) run(ctx context.Context, p *probe) {
	begun := time.AfterFunc(hold, func() { r.release(p) })
	late := time.AfterFunc(p.Timeout+grace, func() { r.giveUp(p) })
	began := time.Now()
	err := p.Prober.Probe(ctx)
	took := time.Since(began)
	begun.Stop()
	late.Stop()
	if err == nil {
		err = context.Cause(ctx) // an answer after its time is none
	}
	p.cancel()
	r.release(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.flying, p)
	r.count(p, err, took)
	r.carryOn()
}

// count tells the machine what a probe found. The lock is held.
func (r *Runner) count(p *probe, err error, took time.Duration) {
	if r.ended || p.gone {
		return
	}
	if p.track.Flight == Flying {
		p.took, p.err = took, ""
		if err != nil {
			p.err = err.Error()
		}
	}
	if err == nil {
		r.step(p.item, Passed)
	} else {
		r.step(p.item, Failed)
	}
}

func (r *Runner) release(p *probe) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.holds {
		p.holds = false
		r.held--
		r.carryOn()
	}
}

// carryOn wakes the loop if it has to do something before its next turn. The
// lock is held.
func (r *Runner) carryOn() {
	if r.ended || len(r.queue) > 0 {
		wake(r.wake)
	}
}

// giveUp is for a probe that should have returned.
func (r *Runner) giveUp(p *probe) {
	if !r.lose(p) {
		return
	}
	r.log.Warn("a check's probe does not end", "job", p.Job, "check", p.Name, "timeout", p.Timeout)
	wake(r.wake)
}

func (r *Runner) lose(p *probe) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.flying[p] {
		return false
	}
	p.lost = true
	if !r.ended && !p.gone {
		r.step(p.item, Stuck)
	}
	return true
}

// await waits for the probes that are under way, but not for long.
func (r *Runner) await() {
	patience := time.NewTimer(grace)
	defer patience.Stop()
	for r.awaited() > 0 {
		select {
		case <-r.wake:
			continue
		case <-patience.C:
		}
		break
	}
	r.mu.Lock()
	var left []string
	for p := range r.flying {
		left = append(left, p.Job+"/"+p.Name)
	}
	r.mu.Unlock()
	if len(left) > 0 {
		slices.Sort(left)
		r.log.Warn("probes of checks do not end and are left behind", "checks", left)
	}
}

// awaited is how many probes may yet return.
func (r *Runner) awaited() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for p := range r.flying {
		if !p.lost {
			n++
		}
	}
	return n
}

// deliver tells the changes, and ends with the last of them once done is closed.
func (r *Runner) deliver(done <-chan struct{}) {
	for {
		select {
		case <-r.news:
			r.tellChanges()
		case <-done:
			r.tellChanges()
			return
		}
	}
}

func (r *Runner) tellChanges() {
	r.mu.Lock()
	changes := r.changes
	r.changes = nil
	r.mu.Unlock()
	for _, c := range changes {
		r.notify(c)
	}
}

// sweeper collects what commands left, as long as ctx lives.
func (r *Runner) sweeper(ctx context.Context) {
	ticker := time.NewTicker(r.sweep)
	defer ticker.Stop()
	var s strays
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := s.collect(); err != nil {
				r.log.Error("what checks left was not collected", "error", err)
			}
		}
	}
}
