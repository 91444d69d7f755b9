package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/localfs"

	"golang.org/x/sys/unix"
)

// Kind is how a path on disk differs from the snapshot.
type Kind string

// The kinds of difference.
const (
	Missing  Kind = "missing"  // only in the snapshot
	Extra    Kind = "extra"    // only on disk
	Type     Kind = "type"     // another kind of file
	Content  Kind = "content"  // bytes, link target or device number
	Metadata Kind = "metadata" // mode, owner, modification time or attributes
	// Unreadable: it cannot be compared, for lack of privileges.
	Unreadable Kind = "unreadable"
	Links      Kind = "links" // names of one file that should not be, or the other way round
)

// Difference is one path and how it differs. Below a path that is missing or
// extra no more is listed.
type Difference struct {
	Path string
	Kind Kind
}

func (d Difference) String() string { return string(d.Kind) + " " + d.Path }

// Diff compares the disk with the snapshot and returns the paths that differ, in
// order. All files are read. Of opt, what says where and what is used; nothing
// is changed.
func Diff(ctx context.Context, r *repo.Repository, sn *format.Snapshot, opt Options) ([]Difference, error) {
	a, err := newRun(r, sn, &opt)
	if err != nil {
		return nil, err
	}
	p, err := a.plan(ctx, sn)
	if err != nil {
		return nil, fmt.Errorf("compare with the snapshot: %w", err)
	}
	c := &comparison{run: a, ctx: ctx}
	if err := errors.Join(c.all(p), a.dirs.closeAll()); err != nil {
		return nil, fmt.Errorf("compare with the snapshot: %w", err)
	}
	slices.SortFunc(c.found, func(x, y Difference) int {
		return strings.Compare(x.Path+"\x00"+string(x.Kind), y.Path+"\x00"+string(y.Kind))
	})
	return slices.Compact(c.found), ctx.Err()
}

type comparison struct {
	*run
	ctx   context.Context
	found []Difference // under run.mu
}

func (c *comparison) note(path string, kind Kind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found = append(c.found, Difference{path, kind})
}

// all compares everything; the disk is not touched even if a path is missing.
func (c *comparison) all(p *plan) error {
	if c.opt.Target != "" {
		dir, err := localfs.OpenDir(c.opt.Target)
		if errors.Is(err, unix.ENOENT) {
			c.note("/", Missing)
			return nil
		}
		if err != nil {
			return fmt.Errorf("open %s: %w", c.opt.Target, err)
		}
		c.dirs.pin(p.top, dir)
		if err := c.dir(p.top); err != nil {
			return err
		}
		return c.links(p)
	}
	for _, path := range p.paths {
		if err := c.path(p, path); err != nil {
			return err
		}
	}
	return c.links(p)
}

func (c *comparison) path(p *plan, path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		c.note(path, Missing)
		return nil
	}
	top, err := c.openExisting(p, path, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil || top == nil {
		return err
	}
	return c.dir(top)
}

// openExisting is openPath for a path that exists and must not be changed.
func (c *comparison) openExisting(p *plan, path string, isDir bool) (*directory, error) {
	c.opt.step = func(string, string) error { return errors.New("a comparison changes nothing") }
	at := p.top
	names := strings.Split(strings.Trim(path, "/"), "/")
	for i, name := range names {
		next := at.sub(name)
		if next == nil && name != "" {
			if n := at.file(name); n != nil && i == len(names)-1 && !isDir {
				return c.openParent(at, n, path)
			}
			c.note(path, Type)
			return nil, nil
		}
		if next != nil {
			at = next
		}
	}
	if !isDir {
		c.note(path, Type)
		return nil, nil
	}
	dir, err := localfs.OpenDir(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	c.dirs.pin(at, dir)
	return at, nil
}

func (c *comparison) dir(d *directory) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	h, err := c.dirs.get(d)
	if errors.Is(err, unix.EACCES) && !c.root {
		c.note(d.path, Unreadable)
		d.lost = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", d.path, err)
	}
	err = c.entries(h.Dir, d)
	if err == nil && c.sets(d) {
		var st localfs.Stat
		if st, err = h.Stat(); err == nil {
			err = c.meta(fdFile{h.Fd()}, d.path, d.node, &st)
		}
	}
	c.dirs.put(h)
	if err != nil {
		return fmt.Errorf("read %s: %w", d.path, err)
	}
	return c.crew.Each(len(d.subs), func(i int) error {
		if d.subs[i].lost {
			return nil
		}
		return c.dir(d.subs[i])
	})
}

func (c *comparison) entries(dir localfs.Dir, d *directory) error {
	names, err := dir.Names()
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(names))
	for _, name := range names {
		there[name] = true
	}
	for _, sub := range d.subs {
		if sub.lost = !c.isDir(dir, sub, there[sub.name]); !sub.lost {
			delete(there, sub.name)
			continue
		}
		delete(there, sub.name)
	}
	for _, n := range d.files {
		delete(there, n.Name)
	}
	if d.managed {
		for name := range there {
			path := join(d.path, name)
			st, err := dir.Lstat(name)
			if err == nil && st.Mode&unix.S_IFMT != unix.S_IFSOCK && c.removable(path) {
				c.note(path, Extra)
			}
		}
	}
	return c.crew.Each(len(d.files), func(i int) error {
		n := d.files[i]
		if err := c.file(dir, n, join(d.path, n.Name)); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
		return c.ctx.Err()
	})
}

