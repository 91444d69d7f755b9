package volume

import (
	"context"
	"fmt"

	"drover/internal/repo"
	"drover/internal/repo/format"
)

// othersLocks lists the locks that are not this instance's. It looks twice: a lock that is
// being refreshed is at each moment there under one id at least, but one listing may miss both.
func (u *Upkeep) othersLocks(ctx context.Context) (owners, error) {
	found := owners{}
	for range 2 {
		mine := u.ownLocks()
		var others []repo.LockInfo
		locks, err := u.r.v.Repo.Locks(ctx)
		if err != nil {
			return nil, fmt.Errorf("look for locks: %w", err)
		}
		for id := range u.ownLocks() {
			mine[id] = struct{}{}
		}
		for _, l := range locks {
			if _, ok := mine[l.ID]; !ok && l.Hostname != mirrorHost+u.r.opt.Protocol.Self.ID {
				found[ownerOf(l)] = l
				others = append(others, l)
			}
		}
		u.seen = sightings(u.seen, others, u.opt.now())
	}
	return found, nil
}

func (u *Upkeep) ownLocks() map[format.ID]struct{} {
	u.r.mu.Lock()
	lock := u.r.lock
	u.r.mu.Unlock()
	ids := map[format.ID]struct{}{}
	if lock != nil {
		for _, id := range lock.Objects() {
			ids[id] = struct{}{}
		}
	}
	return ids
}

// livingLocks is othersLocks after it has removed those of instances that are dead: no
// successor of theirs does it if they never held the volume. Should one of them only
// sleep, it looks for its lock before it counts on anything, as after `restic unlock`.
func (u *Upkeep) livingLocks(ctx context.Context) (owners, error) {
	locks, err := u.othersLocks(ctx)
	if err != nil {
		return nil, err
	}
	removed := false
	for id, s := range u.seen {
		if !s.dead(u.opt.now()) {
			continue
		}
		u.opt.Log.Warn("upkeep: removing the lock of an instance that refreshes it no more", "lock", s.lock.String(), "unchanged for", u.opt.now()-s.since)
		if err := u.r.v.Repo.RemoveLock(ctx, id); err != nil {
			return nil, err
		}
		removed = true
	}
	if !removed {
		return locks, nil
	}
	return u.othersLocks(ctx)
}
