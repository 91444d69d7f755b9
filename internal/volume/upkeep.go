package volume

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"drover/internal/repo/format"
)

// UpkeepOptions of NewUpkeep.
type UpkeepOptions struct {
	Every time.Duration // between two runs, about
	Keep  Retention
	Grace time.Duration // between the condemnation of a pack and its end, at least
	Log   *slog.Logger
	// Paused says whether a run that is due waits for the next one; nil: never.
	Paused func() bool

	ofCopy bool                 // of a mirror: it has no files to store anything anew from
	now    func() time.Duration // tests replace it; nil: the process's monotonic clock
}

// UpkeepStats is what status tells of the upkeep.
type UpkeepStats struct {
	Last      time.Time // end of the last run, wall clock; zero: none yet
	Removed   int       // snapshot objects, by retention, of this process; and so on:
	Condemned int       // packs
	Deleted   int       // packs
	Freed     int64     // bytes of them
	Waiting   int       // packs that are condemned now
	Waits     string    // the locks of others that keep them waiting
	Problem   error     // of the last run
	// Damaged are snapshots that the last survey found damaged, or that somebody else
	// removed in this tenure: some of them, and how many there are.
	Damaged      []Damaged
	DamagedCount int
}

// Damaged is a snapshot that cannot be restored whole.
type Damaged struct {
	Snapshot string
	Why      string
}

// Upkeep removes what is not needed from a volume, while this instance holds it and the
// application runs: snapshot objects by retention, packs in two phases (condemned in the
// head, deleted after a grace), and small index objects.
//
// All its deletes are harmless whenever they land: of packs that are on the head's list,
// which nobody counts on; of index objects whose content is in others; of snapshot
// objects that are not, and will not be, the head's.
type Upkeep struct {
	r     *Runtime
	opt   UpkeepOptions
	begun time.Time

	// Of one tenure:
	sentences  map[format.ID]sentence
	surveyed   bool               // once, at least
	rootless   map[format.ID]bool // snapshot objects without an indexed tree at the last survey
	leftovers  int                // abandoned captures at the last survey
	superseded []format.ID        // index objects that are to be removed
	readers    owners             // who was there when they were merged
	merged     time.Duration      // when that was
	compacted  uint64             // seq at the last compaction
	suspected  string             // why a whole commit was last asked for
	shelf      *shelf             // nil: snapshot objects are read again each time
	seen       map[format.ID]sighting
	known      map[format.ID]time.Time // snapshots of ours, and of when they are
	missing    map[format.ID]time.Time // of those, what somebody else removed
	damaged    []Damaged               // at the last survey

	mu    sync.Mutex
	stats UpkeepStats
}

// NewUpkeep prepares the upkeep of what r holds; Run does it.
func NewUpkeep(r *Runtime, opt UpkeepOptions) *Upkeep {
	u := &Upkeep{r: r, opt: opt, begun: time.Now()}
	if opt.now == nil {
		u.opt.now = func() time.Duration { return time.Since(u.begun) }
	}
	if opt.Log == nil {
		u.opt.Log = slog.New(slog.DiscardHandler)
	}
	return u
}

// Stats returns the figures.
func (u *Upkeep) Stats() UpkeepStats {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stats
}

const (
	// firstRun is when a tenure's first run comes, at the latest: instances that are
	// restarted often are kept up, too.
	firstRun = 2 * time.Minute
	// soonAgain is when packs that wait for others' locks, or have just left the index,
	// are looked at again.
	soonAgain = time.Minute
	// smallIndexes is how many small index objects there may be: each commit makes one.
	smallIndexes = 64
)

// Run keeps up what the Runtime holds, until ctx ends.
func (u *Upkeep) Run(ctx context.Context) {
	for {
		held, release, err := u.r.awaitTenure(ctx)
		if err != nil {
			return
		}
		u.begin()
		u.serve(held)
		u.end()
		release()
		if ctx.Err() != nil {
			return
		}
	}
}

// begin begins a tenure.
func (u *Upkeep) begin() {
	u.forget()
	if u.r.opt.DataDir == nil {
		return
	}
	var err error
	if u.shelf, err = openShelf(u.r.opt.DataDir.Path("snapshots")); err != nil {
		u.opt.Log.Warn("upkeep: snapshot objects are read anew each time", "err", err)
	}
}

// forget forgets what held in an earlier tenure: the grace begins anew.
func (u *Upkeep) forget() {
	u.sentences = map[format.ID]sentence{}
	u.surveyed, u.superseded, u.readers, u.compacted, u.rootless = false, nil, nil, 0, nil
	u.seen, u.known, u.missing, u.damaged = map[format.ID]sighting{}, nil, map[format.ID]time.Time{}, nil
	u.tellDamage()
}

func (u *Upkeep) end() {
	if u.shelf == nil {
		return
	}
	if err := u.shelf.close(); err != nil {
		u.opt.Log.Warn("upkeep: close kept snapshots", "err", err)
	}
	u.shelf = nil
}

// serve runs until the tenure ends.
func (u *Upkeep) serve(held context.Context) {
	wait := jitter(min(u.opt.Every, firstRun))
	for {
		timer := time.NewTimer(wait)
		select {
		case <-held.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if u.opt.Paused != nil && u.opt.Paused() {
			continue
		}
		next, err := u.once(held)
		if held.Err() != nil {
			return
		}
		u.note(err)
		wait = jitter(min(next, u.opt.Every))
	}
}

// jitter keeps the agents of one store apart.
func jitter(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2+1) }

// note keeps what a run came to, and logs each new problem once.
func (u *Upkeep) note(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err != nil && (u.stats.Problem == nil || u.stats.Problem.Error() != err.Error()) {
		u.opt.Log.Error("upkeep: nothing is deleted", "err", err)
	}
	if err == nil && u.stats.Problem != nil {
		u.opt.Log.Info("upkeep: goes on")
	}
	u.stats.Problem, u.stats.Last = err, time.Now()
}

// atRest reports whether nothing is left to do until there are new commits.
func (u *Upkeep) atRest() bool {
	return u.surveyed && len(u.sentences) == 0 && len(u.superseded) == 0
}

func (u *Upkeep) update(f func(*UpkeepStats)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f(&u.stats)
}
