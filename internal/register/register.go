// Package register keeps what a catalog says of one service of this instance as it
// should be: registered from its first good moment on, with its health, in time, again
// if the catalog forgot it, and gone before the service is.
//
// It promises that nothing waits for the catalog but who asks to (Withdraw), and that it
// goes on trying while the catalog is away. How healthy the service is, and when it ends,
// is for others to say.
package register

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"drover/internal/coord"
)

// Options of New.
type Options struct {
	Registration coord.Registration
	Log          *slog.Logger
	// Changed is called when the catalog was told something else, or could not be; quick. nil: nobody.
	Changed func()
}

const (
	// callLimit bounds one call of the catalog.
	callLimit = 5 * time.Second
	// leaveLimit bounds the last one: a scheduler waits for the end of the instance.
	leaveLimit = 2 * time.Second
	// The back-off after a failure, doubled each time.
	firstRetry, lastRetry = time.Second, 30 * time.Second
	// reports are made so many times in a TTL: two may be lost.
	perTTL = 3
)

// State is what is wanted of the catalog, and what it was last known to say.
type State struct {
	ID     string
	Wanted coord.Status // empty: it should not be there
	Known  coord.Status // empty: it is not there, as far as is known
	Since  time.Time    // of Known
	Err    error        // of the last attempt; nil: it succeeded, or there was none
}

// health is what is wanted: a status and what to say of it; the zero value: not to be there.
type health struct {
	status coord.Status
	note   string
}

// Service is one registration.
type Service struct {
	registry coord.Registry
	opt      Options
	more     chan struct{} // capacity 1: something else is wanted

	mu      sync.Mutex
	want    health
	told    health // what the catalog knows
	unsure  bool   // an attempt is under way, or failed: the catalog may know what was wanted then
	state   State
	settled chan struct{} // closed after each attempt, and replaced
}

// New prepares; nothing is wanted of the catalog yet.
func New(r coord.Registry, opt Options) *Service {
	if opt.Changed == nil {
		opt.Changed = func() {}
	}
	return &Service{registry: r, opt: opt, more: make(chan struct{}, 1), settled: make(chan struct{})}
}

// Set says how the service is: from now on it is to be in the catalog. status is not empty.
func (s *Service) Set(status coord.Status, note string) { s.wish(health{status, note}) }

func (s *Service) wish(h health) {
	s.mu.Lock()
	s.want = h
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// Wanted says whether the service is to be in the catalog.
func (s *Service) Wanted() bool { return s.State().Wanted != "" }

// State tells what is known.
func (s *Service) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state
	st.ID, st.Wanted, st.Known = s.opt.Registration.ID, s.want.status, s.told.status
	return st
}

// Withdraw takes the service out of the catalog, and waits until it is, or ctx ends: Run
// goes on trying then. If somebody calls Set meanwhile there is nothing to wait for.
func (s *Service) Withdraw(ctx context.Context) error {
	s.wish(health{})
	for {
		s.mu.Lock()
		over, settled, err := s.want.status != "" || s.told.status == "" && !s.unsure, s.settled, s.state.Err
		s.mu.Unlock()
		if over {
			return nil
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return fmt.Errorf("take %s out of the catalog: %w", s.opt.Registration.ID, errors.Join(ctx.Err(), err))
		}
	}
}

// Run keeps the catalog as it is wanted until ctx ends. Then it takes the service out, within
// leaveLimit; a catalog that is away sees it fall silent.
func (s *Service) Run(ctx context.Context) {
	failures := 0
	timer := time.NewTimer(s.period())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			s.wish(health{})
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveLimit)
			defer cancel()
			_ = s.bring(last)
			return
		case <-s.more:
			if failures > 0 && s.Wanted() {
				continue // its time comes when the back-off is over; a withdrawal is tried at once
			}
		case <-timer.C:
		}
		next := s.period()
		if err := s.bring(ctx); err != nil {
			failures++
			next = retryAfter(failures)
		} else {
			failures = 0
		}
		timer.Reset(next)
	}
}

// period is how often health is reported.
func (s *Service) period() time.Duration {
	return jitter(max(s.opt.Registration.TTL/perTTL, time.Second))
}

func retryAfter(failures int) time.Duration {
	d := firstRetry
	for n := 1; n < failures && d < lastRetry; n++ {
		d *= 2
	}
	return jitter(min(d, lastRetry))
}

// jitter takes up to a fifth away: instances that began together do not stay together.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/5+1) }

// bring makes the catalog what is wanted now. What it knows already is said again: that
// keeps the service from falling silent.
func (s *Service) bring(ctx context.Context) error {
	s.mu.Lock()
	want, told, unsure := s.want, s.told, s.unsure
	if want.status == "" && told.status == "" && !unsure {
		s.mu.Unlock()
		return nil
	}
	s.unsure = true
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	var err error
	if want.status == "" {
		err = s.registry.Deregister(ctx, s.opt.Registration.ID)
	} else {
		err = s.report(ctx, want, told.status == "" || unsure)
	}
	s.note(want, err)
	return err
}

// report tells the health, and registers first what the catalog does not know.
func (s *Service) report(ctx context.Context, h health, anew bool) error {
	id := s.opt.Registration.ID
	if !anew {
		err := s.registry.Report(ctx, id, h.status, h.note)
		if !errors.Is(err, coord.ErrNotFound) {
			return err
		}
		s.opt.Log.Warn("the catalog has forgotten this service: it is registered again", "id", id)
	}
	if err := s.registry.Register(ctx, s.opt.Registration); err != nil {
		return err
	}
	return s.registry.Report(ctx, id, h.status, h.note)
}

// note keeps what an attempt came to, and logs what is new of it.
func (s *Service) note(want health, err error) {
	s.mu.Lock()
	before, failed := s.told.status, s.state.Err
	s.state.Err, s.unsure = err, err != nil
	if err == nil {
		s.told = want
		if before != want.status {
			s.state.Since = time.Now()
		}
	}
	close(s.settled)
	s.settled = make(chan struct{})
	s.mu.Unlock()
	id := s.opt.Registration.ID
	switch {
	case err != nil && (failed == nil || failed.Error() != err.Error()):
		s.opt.Log.Warn("the catalog could not be told of this service: it is tried again", "id", id, "err", err)
	case err == nil && (failed != nil || before != want.status):
		s.opt.Log.Info("the catalog knows this service as it is", "id", id, "status", string(want.status))
	}
	if (err == nil) != (failed == nil) || before != want.status {
		s.opt.Changed()
	}
}
