// Package treediff says in which paths two snapshots of one repository differ.
//
// It promises: only directories whose trees differ are read; the differences come
// one by one, in the order of paths, and none is kept; a directory is not called
// changed because of the time that a change in it gave it.
//
// It leaves to others: which snapshots are compared, and how it is shown.
package treediff

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/trees"
)

// Kind says what became of a path.
type Kind string

// The kinds of change.
const (
	Added   Kind = "added"
	Removed Kind = "removed"
	Changed Kind = "changed"
)

// What may differ in a path that both snapshots have.
const (
	Content = "content" // of a file, the target of a link, the number of a device
	Type    = "type"
	Mode    = "mode"
	Owner   = "owner"
	Xattr   = "xattr"
	ModTime = "mtime"
)

// Change is one path in which the snapshots differ.
type Change struct {
	Path string          `json:"path"`
	Kind Kind            `json:"change"`
	Type format.NodeType `json:"type"` // afterwards; of what was removed: before
	What []string        `json:"what,omitempty"`
}

// Run calls fn for each difference of the tree now from the tree before. The index
// is loaded.
func Run(ctx context.Context, r *repo.Repository, before, now format.ID, fn func(Change) error) error {
	d := differ{r: r, fn: fn}
	return d.all(ctx, []item{{path: "/", before: &before, now: &now}})
}

type differ struct {
	r  *repo.Repository
	fn func(Change) error
}

// item is a path that differs: a change of it, or trees to compare, or both.
type item struct {
	path        string
	change      *Change
	before, now *format.ID // trees; nil: none
}

// same reports whether there is nothing to compare below.
func (i *item) same() bool {
	return i.before == nil && i.now == nil || i.before != nil && i.now != nil && *i.before == *i.now
}

// all tells the items of one directory, each with what is below it.
func (d *differ) all(ctx context.Context, items []item) error {
	var ids []format.ID
	for i := range items {
		if items[i].same() {
			items[i].before, items[i].now = nil, nil
		}
		for _, id := range []*format.ID{items[i].before, items[i].now} {
			if id != nil {
				ids = append(ids, *id)
			}
		}
	}
	ahead := trees.NewAhead(d.r, ids)
	for i := range items {
		if err := d.item(ctx, &items[i], ahead); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) item(ctx context.Context, i *item, ahead *trees.Ahead) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if i.change != nil {
		if err := d.fn(*i.change); err != nil {
			return err
		}
	}
	if i.same() {
		return nil
	}
	var sides [2][]format.Entry
	for k, id := range []*format.ID{i.before, i.now} {
		if id == nil {
			continue
		}
		data, err := ahead.Next(ctx)
		if err == nil {
			sides[k], err = format.SplitTree(data)
		}
		if err != nil {
			return fmt.Errorf("read directory %s: %w", i.path, err)
		}
	}
	items, err := compare(i.path, sides[0], sides[1])
	if err != nil {
		return fmt.Errorf("read directory %s: %w", i.path, err)
	}
	return d.all(ctx, items)
}

// compare merges the entries of one directory, which are in order.
func compare(dir string, before, now []format.Entry) (items []item, err error) {
	for len(before) > 0 || len(now) > 0 {
		var o, n *format.Entry
		if len(now) == 0 || len(before) > 0 && before[0].Name <= now[0].Name {
			o = &before[0]
		}
		if len(before) == 0 || len(now) > 0 && now[0].Name <= before[0].Name {
			n = &now[0]
		}
		if o != nil {
			before = before[1:]
		}
		if n != nil {
			now = now[1:]
		}
		if o != nil && n != nil && bytes.Equal(o.Raw, n.Raw) {
			continue
		}
		i, err := difference(dir, o, n)
		if err != nil {
			return nil, err
		}
		if i.change != nil || !i.same() {
			items = append(items, i)
		}
	}
	return items, nil
}

// difference compares two entries of one name; one may be nil.
func difference(dir string, o, n *format.Entry) (item, error) {
	var before, now format.Node
	var i item
	for _, side := range []struct {
		entry *format.Entry
		node  *format.Node
	}{{o, &before}, {n, &now}} {
		if side.entry == nil {
			continue
		}
		if err := format.DecodeNode(side.entry.Raw, side.node); err != nil {
			return item{}, err
		}
		i.path = path.Join(dir, side.entry.Name)
	}
	i.before, i.now = before.Subtree, now.Subtree
	switch {
	case o == nil:
		i.change = &Change{Path: i.path, Kind: Added, Type: now.Type}
	case n == nil:
		i.change = &Change{Path: i.path, Kind: Removed, Type: before.Type}
	default:
		if what := differing(&before, &now); len(what) > 0 {
			i.change = &Change{Path: i.path, Kind: Changed, Type: now.Type, What: what}
		}
	}
	return i, nil
}

// differing names what differs. Inode numbers and the times of the last change of
// an inode are other ones after each restore, and say nothing about a file.
func differing(a, b *format.Node) []string {
	if a.Type != b.Type {
		return []string{Type}
	}
	var what []string
	for _, d := range []struct {
		name string
		is   bool
	}{
		{Content, a.Size != b.Size && a.Type == format.NodeFile || !slices.Equal(a.Content, b.Content) || a.LinkTarget != b.LinkTarget || a.Device != b.Device},
		{Mode, a.Mode != b.Mode},
		{Owner, a.UID != b.UID || a.GID != b.GID},
		{Xattr, !slices.EqualFunc(byName(a.Xattrs), byName(b.Xattrs), func(x, y format.Xattr) bool { return x.Name == y.Name && bytes.Equal(x.Value, y.Value) })},
		{ModTime, a.Type != format.NodeDir && !a.ModTime.Equal(b.ModTime)},
	} {
		if d.is {
			what = append(what, d.name)
		}
	}
	return what
}

func byName(attrs []format.Xattr) []format.Xattr {
	return slices.SortedFunc(slices.Values(attrs), func(a, b format.Xattr) int { return strings.Compare(a.Name, b.Name) })
}
