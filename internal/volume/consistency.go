package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/repo"
	"drover/internal/repo/archive"
	"drover/internal/repo/format"
	"drover/internal/volume/protocol"
)

// Stiller makes the application hold still while its changed files are copied.
type Stiller interface {
	// Still returns when nothing of the application writes to the volume; nil and
	// nil if nothing of it runs. ErrRestless: not this time. Any other error is the
	// capture's.
	Still(ctx context.Context) (Stillness, error)
}

// Stillness lasts until Resume, or until its context ends.
type Stillness interface {
	Context() context.Context
	// Resume lets the application go on, and returns how long it stood. It is called
	// once, whatever happened. ErrRestless: it did not hold still to the end. Any
	// other error is the capture's.
	Resume() (time.Duration, error)
}

// ErrRestless: the application did not hold still for as long as it should.
var ErrRestless = errors.New("the application did not hold still")

const (
	// stillTries is how often a capture makes the application hold still before it
	// reads the files live.
	stillTries = 3
	// What is more than this is read live first, so that little is left for the
	// moment in which all holds still.
	fewPaths = 1000
	fewBytes = 32 << 20
	// stageMemory bounds the copies in memory; the rest is in files.
	stageMemory = 64 << 20
)

// shot is one capture under way: passes over the files, each on the tree of the
// one before, until the last sees what none can change meanwhile.
type shot struct {
	r      *Runtime
	head   protocol.Head
	w      *repo.Writer
	taken  ChangeSet // from Changes, by all passes
	todo   ChangeSet // of it, what no pass has looked at
	passes []pass

	still    bool // the last pass saw one moment
	pause    time.Duration
	fallback error // why it did not, though asked to
}

// pass is one look at the files.
type pass struct {
	parent format.ID // zero: none
	began  time.Time
	res    *archive.Result
}

// take reads the volume. On an error nothing is left of it.
func (r *Runtime) take(ctx context.Context, a protocol.Capture) (*shot, error) {
	s := &shot{r: r, head: a.Head, w: r.v.Repo.NewWriter(ctx, repo.WriterOptions{})}
	s.add(r.drain(ctx, a))
	if err := s.shoot(ctx); err != nil {
		s.w.Abort()
		r.giveBack(s.taken)
		var unreadable archive.PathError
		if errors.As(err, &unreadable) {
			return nil, fmt.Errorf("%w: nothing was committed: %w", ErrIncomplete, err)
		}
		return nil, err
	}
	return s, nil
}

func (s *shot) add(set ChangeSet) {
	s.taken, s.todo = union(s.taken, set), union(s.todo, set)
}

func union(a, b ChangeSet) ChangeSet {
	u := ChangeSet{All: a.All || b.All, Reason: a.Reason, Paths: slices.Concat(a.Paths, b.Paths)}
	if !a.All {
		u.Reason = b.Reason
	}
	slices.Sort(u.Paths)
	u.Paths = slices.Compact(u.Paths)
	return u
}

// shoot makes the passes.
func (s *shot) shoot(ctx context.Context) error {
	if s.r.opt.Still == nil {
		return s.live(ctx)
	}
	tries := stillTries
	if s.r.restless { // it was tried in vain before: do not harm it more than need be
		tries = 1
	}
	var err error
	for try := range tries {
		if try > 0 || s.large() {
			if err := s.live(ctx); err != nil {
				return err
			}
		}
		err = s.hold(ctx)
		if !errors.Is(err, ErrRestless) || ctx.Err() != nil {
			s.r.restless = s.r.restless && err != nil
			return err
		}
		s.r.opt.Log.Debug("the files of a backup were not read in one moment", "try", try+1, "pause", s.pause, "err", err)
	}
	s.r.restless, s.fallback = true, err
	s.r.opt.Log.Warn("a backup's files were read while the application ran", "err", err)
	return s.live(ctx)
}

// large tells whether there is more to look at than should be in one moment.
func (s *shot) large() bool {
	if s.todo.All || s.options().Changed == nil || s.options().Changed.All || len(s.todo.Paths) > fewPaths {
		return true
	}
	var bytes int64
	for _, path := range s.todo.Paths {
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			bytes += st.Size
		}
	}
	return bytes > fewBytes
}

