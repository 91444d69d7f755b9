package restore

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"drover/internal/repo/format"
	"drover/internal/repo/localfs"

	"golang.org/x/sys/unix"
)

// metaFile is a file whose metadata can be set.
type metaFile interface {
	chown(uid, gid uint32) error
	chmod(mode uint32) error
	times(ts *[2]unix.Timespec) error
	xattrs() ([]format.Xattr, error)
	setXattr(x format.Xattr) error
	removeXattr(name string) error
}

// fdFile is an open file or directory.
type fdFile struct{ fd int }

func (f fdFile) chown(uid, gid uint32) error     { return unix.Fchown(f.fd, int(uid), int(gid)) }
func (f fdFile) chmod(mode uint32) error         { return unix.Fchmod(f.fd, mode) }
func (f fdFile) xattrs() ([]format.Xattr, error) { return localfs.FdXattrs(f.fd) }
func (f fdFile) setXattr(x format.Xattr) error   { return localfs.SetFdXattr(f.fd, x) }
func (f fdFile) removeXattr(name string) error   { return localfs.RemoveFdXattr(f.fd, name) }

// times is futimens(3), which is utimensat without a path.
func (f fdFile) times(ts *[2]unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(f.fd), 0, uintptr(unsafe.Pointer(ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// dirFile is an entry that must not be opened: a symbolic link, device or FIFO.
type dirFile struct {
	dir  localfs.Dir
	name string
}

func (f dirFile) chown(uid, gid uint32) error {
	return unix.Fchownat(f.dir.Fd(), f.name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW)
}

// chmod goes by a descriptor without access, since fchmodat follows links.
func (f dirFile) chmod(mode uint32) error {
	fd, err := unix.Openat(f.dir.Fd(), f.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFLNK {
		err = unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
	}
	return errors.Join(err, unix.Close(fd))
}

func (f dirFile) times(ts *[2]unix.Timespec) error {
	return unix.UtimesNanoAt(f.dir.Fd(), f.name, ts[:], unix.AT_SYMLINK_NOFOLLOW)
}
func (f dirFile) xattrs() ([]format.Xattr, error) { return f.dir.Xattrs(f.name) }
func (f dirFile) setXattr(x format.Xattr) error   { return f.dir.SetXattr(f.name, x) }
func (f dirFile) removeXattr(name string) error   { return f.dir.RemoveXattr(f.name, name) }

// setMeta sets all metadata of a file. was is what it has, nil if it is new.
// What needs a privilege that is lacking is counted, or with StrictMetadata an error.
func (a *run) setMeta(f metaFile, path string, n *format.Node, was *localfs.Stat) error {
	if err := a.step("meta", path); err != nil {
		return err
	}
	mode := localfs.Permissions(n.Mode)
	owned := true
	if was == nil || was.Uid != n.UID || was.Gid != n.GID {
		if err := f.chown(n.UID, n.GID); err != nil {
			if err := a.lacking(err, "set owner", &a.res.owner); err != nil {
				return err
			}
			owned = false
		}
	}
	if !owned { // such a bit would lend the rights of another owner
		mode &^= unix.S_ISUID | unix.S_ISGID
	}
	if n.Type != format.NodeSymlink {
		if err := f.chmod(mode); err != nil { // chown cleared some bits, so it is always set
			if err := a.lacking(err, "set mode", &a.res.mode); err != nil {
				return err
			}
		}
	}
	if was != nil || len(n.Xattrs) > 0 || n.Type == format.NodeDir {
		if err := a.setXattrs(f, n, was != nil || n.Type == format.NodeDir); err != nil {
			return err
		}
	}
	ts := [2]unix.Timespec{localfs.Timespec(n.AccessTime), localfs.Timespec(n.ModTime)}
	if err := f.times(&ts); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// lacking decides about an error of metadata. It returns nil if it is for lack
// of a privilege, or of support by the file system, and may be passed over.
func (a *run) lacking(err error, what string, count interface{ Add(uint64) uint64 }) error {
	for _, e := range []unix.Errno{unix.EPERM, unix.EACCES, unix.ENOTSUP, unix.EINVAL, unix.ENOSYS} {
		if errors.Is(err, e) && !a.opt.StrictMetadata {
			count.Add(1)
			return nil
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// setXattrs makes the attributes those of the node.
func (a *run) setXattrs(f metaFile, n *format.Node, compare bool) error {
	var have []format.Xattr
	if compare {
		var err error
		if have, err = f.xattrs(); err != nil {
			return fmt.Errorf("list attributes: %w", err)
		}
	}
	for _, x := range have {
		if ours(x.Name) && !slices.ContainsFunc(n.Xattrs, func(w format.Xattr) bool { return w.Name == x.Name }) {
			if err := f.removeXattr(x.Name); err != nil && !errors.Is(err, unix.ENODATA) {
				if err := a.lacking(err, "remove attribute "+x.Name, &a.res.xattr); err != nil {
					return err
				}
			}
		}
	}
	for _, x := range n.Xattrs {
		// A capability is cleared by chown, so it is set even if it was there.
		if err := f.setXattr(x); err != nil {
			if err := a.lacking(err, "set attribute "+x.Name, &a.res.xattr); err != nil {
				return err
			}
		}
	}
	return nil
}

// ours reports whether an attribute that is not in the snapshot is removed. The
// labels of security modules belong to the machine.
func ours(name string) bool {
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.") ||
		strings.HasPrefix(name, "system.posix_acl_") || name == "security.capability"
}
