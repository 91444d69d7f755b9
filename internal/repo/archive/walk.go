package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"drover/internal/repo/format"
	"drover/internal/repo/localfs"

	"golang.org/x/sys/unix"
)

// errParentMissing: a tree of the parent cannot be read, so what was not looked
// at is not known.
var errParentMissing = errors.New("a tree of the parent snapshot cannot be read")

// look is one entry of a directory to be looked at.
type look struct {
	name string // in the tree
	file string // on disk
	path string
	old  *format.Entry // in the parent
	h    *hint         // nil: look at all of it
	st   localfs.Stat
}

// dir looks at an open directory, and returns what makes and stores its tree.
func (a *run) dir(ctx context.Context, d localfs.Dir, path string, parent *format.ID, h *hint) (treeMaker, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	old, err := a.parentEntries(ctx, parent, h.partial())
	if err != nil {
		return nil, err
	}
	entries, looks, err := a.choose(d, path, old, h)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(looks, func(x, y *look) int { return strings.Compare(x.name, y.name) })
	all := make([]made, len(looks))
	if err := a.lookAll(ctx, d, looks, all); err != nil {
		return nil, err
	}
	return func(ctx context.Context) (format.ID, error) {
		looked, err := a.finishAll(ctx, all)
		if err != nil {
			return format.ID{}, err
		}
		return a.saveTree(ctx, mergeEntries(entries, looked))
	}, nil
}

// lookAll makes the entries of looks. Files are handled in runs, since handing
// over a single small one costs about as much as reading it.
func (a *run) lookAll(ctx context.Context, d localfs.Dir, looks []*look, all []made) error {
	const files, bytes = 32, 1 << 20
	var ends []int
	var size int64
	for i, l := range looks {
		start := 0
		if len(ends) > 0 {
			start = ends[len(ends)-1]
		}
		size += l.st.Size
		if i+1 == len(looks) || i+1-start >= files || size >= bytes || l.isDir() {
			ends = append(ends, i+1)
			size = 0
		}
	}
	return a.crew.Each(len(ends), func(k int) error {
		start := 0
		if k > 0 {
			start = ends[k-1]
		}
		for i := start; i < ends[k]; i++ {
			e, err := a.entry(ctx, d, looks[i].path, looks[i])
			if err != nil {
				return err
			}
			all[i] = e
		}
		return nil
	})
}

func (l *look) isDir() bool { return l.st.Mode&unix.S_IFMT == unix.S_IFDIR }

// choose divides a directory's entries into those that stay as they were in the
// parent and those to look at.
func (a *run) choose(d localfs.Dir, path string, old []format.Entry, h *hint) (stay []format.Entry, looks []*look, err error) {
	if h.partial() && !h.self {
		return a.chooseHinted(d, path, old, h)
	}
	if !h.partial() && len(old) > 0 {
		a.noteGone(path) // all below is looked at
	}
	names, err := d.Names()
	if err != nil {
		return nil, nil, a.unreadable(path, err)
	}
	slices.Sort(names)
	a.noteRemoved(path, old, names)
	all := make([]look, 0, len(names))
	for _, name := range names {
		child := h.child(name)
		l, err := a.stat(d, path, name, find(old, name), child)
		if err != nil {
			return nil, nil, err
		}
		if l == nil {
			continue
		}
		if h.partial() && child == nil {
			// The directory's list may have changed, but this entry was not named.
			if l.old != nil && sameChange(l.old, &l.st) && !a.recent(&l.st) {
				stay = append(stay, *l.old)
				continue
			}
			if l.isDir() && l.old != nil {
				l.h = &hint{self: true}
			}
		}
		all = append(all, *l)
		looks = append(looks, &all[len(all)-1])
	}
	return stay, looks, nil
}

func (a *run) chooseHinted(d localfs.Dir, path string, old []format.Entry, h *hint) (stay []format.Entry, looks []*look, err error) {
	stay = old[:0:0]
	for i := range old {
		if _, named := h.children[old[i].Name]; !named {
			stay = append(stay, old[i])
		}
	}
	for name, child := range h.children {
		oldEntry := find(old, name)
		l, err := a.stat(d, path, name, oldEntry, child)
		if err != nil {
			return nil, nil, err
		}
		if l != nil {
			looks = append(looks, l)
		} else if oldEntry != nil {
			a.noteGone(join(path, name))
		}
	}
	return stay, looks, nil
}

