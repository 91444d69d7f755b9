package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/repo/archive"
	"drover/internal/repo/format"
	"drover/internal/volume/protocol"
)

// TreeOptions says what belongs to the volume and how it is read and restored.
type TreeOptions struct {
	Paths   []string // absolute, clean, none below another
	Exclude []string // restic's patterns
	Host    string   // host name in snapshots: the service's or volume's, so that retention groups by it whatever the instance
	Cache   archive.TreeCache

	SkipUnreadable bool // commit without the files that cannot be read, and say so
	AllowShrink    bool
	ReplacePaths   bool // let a commit's paths lack some of the head's
	StrictMetadata bool
	Torn           bool                            // files may change while they are read: a log mends them
	Tags           []string                        // more tags for snapshots
	Version        string                          // of drover, for the snapshot's program_version
	Progress       func(path string, bytes uint64) // after each file; from any goroutine
}

// Changes tells which files may have changed. The zero set is "none".
type Changes interface {
	// Drain returns all that changed since the last Drain, every change whose
	// cause returned before the call included.
	Drain(ctx context.Context) ChangeSet
	// Return gives a set back whose capture came to nothing.
	Return(ChangeSet)
}

// ChangeSet names changed paths, or says that all must be looked at. With All,
// Paths are files to be read even if a stat says that they did not change.
type ChangeSet struct {
	All    bool
	Reason string // why all
	Paths  []string
}

// CaptureStats describes one capture.
type CaptureStats struct {
	Start      time.Time // wall clock
	Seconds    float64
	Snapshot   string
	Files      int64
	Bytes      int64
	Added      int64 // bytes stored
	Unchanged  bool
	Walked     bool     // every file was looked at
	Unreadable []string // left out
	Fuzzy      []string // changed while they were read, each time

	Still    bool          // all files are of one moment, in which nothing of the application ran
	Pause    time.Duration // for which it stood, in all tries
	Fallback error         // why they are not, though that was asked for
}

// incomplete is the error of a commit that is no success: some file in it is not
// one state of that file.
func (s CaptureStats) incomplete() error {
	if len(s.Fuzzy) > 0 {
		return fmt.Errorf("%w: committed, but changing while being read: %s", ErrIncomplete, some(s.Fuzzy))
	}
	return nil
}

// some names the first paths of a list.
func some(paths []string) string {
	const most = 5
	quoted := make([]string, 0, most)
	for _, p := range paths[:min(len(paths), most)] {
		quoted = append(quoted, strconv.Quote(p))
	}
	s := strings.Join(quoted, ", ")
	if len(paths) > most {
		s += fmt.Sprintf(" and %d more", len(paths)-most)
	}
	return s
}

// captureOnce makes one snapshot object upon a.Head, or finds that nothing changed.
func (r *Runtime) captureOnce(ctx context.Context, a protocol.Capture) (in protocol.Captured, stats CaptureStats, err error) {
	stats.Start = time.Now()
	defer func() { stats.Seconds = time.Since(stats.Start).Seconds() }()
	if err := r.checkPaths(a.Head); err != nil {
		return in, stats, err
	}
	doubt, err := r.prepareDoubting(ctx, &a)
	if err != nil {
		return in, stats, err
	}
	defer r.begin(BackingUp, 0, 0)() // how much there is to look at shows only in the end
	s, err := r.take(ctx, a)
	if err != nil {
		r.abandon()
		return in, stats, err
	}
	defer func() {
		if err != nil {
			r.abandon()
			r.giveBack(s.taken)
		}
	}()
	w, res := s.w, s.result()
	defer w.Abort() // does nothing after Finish
	stats.Walked, stats.Fuzzy, stats.Unreadable = res.FullWalk, res.Fuzzy, pathsOf(res.Unreadable)
	stats.Still, stats.Pause, stats.Fallback = s.still, s.pause, s.fallback
	if err := r.count(ctx, a.Head, s.passes, &stats); err != nil {
		return in, stats, err
	}
	if unsure := slices.Concat(res.Racy, res.Fuzzy); len(unsure) > 0 {
		r.giveBack(ChangeSet{Paths: unsure})
	}
	in.Tree, in.Paths, in.Time = res.Tree.String(), r.opt.Tree.Paths, stats.Start
	if !a.Force && in.Tree == a.Head.Tree && slices.Equal(in.Paths, a.Head.Paths) {
		in.Unchanged, stats.Unchanged = true, true
		in.Snapshot, stats.Snapshot = a.Head.Snapshot, a.Head.Snapshot
		return in, stats, nil
	}
	synced := make(chan bool, 1)
	go func() { synced <- syncPaths(r.opt.Tree.Paths) }()
	sn := r.snapshot(a.Head, res, stats)
	if len(stats.Fuzzy) > 0 {
		sn.Tags = append(sn.Tags, "fuzzy")
	}
	id, wrote, err := w.Finish(ctx, sn)
	in.Synced = <-synced
	if err != nil {
		return in, stats, fmt.Errorf("store snapshot: %w", err)
	}
	stats.Added = int64(wrote.Stored)
	in.Snapshot, stats.Snapshot = id.String(), id.String()
	r.captured = counted{in.Snapshot, archive.Totals{Files: stats.Files, Bytes: stats.Bytes}}
	r.pending = pending{snapshot: in.Snapshot, set: s.taken}
	packs := w.Packs()
	r.countOn(packs)
	r.mended(doubt, in.Snapshot)
	for _, p := range packs {
		in.Packs = append(in.Packs, p.String())
	}
	return in, stats, nil
}

