package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"drover/internal/config"
	"drover/internal/objstore"
	"drover/internal/objstore/probe"
	"drover/internal/repo/archive"
	"drover/internal/volume"
	"drover/internal/volume/protocol"
	"drover/internal/volume/slots"
)

// tenure is an agent's part in one volume: the whole of its life, or as long as it
// tries, holds and leaves one slot.
type tenure struct {
	cfg     *config.Config // of the volume
	slot    int            // slots.None: not a slot
	v       *volume.Volume
	rt      *volume.Runtime
	tracked *tracked
	mirror  *mirror        // nil: none
	tests   *restoreTests  // nil: none
	upkeep  *volume.Upkeep // nil: none
}

type tenureOptions struct {
	cfg     *config.Config
	slot    *int // nil: not a slot
	watch   protocol.Watch
	retired bool
}

// openVolume opens the volume of cfg, or makes it; nil if the agent was told to stop meanwhile.
func (a *agent) openVolume(ctx context.Context, st objstore.Store, cfg *config.Config) (*volume.Volume, error) {
	opening, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.stopping, cancel)()
	var v *volume.Volume
	err := untilAvailable(opening, a.log, "open volume", func() error {
		if _, err := probe.Check(opening, st, probe.Start); err != nil {
			return err
		}
		var created bool
		var err error
		v, created, err = openVolume(opening, st, cfg, cfg.Init == config.InitAuto, a.log)
		if created {
			a.log.Warn("initialised a NEW volume: there was nothing at this place in the store",
				"store", describe(st), "volume", cfg.Volume)
		}
		return err
	})
	if err != nil && opening.Err() != nil && ctx.Err() == nil {
		return nil, nil // told to stop before anything was begun
	}
	return v, err
}

// treeCacheBytes bounds the local copies of directory listings.
const treeCacheBytes = 1 << 30

// newTenure prepares a part in v.
func (a *agent) newTenure(v *volume.Volume, data *volume.DataDir, o tenureOptions) (*tenure, error) {
	cache, err := archive.OpenDirCache(data.Path("trees"), treeCacheBytes)
	if err != nil {
		return nil, fmt.Errorf("open tree cache: %w", err)
	}
	t := &tenure{cfg: o.cfg, slot: slots.None, v: v, tracked: newTracked(a.cfg, a.log), mirror: newMirror(o.cfg, cache, data, a.maintenance.Load, a.log)}
	if o.slot != nil {
		t.slot = *o.slot
	}
	tree := treeOptions(o.cfg)
	tree.Cache = cache
	t.rt = volume.NewRuntime(v, volume.Options{
		Protocol: protocol.Config{
			Volume: o.cfg.Volume, Self: protocol.Holder{ID: o.cfg.ID, Address: hostname()},
			TTL: o.cfg.Lease.TTL.Std(), Fence: protocol.Fence(o.cfg.Fence),
			AdoptFiles:        o.cfg.FirstStart == config.FirstStartAdopt,
			DiscardImageFiles: o.cfg.ImageFiles == config.ImageFilesDrop,
			FinalCommit:       o.cfg.Backup.OnStop,
			Warm:              o.slot == nil, // who waits for any slot has no one to copy
			Leave:             o.slot != nil, Retired: o.retired,
		},
		Watch: o.watch,
		Tree:  tree, Jobs: a.jobs, Changes: t.tracked, Still: a.still, DataDir: data, Log: a.log, Notify: a.notify,
	})
	t.tests, t.upkeep = a.newRestoreTests(t), newUpkeep(o.cfg, t.rt, a.maintenance.Load, a.log)
	a.jobs.prepare(t.slot, t.tracked.start, t.rt.JobsExited)
	return t, nil
}

// live runs a tenure and what asks it for backups, until it ends.
func (a *agent) live(ctx context.Context, t *tenure) error {
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	a.mu.Lock()
	a.tenure = t
	a.mu.Unlock()
	parts.Go(func() {
		select {
		case <-a.stopping.Done():
			t.rt.Stop(stopGrace)
		case <-ctx.Done():
		}
	})
	parts.Go(func() { t.tracked.run(ctx) })
	parts.Go(func() { tellProgress(ctx, a.log, a.bus.Publish, t.rt.Progress) })
	if t.upkeep != nil {
		parts.Go(func() { t.upkeep.Run(ctx) })
	}
	if t.tests != nil {
		testing, end := context.WithCancel(ctx)
		defer end()
		defer context.AfterFunc(a.stopping, end)() // the last backup is what counts then
		parts.Go(func() { t.tests.run(testing) })
	}
	if t.mirror != nil {
		parts.Go(func() { t.mirror.run(ctx, t.v, t.rt) })
	}
	parts.Go(func() { a.warnOfGrace(ctx, func() volume.Stats { _, stats := t.rt.Status(); return stats }) })
	parts.Go(func() {
		triggers{
			onChange: a.cfg.Backup.OnChange.Std(), every: a.cfg.Backup.Every.Std(),
			changed: t.tracked.changed, backup: func() { a.queueUnasked(t.rt) },
		}.run(ctx)
	})
	err := t.rt.Run(ctx)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// headTimeout bounds a look at one slot's head, as the protocol's own reads are bounded.
func headTimeout(ttl time.Duration) time.Duration { return max(ttl/4, 250*time.Millisecond) }