// stat looks at one entry; nil means that it is not part of the backup.
func (a *run) stat(d localfs.Dir, path, name string, old *format.Entry, h *hint) (*look, error) {
	if format.CheckName(name) != nil {
		return nil, nil //nolint:nilerr // a hint's: no directory has an entry of that name
	}
	l := look{name: name, file: name, path: join(path, name), old: old, h: h}
	if a.excluded(l.path) {
		return nil, nil
	}
	var err error
	if l.st, err = d.Lstat(name); err != nil {
		return nil, a.unreadable(l.path, err)
	}
	t, ok := localfs.TypeOf(l.st.Mode)
	if !ok || a.skipped(l.path, t) {
		return nil, nil
	}
	return &l, nil
}

// entry makes the entry of one look. A zero Entry means that there is none.
func (a *run) entry(ctx context.Context, d localfs.Dir, path string, l *look) (made, error) {
	t, ok := localfs.TypeOf(l.st.Mode)
	if !ok {
		return made{}, nil
	}
	a.noteLooked(path, l)
	var e made
	var err error
	switch t {
	case format.NodeDir:
		return a.subDir(ctx, d, path, l)
	case format.NodeFile:
		e, err = a.file(ctx, d, path, l)
	default:
		a.noteLink(path, &l.st)
		e.Entry, err = a.special(d, t, l)
	}
	if err != nil {
		var stored storeError
		if errors.As(err, &stored) {
			return made{}, err
		}
		return made{}, a.unreadable(path, err)
	}
	return e, nil
}

// storeError is an error that is not the file's.
type storeError struct{ error }

func (e storeError) Unwrap() error { return e.error }

func (a *run) subDir(ctx context.Context, d localfs.Dir, path string, l *look) (made, error) {
	sub, err := d.Sub(l.file)
	if err != nil {
		return made{}, a.unreadable(path, err)
	}
	defer func() { _ = sub.Close() }()
	return a.openDirEntry(ctx, sub, path, l.name, l.old, l.h)
}

// openDirEntry makes the entry of an open directory, and all below it.
func (a *run) openDirEntry(ctx context.Context, d localfs.Dir, path, name string, old *format.Entry, h *hint) (made, error) {
	node, err := a.dirNode(d, name, false)
	if err != nil {
		return made{}, a.unreadable(path, err)
	}
	var parent *format.ID
	if oldNode, ok := decode(old); ok && oldNode.Type == format.NodeDir {
		parent = oldNode.Subtree
		if h.partial() && oldNode.Inode != node.Inode {
			h = forced(h) // another directory has taken its name: nothing below is known
		}
	} else {
		h = forced(h)
	}
	tree, err := a.dir(ctx, d, path, parent, h)
	if err != nil {
		return made{}, err
	}
	return a.now(ctx, func(ctx context.Context) (format.Entry, error) {
		id, err := tree(ctx)
		if err != nil {
			return format.Entry{}, err
		}
		node.Subtree = &id
		a.countDir(parent, id)
		if a.opt.Progress != nil {
			a.opt.Progress(path, 0)
		}
		return encode(node), nil
	})
}

func (a *run) countDir(parent *format.ID, now format.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.res.Dirs++
	if parent == nil {
		a.res.DirsNew++
	} else if now != *parent {
		a.res.DirsChanged++
	}
}

// dirNode describes an open directory. above: it is not part of the backup, so
// attributes that cannot be read are no error, as in restic.
func (a *run) dirNode(d localfs.Dir, name string, above bool) (*format.Node, error) {
	st, err := d.Stat()
	if err != nil {
		return nil, err
	}
	n := &format.Node{Name: name}
	localfs.Fill(n, format.NodeDir, &st)
	a.owners.Name(n)
	if n.Xattrs, err = localfs.FdXattrs(d.Fd()); err != nil && !above {
		return nil, err
	}
	return n, nil
}