func (c *comparison) isDir(dir localfs.Dir, sub *directory, there bool) bool {
	if !there {
		c.note(sub.path, Missing)
		return false
	}
	st, err := dir.Lstat(sub.name)
	if err != nil {
		c.note(sub.path, Missing)
		return false
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		c.note(sub.path, Type)
		return false
	}
	return true
}

func (c *comparison) file(dir localfs.Dir, n *format.Node, path string) error {
	st, err := dir.Lstat(n.Name)
	if errors.Is(err, unix.ENOENT) {
		c.note(path, Missing)
		return nil
	}
	if err != nil {
		return err
	}
	if t, _ := localfs.TypeOf(st.Mode); t != n.Type {
		c.note(path, Type)
		return nil
	}
	if n.Type != format.NodeFile {
		one := st
		one.Nlink = 1
		if !c.sameSpecial(dir, n, &one) {
			c.note(path, Content)
		}
		return c.meta(dirFile{dir, n.Name}, path, n, &st)
	}
	fd, err := dir.OpenFile(n.Name)
	if errors.Is(err, unix.EACCES) && !c.root {
		c.note(path, Unreadable)
		return nil
	}
	if err != nil {
		return err
	}
	same, err := c.sameContent(dir, n, &st)
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	if !same {
		c.note(path, Content)
	}
	return errors.Join(c.meta(fdFile{fd}, path, n, &st), unix.Close(fd))
}

func (c *comparison) sameContent(dir localfs.Dir, n *format.Node, st *localfs.Stat) (bool, error) {
	if uint64(st.Size) != n.Size {
		return false, nil
	}
	all, err := c.pieces(n)
	if err != nil {
		return false, err
	}
	one := *st
	one.Nlink = 1
	missing, ok, err := c.reusable(dir, n, all, &one)
	return ok && len(missing) == 0, err
}

func (c *comparison) meta(f metaFile, path string, n *format.Node, st *localfs.Stat) error {
	same := st.Uid == n.UID && st.Gid == n.GID && localfs.Time(st.Mtim).Equal(n.ModTime)
	if n.Type != format.NodeSymlink {
		same = same && st.Mode&0o7777 == localfs.Permissions(n.Mode)
	}
	have, err := f.xattrs()
	if err != nil {
		return err
	}
	if !same || !sameXattrs(have, n.Xattrs) {
		c.note(path, Metadata)
	}
	return nil
}

// sameXattrs passes over the labels of security modules.
func sameXattrs(have, want []format.Xattr) bool {
	values := make(map[string]string)
	for _, x := range have {
		if ours(x.Name) {
			values[x.Name] = string(x.Value)
		}
	}
	for _, x := range want {
		if !ours(x.Name) {
			continue
		}
		if value, ok := values[x.Name]; !ok || value != string(x.Value) {
			return false
		}
		delete(values, x.Name)
	}
	return len(values) == 0
}

// links compares which names are one file.
func (c *comparison) links(p *plan) error {
	for i := range p.links {
		l := &p.links[i]
		a, errA := c.lstat(l.firstDir, l.first.Name)
		b, errB := c.lstat(l.dir, l.node.Name)
		if errA == nil && errB == nil && (a.Ino != b.Ino || a.Dev != b.Dev) {
			c.note(join(l.dir.path, l.node.Name), Links)
		}
	}
	return nil
}

func (c *comparison) lstat(d *directory, name string) (localfs.Stat, error) {
	for at := d; at != nil; at = at.parent {
		if at.lost {
			return localfs.Stat{}, unix.ENOENT
		}
	}
	h, err := c.dirs.get(d)
	if err != nil {
		return localfs.Stat{}, err
	}
	defer c.dirs.put(h)
	return h.Lstat(name)
}

// verify reads everything back. What could not be set for lack of privileges was
// counted, and is no error here either.
func (a *run) verify(ctx context.Context, sn *format.Snapshot) error {
	opt := *a.opt
	diffs, err := Diff(ctx, a.r, sn, opt)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	e := new(IncompleteError)
	for _, d := range diffs {
		if _, ok := a.absent[d.Path]; ok && d.Kind == Missing {
			continue
		}
		if d.Kind == Unreadable || d.Kind == Metadata && !opt.StrictMetadata || d.Kind == Extra && !opt.Delete {
			continue
		}
		if e.Total++; len(e.Paths) < maxErrors {
			e.Paths = append(e.Paths, PathError{d.Path, fmt.Errorf("read back: %s differs", d.Kind)})
		}
	}
	if e.Total > 0 {
		return e
	}
	return nil
}
