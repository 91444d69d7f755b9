package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/volume/protocol"
)

// run is one run of the upkeep under one head.
type run struct {
	u         *Upkeep
	repo      *repo.Repository // a handle of its own, with one request at a time
	head      protocol.Head
	condemned map[format.ID]sentence
	locks     owners // of others
	entries   []kept // of the snapshot objects
	again     bool   // what a survey saw was changed: another one comes soon
}

// once does what is to be done now, and says when to look again. Its context is the claim's.
func (u *Upkeep) once(ctx context.Context) (next time.Duration, err error) {
	h, ok := u.r.head()
	if !ok {
		return u.opt.Every, nil
	}
	c := &run{u: u, repo: u.aside(), head: h}
	if err := c.begin(ctx); err != nil {
		return u.opt.Every, err
	}
	if err := c.history(ctx); err != nil {
		if lost(err) {
			return c.collect(ctx) // finds it too, and names all
		}
		return u.opt.Every, err
	}
	if err := c.retain(ctx); err != nil {
		return u.opt.Every, err
	}
	if err := c.compact(ctx); err != nil {
		return u.opt.Every, err
	}
	if !c.surveyDue() {
		return c.next(plan{}), nil
	}
	return c.collect(ctx)
}

// begin takes over the head's list, and notes the locks of others. Those are listed after
// the head was read: what is on its list was condemned before.
func (c *run) begin(ctx context.Context) (err error) {
	if c.locks, err = c.u.livingLocks(ctx); err != nil {
		return err
	}
	c.condemned = map[format.ID]sentence{}
	set := map[format.ID]struct{}{}
	var ids []format.ID
	for _, name := range c.head.Condemned {
		id, err := format.ParseID(name)
		if err != nil {
			return fmt.Errorf("read head's condemned packs: %w", err)
		}
		s, ok := c.u.sentences[id]
		if !ok {
			s = sentence{since: c.u.opt.now(), locks: c.locks}
		}
		c.condemned[id] = s
		set[id] = struct{}{}
		ids = append(ids, id)
	}
	c.u.sentences = c.condemned
	c.repo.SetCondemned(set)
	c.u.r.v.Repo.Bury(ids)
	c.u.update(func(s *UpkeepStats) { s.Waiting = len(ids) })
	return nil
}

// retain removes the snapshot objects that retention does not keep.
func (c *run) retain(ctx context.Context) error {
	if c.u.opt.Keep.Committed.Empty() && c.u.opt.Keep.Diverged.Empty() {
		return nil
	}
	for _, k := range surplus(c.entries, c.head, c.u.opt.Keep, time.Now()) {
		if err := c.removeSnapshot(ctx, k, "retention"); err != nil {
			return err
		}
	}
	return nil
}

func (c *run) removeSnapshot(ctx context.Context, k kept, why string) error {
	delete(c.u.known, k.ID)
	if err := c.repo.RemoveSnapshot(ctx, k.ID); err != nil {
		return fmt.Errorf("remove snapshot: %w", err)
	}
	c.u.opt.Log.Info("upkeep: snapshot removed", "snapshot", k.ID.String(), "time", k.Time, "seq", k.Seq, "why", why)
	c.u.surveyed = false
	c.u.update(func(s *UpkeepStats) { s.Removed++ })
	return nil
}

// history lists the snapshot objects, which of them are the head's line, and what is
// missing of those that were there before.
func (c *run) history(ctx context.Context) error {
	var all []Entry
	made := map[format.ID]kept{}
	err := c.repo.Snapshots(ctx, func(id format.ID, sn *format.Snapshot) error {
		k := keptOf(id, sn)
		all = append(all, k.Entry)
		made[id] = k
		return nil
	})
	if err != nil {
		return err
	}
	sortByTime(all)
	markLine(all, c.head)
	c.entries = nil
	for _, e := range all {
		c.entries = append(c.entries, kept{e, made[e.ID].ours, made[e.ID].referred})
	}
	return c.u.account(c.entries)
}