// pending is what a capture took from Changes that no later capture will see
// again, unless its snapshot never becomes the head's.
type pending struct {
	snapshot string
	set      ChangeSet
}

// drain says what to look at since a.Head. What an uncommitted capture took is
// given back first: its commit was given up, since our lock was gone or a pack
// that it counted on was condemned.
func (r *Runtime) drain(ctx context.Context, a protocol.Capture) ChangeSet {
	if p := r.pending; p.snapshot != "" && p.snapshot != a.Head.Snapshot {
		r.abandon()
		r.giveBack(p.set)
	}
	r.pending = pending{}
	set := r.drainChanges(ctx)
	// Forced: what is unchanged since the head may be in the repository no more.
	set.All = set.All || a.Force
	return set
}

func (r *Runtime) drainChanges(ctx context.Context) ChangeSet {
	if r.opt.Changes == nil {
		return ChangeSet{All: true}
	}
	return r.opt.Changes.Drain(ctx)
}

func (r *Runtime) giveBack(set ChangeSet) {
	if r.opt.Changes != nil {
		r.opt.Changes.Return(set)
	}
}

// checkPaths refuses a commit that would silently leave a path of the volume out.
func (r *Runtime) checkPaths(h protocol.Head) error {
	if r.opt.Tree.ReplacePaths || h.Snapshot == "" {
		return nil
	}
	return CheckPaths(h, r.opt.Tree.Paths)
}

// CheckPaths fails with ErrPaths if a path of the head is not among paths.
func CheckPaths(h protocol.Head, paths []string) error {
	for _, p := range h.Paths {
		if !slices.Contains(paths, p) {
			return fmt.Errorf("%w: the newest snapshot holds %s, which is none of the paths given: name it too (drover snapshot --replace-paths commits without it)", ErrPaths, p)
		}
	}
	return nil
}

// prepareIndex loads the index under the present claim, once: caches older than
// the claim are not trusted.
func (r *Runtime) prepareIndex(ctx context.Context, a protocol.Capture) error {
	r.mu.Lock()
	fresh := r.fresh && !a.Fresh
	r.mu.Unlock()
	if !fresh {
		r.v.Repo.DropCaches()
		if err := r.v.Repo.LoadIndex(ctx); err != nil {
			return fmt.Errorf("load index: %w", err)
		}
		if packs := r.v.Repo.MissingPacks(); len(packs) > 0 {
			r.doubt(fmt.Sprintf("the index names %d packs that the store has lost", len(packs))) // the head may count on them
			r.opt.Log.Error("the store has lost packs that its index names: somebody pruned by force, or removed them; all files are looked at, and what is lost is stored again",
				"packs", len(packs), "first", packs[0].String())
		}
	}
	if err := r.v.setCondemned(a.Head); err != nil {
		return err
	}
	r.mu.Lock()
	r.fresh = true
	r.mu.Unlock()
	return nil
}

