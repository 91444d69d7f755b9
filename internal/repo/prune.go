package repo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"drover/internal/repo/format"
)

var errPackMissing = errors.New("a snapshot needs a pack that is missing")

// PruneOptions of Prune. The zero value frees every byte that can be freed.
type PruneOptions struct {
	DryRun      bool
	MaxUnused   float64 // share of a pack's bytes, 0 to 1, that may be unused before it is rewritten
	RepackSmall bool    // merge packs of less than a quarter of the pack size
	// Condemn is called before anything is removed, with all packs that will be;
	// its error ends the prune. nil: nobody needs to know.
	Condemn func(ctx context.Context, packs []format.ID) error
	// Progress is called as the steps go on, one call at a time: how many trees were
	// read (of a number that is not known: 0), or packs packed anew or deleted. nil: nobody
	// wants to know.
	Progress func(step PruneStep, done, total int)
}

// PruneStep is what a prune is doing.
type PruneStep string

// The steps, in their order.
const (
	PruneReading   PruneStep = "reading trees"
	PruneRepacking PruneStep = "packing anew"
	PruneDeleting  PruneStep = "deleting packs"
)

// counting returns a function that tells of one more, from any goroutine.
func (o PruneOptions) counting(step PruneStep, total int) func() {
	if o.Progress == nil {
		return func() {}
	}
	var mu sync.Mutex
	done := 0
	return func() {
		mu.Lock()
		defer mu.Unlock()
		done++
		o.Progress(step, done, total)
	}
}

// PruneReport says what Prune did, or would do.
type PruneReport struct {
	Deleted  []format.ID // packs with nothing that is needed
	Repacked []format.ID // packs whose needed blobs were moved to new ones
	Unused   uint64      // bytes of packs that nothing needs, those that stay as well
}

// packUse is how much of one pack is needed.
type packUse struct {
	used, unused uint64 // bytes
	blobs        []PackedBlob
	types        [2]bool // data, tree
}

// Prune removes what no snapshot reaches: packs without any needed blob are
// deleted, others are rewritten if too much of them is unused. lock is an
// exclusive one of ours. Each step leaves a repository that is whole: new packs,
// their index, an index without the old packs, and only then are those deleted.
// A blob that is missing or damaged ends it before anything is deleted.
func (r *Repository) Prune(ctx context.Context, lock *Lock, opt PruneOptions) (PruneReport, error) {
	if lock == nil || !lock.Exclusive() || lock.r != r {
		return PruneReport{}, errors.New("prune: it needs an exclusive lock of this repository")
	}
	report, plan, err := r.planPrune(ctx, opt)
	if err != nil {
		return PruneReport{}, fmt.Errorf("prune: %w", err)
	}
	if opt.DryRun {
		return report, nil
	}
	gone := make(map[format.ID]struct{})
	for _, id := range slices.Concat(report.Deleted, report.Repacked) {
		gone[id] = struct{}{}
	}
	before := r.condemnAlso(gone)
	defer r.SetCondemned(before)
	if err := r.repack(ctx, report.Repacked, plan, opt.counting(PruneRepacking, len(report.Repacked))); err != nil {
		return PruneReport{}, fmt.Errorf("prune: %w", err)
	}
	if err := lock.Check(ctx); err != nil {
		return PruneReport{}, fmt.Errorf("prune: %w", err)
	}
	if opt.Condemn != nil && len(gone) > 0 {
		if err := opt.Condemn(ctx, slices.Concat(report.Deleted, report.Repacked)); err != nil {
			return PruneReport{}, fmt.Errorf("prune: %w", err)
		}
	}
	if err := r.DropFromIndex(ctx, gone); err != nil {
		return PruneReport{}, fmt.Errorf("prune: %w", err)
	}
	if err := r.deletePacks(ctx, slices.Concat(report.Deleted, report.Repacked), opt.counting(PruneDeleting, len(gone))); err != nil {
		return PruneReport{}, fmt.Errorf("prune: %w", err)
	}
	return report, nil
}

// planPrune decides about each pack.
func (r *Repository) planPrune(ctx context.Context, opt PruneOptions) (PruneReport, map[format.ID]*packUse, error) {
	s, err := r.survey(ctx, SurveyOptions{Read: opt.counting(PruneReading, 0)}, false)
	if err != nil {
		return PruneReport{}, nil, err
	}
	uses := make(map[format.ID]*packUse, len(s.stored))
	for id := range s.stored {
		uses[id] = new(packUse)
	}
	s.reached.each(func(b PackedBlob, reached bool) {
		u := uses[b.Pack]
		if u == nil {
			u = new(packUse)
			uses[b.Pack] = u
		}
		u.add(b, reached)
	})
	var report PruneReport
	condemned := r.condemnedNow() // nobody may count on them: what is needed of them moves
	var small [2][]format.ID
	for _, id := range slices.SortedFunc(maps.Keys(uses), compareIDs) {
		u := uses[id]
		size, stored := s.stored[id]
		switch {
		case len(u.blobs) > 0 && !stored:
			return PruneReport{}, nil, fmt.Errorf("%w: %s", errPackMissing, id)
		case contains(s.inUse, id):
			continue
		case len(u.blobs) == 0:
			report.Deleted = append(report.Deleted, id)
			report.Unused += uint64(size)
			continue
		case u.types[0] && u.types[1], contains(condemned, id), float64(u.unused) > opt.MaxUnused*float64(u.used+u.unused):
			report.Repacked = append(report.Repacked, id)
		case size < int64(r.opt.PackSize)/4:
			kind := int(u.blobs[0].Type - format.DataBlob)
			small[kind] = append(small[kind], id)
		}
		report.Unused += u.unused
	}
	for _, ids := range small {
		if opt.RepackSmall && len(ids) > 1 {
			report.Repacked = append(report.Repacked, ids...)
		}
	}
	return report, uses, nil
}

func (u *packUse) add(b PackedBlob, reached bool) {
	if !reached {
		u.unused += uint64(b.Length)
		return
	}
	u.used += uint64(b.Length)
	u.blobs = append(u.blobs, b)
	u.types[b.Type-format.DataBlob] = true
}

// repack copies what is needed of packs, which are condemned, into new ones.
func (r *Repository) repack(ctx context.Context, packs []format.ID, uses map[format.ID]*packUse, done func()) error {
	if len(packs) == 0 {
		return nil
	}
	w := r.NewWriter(ctx, WriterOptions{})
	defer w.Abort()
	err := forEach(ctx, r.opt.Connections, packs, func(ctx context.Context, id format.ID) error {
		defer done()
		return r.LoadPackBlobs(ctx, id, uses[id].blobs, func(h format.Handle, data []byte, err error) error {
			if err != nil {
				return err
			}
			return w.SaveHashed(ctx, h, data)
		})
	})
	if err != nil {
		return fmt.Errorf("repack: %w", err)
	}
	_, _, err = w.Finish(ctx, nil)
	return err
}

// condemnAlso adds to the condemned packs and returns those before.
func (r *Repository) condemnAlso(packs map[format.ID]struct{}) map[format.ID]struct{} {
	r.mu.RLock()
	before := maps.Clone(r.condemned)
	r.mu.RUnlock()
	all := maps.Clone(packs)
	maps.Copy(all, before)
	r.SetCondemned(all)
	return before
}
