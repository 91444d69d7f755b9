package restore

import (
	"container/list"
	"errors"
	"sync"

	"drover/internal/repo/localfs"

	"golang.org/x/sys/unix"
)

// handle is an open directory that may be shared.
type handle struct {
	localfs.Dir
	of   *directory
	refs int
	idle *list.Element // in handles.idle while refs is 0
}

// handles opens directories, each below its parent, and keeps some open.
type handles struct {
	limit int

	mu     sync.Mutex
	open   int
	pinned []localfs.Dir
	idle   list.List // least recently used first
}

// handleLimit is how many directories are kept open: few enough to leave
// descriptors to the rest of the process.
func handleLimit() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 64
	}
	return int(min(max(l.Cur/4, 16), 1024))
}

// get opens d, or shares it. The caller puts it back.
func (h *handles) get(d *directory) (*handle, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.getLocked(d)
}

func (h *handles) getLocked(d *directory) (*handle, error) {
	if d.pinned != nil {
		return d.pinned, nil
	}
	if at := d.handle; at != nil {
		if at.idle != nil {
			h.idle.Remove(at.idle)
			at.idle = nil
		}
		at.refs++
		return at, nil
	}
	if d.parent == nil {
		return nil, errors.New("directory has no parent that is open")
	}
	parent, err := h.getLocked(d.parent)
	if err != nil {
		return nil, err
	}
	sub, err := parent.Sub(d.name)
	h.putLocked(parent)
	if err != nil {
		return nil, err
	}
	d.handle = &handle{Dir: sub, of: d, refs: 1}
	h.open++
	return d.handle, h.shrink(h.limit)
}

func (h *handles) put(at *handle) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.putLocked(at)
}

func (h *handles) putLocked(at *handle) {
	if at.of == nil { // pinned
		return
	}
	if at.refs--; at.refs == 0 {
		at.idle = h.idle.PushBack(at)
	}
}

// shrink closes idle directories until no more than limit are open.
func (h *handles) shrink(limit int) error {
	var errs []error
	for h.open > limit && h.idle.Len() > 0 {
		at := h.idle.Remove(h.idle.Front()).(*handle)
		at.of.handle = nil
		h.open--
		errs = append(errs, at.Close())
	}
	return errors.Join(errs...)
}

// pin keeps d open as dir until closeAll.
func (h *handles) pin(d *directory, dir localfs.Dir) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d.pinned = &handle{Dir: dir}
	h.pinned = append(h.pinned, dir)
}

// closeAll closes all; none may be in use.
func (h *handles) closeAll() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.shrink(0)
	for _, dir := range h.pinned {
		err = errors.Join(err, dir.Close())
	}
	h.pinned = nil
	return err
}
