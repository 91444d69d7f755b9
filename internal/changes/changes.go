// Package changes tells which files below some roots changed since it was last
// asked, so that a backup need not look at all of them.
//
// It promises that Drain is complete: whatever a process changed before Drain
// was called is in the set returned, or the set says that all may have changed.
// Uncertainty of any kind (a lost event, no watch to be had, a mount that came
// or went, a root that was replaced, a file system that other machines write
// to) leads to All. What was excluded is never reported.
//
// The source is inotify on every directory, with two things that raise no
// event looked up in /proc at each Drain: files that a process has mapped
// shared and writable, and files that a process with an AIO context (io_setup)
// holds open for writing. Of a process that the agent may not inspect nothing
// is known: if it descends from the agent, that is All as well; a stat does not
// always show what it wrote through a mapping.
//
// What it cannot see, and leaves to the caller:
//
//   - A write through one name of a file with several hard links is reported
//     under that name only, and making a link is reported for the new name only.
//     The archiver looks at the other names.
//   - A write through a descriptor whose own name was removed (or never was, as
//     with O_TMPFILE) while the file has another name. A periodic full walk
//     (MarkAll) finds it by its times.
//   - A change through another mount of the same files in a mount namespace that
//     the agent does not share.
package changes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// defaultMaxPaths bounds the memory for one set, at some 100 bytes a path.
const defaultMaxPaths = 100_000

// Options of New. The zero value is usable.
type Options struct {
	Log *slog.Logger // nil: none
	// Exclude leaves out a path, and if it is a directory all below it, which is
	// then not watched. It must always answer the same for the same path.
	Exclude func(path string, isDir bool) bool
	// MaxPaths is how many paths a set names before it becomes All; 0: 100,000.
	MaxPaths int
}

// Set is what changed.
type Set struct {
	// All: anything may have changed. Reason says why that is all that is known.
	All    bool
	Reason string
	// Paths are absolute, sorted byte strings (names need not be UTF-8): files
	// that were created, changed, removed or renamed, and directories whose
	// metadata or list of entries changed. A new directory comes with all that is
	// in it. With All set, they are files to be read whatever a stat says.
	Paths []string
}

// Empty tells whether nothing changed.
func (s Set) Empty() bool { return !s.All && len(s.Paths) == 0 }

// Tracker collects changes while Run runs.
type Tracker struct {
	opts   Options
	roots  []string // as given, cleaned; none below another
	notify chan struct{}

	mu      sync.Mutex
	fd      int // of inotify; -1: not watching
	all     string
	paths   map[string]struct{}
	watches watches
	buffer  []byte // of events
	entries []byte // of a directory
}

// New prepares to track what is below the roots: absolute paths of directories,
// or of single files. A root may be a symbolic link, which is followed; links
// below are not. It starts nothing: until Run watches, every Drain says All.
func New(roots []string, opts Options) (*Tracker, error) {
	if len(roots) == 0 {
		return nil, errors.New("track changes: no paths")
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.MaxPaths == 0 {
		opts.MaxPaths = defaultMaxPaths
	}
	if opts.Exclude == nil {
		opts.Exclude = func(string, bool) bool { return false }
	}
	t := &Tracker{
		opts: opts, fd: -1, all: "not watched until now",
		notify: make(chan struct{}, 1),
		paths:  make(map[string]struct{}),
		buffer: make([]byte, 64<<10), entries: make([]byte, 32<<10),
	}
	for _, root := range roots {
		if !filepath.IsAbs(root) {
			return nil, fmt.Errorf("track changes: %q is not absolute", root)
		}
		t.roots = append(t.roots, filepath.Clean(root))
	}
	slices.Sort(t.roots)
	t.roots = slices.Compact(t.roots)
	t.roots = slices.DeleteFunc(t.roots, func(root string) bool {
		return slices.ContainsFunc(t.roots, func(other string) bool { return other != root && below(root, other) })
	})
	return t, nil
}

// below tells whether path is dir or below it.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// readPause is how long Run lets events gather: a process that writes in small
// pieces would otherwise wake us for each. The kernel's queue (by default
// 16,384 events) would have to fill within it for an event to be lost.
const readPause = 5 * time.Millisecond

// Run watches until ctx ends, and returns nil then. It may be called once.
func (t *Tracker) Run(ctx context.Context) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch for changes: inotify: %w", err)
	}
	file := os.NewFile(uintptr(fd), "inotify")
	defer file.Close()
	t.mu.Lock()
	t.fd = fd
	t.watches.lost = "not watched until now"
	t.rewatch(ctx)
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		t.fd = -1
		t.all = "not watched any more"
		t.mu.Unlock()
	}()
	// A deadline in the past ends the wait.
	defer context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })()
	conn, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch for changes: inotify: %w", err)
	}
	err = conn.Read(func(uintptr) bool {
		t.mu.Lock()
		// After a loss only a Drain starts over: a storm of events would have us
		// do nothing else.
		if t.watches.lost == "" {
			t.readQueue()
		}
		t.mu.Unlock()
		pause(ctx, readPause)
		return false
	})
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("watch for changes: wait for inotify: %w", err)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Notify has a value after something changed, however much, until it is taken.
func (t *Tracker) Notify() <-chan struct{} { return t.notify }

// Drain returns what changed since the last Drain, everything that was done
// before this call included. When ctx ends first the set is All, and what is
// known is kept.
func (t *Tracker) Drain(ctx context.Context) Set {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fd < 0 {
		return Set{All: true, Reason: t.all}
	}
	// Mappings first, events second: one that ends in between raises an event.
	silent, blind := findSilent(t.watches.places)
	silent = slices.DeleteFunc(silent, func(path string) bool { return t.excluded(path, false) })
	t.readQueue()
	t.checkPlaces()
	if t.watches.lost != "" {
		t.lose(t.watches.lost)
		t.rewatch(ctx)
		// Set again: the tree could not be watched.
		if t.watches.lost != "" {
			return Set{All: true, Reason: t.watches.lost, Paths: silent}
		}
	}
	set := Set{All: t.all != "", Reason: t.all}
	for _, doubt := range []string{t.watches.doubt, blind} {
		if !set.All && doubt != "" {
			set = Set{All: true, Reason: doubt}
		}
	}
	for path := range t.paths {
		set.Paths = append(set.Paths, path)
	}
	set.Paths = append(set.Paths, silent...)
	slices.Sort(set.Paths)
	set.Paths = slices.Compact(set.Paths)
	t.all = ""
	clear(t.paths)
	return set
}

// Return gives back a set that came to nothing: the next Drain includes it.
func (t *Tracker) Return(set Set) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if set.All {
		t.lose(set.Reason)
	}
	for _, path := range set.Paths {
		t.mark(path)
	}
}

// MarkAll makes the next Drain say All: the caller's full walk.
func (t *Tracker) MarkAll(reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lose(reason)
}

// lose: all may have changed. Paths are kept for what only a reading shows.
func (t *Tracker) lose(reason string) {
	if reason == "" {
		reason = "unknown"
	}
	if t.all == "" {
		t.all = reason
	}
}

// mark notes a changed path.
func (t *Tracker) mark(path string) {
	if _, known := t.paths[path]; known {
		return
	}
	if len(t.paths) >= t.opts.MaxPaths {
		clear(t.paths)
		t.lose(fmt.Sprintf("more than %d paths changed", t.opts.MaxPaths))
	}
	t.paths[path] = struct{}{}
}

func (t *Tracker) wake() {
	select {
	case t.notify <- struct{}{}:
	default:
	}
}