// special makes the node of a symbolic link, device or FIFO.
func (a *run) special(d localfs.Dir, t format.NodeType, l *look) (format.Entry, error) {
	n := &format.Node{Name: l.name}
	localfs.Fill(n, t, &l.st)
	a.owners.Name(n)
	var err error
	if t == format.NodeSymlink {
		if n.LinkTarget, err = d.Readlink(l.file); err != nil {
			return format.Entry{}, err
		}
	}
	if n.Xattrs, err = d.Xattrs(l.file); err != nil {
		return format.Entry{}, err
	}
	a.count(l, n, 0, false)
	return encode(n), nil
}

// parentEntries returns the entries of a parent's tree. If the parent is needed
// and cannot be read, that is errParentMissing; else it is as if there were none.
func (a *run) parentEntries(ctx context.Context, id *format.ID, needed bool) ([]format.Entry, error) {
	if id == nil || id.IsZero() {
		return nil, nil
	}
	data, err := loadTree(ctx, a.r, a.opt.Cache, *id)
	if err == nil {
		var entries []format.Entry
		if entries, err = format.SplitTree(data); err == nil {
			return entries, nil
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if needed {
		return nil, fmt.Errorf("%w: %w", errParentMissing, err)
	}
	return nil, nil
}

// saveTree stores a tree of entries, leaving out zero ones.
func (a *run) saveTree(ctx context.Context, entries []format.Entry) (format.ID, error) {
	size := 16
	for _, e := range entries {
		size += len(e.Raw) + 1
	}
	b := format.NewTreeBuilder(make([]byte, 0, size))
	for _, e := range entries {
		if e.Raw == nil {
			continue
		}
		if err := b.AddRaw(e); err != nil {
			return format.ID{}, storeError{err}
		}
	}
	data := b.Finish()
	id, err := a.w.Save(ctx, format.TreeBlob, data)
	if err != nil {
		return id, storeError{err}
	}
	if a.opt.Cache != nil {
		a.opt.Cache.Put(id, data)
	}
	return id, nil
}

// mergeEntries merges two lists that are in order.
func mergeEntries(a, b []format.Entry) []format.Entry {
	if len(a) == 0 {
		return b
	}
	out := make([]format.Entry, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0].Name < b[0].Name {
			out = append(out, a[0])
			a = a[1:]
		} else {
			out = append(out, b[0])
			b = b[1:]
		}
	}
	return append(append(out, a...), b...)
}

func find(entries []format.Entry, name string) *format.Entry {
	i, ok := slices.BinarySearchFunc(entries, name, func(e format.Entry, name string) int { return strings.Compare(e.Name, name) })
	if !ok {
		return nil
	}
	return &entries[i]
}

func encode(n *format.Node) format.Entry {
	return format.Entry{Name: n.Name, Raw: n.AppendJSON(make([]byte, 0, 512))}
}

func decode(e *format.Entry) (*format.Node, bool) {
	if e == nil {
		return nil, false
	}
	n := new(format.Node)
	return n, format.DecodeNode(e.Raw, n) == nil
}

func subtree(e *format.Entry) *format.ID {
	if n, ok := decode(e); ok {
		return n.Subtree
	}
	return nil
}

// sameChange reports whether the entry's inode and change time are st's, so that
// nothing of the file itself (for a directory: its list) has changed.
func sameChange(e *format.Entry, st *localfs.Stat) bool {
	n, ok := decode(e)
	t, storable := localfs.TypeOf(st.Mode)
	return ok && storable && n.Type == t && n.Inode == st.Ino && n.ChangeTime.Equal(localfs.Time(st.Ctim))
}

// recent reports whether the file may have changed after the parent's backup
// looked at it and still have the same times.
func (a *run) recent(st *localfs.Stat) bool {
	return !a.opt.ParentTime.IsZero() && localfs.Time(st.Ctim).After(a.opt.ParentTime.Add(-clockTick))
}

func vanished(err error) bool { return errors.Is(err, unix.ENOENT) }

func (a *run) racy(st *localfs.Stat, read time.Time) bool {
	limit := read.Add(-clockTick)
	return localfs.Time(st.Ctim).After(limit) || localfs.Time(st.Mtim).After(limit)
}
