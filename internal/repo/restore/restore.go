// Package restore turns the trees of a repository into directories.
//
// It promises: nothing outside the target is touched, whatever the tree says or
// whatever lies in the way (every file is named by an open directory and one
// checked name; no symbolic link is followed but a restored path itself); every
// byte is verified against its blob's id; a restore that misses anything returns
// an error that names the paths. An exact restore (Options.Delete) makes the
// paths what the snapshot says, and is idempotent: whatever killed it, and
// whenever, running it again ends in the same state. Content that is there
// already is kept only after it was read and compared.
//
// Which snapshot to restore, and that nobody uses the directories meanwhile, is
// left to the caller.
package restore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"drover/internal/repo"
	"drover/internal/repo/crew"
	"drover/internal/repo/exclude"
	"drover/internal/repo/format"
	"drover/internal/repo/localfs"

	"golang.org/x/sys/unix"
)

// Options of Run and Diff.
type Options struct {
	// Target is the directory below which the snapshot's paths are made, with
	// their parents. "": each path is restored in its own place.
	Target string
	// Delete makes the snapshot's paths exactly what it says: what else is there is
	// removed, but for Keep and what the snapshot's backup excluded.
	Delete bool
	// Include are absolute paths; only these and what is below them is restored.
	// nil: all.
	Include []string
	// Base is a snapshot that the paths are exactly: Run brought them there in their
	// own place, and nobody has used them since. Then only what differs is looked at.
	// nil: everything is read and compared.
	Base *format.Snapshot
	// Keep reports whether the file at a path (as in the snapshot) is left alone.
	Keep func(path string) bool
	// StrictMetadata makes an owner, attribute or device that cannot be set an
	// error; else it is counted.
	StrictMetadata bool
	// Verify reads everything back at the end.
	Verify bool
	// Sync flushes the file systems at the end (syncfs).
	Sync        bool
	Concurrency int // 0: as many as the repository's connections and the processors need
	// Progress is called after each file, from any goroutine.
	Progress func(path string, bytes uint64)

	// step is for tests: it is called before each change of the disk.
	step func(op, path string) error
}

// Result counts what a restore did.
type Result struct {
	Files, Dirs  uint64 // in the snapshot; links, devices and the like are files
	Bytes        uint64 // of regular files
	Kept         uint64 // files whose content was right already
	BytesWritten uint64
	Removed      uint64 // files and directories that are not in the snapshot
	Changes      uint64 // of the disk, begun
	SkippedOwner uint64 // owners that could not be set, for lack of privilege
	SkippedXattr uint64
	SkippedMode  uint64
	SkippedNode  uint64 // devices that could not be made
}

// PathError is a path, as in the snapshot, and what is wrong with it.
type PathError struct {
	Path string
	Err  error
}

func (e PathError) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e PathError) Unwrap() error { return e.Err }

// IncompleteError says that some paths are not as in the snapshot.
type IncompleteError struct {
	Paths []PathError // the first ones, in order
	Total int
}

func (e *IncompleteError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "restore is incomplete: %d path(s) are not as in the snapshot", e.Total)
	for i, p := range e.Paths {
		if i == 10 {
			fmt.Fprintf(&b, "; and %d more", e.Total-i)
			break
		}
		fmt.Fprintf(&b, "; %s", p)
	}
	return b.String()
}

// Unwrap returns the paths' errors.
func (e *IncompleteError) Unwrap() []error {
	errs := make([]error, len(e.Paths))
	for i, p := range e.Paths {
		errs[i] = p
	}
	return errs
}

// maxErrors bounds the list of an IncompleteError.
const maxErrors = 1000

// run is one restore.
type run struct {
	r        *repo.Repository
	opt      *Options
	excludes *exclude.Set
	crew     *crew.Crew
	dirs     handles
	p        *plan
	root     bool // privileged
	delta    bool // only what differs from Options.Base is looked at
	cancel   context.CancelCauseFunc

	mu     sync.Mutex
	failed map[string]error
	total  int
	claims map[inode]struct{}  // existing files with several links that are kept
	absent map[string]struct{} // left out, and counted
	jobs   []*job              // files that need content

	res      counters
	openJobs atomic.Int64
}

type inode struct{ dev, ino uint64 }

type counters struct {
	files, dirs, bytes, kept, written, removed, changes, owner, xattr, mode, node atomic.Uint64
}

