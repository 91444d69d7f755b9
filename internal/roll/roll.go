// Package roll lets at most so many instances of a service change at a time (reload,
// restart), and stops the others when one of them turns unhealthy by it.
//
// It promises: a change begins only with a turn, of which there are as many as the limit;
// once an instance failed after its change, or did not come back from it, no other begins
// the same change; while the coordinator is away none begins. A turn is a lease: an
// instance that is paused in its change may be joined by one more.
//
// It leaves to others what a change is, and how an instance is seen to be healthy.
package roll

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"drover/internal/coord"
)

// ErrStopped: another instance failed after this change.
var ErrStopped = errors.New("the roll is stopped")

// Coordinator is what a roll needs of one.
type Coordinator interface {
	coord.KV
	coord.Leases
}

// Options of New. All but Changed are needed.
type Options struct {
	Prefix   string // of the keys of all rolls, without a slash at its end
	Name     string // of this one: all instances that change together use the same
	Instance string
	Limit    int // how many may change at a time, at least 1
	// TTL is how long the turn of an instance that fell silent lasts.
	TTL time.Duration
	// Healthy waits until the instance has been healthy for a while after its change, or
	// says why it is not.
	Healthy func(context.Context) error
	Log     *slog.Logger
	Changed func() // State may be another; quick. nil: nobody asks
}

// Roll is this instance's part. Its methods may be called from any goroutine; changes are
// made one after another.
type Roll struct {
	co  Coordinator
	opt Options
	one chan struct{} // a mutex that is waited for under a context

	mu    sync.Mutex
	state State
}

// State is for people.
type State struct {
	Doing   string // "", waiting, changing or stopped
	Version string // of the change
	Since   time.Time
	Why     string // it is stopped, or waits
}

// stop is the record that ends a roll.
type stop struct {
	Version  string `json:"version"` // of the change that failed
	Instance string `json:"instance"`
	Reason   string `json:"reason"`
}

// turn is the record of an instance that is changing.
type turn struct {
	Version string `json:"version"`
}

// New makes this instance's part of a roll; it starts nothing.
func New(co Coordinator, opt Options) *Roll {
	if opt.Changed == nil {
		opt.Changed = func() {}
	}
	return &Roll{co: co, opt: opt, one: make(chan struct{}, 1)}
}

func (r *Roll) key(parts ...string) string {
	return path.Join(append([]string{r.opt.Prefix, "rolls", r.opt.Name}, parts...)...)
}

// lease is the name of the turns.
func (r *Roll) lease() string { return r.key("turn") }

// State tells how far this instance is.
func (r *Roll) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

func (r *Roll) set(doing, version, why string) {
	r.mu.Lock()
	changed := r.state.Doing != doing || r.state.Why != why
	if changed {
		r.state = State{Doing: doing, Version: version, Since: time.Now(), Why: why}
	}
	r.mu.Unlock()
	if changed {
		r.opt.Changed()
	}
}

// Do waits for a turn, calls change, and waits until the instance is healthy. Of another
// instance's failure it returns ErrStopped, and change was not called; it returns change's
// error, or Healthy's, after the roll was stopped for all. version names the change: the
// same for all instances that come to it, as a digest of what is new. Errors: ErrStopped,
// ctx's, ErrUnauthorized, and ErrConflict if others use another limit.
func (r *Roll) Do(ctx context.Context, version string, change func(context.Context) error) error {
	select {
	case r.one <- struct{}{}:
		defer func() { <-r.one }()
	case <-ctx.Done():
		return ctx.Err()
	}
	r.set("waiting", version, "")
	if err := r.pass(ctx, version); err != nil {
		return r.end(version, err)
	}
	lease, err := r.co.Acquire(ctx, r.lease(), coord.LeaseOptions{Holder: r.opt.Instance, TTL: r.opt.TTL, Slots: r.opt.Limit})
	if err != nil {
		return r.end(version, fmt.Errorf("wait for a turn: %w", err))
	}
	defer r.giveBack(ctx, lease)
	if err := r.pass(ctx, version); err != nil { // it may have been stopped while this one waited
		return r.end(version, err)
	}
	return r.end(version, r.take(ctx, version, change))
}

// end keeps what a change came to.
func (r *Roll) end(version string, err error) error {
	if err != nil && errors.Is(err, ErrStopped) {
		r.set("stopped", version, err.Error())
		return err
	}
	r.set("", version, "")
	return err
}

