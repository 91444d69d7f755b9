package changes

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What is watched of a directory. IN_CLOSE_WRITE is for files that were mapped:
// it comes when the last mapping has gone. IN_EXCL_UNLINK would hide writes to
// files that have another name.
const (
	watched  = unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_CLOSE_WRITE | structure | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	options  = unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW
	listing  = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO
	rootGone = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
)

const structure = listing

// A doubt is looked into again after firstRetry, and after twice as long each time that
// it stays. Directories that are renamed while they are looked at may seem to be in two
// places, once.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// node is a watched directory. Its path never changes: a directory that is moved
// becomes another node.
type node struct {
	parent *node // nil: a root
	name   string
	path   string
	wd     int32
	kids   map[string]*node
	only   map[string]bool // the entries that count, if not all: single files are roots
}

// place is where a root really is.
type place struct {
	root string // as given
	real string // without symbolic links
	id   fileID // of the directory that is watched for it
	dir  string // that directory
}

type fileID struct {
	dev, ino uint64
}

// watches is the state of the watching, all of it replaced by rewatch.
type watches struct {
	lost   string // why the tree must be read again; empty: it need not
	doubt  string // why, until then, each Drain says All
	tried  time.Time
	wait   time.Duration // after tried, until doubt is looked into
	places []place
	mounts string // the mounts at and below the places
	byWD   map[int32]*node
	blind  map[*node][]string // directories that could not be watched, by parent
}

// rewatch reads the whole tree again and watches every directory in it. What
// cannot be watched leaves lost or doubt set.
func (t *Tracker) rewatch(ctx context.Context) {
	w := &t.watches
	begin := time.Now()
	old := w.byWD
	reason := w.lost
	doubted, wait := w.doubt != "", w.wait
	*w = watches{byWD: make(map[int32]*node), tried: begin}
	for _, root := range t.roots {
		if w.lost != "" {
			break
		}
		t.watchRoot(ctx, root)
	}
	for wd := range old {
		if w.byWD[wd] == nil {
			_, _ = unix.InotifyRmWatch(t.fd, uint32(wd))
		}
	}
	if w.lost == "" {
		w.mounts = t.readMounts()
	}
	w.wait = firstRetry
	if doubted && w.doubt != "" {
		w.wait = min(2*wait, lastRetry)
	}
	t.opts.Log.Debug("watching for changes", "because", reason, "directories", len(w.byWD), "took", time.Since(begin), "fault", w.lost)
}

// Reasons for doubt.
const (
	noWatches = "no inotify watches are left (fs.inotify.max_user_watches)"
	foreign   = "a file system that others may write to raises no events: "
	twice     = "the same directory is in two places: "
)

// watchRoot watches a directory with all below it, or a file in its directory.
func (t *Tracker) watchRoot(ctx context.Context, root string) {
	w := &t.watches
	resolved, err := filepath.EvalSymlinks(root)
	if err != nil {
		w.lost = fmt.Sprintf("%s: %v", root, errors.Unwrap(err))
		return
	}
	info, err := os.Stat(resolved)
	if err != nil {
		w.lost = err.Error()
		return
	}
	p := place{root: root, real: resolved, dir: resolved}
	n := &node{path: root}
	if !info.IsDir() {
		p.dir = filepath.Dir(resolved)
		n.path, n.only = filepath.Dir(root), map[string]bool{filepath.Base(root): true}
	}
	w.doubt = remote(p.dir)
	wd, err := unix.InotifyAddWatch(t.fd, p.dir, watched|options)
	if err != nil {
		t.cannotWatch(root, err)
		return
	}
	if p.id, err = identify(p.dir); err != nil {
		w.lost = err.Error()
		return
	}
	w.places = append(w.places, p)
	if other := w.byWD[int32(wd)]; other != nil {
		if n.only == nil || other.only == nil || other.path != n.path {
			w.doubt = twice + root
			return
		}
		other.only[filepath.Base(root)] = true
		return
	}
	n.wd = int32(wd)
	w.byWD[n.wd] = n
	if n.only == nil {
		t.scan(ctx, n, false)
	}
}

func identify(path string) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fileID{}, fmt.Errorf("stat %s: %w", path, err)
	}
	return fileID{uint64(st.Dev), st.Ino}, nil //nolint:unconvert // 32 bits on mips
}

func (t *Tracker) cannotWatch(path string, err error) {
	if errors.Is(err, unix.ENOSPC) {
		t.watches.doubt = noWatches
		return
	}
	t.watches.lost = fmt.Sprintf("watch %s: %v", path, err)
}

