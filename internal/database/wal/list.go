package wal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"drover/internal/objstore"
)

// Stored is a file of the log in the store.
type Stored struct {
	Name
	Size int64     // of the object, in bytes
	Time time.Time // when it was stored, by the store's clock
}

// List returns what is stored, in the order of the log: by timeline, segments and what
// belongs to them by position, the history first. Objects that are none of ours are passed over.
func (a *Archive) List(ctx context.Context) ([]Stored, error) {
	return a.list(ctx, root+a.stream+"/")
}

// Timeline is List of one timeline.
func (a *Archive) Timeline(ctx context.Context, t Timeline) ([]Stored, error) {
	return a.list(ctx, a.folder(t))
}

func (a *Archive) list(ctx context.Context, prefix string) ([]Stored, error) {
	var all []Stored
	err := a.st.List(ctx, prefix, func(i objstore.Info) error {
		n, err := ParseName(i.Key[strings.LastIndexByte(i.Key, '/')+1:])
		if err != nil || a.key(n) != i.Key {
			return nil //nolint:nilerr // it is somebody else's
		}
		all = append(all, Stored{Name: n, Size: i.Size, Time: i.ModTime})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list log archive: %w", err)
	}
	slices.SortFunc(all, func(x, y Stored) int { return compare(x.Name, y.Name) })
	return all, nil
}

func compare(a, b Name) int {
	first := func(n Name) int {
		if n.Kind == History {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.Timeline, b.Timeline), cmp.Compare(first(a), first(b)),
		cmp.Compare(a.High, b.High), cmp.Compare(a.Low, b.Low), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Offset, b.Offset))
}

// Range is a run of segments without a gap.
type Range struct {
	Timeline    Timeline
	First, Last uint64 // Name.Number
}

// Ranges finds the runs in what List returned. size is that of a segment.
func Ranges(all []Stored, size int64) []Range {
	var runs []Range
	for _, s := range all {
		if s.Kind != Segment {
			continue
		}
		at := s.Number(size)
		if n := len(runs); n > 0 && runs[n-1].Timeline == s.Timeline && runs[n-1].Last+1 == at {
			runs[n-1].Last = at
			continue
		}
		runs = append(runs, Range{s.Timeline, at, at})
	}
	return runs
}

// fewMissing is up to how many segments are asked for one by one.
const fewMissing = 8

// Missing lists the segments from first to last, of one timeline, that are not stored.
func (a *Archive) Missing(ctx context.Context, first, last Name, size int64) ([]Name, error) {
	var want []Name
	for n := first; n.Number(size) <= last.Number(size); n = n.Next(size) {
		want = append(want, n)
	}
	return a.missing(ctx, want)
}

// missing is what of want is not stored.
func (a *Archive) missing(ctx context.Context, want []Name) ([]Name, error) {
	have := map[Name]bool{}
	if len(want) <= fewMissing {
		for _, n := range want {
			_, err := a.st.Head(ctx, a.key(n))
			if err != nil && !errors.Is(err, objstore.ErrNotFound) {
				return nil, fmt.Errorf("look for %s: %w", n, err)
			}
			have[n] = err == nil
		}
	} else {
		all, err := a.list(ctx, a.folder(want[0].Timeline))
		if err != nil {
			return nil, err
		}
		for _, s := range all {
			have[s.Name] = true
		}
	}
	return slices.DeleteFunc(want, func(n Name) bool { return have[n] }), nil
}

// waitStep is the pause between two looks of Await.
const waitStep = 250 * time.Millisecond

// Await waits until all segments from first to last, of one timeline, are stored.
func (a *Archive) Await(ctx context.Context, first, last Name, size int64) error {
	missing, err := a.Missing(ctx, first, last, size)
	for {
		if err != nil {
			return err
		}
		if len(missing) == 0 {
			return nil
		}
		lacks := missing[0]
		if err := pause(ctx, waitStep); err != nil {
			return fmt.Errorf("wait until %s is archived: %w", lacks, err)
		}
		missing, err = a.missing(ctx, missing)
	}
}

// Remove deletes the segments, and what belongs to them, that lie before a position, of all
// timelines; histories stay. It begins with the oldest, so that what is left is without a gap
// whenever it is interrupted. That nobody needs them is the caller's to know.
func (a *Archive) Remove(ctx context.Context, before LSN, size int64) (removed int, err error) {
	if err := CheckSize(size); err != nil {
		return 0, err
	}
	all, err := a.List(ctx)
	if err != nil {
		return 0, err
	}
	limit := uint64(before) / uint64(size)
	all = slices.DeleteFunc(all, func(s Stored) bool { return s.Kind == History || s.Number(size) >= limit })
	slices.SortStableFunc(all, func(x, y Stored) int { return cmp.Compare(x.Number(size), y.Number(size)) })
	for _, s := range all {
		if err := a.st.Delete(ctx, a.key(s.Name)); err != nil {
			return removed, fmt.Errorf("remove %s: %w", s.Name, err)
		}
		removed++
	}
	return removed, nil
}
