// Package archive turns directories into the blobs and trees of a repository.
//
// It promises: the tree is laid out as restic lays it out, with all metadata
// that restic keeps; no file that is left out is left out in silence; a file
// that changed while it was read is reported as fuzzy; memory is bounded by the
// concurrency, not by the size of files (but a directory's entries are in memory
// while it is written); symbolic links below the paths are never followed. With a
// ChangedSet only what it names is looked at.
//
// Storing blobs, the snapshot object and locks are left to repo; finding out
// what changed, and making the application hold still, to others.
package archive

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"drover/internal/repo"
	"drover/internal/repo/chunk"
	"drover/internal/repo/crew"
	"drover/internal/repo/exclude"
	"drover/internal/repo/format"
	"drover/internal/repo/localfs"
)

// Policy says what to do about a file that cannot be read.
type Policy uint8

// The policies.
const (
	Fail Policy = iota // Run returns an error that names it
	Skip               // it is left out, and named in Result.Unreadable
)

// clockTick is more than the granularity of the kernel's file times: a file that
// is changed again within it keeps the same times.
const clockTick = 20 * time.Millisecond

// Options of Run.
type Options struct {
	// Paths are absolute. A path that is a symbolic link is followed; links below
	// it are stored as links.
	Paths   []string
	Exclude []string // patterns as in restic backup --exclude
	// Skip leaves out a file by its path (the logical one, below Paths) and
	// type; for Drover's own files. A directory is left out with all below it.
	Skip func(path string, t format.NodeType) bool

	// ParentTree is the tree to compare with: what is unchanged since is not read
	// again. Zero: all is read.
	ParentTree format.ID
	// ParentTime is when the parent's backup began. A file that changed later, or
	// shortly before, is read again even if it looks the same.
	ParentTime time.Time
	Cache      TreeCache // nil: the parent's trees are read from the repository

	// Changed names what to look at. nil: everything is looked at with lstat.
	Changed *ChangedSet

	// Torn takes files as they are read, though they change meanwhile: who restores them
	// has a log of the changes to replay.
	Torn bool

	OnUnreadable Policy
	Concurrency  int // 0: twice the number of processors
	// Progress is called after each file or directory, from any goroutine.
	Progress func(path string, bytes uint64)

	// afterRead is for tests: it is called between reading a file and looking
	// whether it changed.
	afterRead func(path string)
}

// PathError is a path and what is wrong with it.
type PathError struct {
	Path string
	Err  error
}

func (e PathError) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e PathError) Unwrap() error { return e.Err }

// Result is what a backup found. Counts are of what was looked at: with a
// ChangedSet that is less than what the tree holds.
type Result struct {
	Tree          format.ID
	Files, Dirs   uint   // in all
	Bytes         uint64 // of files
	FilesNew      uint
	FilesChanged  uint
	DirsNew       uint
	DirsChanged   uint
	BytesRead     uint64 // of files that were read
	Unreadable    []PathError
	Fuzzy         []string // changed while they were read, each time that was tried
	Racy          []string // changed so shortly before they were read that a later change may not show
	FullWalk      bool     // everything was looked at
	FullWalkCause string   // why, if a ChangedSet was given
}

// Summary returns the counts as a snapshot object holds them.
func (r *Result) Summary(start, end time.Time) *format.Summary {
	return &format.Summary{
		BackupStart: start, BackupEnd: end,
		FilesNew: r.FilesNew, FilesChanged: r.FilesChanged, FilesUnmodified: r.Files - r.FilesNew - r.FilesChanged,
		DirsNew: r.DirsNew, DirsChanged: r.DirsChanged, DirsUnmodified: r.Dirs - r.DirsNew - r.DirsChanged,
		TotalFilesProcessed: r.Files, TotalBytesProcessed: r.Bytes,
	}
}

// run is one walk.
type run struct {
	w        *repo.Writer
	r        *repo.Repository
	opt      *Options
	excludes *exclude.Set
	chunker  *chunk.Chunker
	owners   localfs.Owners
	crew     *crew.Crew
	small    sync.Pool // *[]byte of chunk.MinSize+1
	large    sync.Pool // *[]byte of about the mean chunk
	stage    *Stage    // nil: what is read is stored at once

	top     treeMaker // of the last walk
	mu      sync.Mutex
	res     Result
	partial bool
	links   []link // files with several links that were looked at
	// With a ChangedSet: entries of the parent that were looked at, or removed, or
	// below which all was looked at; and which of their files had several links.
	gone    map[string]struct{}
	touched map[inode]struct{}
}