// scan watches what is below a node that is watched already, so that whatever
// is made there from now on raises an event, and what is there already is found
// here. With mark set all of it counts as changed.
func (t *Tracker) scan(ctx context.Context, top *node, mark bool) {
	stack := []*node{top}
	for len(stack) > 0 {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if t.watches.byWD[n.wd] != n {
			continue // found in another place meanwhile
		}
		if ctx.Err() != nil {
			t.watches.lost = "interrupted"
			return
		}
		err := eachEntry(t.place(n.path), t.entries, !mark, func(name string, isDir bool) {
			path := join(n.path, name)
			if t.opts.Exclude(path, isDir) {
				return
			}
			if mark {
				t.mark(path)
			}
			if !isDir {
				return
			}
			if kid := t.adopt(n, name, path); kid != nil {
				stack = append(stack, kid)
			}
		})
		switch {
		case err == nil, err == unix.ENOENT, err == unix.ENOTDIR:
		case err == unix.EACCES:
			t.drop(n)
			t.notSeen(n.parent, n.name)
		default:
			t.watches.lost = fmt.Sprintf("list %s: %v", n.path, err)
		}
		if t.watches.lost != "" {
			return
		}
	}
}

// place translates a path below a root into one without symbolic links.
func (t *Tracker) place(path string) string {
	for i := range t.watches.places {
		p := &t.watches.places[i]
		if p.root != p.real && below(path, p.root) {
			return p.real + path[len(p.root):]
		}
	}
	return path
}

func join(dir, name string) string {
	if strings.HasSuffix(dir, "/") {
		return dir + name
	}
	return dir + "/" + name
}

// adopt watches a directory entry and returns its new node; nil if there is
// nothing new to look at.
func (t *Tracker) adopt(parent *node, name, path string) *node {
	w := &t.watches
	old := parent.kids[name]
	// Again after anything was dropped: that may have been this directory's watch.
	for {
		wd, err := unix.InotifyAddWatch(t.fd, t.place(path), watched|options)
		switch {
		case err == nil:
		case err == unix.ENOENT, err == unix.ENOTDIR, err == unix.ELOOP:
			t.drop(old)
			return nil
		case err == unix.EACCES:
			t.drop(old)
			t.notSeen(parent, name)
			return nil
		default:
			t.drop(old)
			t.cannotWatch(path, err)
			return nil
		}
		there := w.byWD[int32(wd)]
		switch {
		case there != nil && there == old:
			return nil
		case old != nil:
			t.drop(old)
			old = nil
			continue
		case there != nil:
			if there.path != path && t.same(there.path, path) {
				w.doubt = twice + path
				return nil
			}
			// It was moved here, and the event that says so is yet to come; or its
			// parent's node was dropped while it was being read.
			t.mark(there.path)
			t.drop(there)
			continue
		}
		n := &node{parent: parent, name: name, path: path, wd: int32(wd)}
		w.byWD[n.wd] = n
		if parent.kids == nil {
			parent.kids = make(map[string]*node)
		}
		parent.kids[name] = n
		return n
	}
}

// same tells whether two paths lead to one directory, both at once.
func (t *Tracker) same(a, b string) bool {
	idA, errA := t.identify(a)
	idB, errB := t.identify(b)
	again, err := t.identify(a) // it may have been moved from there in between
	return errors.Join(errA, errB, err) == nil && idA == idB && idA == again
}

// identify looks at a path below a root. A symbolic link that stands where one of its
// directories was would lead to another place: it is an error.
func (t *Tracker) identify(path string) (fileID, error) {
	real := t.place(path)
	for _, p := range t.watches.places {
		if !below(real, p.real) {
			continue
		}
		for i := len(p.real) + 1; i < len(real); i++ {
			if real[i] != '/' {
				continue
			}
			var st unix.Stat_t
			if err := unix.Lstat(real[:i], &st); err != nil {
				return fileID{}, err
			}
			if st.Mode&unix.S_IFMT != unix.S_IFDIR {
				return fileID{}, unix.ENOTDIR
			}
		}
		break
	}
	return identify(real)
}

// excluded tells whether a path, or a directory above it, is left out.
func (t *Tracker) excluded(path string, isDir bool) bool {
	for _, root := range t.roots {
		if !below(path, root) {
			continue
		}
		for i := len(root) + 1; i < len(path); i++ {
			if path[i] == '/' && t.opts.Exclude(path[:i], true) {
				return true
			}
		}
	}
	return t.opts.Exclude(path, isDir)
}

// notSeen notes a directory that we may not read.
func (t *Tracker) notSeen(parent *node, name string) {
	if parent == nil {
		t.watches.lost = "permission denied"
		return
	}
	if t.watches.blind == nil {
		t.watches.blind = make(map[*node][]string)
	}
	t.watches.blind[parent] = append(t.watches.blind[parent], name)
}

// drop forgets a node and all below it.
func (t *Tracker) drop(n *node) {
	if n == nil {
		return
	}
	if n.parent != nil && n.parent.kids[n.name] == n {
		delete(n.parent.kids, n.name)
	}
	t.forget(n)
}

func (t *Tracker) forget(n *node) {
	for _, kid := range n.kids {
		t.forget(kid)
	}
	n.kids = nil
	delete(t.watches.blind, n)
	if t.watches.byWD[n.wd] == n {
		delete(t.watches.byWD, n.wd)
		// EINVAL if the directory is gone, and its watch with it.
		_, _ = unix.InotifyRmWatch(t.fd, uint32(n.wd))
	}
}

