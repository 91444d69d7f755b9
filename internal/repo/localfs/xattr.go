package localfs

import (
	"bytes"
	"strings"

	"drover/internal/repo/format"

	"golang.org/x/sys/unix"
)

// ownXattrs begins the names of Drover's own attributes, which belong to a disk
// and not to what is stored of it: they are never read and so never stored, and
// never removed by a restore.
const ownXattrs = "user.drover."

// FdXattrs returns the extended attributes of an open file, in the kernel's
// order; none where the file system has none.
func FdXattrs(fd int) ([]format.Xattr, error) {
	return xattrs(
		func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) },
		func(name string, buf []byte) (int, error) { return unix.Fgetxattr(fd, name, buf) },
	)
}

// Xattrs returns the extended attributes of the entry name itself.
func (d Dir) Xattrs(name string) ([]format.Xattr, error) {
	path := d.path(name)
	return xattrs(
		func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) },
		func(name string, buf []byte) (int, error) { return unix.Lgetxattr(path, name, buf) },
	)
}

// SetFdXattr sets an attribute of an open file.
func SetFdXattr(fd int, a format.Xattr) error { return unix.Fsetxattr(fd, a.Name, a.Value, 0) }

// RemoveFdXattr removes an attribute of an open file.
func RemoveFdXattr(fd int, name string) error { return unix.Fremovexattr(fd, name) }

// SetXattr sets an attribute of the entry name itself.
func (d Dir) SetXattr(name string, a format.Xattr) error {
	return unix.Lsetxattr(d.path(name), a.Name, a.Value, 0)
}

// RemoveXattr removes an attribute of the entry name itself.
func (d Dir) RemoveXattr(name, attr string) error { return unix.Lremovexattr(d.path(name), attr) }

func xattrs(list func([]byte) (int, error), get func(string, []byte) (int, error)) ([]format.Xattr, error) {
	var small [512]byte // most files have none or few
	names, err := grow(small[:], list)
	if err == unix.ENOTSUP || err == nil && len(names) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var attrs []format.Xattr
	for raw := range bytes.SplitSeq(bytes.TrimSuffix(names, []byte{0}), []byte{0}) {
		name := string(raw)
		if strings.HasPrefix(name, ownXattrs) {
			continue
		}
		value, err := grow(make([]byte, 128), func(buf []byte) (int, error) { return get(name, buf) })
		switch err {
		case nil:
			attrs = append(attrs, format.Xattr{Name: name, Value: value})
		case unix.ENODATA, unix.ENOTSUP: // gone meanwhile, or listed but not kept
		default:
			return nil, err
		}
	}
	return attrs, nil
}

// grow calls read with larger and larger buffers until the result fits.
func grow(buf []byte, read func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := read(buf)
		switch err {
		case nil:
			return buf[:n], nil
		case unix.EINTR:
		case unix.ERANGE:
			if len(buf) >= 1<<20 {
				return nil, err
			}
			buf = make([]byte, 8*len(buf))
		default:
			return nil, err
		}
	}
}