// compact merges small index objects, and removes the merged ones when nobody can be
// reading them: a restic that starts fails if one goes that it has listed.
func (c *run) compact(ctx context.Context) error {
	u := c.u
	if len(u.superseded) > 0 {
		if err := c.removeMerged(ctx); err != nil {
			return err
		}
	}
	if len(u.superseded) > 0 || u.compacted > 0 && c.head.Seq < u.compacted+smallIndexes {
		return nil
	}
	old, err := c.repo.CompactIndex(ctx, smallIndexes, nil)
	if err != nil {
		return err
	}
	u.compacted = max(c.head.Seq, 1)
	if len(old) == 0 {
		return nil
	}
	u.opt.Log.Debug("upkeep: index objects merged", "objects", len(old))
	u.superseded, u.merged = old, u.opt.now()
	if u.readers, err = u.othersLocks(ctx); err != nil || len(u.readers) > 0 {
		return err
	}
	return c.removeMerged(ctx)
}

// removeMerged waits for a moment without others. Who came after the merging may have
// listed both, old and new, but has read them after twice the grace.
func (c *run) removeMerged(ctx context.Context) error {
	u := c.u
	locks, err := u.othersLocks(ctx)
	if err != nil {
		return err
	}
	if u.opt.now()-u.merged >= 2*u.opt.Grace {
		locks = u.readers.left(locks)
	}
	if len(locks) > 0 {
		return nil
	}
	if err := c.repo.RemoveIndex(ctx, u.superseded); err != nil {
		return err
	}
	u.superseded, u.readers = nil, nil
	return nil
}

// surveyDue reports whether anything may have become unused, or is due. A survey reads
// the trees of all snapshots.
func (c *run) surveyDue() bool {
	if !c.u.surveyed || c.u.leftovers != c.u.r.leftovers() {
		return true
	}
	now := c.u.opt.now()
	for _, s := range c.condemned {
		if now-s.since >= c.u.opt.Grace {
			return true
		}
	}
	return false
}

// collect surveys the packs and carries the plan out.
func (c *run) collect(ctx context.Context) (time.Duration, error) {
	u := c.u
	leftovers := u.r.leftovers()
	u.r.countPacks()
	opt := repo.SurveyOptions{Listed: func(ctx context.Context) (err error) {
		c.locks, err = u.othersLocks(ctx)
		return err
	}}
	if id, err := format.ParseID(c.head.Tree); err == nil && c.head.Snapshot != "" {
		opt.Roots = []format.ID{id}
	}
	if cache := u.r.opt.Tree.Cache; cache != nil {
		opt.Trees = cache.Get
	}
	s, err := c.repo.Survey(ctx, opt)
	if err != nil {
		if removed, rmErr := c.bornLate(ctx, err); removed || rmErr != nil {
			return soonAgain, rmErr
		}
		u.noteDamage(err, c.head)
		if lost(err) { // the newest one's, perhaps: what the files still have is stored anew, once
			c.suspect(err.Error(), nil)
		}
		return u.opt.Every, fmt.Errorf("survey the volume: %w", err)
	}
	if id, err := format.ParseID(c.head.Snapshot); err == nil {
		if now, _ := u.r.head(); now.Snapshot == c.head.Snapshot && !present(s, id) {
			c.suspect("the newest snapshot's object was removed: "+c.head.Snapshot, nil)
		}
	}
	if whole, err := c.stillborn(ctx, s); !whole || err != nil {
		u.noteDamage(err, c.head)
		return soonAgain, err
	}
	u.noteDamage(nil, c.head)
	p := planUpkeep(s, c.condemned, c.locks, u.opt.now(), u.opt.Grace)
	for _, step := range []func(context.Context, *repo.Survey, *plan) error{c.mend, c.rescue, c.remove, c.noteFound, c.drop, c.condemn} {
		if err := step(ctx, s, &p); err != nil {
			return u.opt.Every, err
		}
	}
	u.surveyed, u.leftovers = !c.again, leftovers
	u.update(func(s *UpkeepStats) { s.Waits = p.waits.describe(time.Now()) })
	if p.waits.writers() && len(c.condemned) == 0 {
		u.surveyed = false // something could not be condemned
	}
	return c.next(p), nil
}

// next is when to look again.
func (c *run) next(p plan) time.Duration {
	switch {
	case c.again || len(p.waits) > 0 || len(p.drop) > 0 || len(p.found) > 0 || len(c.u.superseded) > 0:
		return soonAgain
	case p.due > 0:
		return max(p.due-c.u.opt.now(), time.Millisecond)
	case len(p.condemn) > 0:
		return c.u.opt.Grace
	}
	return c.u.opt.Every
}