// readQueue takes in at least all events that were raised before the call.
func (t *Tracker) readQueue() {
	// The queue is first in, first out; whoever writes meanwhile must not keep us.
	queued, err := unix.IoctlGetInt(t.fd, unix.TIOCINQ)
	if err != nil {
		t.watches.lost = fmt.Sprintf("inotify: %v", err)
		return
	}
	for done := 0; done < queued; {
		n, err := unix.Read(t.fd, t.buffer)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return
		case err != nil:
			t.watches.lost = fmt.Sprintf("read inotify: %v", err)
			return
		}
		done += n
		t.takeEvents(t.buffer[:n])
	}
}

// takeEvents reads struct inotify_event (inotify(7)): wd, mask, cookie and length of 4
// bytes each, then the name, padded with zeros to that length.
func (t *Tracker) takeEvents(b []byte) {
	const header = 16
	for len(b) >= header {
		wd := int32(binary.NativeEndian.Uint32(b))
		mask := binary.NativeEndian.Uint32(b[4:])
		length := int(binary.NativeEndian.Uint32(b[12:]))
		name := b[header : header+length]
		b = b[header+length:]
		if end := bytes.IndexByte(name, 0); end >= 0 {
			name = name[:end]
		}
		t.take(wd, mask, string(name))
	}
}

func (t *Tracker) take(wd int32, mask uint32, name string) {
	w := &t.watches
	if mask&unix.IN_Q_OVERFLOW != 0 {
		w.lost = "the kernel's queue of events overflowed"
		t.wake()
		return
	}
	n := w.byWD[wd]
	if n == nil {
		return // of a directory that is not ours any more
	}
	switch {
	case mask&unix.IN_IGNORED != 0:
		delete(w.byWD, wd)
		return
	case mask&unix.IN_UNMOUNT != 0:
		w.lost = "a file system was unmounted"
		t.wake()
		return
	case name == "":
		t.takeSelf(n, mask)
		return
	case n.only != nil && !n.only[name]:
		return
	}
	path := join(n.path, name)
	excluded := t.opts.Exclude(path, mask&unix.IN_ISDIR != 0)
	if mask&listing != 0 && n.only == nil {
		// The directory's times changed, even if the entry is of no interest;
		// but that alone is no reason to wake anybody.
		t.mark(n.path)
	}
	if excluded {
		return
	}
	t.mark(path)
	t.wake()
	if mask&listing != 0 && n.only == nil && (mask&unix.IN_ISDIR != 0 || n.kids[name] != nil) {
		t.reconcile(n, name, path)
	}
}

// takeSelf is for events of a watched directory itself.
func (t *Tracker) takeSelf(n *node, mask uint32) {
	if n.only != nil {
		if mask&rootGone != 0 {
			t.watches.lost = "replaced: " + n.path
			t.wake()
		}
		return
	}
	t.mark(n.path)
	if n.parent == nil && mask&rootGone != 0 {
		t.watches.lost = "replaced: " + n.path
	}
	t.wake()
}

// reconcile makes what is watched agree with what is there, whichever event led
// here and however late: so the order of events, and events about what is no
// more, do no harm. What appears counts as changed with all that is in it.
func (t *Tracker) reconcile(parent *node, name, path string) {
	if n := t.adopt(parent, name, path); n != nil {
		t.scan(context.Background(), n, true)
	}
}

// checkPlaces looks for what raises no event: a root replaced from above, a mount, a
// directory that can be read now.
func (t *Tracker) checkPlaces() {
	w := &t.watches
	if w.lost != "" {
		return
	}
	for i := range w.places {
		p := &w.places[i]
		resolved, err := filepath.EvalSymlinks(p.root)
		if err == nil && resolved != p.real {
			err = errors.New("it points elsewhere")
		}
		id, err2 := identify(p.dir)
		if err = errors.Join(err, err2); err != nil || id != p.id {
			if p.dir != p.real && errors.Is(err, os.ErrNotExist) && err2 == nil && id == p.id {
				continue // a single file that was removed: an event said so
			}
			w.lost = "replaced: " + p.root
			return
		}
	}
	if w.doubt != "" && time.Since(w.tried) > w.wait {
		w.lost = w.doubt
		return
	}
	if now := t.readMounts(); now != w.mounts {
		w.lost = "a file system was mounted or unmounted"
		return
	}
	t.retryBlind()
}

// retryBlind tries the directories again that could not be read; as long as
// there are any, all may have changed in them.
func (t *Tracker) retryBlind() {
	blind := t.watches.blind
	t.watches.blind = nil
	for parent, names := range blind {
		for _, name := range names {
			path := join(parent.path, name)
			t.lose("no permission to watch " + path)
			t.reconcile(parent, name, path)
		}
	}
}
