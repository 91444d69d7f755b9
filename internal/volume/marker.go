package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// A marker proves that the directory at a path is the one the record was
// written about: not another disk mounted there, not a copy put in its place.
// The random value stands in the directory's own file system, as an extended
// attribute, or, where those are not to be had, in a file. The inode is compared
// too, which a copy made with its attributes does not share. The device number is
// not: overlay file systems get a new one with every mount, and so with every
// restart of a container.
type marker struct {
	Path  string `json:"path"`
	Inode uint64 `json:"inode"`
	Value string `json:"value"`
}

const (
	// MarkerAttr is the extended attribute of a marked path; it is not part of snapshots.
	MarkerAttr = "user.drover.marker"
	// MarkerFile is the file that stands in for it; it is not part of snapshots.
	MarkerFile = ".drover-marker"
)

// IsMarker reports whether path is a marker's file directly below one of roots.
func IsMarker(roots []string, path string) bool {
	if filepath.Base(path) != MarkerFile {
		return false
	}
	dir := filepath.Dir(path)
	for _, root := range roots {
		if dir == filepath.Clean(root) {
			return true
		}
	}
	return false
}

// writeMarkers marks every path that exists. The marks are on the disk before it returns.
func writeMarkers(paths []string) ([]marker, error) {
	var all []marker
	for _, path := range paths {
		inode, err := inodeOf(path)
		if errors.Is(err, os.ErrNotExist) {
			all = append(all, marker{Path: path})
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("mark %s: %w", path, err)
		}
		m := marker{Path: path, Inode: inode, Value: newID()}
		if err := setMarker(path, m.Value); err != nil {
			return nil, fmt.Errorf("mark %s: %w", path, err)
		}
		all = append(all, m)
	}
	return all, nil
}

// errMarked: two agents were given one directory, or a disk that was another's.
var errMarked = errors.New("the paths bear the marker of another instance")

// marked reports whether any of paths bears a marker.
func marked(paths []string) bool {
	return slices.ContainsFunc(paths, func(path string) bool { return getMarker(path) != "" })
}

// markersMatch reports whether all paths, and no others, bear these markers.
func markersMatch(paths []string, all []marker) bool {
	if len(paths) != len(all) {
		return false
	}
	for i, m := range all {
		if m.Path != paths[i] {
			return false
		}
		inode, err := inodeOf(m.Path)
		if errors.Is(err, os.ErrNotExist) && m.Value == "" {
			continue
		}
		if err != nil || inode != m.Inode || getMarker(m.Path) != m.Value {
			return false
		}
	}
	return true
}

func inodeOf(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

func setMarker(path, value string) error {
	err := unix.Setxattr(path, MarkerAttr, []byte(value), 0)
	if err == nil {
		_ = os.Remove(filepath.Join(path, MarkerFile)) // of a time without attributes
		return syncPath(path)
	}
	if !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return &os.PathError{Op: "setxattr", Path: path, Err: err}
	}
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		return fmt.Errorf("a path that is a single file needs a file system with extended attributes: name its directory instead")
	}
	return writeDurably(filepath.Join(path, MarkerFile), []byte(value))
}

func getMarker(path string) string {
	buf := make([]byte, 64)
	n, err := unix.Getxattr(path, MarkerAttr, buf)
	if err == nil {
		return string(buf[:n])
	}
	data, err := os.ReadFile(filepath.Join(path, MarkerFile))
	if err != nil {
		return ""
	}
	return string(data)
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrPermission) {
		unix.Sync()
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