func (c *counters) result() *Result {
	return &Result{
		Files: c.files.Load(), Dirs: c.dirs.Load(), Bytes: c.bytes.Load(), Kept: c.kept.Load(), BytesWritten: c.written.Load(),
		Removed: c.removed.Load(), Changes: c.changes.Load(), SkippedOwner: c.owner.Load(), SkippedXattr: c.xattr.Load(), SkippedMode: c.mode.Load(), SkippedNode: c.node.Load(),
	}
}

// Run restores the snapshot. The Result is there even with an error, which is an
// *IncompleteError if only some paths are wrong.
func Run(ctx context.Context, r *repo.Repository, sn *format.Snapshot, opt Options) (*Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a, err := newRun(r, sn, &opt)
	if err != nil {
		return &Result{}, err
	}
	a.cancel = cancel
	err = a.restore(ctx, sn)
	if errors.Is(err, errBase) && context.Cause(ctx) == nil {
		opt.Base = nil
		res, err := Run(ctx, r, sn, opt)
		res.Changes += a.res.changes.Load()
		return res, err
	}
	if cause := context.Cause(ctx); err != nil && cause != nil && errors.Is(err, context.Canceled) {
		err = cause
	}
	if err != nil {
		return a.res.result(), err
	}
	if err := a.incomplete(); err != nil {
		return a.res.result(), err
	}
	if opt.Verify {
		if err := a.verify(ctx, sn); err != nil {
			return a.res.result(), err
		}
	}
	return a.res.result(), nil
}

func newRun(r *repo.Repository, sn *format.Snapshot, opt *Options) (*run, error) {
	if sn.Tree == nil {
		return nil, errors.New("restore: the snapshot has no tree")
	}
	excludes, err := exclude.New(sn.Excludes)
	if err != nil { // another program's pattern, or a damaged one: nothing is removed by mistake
		return nil, fmt.Errorf("restore: the snapshot's excludes: %w", err)
	}
	if opt.Concurrency <= 0 {
		opt.Concurrency = max(2*runtime.GOMAXPROCS(0), 4)
	}
	a := &run{
		r: r, opt: opt, excludes: excludes, crew: crew.New(opt.Concurrency), root: unix.Geteuid() == 0,
		failed: make(map[string]error), claims: make(map[inode]struct{}), absent: make(map[string]struct{}),
	}
	a.dirs.limit = handleLimit()
	return a, nil
}

func (a *run) restore(ctx context.Context, sn *format.Snapshot) (err error) {
	p, err := a.plan(ctx, sn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.dirs.closeAll()) }()
	tops, err := a.open(p)
	if err != nil {
		return err
	}
	for _, stage := range []func(context.Context) error{
		func(ctx context.Context) error {
			return a.crew.Each(len(tops), func(i int) error { return a.prepare(ctx, tops[i]) })
		},
		a.content,
		func(ctx context.Context) error { return a.linkAll(ctx, p.links) },
		func(ctx context.Context) error {
			return a.crew.Each(len(tops), func(i int) error { return a.finishDirs(ctx, tops[i]) })
		},
	} {
		if err := stage(ctx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if !a.opt.Sync {
		return nil
	}
	for _, top := range tops {
		if err := localfs.Retry(func() error { return unix.Syncfs(top.pinned.Fd()) }); err != nil {
			return fmt.Errorf("sync %s: %w", top.path, err)
		}
	}
	return nil
}

// step is called before each change of the disk.
func (a *run) step(op, path string) error {
	a.res.changes.Add(1)
	if a.opt.step == nil {
		return nil
	}
	return a.opt.step(op, path)
}

// fail notes that a path is not as in the snapshot. A full disk ends the restore.
func (a *run) fail(path string, err error) {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		a.cancel(fmt.Errorf("write %w", PathError{path, err}))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.failed[path]; ok {
		return
	}
	a.total++
	if len(a.failed) < maxErrors {
		a.failed[path] = err
	}
}

func (a *run) incomplete() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.total == 0 {
		return nil
	}
	e := &IncompleteError{Total: a.total}
	for path, err := range a.failed {
		e.Paths = append(e.Paths, PathError{path, err})
	}
	slices.SortFunc(e.Paths, func(x, y PathError) int { return strings.Compare(x.Path, y.Path) })
	return e
}

func (a *run) keep(path string) bool { return a.opt.Keep != nil && a.opt.Keep(path) }

func join(dir, name string) string {
	if dir == "/" {
		return "/" + name
	}
	return dir + "/" + name
}

// within reports whether path is dir or below it. Both are clean.
func within(dir, path string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir) && path[len(dir)] == '/'
}
