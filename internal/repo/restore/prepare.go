package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"drover/internal/repo/format"
	"drover/internal/repo/localfs"

	"golang.org/x/sys/unix"
)

const defaultACL = "system.posix_acl_default"

// prepare makes the directories below d, removes what is in the way or (exact)
// not in the snapshot, makes all that needs no content, and notes which files do.
func (a *run) prepare(ctx context.Context, d *directory) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h, err := a.dirs.get(d)
	if err != nil {
		a.fail(d.path, err)
		return nil
	}
	if !d.fresh || d.parent == nil || d.pinned != nil || !a.sets(d.parent) {
		if err := a.openUp(h.Dir, d); err != nil {
			a.fail(d.path, err)
		}
	}
	if d.same {
		a.dirs.put(h)
		return nil
	}
	existing := map[string]struct{}{}
	switch {
	case !d.fresh:
		existing, err = a.clear(ctx, h.Dir, d)
	case len(d.known) > 0:
		err = errBase
	}
	if err == nil {
		err = a.fill(ctx, h.Dir, d, existing)
	}
	a.dirs.put(h)
	if err != nil {
		return err
	}
	return a.crew.Each(len(d.subs), func(i int) error {
		if d.subs[i].lost {
			return nil
		}
		return a.prepare(ctx, d.subs[i])
	})
}

// sets reports whether the metadata of d is set from the snapshot.
func (a *run) sets(d *directory) bool { return d.node != nil && (d.managed || a.opt.Target != "") }

// openUp makes a directory that was there usable for the restore: writable, and
// without a default ACL that new files would inherit. Both are set at the end.
func (a *run) openUp(dir localfs.Dir, d *directory) error {
	if !a.sets(d) {
		return nil
	}
	if !a.root {
		st, err := dir.Stat()
		if err != nil {
			return err
		}
		if st.Mode&0o700 != 0o700 {
			if err := a.step("chmod", d.path); err != nil {
				return err
			}
			if err := unix.Fchmod(dir.Fd(), st.Mode&0o7777|0o700); err != nil {
				return err
			}
		}
	}
	attrs, err := localfs.FdXattrs(dir.Fd())
	if err != nil {
		return err
	}
	for _, x := range attrs {
		if x.Name == defaultACL {
			if err := a.step("removexattr", d.path); err != nil {
				return err
			}
			return localfs.RemoveFdXattr(dir.Fd(), defaultACL)
		}
	}
	return nil
}

// clear returns the names in dir, and removes those that the snapshot lacks.
func (a *run) clear(ctx context.Context, dir localfs.Dir, d *directory) (map[string]struct{}, error) {
	names, err := dir.Names() // nobody else reads them from this handle
	if err != nil {
		a.fail(d.path, err)
		return nil, nil
	}
	existing := make(map[string]struct{}, len(names))
	for _, name := range names {
		existing[name] = struct{}{}
	}
	for _, name := range d.known {
		if _, ok := existing[name]; !ok {
			return nil, errBase
		}
	}
	if !a.opt.Delete || !d.managed {
		return existing, nil
	}
	wanted := make(map[string]struct{}, len(d.subs)+len(d.files))
	for _, s := range d.subs {
		wanted[s.name] = struct{}{}
	}
	for _, n := range d.files {
		wanted[n.Name] = struct{}{}
	}
	for _, name := range d.known {
		wanted[name] = struct{}{}
	}
	for _, name := range names {
		path := join(d.path, name)
		if _, ok := wanted[name]; ok || !a.removable(path) {
			continue
		}
		if _, err := a.remove(ctx, dir, name, path); err != nil {
			a.fail(path, fmt.Errorf("remove: %w", err))
		}
	}
	return existing, ctx.Err()
}

// removable reports whether a path that is not in the snapshot is to go.
func (a *run) removable(path string) bool {
	if a.keep(path) || !a.excludes.Empty() && a.excludes.Match(path) {
		return false
	}
	if a.opt.Include == nil {
		return true
	}
	return slices.ContainsFunc(a.opt.Include, func(in string) bool { return within(in, path) })
}

