package app

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"drover/client"
	"drover/internal/config"
	"drover/internal/coord"
	"drover/internal/event"
	"drover/internal/supervise"
)

const eventChanged = "changed"

// watches makes events of what changes in the coordinator.
type watches struct {
	catalog coord.Catalog
	kv      coord.KV // nil: only a catalog
	bus     *event.Bus
	log     *slog.Logger

	mu     sync.Mutex
	ctx    context.Context // of run; nil before
	group  sync.WaitGroup
	byName map[string]*watch
}

// watch is what one of them last said.
type watch struct {
	cfg    config.Watch
	cancel context.CancelFunc

	mu    sync.Mutex
	known bool // it has said something
	size  int  // instances, or keys
	since time.Time
	err   error // nil: what it said is true now
}

func newWatches(catalog coord.Catalog, kv coord.KV, bus *event.Bus, log *slog.Logger) *watches {
	return &watches{catalog: catalog, kv: kv, bus: bus, log: log, byName: map[string]*watch{}}
}

// follow makes the watches those of a configuration; one that did not change goes on.
func (w *watches) follow(cfg *config.Config) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, old := range w.byName {
		if now, ok := cfg.Watches[name]; !ok || now != old.cfg {
			if old.cancel != nil {
				old.cancel()
			}
			delete(w.byName, name)
		}
	}
	for name, c := range cfg.Watches {
		if w.byName[name] == nil && w.catalog != nil {
			w.byName[name] = &watch{cfg: c}
			w.begin(name, w.byName[name])
		}
	}
}

// run watches until ctx ends.
func (w *watches) run(ctx context.Context) {
	w.mu.Lock()
	w.ctx = ctx
	for name, one := range w.byName {
		w.begin(name, one)
	}
	w.mu.Unlock()
	<-ctx.Done()
	w.mu.Lock() // nothing begins any more
	defer w.mu.Unlock()
	w.group.Wait()
}

// begin starts one. w.mu is held.
func (w *watches) begin(name string, one *watch) {
	if w.ctx == nil || w.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(w.ctx)
	one.cancel = cancel
	w.group.Go(func() {
		if one.cfg.Service != "" {
			q := coord.Query{Name: one.cfg.Service, Tag: one.cfg.Tag, Datacenter: one.cfg.Datacenter}
			var last []coord.Instance
			w.catalog.WatchService(ctx, q, func(found []coord.Instance, err error) {
				same := err == nil && coord.EqualInstances(last, found)
				if err == nil {
					last = found
				}
				w.heard(ctx, name, one, len(found), same, err)
			})
			return
		}
		key, exact := one.cfg.Prefix, false
		if one.cfg.Key != "" {
			key, exact = one.cfg.Key, true
		}
		var last []coord.Pair
		w.kv.Watch(ctx, key, exact, func(found []coord.Pair, err error) {
			same := err == nil && coord.EqualPairs(last, found)
			if err == nil {
				last = found
			}
			w.heard(ctx, name, one, len(found), same, err)
		})
	})
}

// heard makes events of a new state. That nothing is there at first is no change, and that
// it is the same as before a failure is none either (a watch tells it to end the failure).
func (w *watches) heard(ctx context.Context, name string, one *watch, size int, same bool, err error) {
	if ctx.Err() != nil {
		return
	}
	one.mu.Lock()
	before, failed := one.size, one.err
	one.err = err
	if err == nil {
		one.known, one.size = true, size
		if !same {
			one.since = time.Now()
		}
	}
	one.mu.Unlock()
	switch {
	case err != nil:
		w.log.Warn("watch: the present state is not known, the last one stays", "watch", name, "err", err)
		return
	case failed != nil:
		w.log.Info("watch: the coordinator answers again", "watch", name)
	}
	if same {
		return
	}
	w.bus.Publish(event.Event{Name: eventChanged, Source: name, Text: one.count(size)})
	if one.cfg.Service == "" {
		return
	}
	switch {
	case size > 0 && before == 0:
		w.bus.Publish(event.Event{Name: supervise.EventHealthy, Source: name})
	case size == 0 && before > 0:
		w.bus.Publish(event.Event{Name: supervise.EventUnhealthy, Source: name})
	}
}

func (one *watch) count(size int) string {
	if one.cfg.Service != "" {
		return fmt.Sprintf("%d instances", size)
	}
	return fmt.Sprintf("%d keys", size)
}

// states tells of all watches, by name.
func (w *watches) states() []client.Watch {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []client.Watch
	for _, name := range slices.Sorted(maps.Keys(w.byName)) {
		one := w.byName[name]
		one.mu.Lock()
		s := client.Watch{Name: name, Service: one.cfg.Service, Key: one.cfg.Key, Prefix: one.cfg.Prefix, Known: one.known, Size: one.size, Since: one.since}
		if one.err != nil {
			s.Error = one.err.Error()
		}
		one.mu.Unlock()
		list = append(list, s)
	}
	return list
}