// take makes the change in its turn.
func (r *Roll) take(ctx context.Context, version string, change func(context.Context) error) error {
	mark := r.key("turns", r.opt.Instance)
	if err := r.until(ctx, "note the turn", func() error {
		text, err := json.Marshal(turn{version})
		if err != nil {
			return err
		}
		_, err = r.co.Put(ctx, mark, text)
		return err
	}); err != nil {
		return err
	}
	r.set("changing", version, "")
	err := change(ctx)
	if err == nil {
		if err = r.opt.Healthy(ctx); err != nil {
			err = fmt.Errorf("not healthy after the change: %w", err)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err() // the instance ends: its mark says that it did not come back, until it does
	}
	if err != nil {
		if stopErr := r.stop(ctx, stop{version, r.opt.Instance, err.Error()}); stopErr != nil {
			return errors.Join(err, stopErr)
		}
	}
	return errors.Join(err, r.unmark(ctx))
}

// Back is called when the instance has started. Once it is healthy, what it had begun in
// an earlier life has ended well, and if that stopped the roll, it goes on.
func (r *Roll) Back(ctx context.Context) error {
	if err := r.opt.Healthy(ctx); err != nil {
		return err
	}
	return errors.Join(r.unmark(ctx), r.until(ctx, "let the roll go on", func() error {
		pair, err := r.co.Get(ctx, r.key("stop"))
		if errors.Is(err, coord.ErrNotFound) {
			return nil
		}
		var s stop
		if err != nil || json.Unmarshal(pair.Value, &s) != nil || s.Instance != r.opt.Instance {
			return err
		}
		if err := r.co.Delete(ctx, pair.Key, &pair.Revision); !errors.Is(err, coord.ErrConflict) {
			return err
		}
		return nil
	}))
}

func (r *Roll) unmark(ctx context.Context) error {
	return r.until(ctx, "take back the note of the turn", func() error {
		return r.co.Delete(ctx, r.key("turns", r.opt.Instance), nil)
	})
}

// pass says whether the roll goes on. A stop is of one change: what is certainly another
// goes on, and takes the stop away.
func (r *Roll) pass(ctx context.Context, version string) error {
	var missing []string
	var last turn
	err := r.until(ctx, "look whether the roll goes on", func() error {
		missing = nil
		pair, err := r.co.Get(ctx, r.key("stop"))
		switch {
		case err == nil:
			return r.heed(ctx, pair, version)
		case !errors.Is(err, coord.ErrNotFound):
			return err
		}
		missing, last, err = r.missing(ctx)
		return err
	})
	if err != nil || len(missing) == 0 {
		return err
	}
	lost := stop{last.Version, missing[0], "it did not come back from its change"}
	if err := r.stop(ctx, lost); err != nil {
		return err
	}
	if lost.Version != version {
		return r.pass(ctx, version)
	}
	return stopped(lost)
}

func stopped(s stop) error { return fmt.Errorf("%w: %s: %s", ErrStopped, s.Instance, s.Reason) }

// heed obeys a stop, or removes it if it is of another change.
func (r *Roll) heed(ctx context.Context, pair coord.Pair, version string) error {
	var s stop
	if err := json.Unmarshal(pair.Value, &s); err != nil {
		return fmt.Errorf("%w: the record %s cannot be read: %w", ErrStopped, pair.Key, err)
	}
	if s.Version == version {
		return stopped(s)
	}
	r.opt.Log.Info("the roll goes on: what stopped it was another change", "roll", r.opt.Name, "instance", s.Instance, "reason", s.Reason)
	if err := r.forget(ctx, s); err != nil {
		return err
	}
	err := r.co.Delete(ctx, pair.Key, &pair.Revision)
	if errors.Is(err, coord.ErrConflict) {
		return errAgain
	}
	return err
}

// forget removes the note of the instance that stopped a roll, unless it has begun another
// change since.
func (r *Roll) forget(ctx context.Context, s stop) error {
	mark, err := r.co.Get(ctx, r.key("turns", s.Instance))
	if errors.Is(err, coord.ErrNotFound) {
		return nil
	}
	var begun turn
	if err != nil || json.Unmarshal(mark.Value, &begun) == nil && begun.Version != s.Version {
		return err
	}
	if err := r.co.Delete(ctx, mark.Key, &mark.Revision); !errors.Is(err, coord.ErrConflict) {
		return err
	}
	return errAgain
}

// errAgain: what was read was replaced meanwhile.
var errAgain = errors.New("it was changed meanwhile")

// missing lists the instances that began a change and hold no turn any more, and the
// change of the first. Their notes are there before and after it is asked who holds one:
// else they may have just begun, or just ended.
func (r *Roll) missing(ctx context.Context) (names []string, first turn, err error) {
	marks, err := r.co.List(ctx, r.key("turns")+"/")
	if err != nil || len(marks) == 0 {
		return nil, first, err
	}
	holders, err := r.co.Holders(ctx, r.lease())
	if err != nil {
		return nil, first, err
	}
	still, err := r.co.List(ctx, r.key("turns")+"/")
	if err != nil {
		return nil, first, err
	}
	for _, m := range marks {
		name := strings.TrimPrefix(m.Key, r.key("turns")+"/")
		if name == r.opt.Instance || slices.Contains(holders, name) || !slices.ContainsFunc(still, func(p coord.Pair) bool { return p.Key == m.Key && p.Revision == m.Revision }) {
			continue
		}
		if len(names) == 0 {
			_ = json.Unmarshal(m.Value, &first) // what cannot be read is of no known change
		}
		names = append(names, name)
	}
	return names, first, nil
}

// stop ends the roll for all. The first one to say why is heard: the record is only ever created,
// so that to try again after a lost answer finds it there, and changes nothing.
func (r *Roll) stop(ctx context.Context, s stop) error {
	r.opt.Log.Error("the roll is stopped: the other instances keep what they have", "roll", r.opt.Name, "instance", s.Instance, "reason", s.Reason)
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return r.until(ctx, "stop the roll", func() error {
		_, err := r.co.CompareAndSwap(ctx, r.key("stop"), text, "")
		if errors.Is(err, coord.ErrConflict) {
			return nil
		}
		return err
	})
}

// Resume takes a stop away, so that the same change is tried again, and returns why it
// was stopped; "" if it was not, which is no error. Who is changing now goes on as before.
func (r *Roll) Resume(ctx context.Context) (why string, err error) {
	marks, err := r.co.List(ctx, r.key("turns")+"/")
	if err != nil {
		return "", fmt.Errorf("resume roll: %w", err)
	}
	pair, err := r.co.Get(ctx, r.key("stop"))
	switch {
	case err == nil:
		why = reasonOf(pair)
	case !errors.Is(err, coord.ErrNotFound):
		return "", fmt.Errorf("resume roll: %w", err)
	}
	holders, err := r.co.Holders(ctx, r.lease())
	if err != nil {
		return "", fmt.Errorf("resume roll: %w", err)
	}
	for _, m := range marks {
		if slices.Contains(holders, strings.TrimPrefix(m.Key, r.key("turns")+"/")) {
			continue // it is changing now
		}
		if err := r.co.Delete(ctx, m.Key, &m.Revision); err != nil && !errors.Is(err, coord.ErrConflict) {
			return "", fmt.Errorf("resume roll: %w", err)
		}
	}
	if err := r.co.Delete(ctx, r.key("stop"), nil); err != nil {
		return "", fmt.Errorf("resume roll: %w", err)
	}
	return why, nil
}

// Freed returns when nothing stops the roll, or ctx ends.
func (r *Roll) Freed(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.co.Watch(ctx, r.key("stop"), true, func(found []coord.Pair, err error) {
		if err == nil && len(found) == 0 {
			cancel()
		}
	})
}

func reasonOf(pair coord.Pair) string {
	var s stop
	if err := json.Unmarshal(pair.Value, &s); err != nil {
		return "its record cannot be read"
	}
	return s.Instance + ": " + s.Reason
}

// The back-off of until.
const leastWait, mostWait = 500 * time.Millisecond, 15 * time.Second

// until repeats f while the coordinator is away.
func (r *Roll) until(ctx context.Context, what string, f func() error) error {
	back := coord.Backoff{Least: leastWait, Most: mostWait}
	for {
		err := f()
		if err == nil || !errors.Is(err, coord.ErrUnavailable) && !errors.Is(err, errAgain) {
			return err
		}
		if errors.Is(err, coord.ErrUnavailable) {
			state := r.State()
			r.set(state.Doing, state.Version, "the coordinator does not answer")
		}
		if !coord.Wait(ctx, back.Next()) {
			return fmt.Errorf("%s: %w", what, errors.Join(ctx.Err(), err))
		}
	}
}

// giveBack lets the next one begin.
func (r *Roll) giveBack(ctx context.Context, lease coord.Lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := lease.Release(ctx); err != nil {
		r.opt.Log.Warn("give back the turn: it ends by itself", "roll", r.opt.Name, "err", err)
	}
}