// Run stores the directories' content and trees through w, and returns the id of
// the top tree. The caller finishes w.
func Run(ctx context.Context, w *repo.Writer, r *repo.Repository, opt Options) (*Result, error) {
	a, roots, err := begin(w, r, &opt)
	if err != nil {
		return nil, err
	}
	links, err := a.look(ctx, roots)
	var res *Result
	if err == nil {
		res, err = a.store(ctx, links)
	}
	if err != nil {
		return nil, fmt.Errorf("back up %s: %w", strings.Join(opt.Paths, ", "), err)
	}
	return res, nil
}

func begin(w *repo.Writer, r *repo.Repository, opt *Options) (*run, *root, error) {
	excludes, err := exclude.New(opt.Exclude)
	if err != nil {
		return nil, nil, err
	}
	roots, err := layOut(opt.Paths)
	if err != nil {
		return nil, nil, err
	}
	if opt.Concurrency <= 0 {
		opt.Concurrency = 2 * runtime.GOMAXPROCS(0)
	}
	a := &run{w: w, r: r, opt: opt, excludes: excludes, chunker: chunk.New(r.Config().ChunkerPolynomial), crew: crew.New(opt.Concurrency)}
	a.small.New = func() any { b := make([]byte, chunk.MinSize+1); return &b }
	a.large.New = func() any { b := make([]byte, 0, 3*chunk.MinSize); return &b }
	return a, roots, nil
}

// look walks; with a ChangedSet it does so until the links are right.
func (a *run) look(ctx context.Context, roots *root) (*linkList, error) {
	if a.opt.Changed == nil || a.opt.ParentTree.IsZero() {
		return a.full(ctx, roots, "")
	}
	if a.opt.Changed.All {
		return a.full(ctx, roots, "asked for")
	}
	known := loadLinks(a.opt.Cache, a.opt.ParentTree)
	hints := newHints(a.opt.Changed)
	const rounds = 3 // one more finds the other names of what the first found
	for range rounds {
		err := a.walk(ctx, roots, hints)
		if errors.Is(err, errParentMissing) {
			return a.full(ctx, roots, err.Error())
		}
		if err != nil {
			return nil, err
		}
		missing, links, ok := a.mergeLinks(known)
		if !ok {
			return a.full(ctx, roots, "other names of a file with several links are not known")
		}
		if len(missing) == 0 {
			return links, nil
		}
		for _, path := range missing {
			hints.add(path, false)
		}
	}
	return a.full(ctx, roots, "files with several links are changing")
}

func (a *run) full(ctx context.Context, roots *root, cause string) (*linkList, error) {
	var h *hint
	if a.opt.Changed != nil {
		h = forcedHints(a.opt.Changed)
	}
	if err := a.walk(ctx, roots, h); err != nil {
		return nil, err
	}
	a.res.FullWalk, a.res.FullWalkCause = true, cause
	links := &linkList{byPath: make(map[string]link, len(a.links))}
	for _, l := range a.links {
		links.byPath[l.Path] = l
	}
	return links, nil
}

// store makes what the last walk left to be made.
func (a *run) store(ctx context.Context, links *linkList) (*Result, error) {
	tree, err := a.top(ctx)
	if err != nil {
		return nil, err
	}
	a.res.Tree = tree
	links.store(a.opt.Cache, tree)
	slices.Sort(a.res.Fuzzy)
	slices.Sort(a.res.Racy)
	slices.SortFunc(a.res.Unreadable, func(x, y PathError) int { return strings.Compare(x.Path, y.Path) })
	res := a.res
	return &res, ctx.Err()
}

// walk looks at everything once; what makes the top tree is in a.top then. h nil
// looks at everything.
func (a *run) walk(ctx context.Context, roots *root, h *hint) (err error) {
	a.res, a.links, a.gone = Result{}, nil, make(map[string]struct{})
	a.touched = make(map[inode]struct{})
	a.partial = h.partial()
	if a.top, err = a.virtual(ctx, roots, &a.opt.ParentTree, h); err != nil {
		return err
	}
	return ctx.Err()
}

// unreadable decides about a path that could not be read. It returns nil if the
// walk goes on without it.
func (a *run) unreadable(path string, err error) error {
	if vanished(err) {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	pe := PathError{Path: path, Err: err}
	if a.opt.OnUnreadable == Fail {
		return fmt.Errorf("read %w", pe)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.res.Unreadable = append(a.res.Unreadable, pe)
	return nil
}

func (a *run) excluded(path string) bool { return !a.excludes.Empty() && a.excludes.Match(path) }

func (a *run) skipped(path string, t format.NodeType) bool {
	return a.opt.Skip != nil && a.opt.Skip(path, t)
}

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

func clean(paths []string) ([]string, error) {
	var out []string
	for _, p := range paths {
		if !filepath.IsAbs(p) || strings.ContainsRune(p, 0) {
			return nil, fmt.Errorf("path %q is not absolute", p)
		}
		out = append(out, filepath.Clean(p))
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