// setCondemned tells the repository which packs nothing new may count on.
func (v *Volume) setCondemned(h protocol.Head) error {
	condemned := map[format.ID]struct{}{}
	for _, p := range h.Condemned {
		id, err := format.ParseID(p)
		if err != nil {
			return fmt.Errorf("read head's condemned packs: %w", err)
		}
		condemned[id] = struct{}{}
	}
	v.Repo.SetCondemned(condemned)
	return nil
}

func (r *Runtime) archiveOptions() archive.Options {
	t := r.opt.Tree
	opt := archive.Options{
		Paths: t.Paths, Exclude: t.Exclude, Cache: t.Cache, Torn: t.Torn,
		Progress: func(path string, bytes uint64) {
			r.passed(path, bytes)
			if t.Progress != nil {
				t.Progress(path, bytes)
			}
		},
		Skip: func(path string, _ format.NodeType) bool { return IsMarker(t.Paths, path) },
	}
	if t.SkipUnreadable {
		opt.OnUnreadable = archive.Skip
	}
	return opt
}

// shrinkFloor is the number of files below which a volume may shrink at will.
const shrinkFloor = 100

// count fills in how much was captured, and says no to a commit that looks like
// an accident.
func (r *Runtime) count(ctx context.Context, h protocol.Head, passes []pass, s *CaptureStats) error {
	before, err := r.headTotals(ctx, h)
	if err != nil {
		return fmt.Errorf("count the head's files: %w", err)
	}
	now := before
	for _, p := range passes {
		if now, err = r.totals(ctx, p, now); err != nil {
			return fmt.Errorf("count files: %w", err)
		}
	}
	s.Files, s.Bytes = now.Files, now.Bytes
	if !r.opt.Tree.AllowShrink && before.Files > shrinkFloor && now.Files < before.Files/2 {
		return fmt.Errorf("%w: %d files are left of %d below %s: an unmounted or emptied directory? --allow-shrink (allow_shrink: true) commits it",
			ErrShrunk, now.Files, before.Files, strings.Join(r.opt.Tree.Paths, ", "))
	}
	return nil
}

// snapshot fills in the snapshot object of a result.
func (r *Runtime) snapshot(h protocol.Head, res *archive.Result, s CaptureStats) *format.Snapshot {
	summary := res.Summary(s.Start, time.Now())
	summary.TotalFilesProcessed, summary.TotalBytesProcessed = uint(s.Files), uint64(s.Bytes)
	sn := &format.Snapshot{
		Time: s.Start, Tree: &res.Tree, Paths: r.opt.Tree.Paths, Excludes: r.opt.Tree.Exclude,
		Hostname: r.opt.Tree.Host, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()),
		ProgramVersion: "drover " + r.opt.Tree.Version, Summary: summary,
		Tags: append([]string{
			"epoch:" + strconv.FormatUint(h.Epoch, 10),
			"seq:" + strconv.FormatUint(h.Seq+1, 10),
			"instance:" + r.opt.Protocol.Self.ID,
		}, r.opt.Tree.Tags...),
	}
	if id, err := format.ParseID(h.Snapshot); err == nil {
		sn.Parent = &id
	}
	return sn
}

func pathsOf(errs []archive.PathError) []string {
	var paths []string
	for _, e := range errs {
		paths = append(paths, e.Path)
	}
	return paths
}

// syncPaths makes the file systems of all paths durable; false if one could not be.
func syncPaths(paths []string) bool {
	all := true
	for _, path := range paths {
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return false
		}
		all = unix.Syncfs(int(f.Fd())) == nil && all
		_ = f.Close()
	}
	return all
}

// anyFile reports whether there is anything at or below the paths, markers aside.
func anyFile(paths []string) (bool, error) {
	for _, path := range paths {
		fi, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("look at %s: %w", path, err)
		}
		if !fi.IsDir() {
			return true, nil
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			return false, fmt.Errorf("look at %s: %w", path, err)
		}
		for _, e := range entries {
			if !IsMarker(paths, filepath.Join(path, e.Name())) {
				return true, nil
			}
		}
	}
	return false, nil
}
