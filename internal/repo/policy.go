package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"drover/internal/repo/format"
)

// Policy says which snapshots to keep; a snapshot is kept if any rule keeps it.
// The rules are restic's. The zero Policy keeps everything.
type Policy struct {
	// Last keeps the newest ones; the others keep the newest one of each of so
	// many hours, days, ISO weeks, months, years that have any. -1 means all.
	Last, Hourly, Daily, Weekly, Monthly, Yearly int
	Within                                       time.Duration // keeps what is at most so much older than the newest
	Tags                                         []string      // keeps what has any of these tags
}

// Empty reports whether the policy has no rule.
func (p Policy) Empty() bool {
	return p.Last == 0 && p.Hourly == 0 && p.Daily == 0 && p.Weekly == 0 && p.Monthly == 0 && p.Yearly == 0 &&
		p.Within == 0 && len(p.Tags) == 0
}

// period is one counting rule.
type period struct {
	left int // snapshots it may still keep; -1: all
	name func(t time.Time, nth int) int
	last int // name of the period that was kept last
}

func (p Policy) periods() []period {
	return []period{
		{p.Last, func(_ time.Time, nth int) int { return nth }, -1},
		{p.Hourly, func(t time.Time, _ int) int { return t.Year()*1000000 + int(t.Month())*10000 + t.Day()*100 + t.Hour() }, -1},
		{p.Daily, func(t time.Time, _ int) int { return t.Year()*10000 + int(t.Month())*100 + t.Day() }, -1},
		{p.Weekly, func(t time.Time, _ int) int { y, w := t.ISOWeek(); return y*100 + w }, -1},
		{p.Monthly, func(t time.Time, _ int) int { return t.Year()*100 + int(t.Month()) }, -1},
		{p.Yearly, func(t time.Time, _ int) int { return t.Year() }, -1},
	}
}

// Choose divides snapshots by the policy, both parts newest first. Periods are
// those of each snapshot's own time zone. now is for Within: a snapshot of the
// future is not the newest one.
func (p Policy) Choose(all []SnapshotRef, now time.Time) (keep, remove []SnapshotRef) {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b SnapshotRef) int { return b.Time.Compare(a.Time) })
	if p.Empty() {
		return all, nil
	}
	newest := newestTime(all, now)
	periods := p.periods()
	for i, sn := range all {
		kept := p.keepsTag(sn) || p.Within > 0 && sn.Time.After(newest.Add(-p.Within))
		for j := range periods {
			if periods[j].keeps(sn.Time, i, i == len(all)-1) {
				kept = true
			}
		}
		if kept {
			keep = append(keep, sn)
		} else {
			remove = append(remove, sn)
		}
	}
	return keep, remove
}

// keeps is asked for every snapshot, the newest first. The oldest one is kept
// while the rule has something left: the history is then as long as it can be.
func (r *period) keeps(t time.Time, nth int, oldest bool) bool {
	if r.left == 0 {
		return false
	}
	name := r.name(t, nth)
	if name == r.last && !oldest {
		return false
	}
	r.last = name
	if r.left > 0 {
		r.left--
	}
	return true
}

func (p Policy) keepsTag(sn SnapshotRef) bool {
	return slices.ContainsFunc(p.Tags, func(tag string) bool { return slices.Contains(sn.Tags, tag) })
}

func newestTime(all []SnapshotRef, now time.Time) time.Time {
	for _, sn := range all {
		if !sn.Time.After(now) {
			return sn.Time
		}
	}
	return now
}

// Forget removes the snapshot objects that neither the policy nor keep keeps (nil:
// the policy alone). Nothing is removed if any snapshot cannot be read. An empty
// policy removes nothing. What it returns as removed is removed even if there is
// an error.
func (r *Repository) Forget(ctx context.Context, p Policy, keep func(SnapshotRef) bool) (kept, removed []SnapshotRef, err error) {
	var all []SnapshotRef
	err = r.Snapshots(ctx, func(id format.ID, sn *format.Snapshot) error {
		all = append(all, SnapshotRef{id, sn})
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("forget snapshots: %w", err)
	}
	kept, surplus := p.Choose(all, time.Now())
	var errs []error
	for _, sn := range surplus {
		if keep != nil && keep(sn) {
			kept = append(kept, sn)
			continue
		}
		if err := r.RemoveSnapshot(ctx, sn.ID); err != nil {
			errs = append(errs, err)
			kept = append(kept, sn)
			continue
		}
		removed = append(removed, sn)
	}
	if len(errs) > 0 {
		return kept, removed, fmt.Errorf("forget snapshots: %w", errors.Join(errs...))
	}
	return kept, removed, nil
}
