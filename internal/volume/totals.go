package volume

import (
	"context"
	"errors"

	"drover/internal/repo/archive"
	"drover/internal/repo/format"
	"drover/internal/volume/protocol"
)

// counted is how much one snapshot holds.
type counted struct {
	snapshot string
	totals   archive.Totals
}

// headTotals says how much the head's snapshot holds. After our own commits that
// is known; only after a claim is it read from the store.
func (r *Runtime) headTotals(ctx context.Context, h protocol.Head) (archive.Totals, error) {
	if h.Snapshot == "" {
		return archive.Totals{}, nil
	}
	for _, c := range []counted{r.captured, r.counted} {
		if c.snapshot == h.Snapshot {
			r.counted = c
			return c.totals, nil
		}
	}
	totals, err := r.readTotals(ctx, h)
	if lost(err) { // a new commit mends that, and has nothing to be compared with
		r.opt.Log.Warn("cannot count the files of the newest snapshot: it has lost data", "snapshot", h.Snapshot, "err", err)
		return archive.Totals{}, nil
	}
	if err != nil {
		return archive.Totals{}, err
	}
	r.counted = counted{h.Snapshot, totals}
	return totals, nil
}

func (r *Runtime) readTotals(ctx context.Context, h protocol.Head) (archive.Totals, error) {
	sn, err := r.headSnapshot(ctx, h)
	if err != nil && !errors.Is(err, ErrNoSnapshot) { // a new commit mends that one
		return archive.Totals{}, err
	}
	if sn != nil && sn.Summary != nil {
		files, bytes := sn.Totals()
		return archive.Totals{Files: files, Bytes: bytes}, nil
	}
	tree, err := format.ParseID(h.Tree)
	if err != nil {
		return archive.Totals{}, err
	}
	return archive.Delta(ctx, r.v.Repo, r.opt.Tree.Cache, format.ID{}, tree)
}

// totals says how much the tree of a pass holds, of which a pass that followed
// hints has seen only a part; before is what its parent held.
func (r *Runtime) totals(ctx context.Context, p pass, before archive.Totals) (archive.Totals, error) {
	if p.res.FullWalk {
		return archive.Totals{Files: int64(p.res.Files), Bytes: int64(p.res.Bytes)}, nil
	}
	more, err := archive.Delta(ctx, r.v.Repo, r.opt.Tree.Cache, p.parent, p.res.Tree)
	if err != nil && ctx.Err() == nil {
		// The new trees are in no stored pack yet, so without the local cache (its
		// disk is full, say) nobody can tell. The next full walk counts again.
		r.opt.Log.Warn("cannot count the volume's files: the former number stands in", "err", err)
		return before, nil
	}
	return archive.Totals{Files: before.Files + more.Files, Bytes: before.Bytes + more.Bytes}, err
}
