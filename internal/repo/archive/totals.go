package archive

import (
	"bytes"
	"context"
	"fmt"

	"drover/internal/repo"
	"drover/internal/repo/format"
)

// Totals is how much a tree holds, or by how much two differ.
type Totals struct {
	Files int64 // regular files, links, devices and the like; not directories
	Bytes int64 // of regular files
}

// Delta returns by how much tree now holds more than tree before. It reads only
// the trees in which they differ: few after a small change.
func Delta(ctx context.Context, r *repo.Repository, cache TreeCache, before, now format.ID) (Totals, error) {
	d := delta{ctx: ctx, r: r, cache: cache}
	if err := d.trees(&before, &now); err != nil {
		return Totals{}, fmt.Errorf("compare trees: %w", err)
	}
	return d.sum, nil
}

type delta struct {
	ctx   context.Context
	r     *repo.Repository
	cache TreeCache
	sum   Totals
}

// trees adds what now holds more than before; either may be nil, an empty tree.
func (d *delta) trees(before, now *format.ID) error {
	if before != nil && now != nil && *before == *now {
		return nil
	}
	old, err := d.entries(before)
	if err != nil {
		return err
	}
	entries, err := d.entries(now)
	if err != nil {
		return err
	}
	for len(old) > 0 || len(entries) > 0 {
		var o, n *format.Entry
		if len(entries) == 0 || len(old) > 0 && old[0].Name <= entries[0].Name {
			o = &old[0]
		}
		if len(old) == 0 || len(entries) > 0 && entries[0].Name <= old[0].Name {
			n = &entries[0]
		}
		if o != nil {
			old = old[1:]
		}
		if n != nil {
			entries = entries[1:]
		}
		if err := d.entry(o, n); err != nil {
			return err
		}
	}
	return nil
}

func (d *delta) entries(id *format.ID) ([]format.Entry, error) {
	if id == nil || id.IsZero() {
		return nil, nil
	}
	data, err := loadTree(d.ctx, d.r, d.cache, *id)
	if err != nil {
		return nil, err
	}
	return format.SplitTree(data)
}

// entry adds what n holds more than o; either may be nil.
func (d *delta) entry(o, n *format.Entry) error {
	if o != nil && n != nil && bytes.Equal(o.Raw, n.Raw) {
		return nil
	}
	before, err := d.count(o, -1)
	if err != nil {
		return err
	}
	now, err := d.count(n, 1)
	if err != nil || before == nil && now == nil {
		return err
	}
	return d.trees(before, now)
}

// count adds sign times the entry itself, and returns its subtree if it is a directory.
func (d *delta) count(e *format.Entry, sign int64) (*format.ID, error) {
	if e == nil {
		return nil, nil
	}
	var node format.Node
	if err := format.DecodeNode(e.Raw, &node); err != nil {
		return nil, err
	}
	if node.Type == format.NodeDir {
		return node.Subtree, nil
	}
	d.sum.Files += sign
	if node.Type == format.NodeFile {
		d.sum.Bytes += sign * int64(node.Size)
	}
	return nil, nil
}
