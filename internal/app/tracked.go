package app

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"drover/internal/changes"
	"drover/internal/config"
	"drover/internal/volume"
)

// tracked follows the changes of the volume's paths: a new tracker each time
// that the jobs start, since until then restores replace what is watched.
type tracked struct {
	roots   []string
	log     *slog.Logger
	changed chan struct{} // a value when something changed
	dirty   atomic.Bool   // something changed since the last drain
	again   chan struct{} // a new tracker is wanted
	walk    time.Duration // between two looks at everything

	mu      sync.Mutex
	tracker *changes.Tracker
}

func newTracked(cfg *config.Config, log *slog.Logger) *tracked {
	return &tracked{roots: cfg.Paths(), log: log, changed: make(chan struct{}, 1), again: make(chan struct{}, 1), walk: fullWalk}
}

// start asks for a new tracker; until it watches, all counts as changed.
func (t *tracked) start(context.Context) {
	t.mu.Lock()
	t.tracker = nil
	t.mu.Unlock()
	select {
	case t.again <- struct{}{}:
	default:
	}
}

// fullWalk is how often everything is looked at, whatever was reported: what no
// event tells is found by its times then.
const fullWalk = time.Hour

// run runs one tracker after another until ctx ends.
func (t *tracked) run(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	stop := func() {}
	defer func() { stop() }()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.again:
		}
		stop()
		group.Wait()
		one, cancel := context.WithCancel(ctx)
		stop = cancel
		tracker, err := changes.New(t.roots, changes.Options{Log: t.log})
		if err != nil {
			t.log.Warn("watch for changes: every backup looks at all files instead", "err", err)
			continue
		}
		t.mu.Lock()
		t.tracker = tracker
		t.mu.Unlock()
		group.Go(func() {
			if err := tracker.Run(one); err != nil && one.Err() == nil {
				t.log.Warn("watch for changes", "err", err)
			}
		})
		group.Go(func() { t.follow(one, tracker) })
	}
}

// follow passes on that something changed.
func (t *tracked) follow(ctx context.Context, tracker *changes.Tracker) {
	walk := time.NewTicker(t.walk)
	defer walk.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-walk.C:
			tracker.MarkAll("a full walk is due")
		case <-tracker.Notify():
			t.dirty.Store(true)
			select {
			case t.changed <- struct{}{}:
			default:
			}
		}
	}
}

func (t *tracked) get() *changes.Tracker {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tracker
}

// Drain is volume.Changes'.
func (t *tracked) Drain(ctx context.Context) volume.ChangeSet {
	tracker := t.get()
	if tracker == nil {
		return volume.ChangeSet{All: true, Reason: "not watching yet"}
	}
	t.dirty.Store(false)
	set := tracker.Drain(ctx)
	return volume.ChangeSet{All: set.All, Reason: set.Reason, Paths: set.Paths}
}

// Return is volume.Changes'.
func (t *tracked) Return(set volume.ChangeSet) {
	t.dirty.Store(true)
	if tracker := t.get(); tracker != nil {
		tracker.Return(changes.Set{All: set.All, Reason: set.Reason, Paths: set.Paths})
	}
}