// stillborn removes the snapshot objects of commits that died before their index, and
// reports whether no other snapshot lacks its tree, but for one that this instance is making.
func (c *run) stillborn(ctx context.Context, s *repo.Survey) (bool, error) {
	if len(s.Rootless) == 0 {
		c.u.rootless = nil
		return true, nil
	}
	if err := c.history(ctx); err != nil {
		return false, err
	}
	without := map[format.ID]bool{}
	for _, id := range s.Rootless {
		without[id] = true
	}
	before := c.u.rootless
	c.u.rootless = without
	whole := true
	var dead []repo.Damage
	for _, k := range c.entries {
		switch {
		case !without[k.ID]:
		case k.aside(c.head) && !k.Diverged:
			if err := c.removeSnapshot(ctx, k, "its commit died before its data was indexed"); err != nil {
				return false, err
			}
		case k.ours && !k.settled(c.head): // being made
		case c.locks.writers() || !before[k.ID]:
			whole = false // another makes it, or has by now: its index is there when we look again
		default:
			dead = append(dead, repo.Damage{Snapshot: k.ID, Time: k.Time, Err: fmt.Errorf(
				"%w: its tree is in no index; `drover verify` tells more, and `drover forget` removes it while no agent runs", repo.ErrDamaged)})
		}
	}
	if len(dead) > 0 {
		return false, repo.NewDamageError(dead)
	}
	return whole, nil
}

// bornLate removes the snapshot objects of dead commits whose packs had been removed
// before they stored their index, and reports whether it did: nothing can be restored
// from them, none can be committed any more, and the others' damage is told without them.
func (c *run) bornLate(ctx context.Context, err error) (bool, error) {
	var damage *repo.DamageError
	if !errors.As(err, &damage) {
		return false, nil
	}
	lost := map[format.ID]bool{}
	for _, d := range damage.Snapshots {
		if errors.Is(d.Err, objstore.ErrNotFound) {
			lost[d.Snapshot] = true
		}
	}
	if known := len(lost) > 0 && c.history(ctx) == nil; !known {
		return false, nil // which are dead is not known; the damage is told
	}
	removed := false
	for _, k := range c.entries {
		if !lost[k.ID] || !k.aside(c.head) || k.Diverged || k.Epoch >= c.head.Epoch {
			continue
		}
		if err := c.removeSnapshot(ctx, k, "its commit came too late: its data had been removed"); err != nil {
			return removed, err
		}
		removed = true
	}
	return removed, nil
}

// mend takes packs out of the index that the store has lost, and has what the newest
// snapshot needs of them stored anew.
func (c *run) mend(ctx context.Context, s *repo.Survey, p *plan) error {
	gone := map[format.ID]struct{}{}
	var ids []format.ID
	needed := 0
	for _, id := range p.missing {
		_, err := c.repo.Store().Head(ctx, format.DataFile.Key(id))
		if err == nil {
			continue
		}
		if !errors.Is(err, objstore.ErrNotFound) {
			return fmt.Errorf("look for pack %s: %w", id.Short(), err)
		}
		gone[id] = struct{}{}
		ids = append(ids, id)
		if s.Packs[id].Used > 0 {
			needed++
		}
	}
	if len(gone) == 0 {
		return nil
	}
	c.u.opt.Log.Error("upkeep: the store has lost packs: somebody pruned by force, or removed them; the index is mended", "packs", len(gone), "needed", needed, "first", ids[0].String())
	if needed > 0 {
		c.again = true // to see which snapshots lack something then
		c.suspect(fmt.Sprintf("the store has lost %d packs that snapshots need", needed), ids)
	}
	return c.repo.DropFromIndex(ctx, gone)
}

func present(s *repo.Survey, snapshot format.ID) bool {
	_, ok := s.Snapshots[snapshot]
	return ok
}

// suspect has a whole commit made, once for each reason.
func (c *run) suspect(why string, gone []format.ID) {
	if c.u.suspected == why {
		return
	}
	c.u.suspected = why
	if c.u.opt.ofCopy {
		c.u.opt.Log.Error("upkeep: the copy has lost data: what the next commit needs is copied anew", "why", why)
		return
	}
	c.u.opt.Log.Error("upkeep: the volume has lost data: all files are looked at, and what the store lacks is stored anew", "why", why)
	c.u.r.suspect(why, gone)
}

