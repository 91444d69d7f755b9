package restore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"drover/internal/repo/format"
	"drover/internal/repo/localfs"

	"golang.org/x/sys/unix"
)

// open finds where to restore to and opens it: one directory for a Target, else
// one for each path. In its own place a path may be a symbolic link or a mount
// point, so it is never removed itself, and the directories above it are made if
// they are missing but not changed otherwise.
func (a *run) open(p *plan) ([]*directory, error) {
	if a.opt.Target != "" {
		if err := os.MkdirAll(a.opt.Target, 0o755); err != nil {
			return nil, fmt.Errorf("make the target: %w", err)
		}
		dir, err := localfs.OpenDir(a.opt.Target)
		if err != nil {
			return nil, fmt.Errorf("open the target %s: %w", a.opt.Target, err)
		}
		a.dirs.pin(p.top, dir)
		return []*directory{p.top}, nil
	}
	if len(p.paths) == 0 {
		return nil, errors.New("the snapshot names no paths, so it can be restored only to a target")
	}
	var tops []*directory
	for i, path := range p.paths {
		covered := false
		for j, other := range p.paths {
			covered = covered || i != j && within(other, path) && (other != path || j < i)
		}
		if covered || !a.included(path) {
			continue
		}
		top, err := a.openPath(p, path)
		if err != nil {
			return nil, err
		}
		tops = append(tops, top)
	}
	return tops, nil
}

func (a *run) openPath(p *plan, path string) (*directory, error) {
	at := p.top
	names := strings.Split(strings.Trim(path, "/"), "/")
	for i, name := range names {
		if name == "" { // the path is "/"
			break
		}
		next := at.sub(name)
		if next == nil {
			if n := at.file(name); n != nil && i == len(names)-1 {
				return a.openParent(at, n, path)
			}
			return nil, fmt.Errorf("the snapshot's path %s is not in its tree", path)
		}
		at = next
	}
	fresh, err := a.makePath(at)
	if err != nil {
		return nil, err
	}
	dir, err := localfs.OpenDir(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	at.fresh = fresh
	a.dirs.pin(at, dir)
	return at, nil
}

// openParent opens the directory of a path that is not a directory. What it
// returns holds only that one file.
func (a *run) openParent(above *directory, n *format.Node, path string) (*directory, error) {
	if _, err := a.makePath(above); err != nil {
		return nil, err
	}
	real := path
	if resolved, err := filepath.EvalSymlinks(path); err == nil && n.Type != format.NodeSymlink {
		real = resolved
	}
	dir, err := localfs.OpenDir(filepath.Dir(real))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", filepath.Dir(real), err)
	}
	n.Name = filepath.Base(real)
	only := &directory{parent: above, path: above.path, files: []*format.Node{n}}
	a.dirs.pin(only, dir)
	if above.pinned == nil { // links name the directory of the plan
		again, err := localfs.OpenDir(filepath.Dir(real))
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", filepath.Dir(real), err)
		}
		a.dirs.pin(above, again)
	}
	return only, nil
}

// makePath makes the directory d and those above it that are missing, with the
// snapshot's mode and owner.
func (a *run) makePath(d *directory) (made bool, err error) {
	if d.parent == nil {
		return false, nil
	}
	var st unix.Stat_t
	if err = unix.Stat(d.path, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return false, nil
	}
	if err == nil {
		err = a.clearPath(d)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return false, fmt.Errorf("make %s: %w", d.path, err)
	}
	if _, err := a.makePath(d.parent); err != nil {
		return false, err
	}
	if err := a.step("mkdir", d.path); err != nil {
		return false, err
	}
	if err := unix.Mkdir(d.path, 0o700); err != nil {
		return false, fmt.Errorf("make %s: %w", d.path, err)
	}
	if !d.managed && d.node != nil {
		dir, err := localfs.OpenDir(d.path)
		if err != nil {
			return false, fmt.Errorf("open %s: %w", d.path, err)
		}
		if err := errors.Join(a.setMeta(fdFile{dir.Fd()}, d.path, d.node, nil), dir.Close()); err != nil {
			return false, fmt.Errorf("make %s: %w", d.path, err)
		}
	}
	return true, nil
}

// clearPath removes a file that is where one of the snapshot's directories goes.
func (a *run) clearPath(d *directory) error {
	var st unix.Stat_t
	if err := unix.Lstat(d.path, &st); err != nil {
		return err
	}
	if !a.opt.Delete || !d.managed || st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return errors.New("a file that is not a directory is in the way")
	}
	if err := a.step("unlink", d.path); err != nil {
		return err
	}
	return unix.Unlink(d.path)
}

func (d *directory) sub(name string) *directory {
	for _, s := range d.subs {
		if s.name == name {
			return s
		}
	}
	return nil
}

func (d *directory) file(name string) *format.Node {
	for _, n := range d.files {
		if n.Name == name {
			return n
		}
	}
	return nil
}