// fill makes d's entries.
func (a *run) fill(ctx context.Context, dir localfs.Dir, d *directory, existing map[string]struct{}) error {
	for _, sub := range d.subs {
		_, there := existing[sub.name]
		if err := a.makeDir(ctx, dir, sub, there); err != nil {
			if errors.Is(err, errBase) {
				return err
			}
			a.fail(sub.path, err)
			sub.lost = true
		}
		a.res.dirs.Add(1)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	const batch = 64 // handing over one small file costs as much as making it
	return a.crew.Each((len(d.files)+batch-1)/batch, func(k int) error {
		for _, n := range d.files[k*batch : min(len(d.files), (k+1)*batch)] {
			_, there := existing[n.Name]
			path := join(d.path, n.Name)
			if there && a.keep(path) {
				continue
			}
			if err := a.makeFile(ctx, dir, d, n, path, there); err != nil {
				a.fail(path, err)
			}
			a.res.files.Add(1)
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *run) makeDir(ctx context.Context, dir localfs.Dir, sub *directory, there bool) error {
	if there {
		st, err := dir.Lstat(sub.name)
		switch {
		case err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
			return nil
		case err == nil && (!a.opt.Delete || !sub.managed):
			return errors.New("a file that is not a directory is in the way")
		case err == nil:
			if err := a.removeWay(ctx, dir, sub.name, sub.path); err != nil {
				return err
			}
		case !errors.Is(err, unix.ENOENT):
			return err
		}
	}
	if sub.same {
		return errBase
	}
	if err := a.step("mkdir", sub.path); err != nil {
		return err
	}
	if err := unix.Mkdirat(dir.Fd(), sub.name, 0o700); err != nil {
		return err
	}
	sub.fresh = true
	return nil
}

// makeFile makes an entry that is not a directory, or notes that it needs content.
func (a *run) makeFile(ctx context.Context, dir localfs.Dir, d *directory, n *format.Node, path string, there bool) error {
	var st *localfs.Stat
	if there {
		got, err := dir.Lstat(n.Name)
		if err == nil {
			st = &got
		} else if !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	if st != nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if !a.opt.Delete || a.keep(path) {
			return errors.New("a directory is in the way")
		}
		if err := a.removeWay(ctx, dir, n.Name, path); err != nil {
			return err
		}
		st = nil
	}
	if n.Type == format.NodeFile {
		return a.makeRegular(dir, d, n, path, st)
	}
	if st != nil && a.sameSpecial(dir, n, st) {
		return a.setMeta(dirFile{dir, n.Name}, path, n, st)
	}
	if st != nil {
		if err := a.unlink(dir, n.Name, path); err != nil {
			return err
		}
	}
	if made, err := a.makeSpecial(dir, n, path); err != nil || !made {
		return err
	}
	return a.setMeta(dirFile{dir, n.Name}, path, n, nil)
}

func (a *run) sameSpecial(dir localfs.Dir, n *format.Node, st *localfs.Stat) bool {
	t, ok := localfs.TypeOf(st.Mode)
	if !ok || t != n.Type || st.Nlink > 1 {
		return false
	}
	if t == format.NodeSymlink {
		target, err := dir.Readlink(n.Name)
		return err == nil && target == n.LinkTarget
	}
	return t == format.NodeFifo || st.Rdev == n.Device
}

func (a *run) makeSpecial(dir localfs.Dir, n *format.Node, path string) (made bool, err error) {
	if err := a.step("make", path); err != nil {
		return false, err
	}
	switch n.Type {
	case format.NodeSymlink:
		return true, unix.Symlinkat(n.LinkTarget, dir.Fd(), n.Name)
	case format.NodeFifo:
		return true, unix.Mkfifoat(dir.Fd(), n.Name, 0o600)
	case format.NodeDevice, format.NodeCharDev:
		kind := uint32(unix.S_IFBLK)
		if n.Type == format.NodeCharDev {
			kind = unix.S_IFCHR
		}
		err := unix.Mknodat(dir.Fd(), n.Name, kind|0o600, int(n.Device))
		if errors.Is(err, unix.EPERM) && !a.opt.StrictMetadata {
			a.res.node.Add(1)
			a.leftOut(path)
			return false, nil
		}
		return true, err
	case "socket": // some programs store them; a socket is of no use without its process
		a.leftOut(path)
		return false, nil
	}
	return false, fmt.Errorf("unknown type %q", n.Type)
}

func (a *run) leftOut(path string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.absent[path] = struct{}{}
}

func (a *run) unlink(dir localfs.Dir, name, path string) error {
	if err := a.step("unlink", path); err != nil {
		return err
	}
	return unix.Unlinkat(dir.Fd(), name, 0)
}