// rescue moves what is needed out of condemned packs, and out of those that are mostly unused.
func (c *run) rescue(ctx context.Context, s *repo.Survey, p *plan) error {
	move := append(p.rescue, p.repack...)
	if len(move) == 0 {
		return nil
	}
	if err := c.repo.Repack(ctx, s, move); err != nil {
		return err
	}
	p.condemn = append(p.condemn, p.repack...)
	return nil
}

// remove deletes what is out of the index and nobody counts on, and takes it, and what is
// gone, off the head's list.
func (c *run) remove(ctx context.Context, _ *repo.Survey, p *plan) error {
	if err := c.repo.DeletePacks(ctx, p.remove); err != nil {
		return err
	}
	if n := len(p.remove); n > 0 {
		c.u.opt.Log.Info("upkeep: packs deleted", "packs", n, "bytes", p.bytes)
		c.u.update(func(s *UpkeepStats) { s.Deleted += n; s.Freed += p.bytes })
	}
	var names []string
	for _, id := range append(p.forgive, p.remove...) {
		names = append(names, id.String())
		delete(c.condemned, id)
	}
	if len(names) == 0 {
		return nil
	}
	c.u.update(func(s *UpkeepStats) { s.Waiting = len(c.condemned) })
	if err := c.u.r.Forgive(ctx, names); err != nil {
		return fmt.Errorf("take deleted packs off the head's list: %w", err)
	}
	return nil
}

// noteFound notes who may have read the index before a pack had left it that this life
// did not take out: whoever locks now. Who has unlocked by now has stored its snapshot,
// and the next survey sees that.
func (c *run) noteFound(ctx context.Context, _ *repo.Survey, p *plan) error {
	if len(p.found) == 0 {
		return nil
	}
	locks, err := c.u.othersLocks(ctx)
	if err != nil {
		return err
	}
	for _, id := range p.found {
		s := c.condemned[id]
		s.out = locks
		c.condemned[id] = s
	}
	return nil
}

// drop takes condemned packs out of the index, and notes who may have read it before.
func (c *run) drop(ctx context.Context, _ *repo.Survey, p *plan) error {
	if len(p.drop) == 0 {
		return nil
	}
	set, known := map[format.ID]struct{}{}, map[format.ID]sentence{}
	for _, id := range p.drop {
		set[id] = struct{}{}
		known[id] = c.condemned[id]
		delete(c.condemned, id) // cut off here, they are found anew, with the locks of then
	}
	if err := c.repo.DropFromIndex(ctx, set); err != nil {
		return err
	}
	locks, err := c.u.othersLocks(ctx)
	if err != nil {
		return err
	}
	for id, s := range known {
		s.out = locks
		c.condemned[id] = s
	}
	return nil
}

// condemnTries is how often a condemnation is tried against a newer head.
const condemnTries = 5

// condemn puts packs on the head's list. A commit that landed since the survey began
// counts on what the former head reached, and on packs that were noted: without those
// the set holds for its head, too.
func (c *run) condemn(ctx context.Context, _ *repo.Survey, p *plan) error {
	h := c.head
	for range condemnTries {
		var names []string
		var ids []format.ID
		counted := c.u.r.countedPacks()
		for _, id := range p.condemn {
			if _, ok := counted[id]; !ok {
				names, ids = append(names, id.String()), append(ids, id)
			}
		}
		if len(names) == 0 {
			return nil
		}
		err := c.u.r.Condemn(ctx, h, names)
		now, ok := c.u.r.head()
		if errors.Is(err, protocol.ErrStale) && ok && now.Epoch == h.Epoch && now.Claim == h.Claim {
			h = now
			continue
		}
		if err != nil {
			return fmt.Errorf("condemn packs: %w", err)
		}
		return c.condemnedNow(ctx, ids)
	}
	return nil // too busy: the next run tries again
}

// condemnedNow notes what a condemnation that has landed means.
func (c *run) condemnedNow(ctx context.Context, ids []format.ID) error {
	c.u.r.v.Repo.Bury(ids)
	locks, err := c.u.othersLocks(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		c.condemned[id] = sentence{since: c.u.opt.now(), locks: locks}
	}
	c.u.opt.Log.Info("upkeep: packs condemned", "packs", len(ids))
	c.u.update(func(s *UpkeepStats) { s.Condemned += len(ids); s.Waiting = len(c.condemned) })
	return nil
}
