package archive

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"drover/internal/repo/format"
	"drover/internal/repo/localfs"

	"golang.org/x/sys/unix"
)

// root is a directory above the paths of a backup, or one of the paths. The
// directories above are stored with their metadata and only the entries that
// lead to the paths.
type root struct {
	path     string
	leaf     bool // it is one of the paths: all of it is stored
	children map[string]*root
}

// layOut puts the paths into one tree from "/". A path below another one is a
// part of that.
func layOut(paths []string) (*root, error) {
	if len(paths) == 0 {
		return nil, errors.New("back up: no paths")
	}
	sorted, err := clean(paths)
	if err != nil {
		return nil, fmt.Errorf("back up: %w", err)
	}
	top := &root{path: "/", children: make(map[string]*root)}
	for _, path := range sorted {
		at := top
		for name := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
			if at.leaf || name == "" {
				break
			}
			next := at.children[name]
			if next == nil {
				next = &root{path: join(at.path, name), children: make(map[string]*root)}
				at.children[name] = next
			}
			at = next
		}
		at.leaf = true
	}
	return top, nil
}

// virtual looks at a directory above the paths, or at "/", and returns what makes
// its tree.
func (a *run) virtual(ctx context.Context, r *root, parent *format.ID, h *hint) (treeMaker, error) {
	if r.leaf { // only "/" gets here as a leaf
		d, err := localfs.OpenDir("/")
		if err != nil {
			return nil, fmt.Errorf("open /: %w", err)
		}
		defer func() { _ = d.Close() }()
		return a.dir(ctx, d, "/", parent, h)
	}
	old, err := a.parentEntries(ctx, parent, h.partial())
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(r.children))
	for name := range r.children {
		names = append(names, name)
	}
	slices.Sort(names)
	all := make([]made, len(names))
	err = a.crew.Each(len(names), func(i int) (err error) {
		child := r.children[names[i]]
		oldEntry, childHint := find(old, names[i]), h.child(names[i])
		if h.partial() && childHint == nil {
			if child.leaf && oldEntry != nil && !h.self {
				all[i].Entry = *oldEntry
				return nil
			}
			childHint = &hint{self: h.self || child.leaf}
		}
		all[i], err = a.rootEntry(ctx, child, names[i], oldEntry, childHint)
		return err
	})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (format.ID, error) {
		entries, err := a.finishAll(ctx, all)
		if err != nil {
			return format.ID{}, err
		}
		return a.saveTree(ctx, entries)
	}, nil
}

// rootEntry makes the node of a path or of a directory above one. A zero Entry
// means that it is excluded.
func (a *run) rootEntry(ctx context.Context, r *root, name string, old *format.Entry, h *hint) (made, error) {
	if !r.leaf {
		d, err := localfs.OpenDir(r.path)
		if err != nil {
			return made{}, fmt.Errorf("open %s: %w", r.path, err)
		}
		defer func() { _ = d.Close() }()
		node, err := a.dirNode(d, name, true)
		if err != nil {
			return made{}, fmt.Errorf("read %s: %w", r.path, err)
		}
		tree, err := a.virtual(ctx, r, subtree(old), h)
		if err != nil {
			return made{}, err
		}
		return a.now(ctx, func(ctx context.Context) (format.Entry, error) {
			id, err := tree(ctx)
			node.Subtree = &id
			return encode(node), err
		})
	}
	if a.excluded(r.path) {
		return made{}, nil
	}
	var st localfs.Stat
	if err := localfs.Retry(func() error { return unix.Stat(r.path, &st) }); err != nil {
		return made{}, fmt.Errorf("read %s: %w", r.path, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return a.rootDir(ctx, r, name, old, h)
	}
	return a.rootFile(ctx, r, name, old, h)
}

func (a *run) rootDir(ctx context.Context, r *root, name string, old *format.Entry, h *hint) (made, error) {
	d, err := localfs.OpenDir(r.path)
	if err != nil {
		return made{}, fmt.Errorf("open %s: %w", r.path, err)
	}
	defer func() { _ = d.Close() }()
	return a.openDirEntry(ctx, d, r.path, name, old, h)
}

// rootFile makes the node of a path that is not a directory. Its name in the
// tree is that of the path, whatever a symbolic link leads to.
func (a *run) rootFile(ctx context.Context, r *root, name string, old *format.Entry, h *hint) (made, error) {
	real, err := filepath.EvalSymlinks(r.path)
	if err != nil {
		return made{}, fmt.Errorf("read %s: %w", r.path, err)
	}
	d, err := localfs.OpenDir(filepath.Dir(real))
	if err != nil {
		return made{}, fmt.Errorf("read %s: %w", r.path, err)
	}
	defer func() { _ = d.Close() }()
	l := look{file: filepath.Base(real), name: name, path: r.path, old: old, h: h}
	if l.st, err = d.Lstat(l.file); err != nil {
		return made{}, fmt.Errorf("read %s: %w", r.path, err)
	}
	e, err := a.entry(ctx, d, r.path, &l)
	if err == nil && e.none() && a.opt.OnUnreadable == Fail {
		err = fmt.Errorf("read %s: it is gone, or of a type that cannot be stored", r.path)
	}
	return e, err
}
