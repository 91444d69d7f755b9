package restore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"drover/internal/repo/format"
)

// maxEntries bounds a snapshot: trees may share subtrees, so a small hostile one
// could stand for more files than any disk holds.
const maxEntries = 200e6

// directory is one directory of the snapshot.
type directory struct {
	parent  *directory
	name    string
	path    string       // as in the snapshot
	node    *format.Node // nil: its metadata is not the snapshot's
	managed bool         // it is one of the snapshot's paths, or below one
	fresh   bool         // this run made it, so nothing is in the way in it
	lost    bool         // it could not be made
	same    bool         // what is below it is on the disk already
	known   []string     // entries that are on the disk already
	subs    []*directory // in order of names
	files   []*format.Node

	handle *handle
	pinned *handle // of a top directory: open to the end
}

// link is a further name of a file.
type link struct {
	dir, firstDir *directory
	node, first   *format.Node
}

// plan is the snapshot's tree, and what of it is restored where.
type plan struct {
	top     *directory // "/" of the snapshot
	paths   []string
	links   []link
	further map[*format.Node]struct{} // the nodes of links
	groups  map[*format.Node]uint64   // of a file with several names: how many
}

func (p *plan) isFurther(n *format.Node) bool {
	_, ok := p.further[n]
	return ok
}

// plan loads all trees, level by level.
func (a *run) plan(ctx context.Context, sn *format.Snapshot) (*plan, error) {
	p := &plan{top: &directory{path: "/"}, further: make(map[*format.Node]struct{}), groups: make(map[*format.Node]uint64)}
	for _, path := range sn.Paths {
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("the snapshot's path %q is not absolute", path)
		}
		p.paths = append(p.paths, filepath.Clean(path))
	}
	a.p = p
	p.top.managed = slices.Contains(p.paths, "/")
	first := trees{id: *sn.Tree}
	if base := a.opt.Base; base != nil && a.opt.Include == nil && slices.Equal(base.Paths, sn.Paths) {
		first.base, a.delta = base.Tree, base.Tree != nil
	}
	level := map[*directory]trees{p.top: first}
	names := make(map[string]string)
	for entries := 0; len(level) > 0; {
		data, err := a.loadTrees(ctx, level)
		if err != nil {
			return nil, err
		}
		next := make(map[*directory]trees)
		for dir, t := range level {
			nodes, err := format.DecodeTree(data[t.id])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", dir.path, err)
			}
			if entries += len(nodes); entries > maxEntries {
				return nil, errors.New("the snapshot has too many files")
			}
			var base map[string]*format.Node
			if t.base != nil {
				if base, err = baseNodes(data[*t.base]); err != nil {
					return nil, fmt.Errorf("%s: %w", dir.path, err)
				}
			}
			if err := a.addNodes(p, dir, nodes, base, names, next); err != nil {
				return nil, err
			}
		}
		level = next
	}
	a.findLinks(p)
	return p, nil
}

func (a *run) addNodes(p *plan, dir *directory, nodes []format.Node, base map[string]*format.Node, names map[string]string, next map[*directory]trees) error {
	for i := range nodes {
		n := &nodes[i]
		path := join(dir.path, n.Name)
		if !a.included(path) {
			continue
		}
		if skip, err := a.skip(dir, n, base); err != nil {
			return err
		} else if skip {
			continue
		}
		n.User, n.Group = intern(names, n.User), intern(names, n.Group)
		if n.Type != format.NodeDir {
			if n.Subtree != nil {
				return fmt.Errorf("%s: a %s with a subtree", path, n.Type)
			}
			dir.files = append(dir.files, n)
			continue
		}
		if n.Subtree == nil {
			return fmt.Errorf("%s: a directory without a subtree", path)
		}
		sub := &directory{parent: dir, name: n.Name, path: path, node: n, managed: dir.managed || slices.Contains(p.paths, path)}
		dir.subs = append(dir.subs, sub)
		t := trees{id: *n.Subtree}
		if old := base[n.Name]; old != nil {
			t.base = old.Subtree
		}
		if sub.same = dir.managed && t.base != nil && *t.base == t.id; !sub.same {
			next[sub] = t
		}
	}
	return nil
}

func intern(names map[string]string, s string) string {
	if known, ok := names[s]; ok {
		return known
	}
	s = strings.Clone(s)
	names[s] = s
	return s
}

func (a *run) included(path string) bool {
	if a.opt.Include == nil {
		return true
	}
	for _, in := range a.opt.Include {
		if in = filepath.Clean(in); within(in, path) || within(path, in) {
			return true
		}
	}
	return false
}

// findLinks finds the files that have several names: the first one, in the order
// of paths, is restored, and the others are linked to it.
func (a *run) findLinks(p *plan) {
	type first struct {
		dir  *directory
		node *format.Node
	}
	seen := make(map[inode]first)
	var visit func(d *directory)
	visit = func(d *directory) {
		for _, n := range d.files {
			if n.Type != format.NodeFile || n.Links < 2 {
				continue
			}
			key := inode{n.DeviceID, n.Inode}
			f, ok := seen[key]
			if !ok || !sameFile(f.node, n) {
				seen[key] = first{d, n}
				p.groups[n] = 1
				continue
			}
			p.groups[f.node]++
			p.further[n] = struct{}{}
			p.links = append(p.links, link{dir: d, node: n, firstDir: f.dir, first: f.node})
		}
		for _, sub := range d.subs {
			visit(sub)
		}
	}
	visit(p.top)
}

// sameFile reports whether two nodes with the same inode can be names of one
// file. (It may have changed between the reading of the two; then each keeps
// what was read.)
func sameFile(a, b *format.Node) bool { return a.Size == b.Size && slices.Equal(a.Content, b.Content) }

// loadTrees loads the trees of a level, with few requests. It tells which path
// is lost with a tree that cannot be had.
func (a *run) loadTrees(ctx context.Context, level map[*directory]trees) (map[format.ID][]byte, error) {
	paths := make(map[format.ID]string, len(level))
	for dir, t := range level {
		paths[t.id] = dir.path
		if t.base != nil {
			if _, ok := a.r.Lookup(format.Handle{Type: format.TreeBlob, ID: *t.base}); !ok {
				return nil, errBase // it was forgotten, and pruned
			}
			paths[*t.base] = dir.path
		}
	}
	need := newNeeds(a.r)
	for id, path := range paths {
		if err := need.add(format.Handle{Type: format.TreeBlob, ID: id}); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	trees := make(map[format.ID][]byte, len(paths))
	var mu sync.Mutex
	err := a.crew.Each(len(need.packs), func(i int) error {
		return a.r.LoadPackBlobs(ctx, need.packs[i].id, need.packs[i].blobs, func(h format.Handle, data []byte, err error) error {
			if err != nil {
				return fmt.Errorf("%s: %w", paths[h.ID], err)
			}
			data = slices.Clone(data)
			mu.Lock()
			defer mu.Unlock()
			trees[h.ID] = data
			return nil
		})
	})
	return trees, err
}
