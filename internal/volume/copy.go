package volume

import (
	"context"
	"fmt"
	"path"

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

// copyOptions of copyTo.
type copyOptions struct {
	base *format.ID                      // a tree that the target is known to have, whole; nil: none
	tell func(path string, bytes uint64) // after each file; nil: nobody
}

// copyTo stores all blobs of sn in another volume's repository, and then made as its
// snapshot object. What is there already, and indexed, is not stored again; of
// directories that are in the base tree nothing is read. Both indexes are loaded.
func (v *Volume) copyTo(ctx context.Context, to *Volume, sn, made *format.Snapshot, opt copyOptions) (CloneStats, error) {
	c := copier{
		from: v.Repo, to: to.Repo, w: to.Repo.NewWriter(ctx, repo.WriterOptions{}), seen: map[format.ID]struct{}{},
		most: copyBlobs, tell: opt.tell, base: map[string]format.ID{},
	}
	if opt.base != nil {
		c.base["/"] = *opt.base
	}
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
	base     map[string]format.ID   // trees at paths that come next, which the target has with all below
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
func (c *copier) tree(ctx context.Context, at string, id format.ID, data []byte) (skip bool, err error) {
	if _, ok := c.seen[id]; ok {
		return true, nil
	}
	base, ok := c.base[at]
	delete(c.base, at)
	if ok && base == id {
		return true, nil
	}
	if ok {
		// A base that has lost data is none: all of it is looked at then.
		if err := c.expect(ctx, at, base); err != nil && !lost(err) {
			return false, fmt.Errorf("%s: %w", at, err)
		}
	}
	c.seen[id] = struct{}{}
	if err := c.w.SaveHashed(ctx, format.Handle{Type: format.TreeBlob, ID: id}, data); err != nil {
		return false, fmt.Errorf("%s: %w", at, err)
	}
	return false, nil
}

// expect notes what the base has below the path of one of its directories.
func (c *copier) expect(ctx context.Context, dir string, id format.ID) error {
	data, err := c.to.LoadBlob(ctx, format.Handle{Type: format.TreeBlob, ID: id}, nil)
	if err != nil {
		return err
	}
	nodes, err := format.DecodeTree(data)
	if err != nil {
		return err
	}
	for i := range nodes {
		if nodes[i].Subtree != nil {
			c.base[path.Join(dir, nodes[i].Name)] = *nodes[i].Subtree
		}
	}
	return nil
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
