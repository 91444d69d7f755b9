package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"drover/internal/repo/format"
)

// Damage is a snapshot that cannot be restored whole, and the first reason that was found.
type Damage struct {
	Snapshot format.ID // zero: one of SurveyOptions.Roots
	Time     time.Time // the snapshot's; zero if its object cannot be read
	Err      error
}

// DamageError says which snapshots cannot be restored whole: those first whose object
// cannot be read, then the newest.
type DamageError struct{ Snapshots []Damage }

// NewDamageError sorts what was found, which is not empty.
func NewDamageError(found []Damage) *DamageError {
	slices.SortStableFunc(found, func(a, b Damage) int {
		switch {
		case a.Time.IsZero() != b.Time.IsZero() && a.Time.IsZero():
			return -1
		case a.Time.IsZero() != b.Time.IsZero():
			return 1
		}
		return cmp.Or(b.Time.Compare(a.Time), compareIDs(a.Snapshot, b.Snapshot))
	})
	return &DamageError{found}
}

func (e *DamageError) Error() string {
	first := e.Snapshots[0]
	text := fmt.Sprintf("snapshot %s: %v", first.Snapshot.Short(), first.Err)
	if more := len(e.Snapshots) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more snapshots)", more)
	}
	return text
}

// Unwrap returns the reasons.
func (e *DamageError) Unwrap() []error {
	errs := make([]error, len(e.Snapshots))
	for i, d := range e.Snapshots {
		errs[i] = d.Err
	}
	return errs
}

// finder looks for what is lost below trees, each of which it reads once.
type finder struct {
	idx   *memIndex
	below map[format.ID][]format.ID // the trees in a tree
	bad   map[format.ID]error       // why a tree cannot be read, or what is lost of the files in it
	why   map[format.ID]error       // that, or the reason of a tree below it; nil: none
}

// damaged returns the roots below which anything is lost. It says nothing of what a
// store that does not answer has: that is an error.
func (r *Repository) damaged(ctx context.Context, roots []root, cached func(format.ID) ([]byte, bool)) ([]Damage, error) {
	f := &finder{
		idx: r.idx(), below: make(map[format.ID][]format.ID),
		bad: make(map[format.ID]error), why: make(map[format.ID]error),
	}
	var level []format.ID
	for _, t := range roots {
		level = f.enter(t.tree, level)
	}
	for len(level) > 0 {
		var next []format.ID
		visit := func(tree format.ID, nodes []format.Node, err error) error {
			if err != nil && !copyLost(err) && !errors.Is(err, ErrBlobNotFound) {
				return err
			}
			if err != nil {
				f.bad[tree] = err
			}
			next = f.look(tree, nodes, next)
			return nil
		}
		rest, err := visitCached(ctx, level, cached, visit)
		if err == nil {
			err = r.loadTrees(ctx, rest, visit)
		}
		if err != nil {
			return nil, err
		}
		level = next
	}
	var found []Damage
	for _, t := range roots {
		if err := f.reason(t.tree); err != nil {
			found = append(found, Damage{Snapshot: t.snapshot, Time: t.time, Err: err})
		}
	}
	return found, nil
}

// enter adds a tree to those to be read, once.
func (f *finder) enter(tree format.ID, level []format.ID) []format.ID {
	if _, ok := f.below[tree]; ok {
		return level
	}
	f.below[tree] = nil
	return append(level, tree)
}

func (f *finder) look(tree format.ID, nodes []format.Node, next []format.ID) []format.ID {
	for i := range nodes {
		n := &nodes[i]
		if n.Subtree != nil {
			f.below[tree] = append(f.below[tree], *n.Subtree)
			next = f.enter(*n.Subtree, next)
		}
		for _, id := range n.Content {
			if err := f.idx.lost(format.Handle{Type: format.DataBlob, ID: id}); err != nil && f.bad[tree] == nil {
				f.bad[tree] = fmt.Errorf("file %q: %w", n.Name, err)
			}
		}
	}
	return next
}

// reason is why something below the tree is lost. It is asked when all are read.
func (f *finder) reason(tree format.ID) error {
	if err, ok := f.why[tree]; ok {
		return err
	}
	err := f.bad[tree]
	for _, t := range f.below[tree] {
		if err == nil {
			err = f.reason(t)
		}
	}
	f.why[tree] = err
	return err
}

// lost says why no copy of a blob can be read, as far as listings tell.
func (x *memIndex) lost(h format.Handle) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	known := false
	if x.each(h, func(_ *indexEntry, p *packState) bool { known = true; return p.present }) {
		return nil
	}
	if known {
		return fmt.Errorf("%s blob %s: %w: the store does not have its pack", h.Type, h.ID.Short(), ErrDamaged)
	}
	return fmt.Errorf("%s blob %s: %w", h.Type, h.ID.Short(), ErrBlobNotFound)
}
