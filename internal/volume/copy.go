package volume

import (
	"context"
	"fmt"

	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/trees"

	"golang.org/x/sync/errgroup"
)

// copyBlobs and copyBytes bound how many blobs are read together, pack by pack.
const (
	copyBlobs = 4096
	copyBytes = 64 << 20
)

// copyTo stores all blobs of sn in another volume's repository, and then made as its
// snapshot object. What is there already, and indexed, is not stored again.
func (v *Volume) copyTo(ctx context.Context, to *Volume, sn, made *format.Snapshot, opt CloneOptions) (CloneStats, error) {
	for _, r := range []*repo.Repository{v.Repo, to.Repo} {
		if err := r.LoadIndex(ctx); err != nil {
			return CloneStats{}, err
		}
	}
	c := copier{from: v.Repo, to: to.Repo, w: to.Repo.NewWriter(ctx, repo.WriterOptions{}), seen: map[format.ID]struct{}{}, most: copyBlobs, tell: opt.Progress}
	defer c.w.Abort() // does nothing after Finish
	c.begin()
	err := trees.Walk(ctx, v.Repo, *sn.Tree, trees.Visitor{
		Tree:  func(path string, id format.ID, data []byte) (bool, error) { return c.tree(ctx, path, id, data) },
		Entry: func(path string, n *format.Node) error { return c.entry(ctx, path, n) },
	})
	if err == nil {
		err = c.flush(ctx)
	}
	if lost(err) {
		return CloneStats{}, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	if err != nil {
		return CloneStats{}, err
	}
	id, added, err := c.w.Finish(ctx, made)
	if err != nil {
		return CloneStats{}, err
	}
	return CloneStats{Snapshot: id.String(), Stored: int64(added.Stored)}, nil
}

// copier copies blobs from one repository to another.
type copier struct {
	from, to *repo.Repository
	w        *repo.Writer
	seen     map[format.ID]struct{} // trees
	most     int                    // blobs that are read together
	tell     func(path string, bytes uint64)

	paths map[format.ID]string // of the data blobs that are read next: where each is first used
	packs map[format.ID][]repo.PackedBlob
	bytes int
}

func (c *copier) begin() {
	c.paths, c.packs, c.bytes = map[format.ID]string{}, map[format.ID][]repo.PackedBlob{}, 0
}

// tree stores a directory before what is in it: none of it counts before the head.
func (c *copier) tree(ctx context.Context, path string, id format.ID, data []byte) (skip bool, err error) {
	if _, ok := c.seen[id]; ok {
		return true, nil
	}
	c.seen[id] = struct{}{}
	if err := c.w.SaveHashed(ctx, format.Handle{Type: format.TreeBlob, ID: id}, data); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return false, nil
}

func (c *copier) entry(ctx context.Context, path string, n *format.Node) error {
	for _, id := range n.Content {
		h := format.Handle{Type: format.DataBlob, ID: id}
		if _, ok := c.paths[id]; ok || c.to.Has(h) {
			continue
		}
		at, ok := c.from.Lookup(h)
		if !ok {
			return fmt.Errorf("%s: %s: %w", path, h, repo.ErrBlobNotFound)
		}
		c.paths[id] = path
		c.packs[at[0].Pack] = append(c.packs[at[0].Pack], repo.PackedBlob{Handle: h, Location: at[0]})
		if c.bytes += at[0].PlainLength(); c.bytes >= copyBytes || len(c.paths) >= c.most {
			if err := c.flush(ctx); err != nil {
				return err
			}
		}
	}
	if c.tell != nil && n.Type != format.NodeDir {
		c.tell(path, n.Size)
	}
	return nil
}

// flush copies the blobs that were noted.
func (c *copier) flush(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(c.from.Options().Connections)
	for pack, blobs := range c.packs {
		g.Go(func() error {
			return c.from.LoadPackBlobs(gctx, pack, blobs, func(h format.Handle, data []byte, err error) error {
				if err == nil {
					err = c.w.SaveHashed(gctx, h, data)
				}
				if err != nil {
					return fmt.Errorf("%s: %w", c.paths[h.ID], err)
				}
				return nil
			})
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	c.begin()
	return nil
}
