// Package trees walks the directories of a snapshot in the repository, in the order
// of their paths, without a disk.
//
// It promises: what it holds at once is the directories on the way down to the
// present one and a bounded number of those that come next, whatever the size of
// the snapshot; several trees are read with one call where they lie together; an
// error names the directory that is lost.
//
// It leaves to others: what is done with a file's content, and putting anything on
// a disk (package restore, which reads level by level since it keeps all of it).
package trees

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"

	"drover/internal/repo"
	"drover/internal/repo/format"

	"golang.org/x/sync/errgroup"
)

// What is read ahead of its use, of one directory's children.
const (
	aheadTrees = 64
	aheadBytes = 4 << 20
)

// Ahead hands out trees in a known order, and reads several of them at once.
type Ahead struct {
	r     *repo.Repository
	ids   []format.ID // still to hand out
	ready int         // of them are in got
	got   map[format.ID]tree
}

// tree is a tree blob, or why it cannot be had.
type tree struct {
	data []byte
	err  error
}

// NewAhead prepares to hand out ids, one after the other.
func NewAhead(r *repo.Repository, ids []format.ID) *Ahead { return &Ahead{r: r, ids: ids} }

// Next returns the bytes of the next tree. Errors: repo.ErrBlobNotFound,
// repo.ErrDamaged, and those of the store.
func (a *Ahead) Next(ctx context.Context) ([]byte, error) {
	if len(a.ids) == 0 {
		return nil, errors.New("no tree is left")
	}
	if a.ready == 0 {
		if err := a.fill(ctx); err != nil {
			return nil, err
		}
	}
	t := a.got[a.ids[0]]
	a.ids, a.ready = a.ids[1:], a.ready-1
	return t.data, t.err
}

// fill reads the next trees, at least one, pack by pack.
func (a *Ahead) fill(ctx context.Context) error {
	a.got = make(map[format.ID]tree)
	packs := make(map[format.ID][]repo.PackedBlob)
	for bytes := 0; a.ready < min(len(a.ids), aheadTrees); a.ready++ {
		id := a.ids[a.ready]
		if _, ok := a.got[id]; ok {
			continue
		}
		h := format.Handle{Type: format.TreeBlob, ID: id}
		at, ok := a.r.Lookup(h)
		if !ok {
			a.got[id] = tree{err: fmt.Errorf("%s: %w", h, repo.ErrBlobNotFound)}
			continue
		}
		if bytes += at[0].PlainLength(); a.ready > 0 && bytes > aheadBytes {
			break
		}
		a.got[id] = tree{}
		packs[at[0].Pack] = append(packs[at[0].Pack], repo.PackedBlob{Handle: h, Location: at[0]})
	}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(a.r.Options().Connections)
	for pack, blobs := range packs {
		g.Go(func() error {
			return a.r.LoadPackBlobs(gctx, pack, blobs, func(h format.Handle, data []byte, err error) error {
				mu.Lock()
				defer mu.Unlock()
				a.got[h.ID] = tree{slices.Clone(data), err}
				return nil
			})
		})
	}
	return g.Wait()
}

// Visitor is what Walk calls; each function may be nil.
type Visitor struct {
	// Tree is called with each directory's tree before its entries; skip passes
	// over them and all that is below.
	Tree func(path string, id format.ID, data []byte) (skip bool, err error)
	// Entry is called with each file and directory, a directory before what is in it.
	Entry func(path string, n *format.Node) error
}

// Walk visits all that is below root. The index is loaded.
func Walk(ctx context.Context, r *repo.Repository, root format.ID, v Visitor) error {
	w := walk{r: r, v: v}
	data, err := NewAhead(r, []format.ID{root}).Next(ctx)
	if err != nil {
		return fmt.Errorf("read directory /: %w", err)
	}
	return w.dir(ctx, "/", root, data)
}

type walk struct {
	r *repo.Repository
	v Visitor
}

func (w *walk) dir(ctx context.Context, at string, id format.ID, data []byte) error {
	if w.v.Tree != nil {
		if skip, err := w.v.Tree(at, id, data); err != nil || skip {
			return err
		}
	}
	nodes, err := format.DecodeTree(data)
	if err != nil {
		return fmt.Errorf("read directory %s: %w: %w", at, repo.ErrDamaged, err)
	}
	var subs []format.ID
	for i := range nodes {
		if nodes[i].Subtree != nil {
			subs = append(subs, *nodes[i].Subtree)
		}
	}
	ahead := NewAhead(w.r, subs)
	for i := range nodes {
		if err := w.entry(ctx, path.Join(at, nodes[i].Name), &nodes[i], ahead); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) entry(ctx context.Context, at string, n *format.Node, ahead *Ahead) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if (n.Type == format.NodeDir) != (n.Subtree != nil) {
		return fmt.Errorf("%s: %w: a %s with a subtree, or a directory without", at, repo.ErrDamaged, n.Type)
	}
	if w.v.Entry != nil {
		if err := w.v.Entry(at, n); err != nil {
			return err
		}
	}
	if n.Subtree == nil {
		return nil
	}
	data, err := ahead.Next(ctx)
	if err != nil {
		return fmt.Errorf("read directory %s: %w", at, err)
	}
	return w.dir(ctx, at, *n.Subtree, data)
}
