package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/repo/archive"
	"drover/internal/repo/format"
	"drover/internal/repo/trees"
	"drover/internal/volume/protocol"
)

// Rollback makes the state of the snapshot id, whichever it is, the newest one of a
// volume that no agent holds: a new snapshot object with its tree is committed upon
// the head's. Nothing is taken away, so the same goes forward again. Of opt.Tree,
// Host, Version and ReplacePaths are used.
//
// Errors: ErrHeld; ErrPaths if the snapshot is of other paths than the head's;
// ErrIncomplete, with the path, if the repository lacks any of it.
func (v *Volume) Rollback(ctx context.Context, opt Options, id format.ID) (Outcome, error) {
	sn, err := v.Repo.LoadSnapshot(ctx, id)
	if err != nil {
		return Outcome{}, err
	}
	opt.Tree.Paths, opt.Tree.Exclude = sn.Paths, sn.Excludes
	opt.Tree.Tags = []string{"rollback:" + id.Short()}
	var out Outcome
	old := &older{sn: sn}
	err = v.claim(ctx, opt, old.capture, func(ctx context.Context, s *Session) error {
		out, err = s.Backup(ctx)
		return err
	})
	switch {
	case errors.Is(err, ErrHeld):
		return Outcome{}, fmt.Errorf("roll back to %s: stop the application on every instance first: %w", id.Short(), err)
	case err != nil:
		return Outcome{}, fmt.Errorf("roll back to %s: %w", id.Short(), err)
	}
	return out, nil
}

// older is a capture of a snapshot's tree instead of files.
type older struct {
	sn    *format.Snapshot
	r     *Runtime
	w     *repo.Writer
	packs map[format.ID]struct{} // that the tree's blobs are in
	stats CaptureStats
}

// capture makes a snapshot object of the older tree upon a.Head.
func (o *older) capture(ctx context.Context, r *Runtime, a protocol.Capture) (protocol.Captured, CaptureStats, error) {
	o.r, o.stats = r, CaptureStats{Start: time.Now()}
	in, err := o.make(ctx, a)
	o.stats.Seconds = time.Since(o.stats.Start).Seconds()
	return in, o.stats, err
}

func (o *older) make(ctx context.Context, a protocol.Capture) (protocol.Captured, error) {
	if err := o.checkPaths(a.Head); err != nil {
		return protocol.Captured{}, err
	}
	if err := o.r.prepareIndex(ctx, a); err != nil {
		return protocol.Captured{}, err
	}
	o.w = o.r.v.Repo.NewWriter(ctx, repo.WriterOptions{})
	defer o.w.Abort() // does nothing after Finish
	if err := o.pin(ctx); err != nil {
		return protocol.Captured{}, err
	}
	in := protocol.Captured{Tree: o.sn.Tree.String(), Paths: o.sn.Paths, Time: o.stats.Start}
	if !a.Force && in.Tree == a.Head.Tree && slices.Equal(in.Paths, a.Head.Paths) {
		in.Unchanged, o.stats.Unchanged = true, true
		in.Snapshot, o.stats.Snapshot = a.Head.Snapshot, a.Head.Snapshot
		return in, nil
	}
	id, added, err := o.w.Finish(ctx, o.r.snapshot(a.Head, &archive.Result{Tree: *o.sn.Tree}, o.stats))
	if err != nil {
		return protocol.Captured{}, err
	}
	in.Snapshot, o.stats.Snapshot, o.stats.Added = id.String(), id.String(), int64(added.Stored)
	for _, p := range o.w.Packs() {
		o.packs[p] = struct{}{}
	}
	for p := range o.packs {
		in.Packs = append(in.Packs, p.String())
	}
	return in, nil
}

// checkPaths refuses to make a snapshot of something else the volume's state.
func (o *older) checkPaths(h protocol.Head) error {
	theirs, ours := slices.Sorted(slices.Values(o.sn.Paths)), slices.Sorted(slices.Values(h.Paths))
	if h.Snapshot == "" || o.r.opt.Tree.ReplacePaths || slices.Equal(theirs, ours) {
		return nil
	}
	return fmt.Errorf("%w: the snapshot holds %s, the newest one %s: --replace-paths makes its paths the volume's",
		ErrPaths, strings.Join(theirs, ", "), strings.Join(ours, ", "))
}

// pin notes the packs that the tree counts on. A blob that is only in a pack which
// is about to go is stored anew; one that is gone ends it: a head that cannot be
// restored must never be.
func (o *older) pin(ctx context.Context) error {
	o.packs = map[format.ID]struct{}{}
	err := trees.Walk(ctx, o.r.v.Repo, *o.sn.Tree, trees.Visitor{
		Tree: func(path string, id format.ID, _ []byte) (bool, error) {
			return false, o.pinBlob(ctx, path, format.Handle{Type: format.TreeBlob, ID: id})
		},
		Entry: func(path string, n *format.Node) error {
			if n.Type != format.NodeDir {
				o.stats.Files++
			}
			if n.Type == format.NodeFile {
				o.stats.Bytes += int64(n.Size)
			}
			for _, id := range n.Content {
				if err := o.pinBlob(ctx, path, format.Handle{Type: format.DataBlob, ID: id}); err != nil {
					return err
				}
			}
			return nil
		},
	})
	if lost(err) {
		return fmt.Errorf("%w: nothing was committed: %w", ErrIncomplete, err)
	}
	return err
}

// lost reports whether err says that a blob is gone for good.
func lost(err error) bool {
	return errors.Is(err, repo.ErrBlobNotFound) || errors.Is(err, repo.ErrDamaged) || errors.Is(err, objstore.ErrNotFound)
}

func (o *older) pinBlob(ctx context.Context, path string, h format.Handle) error {
	r := o.r.v.Repo
	if r.Has(h) {
		at, _ := r.Lookup(h) // the best copy first: the one that Has speaks of
		o.packs[at[0].Pack] = struct{}{}
		return nil
	}
	data, err := r.LoadBlob(ctx, h, nil)
	if err == nil {
		err = o.w.SaveHashed(ctx, h, data)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