// live looks at what is to be done while the application runs. What changed
// meanwhile is to be looked at again.
func (s *shot) live(ctx context.Context) error {
	p := s.next()
	var err error
	if p.res, err = archive.Run(ctx, s.w, s.r.v.Repo, s.options()); err != nil {
		return err
	}
	s.done(p)
	return nil
}

// hold makes a pass over what changed until one moment, and shows that moment.
func (s *shot) hold(ctx context.Context) (err error) {
	stage, err := s.r.openStage()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	h, err := s.r.opt.Still.Still(ctx)
	if err != nil {
		return err
	}
	if h == nil {
		s.still = true
		return s.live(ctx)
	}
	looked, p, err := s.look(h.Context(), stage)
	pause, ended := h.Resume()
	s.pause += pause
	if ended != nil {
		return ended // also why the look came to nothing, if it did
	}
	if err != nil {
		return err
	}
	if p.res, err = looked.Store(ctx); err != nil {
		return err
	}
	s.still = true
	s.done(p)
	return nil
}

// look drains Changes inside of the moment: a change before it is in this pass, a
// later one in none.
func (s *shot) look(ctx context.Context, stage *archive.Stage) (*archive.Looked, pass, error) {
	s.add(s.r.drainChanges(ctx))
	p := s.next()
	looked, err := archive.Look(ctx, s.w, s.r.v.Repo, s.options(), stage)
	if errors.Is(err, archive.ErrStage) { // a full disk, say: the files themselves can be read
		err = fmt.Errorf("%w: %w", ErrRestless, err)
	}
	return looked, p, err
}

func (s *shot) next() pass { return pass{parent: s.options().ParentTree, began: time.Now()} }

func (s *shot) done(p pass) {
	s.passes = append(s.passes, p)
	s.todo = ChangeSet{Paths: slices.Concat(p.res.Racy, p.res.Fuzzy)}
}

// options are those of the next pass.
func (s *shot) options() archive.Options {
	opt := s.r.archiveOptions()
	if n := len(s.passes); n > 0 {
		opt.ParentTree, opt.ParentTime = s.passes[n-1].res.Tree, s.passes[n-1].began
		opt.Changed = &archive.ChangedSet{All: s.todo.All, Paths: s.todo.Paths}
	} else if id, err := format.ParseID(s.head.Tree); err == nil {
		opt.ParentTree, opt.ParentTime = id, s.head.Time
		opt.Changed = &archive.ChangedSet{All: s.todo.All || !slices.Equal(s.head.Paths, opt.Paths), Paths: s.todo.Paths}
	}
	return opt
}

// result is the last pass's, with what all of them found new, changed or
// unreadable.
func (s *shot) result() *archive.Result {
	res := *s.passes[len(s.passes)-1].res
	for _, p := range s.passes[:len(s.passes)-1] {
		res.Files = max(res.Files, p.res.Files)
		res.FilesNew += p.res.FilesNew
		res.FilesChanged += p.res.FilesChanged
		res.DirsNew += p.res.DirsNew
		res.DirsChanged += p.res.DirsChanged
		res.FullWalk = res.FullWalk || p.res.FullWalk
		for _, u := range p.res.Unreadable {
			if !slices.ContainsFunc(res.Unreadable, func(o archive.PathError) bool { return o.Path == u.Path }) {
				res.Unreadable = append(res.Unreadable, u)
			}
		}
	}
	return &res
}

// openStage makes the place for copies.
func (r *Runtime) openStage() (*archive.Stage, error) {
	dir := os.TempDir()
	if r.opt.DataDir != nil {
		dir = r.opt.DataDir.Path("staging")
		// What a file system without nameless files kept of a crash goes.
		if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
			return nil, fmt.Errorf("%w: make the staging directory: %w", ErrRestless, err)
		}
	}
	return archive.NewStage(dir, stageMemory), nil
}
