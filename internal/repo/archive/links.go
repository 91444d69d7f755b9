package archive

import (
	"encoding/json"
	"slices"

	"drover/internal/repo/format"
	"drover/internal/repo/localfs"
)

// A file with several names changes under all of them at once, but is reported
// under one. So the names of such files are kept beside the cached trees, and
// the others are looked at again when one was named.

type inode struct{ Dev, Ino uint64 }

type link struct {
	inode
	Path  string
	Count uint64 // st_nlink
}

// linkList is all names of files with several links in one snapshot. nil: not known.
type linkList struct{ byPath map[string]link }

// maxLinks bounds a stored list; beyond it a full walk is not much dearer.
const maxLinks = 10_000

// linkStore is what a TreeCache may do as well.
type linkStore interface {
	GetLinks(tree format.ID) ([]byte, bool)
	PutLinks(tree format.ID, data []byte)
}

func loadLinks(cache TreeCache, tree format.ID) *linkList {
	store, ok := cache.(linkStore)
	if !ok {
		return nil
	}
	data, ok := store.GetLinks(tree)
	if !ok {
		return nil
	}
	var all []link
	if json.Unmarshal(data, &all) != nil {
		return nil
	}
	l := &linkList{byPath: make(map[string]link, len(all))}
	for _, k := range all {
		l.byPath[k.Path] = k
	}
	return l
}

func (l *linkList) store(cache TreeCache, tree format.ID) {
	store, ok := cache.(linkStore)
	if !ok || l == nil || len(l.byPath) > maxLinks {
		return
	}
	all := make([]link, 0, len(l.byPath))
	for _, k := range l.byPath {
		if !plainUTF8(k.Path) {
			return // JSON would change it
		}
		all = append(all, k)
	}
	if data, err := json.Marshal(all); err == nil {
		store.PutLinks(tree, data)
	}
}

// mergeLinks brings the parent's list up to date with what the walk saw. missing
// are names that must be looked at too. ok false: there may be such names, but
// they are not known.
func (a *run) mergeLinks(known *linkList) (missing []string, merged *linkList, ok bool) {
	for _, l := range a.links {
		a.touched[l.inode] = struct{}{}
	}
	if known == nil {
		return nil, nil, len(a.touched) == 0
	}
	merged = &linkList{byPath: make(map[string]link, len(known.byPath))}
	before := make(map[inode]uint64)
	for path, l := range known.byPath {
		before[l.inode]++
		if a.wasLooked(path) {
			a.touched[l.inode] = struct{}{}
		} else {
			merged.byPath[path] = l
		}
	}
	for path, l := range merged.byPath {
		if _, hit := a.touched[l.inode]; hit {
			missing = append(missing, path)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return missing, nil, true
	}
	now := make(map[inode]uint64)
	for _, l := range a.links {
		merged.byPath[l.Path] = l
		now[l.inode]++
	}
	outside := make(map[inode]uint64)
	for _, l := range known.byPath {
		outside[l.inode] = l.Count - before[l.inode]
	}
	for _, l := range a.links {
		if now[l.inode]+outside[l.inode] != l.Count {
			return nil, nil, false
		}
	}
	return nil, merged, true
}

// wasLooked reports whether the parent's entry path was looked at or is gone.
func (a *run) wasLooked(path string) bool {
	for i := len(path); i > 0; i-- {
		if i == len(path) || path[i] == '/' {
			if _, ok := a.gone[path[:i]]; ok {
				return true
			}
		}
	}
	_, ok := a.gone["/"]
	return ok
}

func (a *run) noteGone(path string) {
	if !a.partial {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone[path] = struct{}{}
}

// noteLooked notes an entry of the parent whose node is made anew.
func (a *run) noteLooked(path string, l *look) {
	if !a.partial || l.old == nil || l.isDir() {
		return
	}
	a.noteOld(path, l.old)
}

// noteRemoved notes the parent's entries that are not among names (in order).
func (a *run) noteRemoved(path string, old []format.Entry, names []string) {
	if !a.partial {
		return
	}
	for i := range old {
		if _, ok := slices.BinarySearch(names, old[i].Name); !ok {
			a.noteOld(join(path, old[i].Name), &old[i])
		}
	}
}

func (a *run) noteOld(path string, old *format.Entry) {
	n, ok := decode(old)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone[path] = struct{}{}
	if ok && n.Links > 1 {
		a.touched[inode{n.DeviceID, n.Inode}] = struct{}{}
	}
}

func (a *run) noteLink(path string, st *localfs.Stat) {
	if st.Nlink < 2 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.links = append(a.links, link{inode: inode{st.Dev, st.Ino}, Path: path, Count: localfs.Links(st)})
}
