// Package localfs is the part of the local file system that backup and restore
// share: files named by an open directory and one name, so that no symbolic link
// is ever followed, and their metadata as nodes of a tree.
//
// It promises that no call resolves more than one path element (but OpenDir),
// and that errors are the kernel's (unix.Errno), for the caller to put the path
// to. What to read or write, and in what order, is left to archive and restore.
package localfs

import (
	"io/fs"
	"strconv"
	"time"

	"drover/internal/repo/format"

	"golang.org/x/sys/unix"
)

// Stat is what the kernel says of a file.
type Stat = unix.Stat_t

// Dir is an open directory.
type Dir struct{ fd int }

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC

// OpenDir opens the directory path; symbolic links on the way are followed.
func OpenDir(path string) (Dir, error) {
	fd, err := openat(unix.AT_FDCWD, path, dirFlags, 0)
	return Dir{fd}, err
}

// Sub opens the directory name in d; a symbolic link is an error (ENOTDIR or ELOOP).
func (d Dir) Sub(name string) (Dir, error) {
	fd, err := openat(d.fd, name, dirFlags|unix.O_NOFOLLOW, 0)
	return Dir{fd}, err
}

// Close closes d.
func (d Dir) Close() error { return unix.Close(d.fd) }

// Fd is the descriptor, which stays d's.
func (d Dir) Fd() int { return d.fd }

// Names returns the names of d's entries, in no order. It may be called once.
func (d Dir) Names() ([]string, error) {
	buf := make([]byte, 32<<10)
	var names []string
	for {
		n, err := unix.ReadDirent(d.fd, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, err
		case n <= 0:
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// Stat describes d itself.
func (d Dir) Stat() (st Stat, err error) {
	err = Retry(func() error { return unix.Fstat(d.fd, &st) })
	return st, err
}

// Lstat describes the entry name.
func (d Dir) Lstat(name string) (st Stat, err error) {
	err = Retry(func() error { return unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, err
}

// Readlink returns the target of the symbolic link name.
func (d Dir) Readlink(name string) (string, error) {
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(d.fd, name, buf)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// OpenFile opens the regular file name for reading; the caller closes the
// descriptor, and makes sure that it is one. The access time is left alone where
// the kernel allows that.
func (d Dir) OpenFile(name string) (fd int, err error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err = openat(d.fd, name, flags|unix.O_NOATIME, 0)
	if err == unix.EPERM { // neither the owner nor privileged
		fd, err = openat(d.fd, name, flags, 0)
	}
	return fd, err
}

// Create opens the file name for writing; flags are added to O_NOFOLLOW.
func (d Dir) Create(name string, flags int, mode uint32) (fd int, err error) {
	return openat(d.fd, name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, mode)
}

// path names an entry for the calls that know no directory descriptors.
func (d Dir) path(name string) string {
	return "/proc/self/fd/" + strconv.Itoa(d.fd) + "/" + name
}

func openat(dir int, name string, flags int, mode uint32) (fd int, err error) {
	err = Retry(func() error {
		fd, err = unix.Openat(dir, name, flags, mode)
		return err
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// Retry repeats call while a signal interrupts it.
func Retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// TypeOf returns the node type of a file mode; false for a socket and whatever
// else cannot be stored.
func TypeOf(mode uint32) (format.NodeType, bool) {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return format.NodeFile, true
	case unix.S_IFDIR:
		return format.NodeDir, true
	case unix.S_IFLNK:
		return format.NodeSymlink, true
	case unix.S_IFBLK:
		return format.NodeDevice, true
	case unix.S_IFCHR:
		return format.NodeCharDev, true
	case unix.S_IFIFO:
		return format.NodeFifo, true
	}
	return "", false
}

// Mode converts the kernel's mode to Go's.
func Mode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m |= fs.ModeDir
	case unix.S_IFLNK:
		m |= fs.ModeSymlink
	case unix.S_IFBLK:
		m |= fs.ModeDevice
	case unix.S_IFCHR:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFIFO:
		m |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		m |= fs.ModeSocket
	}
	if mode&unix.S_ISUID != 0 {
		m |= fs.ModeSetuid
	}
	if mode&unix.S_ISGID != 0 {
		m |= fs.ModeSetgid
	}
	if mode&unix.S_ISVTX != 0 {
		m |= fs.ModeSticky
	}
	return m
}

// Permissions converts Go's mode to the kernel's twelve permission bits.
func Permissions(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		mode |= unix.S_ISUID
	}
	if m&fs.ModeSetgid != 0 {
		mode |= unix.S_ISGID
	}
	if m&fs.ModeSticky != 0 {
		mode |= unix.S_ISVTX
	}
	return mode
}

// Time converts the kernel's time. It is UTC, so that a tree's id does not
// depend on the time zone of the instance.
func Time(t unix.Timespec) time.Time { return time.Unix(t.Sec, t.Nsec).UTC() }

// Timespec converts to the kernel's time. (unix.TimeToTimespec would refuse
// what is beyond the range of int64 nanoseconds in some versions.)
func Timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// Links is how many names a file has.
func Links(st *Stat) uint64 {
	return uint64(st.Nlink) //nolint:unconvert // 32 bits on arm64
}

// Fill sets what st says of the file, which is of type t, but not the names of
// its owner. As in restic the access time is the modification time: a backup
// that reads a file must not change the tree.
func Fill(n *format.Node, t format.NodeType, st *Stat) {
	n.Type = t
	n.Mode = Mode(st.Mode)
	n.ModTime = Time(st.Mtim)
	n.AccessTime = n.ModTime
	n.ChangeTime = Time(st.Ctim)
	n.UID, n.GID = st.Uid, st.Gid
	n.Inode, n.DeviceID = st.Ino, st.Dev
	switch t {
	case format.NodeFile:
		n.Size = uint64(st.Size)
		n.Links = Links(st)
	case format.NodeSymlink:
		n.Links = Links(st)
	case format.NodeDevice, format.NodeCharDev:
		n.Device = st.Rdev
		n.Links = Links(st)
	}
}
