package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/fstest"
	"drover/internal/volume/protocol"
)

// keeperOf is a mirror that keeps its copy up, with a clock that the test moves.
type keeperOf struct {
	*Mirror
	t     *testing.T
	clock time.Duration
}

func keepUp(t *testing.T, g *grown, st objstore.Store, last int) *keeperOf {
	t.Helper()
	k := &keeperOf{Mirror: mirrorTo(t, g, st), t: t, clock: time.Hour}
	k.KeepUp(KeepOptions{
		UpkeepOptions: UpkeepOptions{
			Every: time.Hour, Grace: time.Hour, Keep: Retention{Committed: repo.Policy{Last: last}},
			now: func() time.Duration { return k.clock },
		},
		Shelf: filepath.Join(t.TempDir(), "shelf"),
	})
	return k
}

// run copies what is new and makes one run of the upkeep.
func (k *keeperOf) run() time.Duration {
	k.t.Helper()
	_, err := k.Sync(k.t.Context(), nil)
	fstest.Must(k.t, err)
	next, err := k.Keep(k.t.Context())
	fstest.Must(k.t, err)
	return next
}

// settle runs it, an hour after an hour, until there is nothing to do.
func (k *keeperOf) settle() {
	k.t.Helper()
	for range 8 {
		if k.run(); k.keep.upkeep.atRest() {
			return
		}
		k.clock += time.Hour
	}
	k.t.Errorf("there is always more to do: %+v", k.Kept())
}

// The copy keeps what its own rule says, the source what it has; and it goes on.
func TestMirrorKeep(t *testing.T) {
	t.Parallel()
	g, st := grow(t, 5), newStore(t)
	source := fmt.Sprint(contents(t, g.st))
	k := keepUp(t, g, st, 2)
	k.run()
	if fmt.Sprint(contents(t, g.st)) != source {
		t.Error("the source was written to")
	}
	packs := count(t, st, "data/")
	v := g.wantCopy(st, 2)
	k.clock += time.Hour - time.Minute
	g.more(1) // our own copy is no other's claim: the grace goes on
	k.run()
	if s := k.Kept(); s.Removed != 4 || s.Condemned == 0 || s.Deleted != 0 || s.Problem != nil {
		t.Errorf("before the grace is over: %+v", s)
	}
	k.clock += time.Minute
	k.run()
	k.clock += time.Minute
	k.run()
	if now := count(t, st, "data/"); now >= packs {
		t.Errorf("%d packs after the grace, there were %d; %+v", now, packs, k.Kept())
	}
	k.settle()
	seen, err := v.ReadHead(t.Context())
	fstest.Must(t, err)
	if len(seen.Head.Condemned) != 0 || count(t, st, "locks/") != 0 {
		t.Errorf("condemned packs or locks are left: %+v", seen.Head)
	}
	k.run()
	if now, err := v.ReadHead(t.Context()); err != nil || now.Tag != seen.Tag {
		t.Errorf("the copy was claimed for nothing: %v", err)
	}
	g.wantCopy(st, 2)
	g.more(2)
	k.settle()
	g.wantCopy(st, 2)
	if ids := line(t, openVolume(t, g.st)); len(ids) != 8 {
		t.Errorf("the source has %d snapshots", len(ids))
	}
}

// A copied commit makes an index object; that there are few is no matter of a rule.
func TestMirrorMergesIndexes(t *testing.T) {
	t.Parallel()
	g, st := grow(t, smallIndexes+2), newStore(t)
	k := keepUp(t, g, st, 0)
	_, err := k.Sync(t.Context(), nil)
	fstest.Must(t, err)
	if n := count(t, st, "index/"); n <= smallIndexes {
		t.Fatalf("the test proves nothing: %d index objects", n)
	}
	k.settle()
	if n := count(t, st, "index/"); n != 1 || k.Kept().Removed != 0 {
		t.Errorf("%d index objects are left: %+v", n, k.Kept())
	}
	g.wantCopy(st, smallIndexes+2)
}

// What somebody else has or holds is left alone, also what they take at the last moment;
// what they read stays until they have.
func TestMirrorKeepsOffOthers(t *testing.T) {
	t.Parallel()
	g, st := grow(t, 4), newStore(t)
	k := keepUp(t, g, st, 2)
	k.run()
	lock, err := openVolume(t, st).Repo.Lock(t.Context(), repo.LockOptions{Hostname: "elsewhere"})
	fstest.Must(t, err)
	for range 3 {
		k.clock += 20 * time.Minute
		k.run()
	}
	if s := k.Kept(); s.Deleted != 0 || s.Waits == "" {
		t.Errorf("while somebody reads: %+v", s)
	}
	fstest.Must(t, lock.Unlock(t.Context()))
	k.settle()
	g.wantCopy(st, 2)
	g.more(2)
	_, err = k.Sync(t.Context(), nil)
	fstest.Must(t, err)
	fstest.Must(t, openVolume(t, st).Claim(t.Context(), sessionOptions("other"), func(context.Context, *Session) error {
		if _, err := k.Keep(t.Context()); !errors.Is(err, ErrHeld) {
			t.Errorf("while somebody holds it: %v", err)
		}
		return nil
	}))
	g.wantCopy(st, 4)
	all := ""
	taken := faulty.New(st, func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.PutIf && c.Key == headKey && all == "" {
			all = "soon"
			writeFile(t, g.dir+"/sub/f", "there")
			mustCommit(t, openVolume(t, st), snapshotOptions(g.dir))
			all = fmt.Sprint(keys(t, st, "snapshots/"))
		}
		return faulty.Fault{}
	})
	late := keepUp(t, g, taken, 1)
	for range 2 {
		if _, err := late.Keep(t.Context()); !errors.Is(err, ErrForked) || late.Kept().Removed != 0 {
			t.Errorf("somebody goes on there: %v, %+v", err, late.Kept())
		}
	}
	if now := fmt.Sprint(keys(t, st, "snapshots/")); now != all {
		t.Errorf("there are %s, were %s", now, all)
	}
}

// Another's claim in between, who may have counted on anything: the grace begins anew.
func TestMirrorKeepBeginsAnew(t *testing.T) {
	t.Parallel()
	g, st := grow(t, 4), newStore(t)
	k := keepUp(t, g, st, 2)
	k.run()
	fstest.Must(t, openVolume(t, st).Claim(t.Context(), sessionOptions("other"), func(context.Context, *Session) error { return nil }))
	k.clock += 90 * time.Minute
	k.run()
	k.clock += time.Minute
	k.run()
	if s := k.Kept(); s.Condemned == 0 || s.Deleted != 0 {
		t.Errorf("%+v", s)
	}
	k.settle()
	if k.Kept().Deleted == 0 {
		t.Errorf("%+v", k.Kept())
	}
	g.wantCopy(st, 2)
}

// The copy loses a pack that unchanged directories need: the next commit stores it anew.
func TestMirrorThatLosesData(t *testing.T) {
	t.Parallel()
	g, st := grow(t, 1), newStore(t)
	k := keepUp(t, g, st, 1)
	k.run()
	v := openVolume(t, st)
	fstest.Must(t, v.Repo.LoadIndex(t.Context()))
	at, ok := v.Repo.Lookup(format.Handle{Type: format.DataBlob, ID: format.Hash([]byte("still 7"))})
	if !ok {
		t.Fatal("the blob is not known")
	}
	fstest.Must(t, st.Delete(t.Context(), format.DataFile.Key(at[0].Pack)))
	k.keep.upkeep.forget() // as another tenure: a survey is due
	k.keep.rested = 0
	if _, err := k.Keep(t.Context()); err == nil && k.Kept().DamagedCount == 0 {
		if _, err := k.Keep(t.Context()); err == nil {
			t.Errorf("nothing is told: %+v", k.Kept())
		}
	}
	g.more(1)
	_, err := k.Sync(t.Context(), nil)
	fstest.Must(t, err)
	seen, err := v.ReadHead(t.Context())
	fstest.Must(t, err)
	v = openVolume(t, st)
	if got := inSnapshot(t, v, seen.Head.Snapshot, g.dir+"/1/7/still"); got != "still 7" {
		t.Errorf("the newest has %q", got)
	}
}

// Keep dies, or gets no answer, at each of its calls; whoever copies next waits for
// nobody but the TTL, and what was begun is ended.
func TestMirrorKeepThatDies(t *testing.T) {
	t.Parallel()
	g := grow(t, 4)
	calls := keepPoints(t, g)
	var all []keepDeath
	for n := 1; n <= calls; n++ {
		for _, how := range []string{"before", "after", "late", "lost"} {
			all = append(all, keepDeath{n, how})
		}
	}
	some := all
	if os.Getenv("DROVER_SOAK") == "" {
		some = sample(all, 40, 1)
	}
	t.Logf("%d calls, %d of %d deaths", calls, len(some), len(all))
	for _, d := range some {
		t.Run(fmt.Sprintf("%d-%s", d.n, d.how), func(t *testing.T) {
			t.Parallel()
			st := newStore(t)
			_, err := mirrorTo(t, g, st).Sync(t.Context(), nil)
			fstest.Must(t, err)
			dieKeeping(t, g, st, d)
			k := keepUp(t, g, st, 2)
			k.settle()
			sub := *g
			sub.t = t
			sub.wantCopy(st, 2)
			if n := count(t, st, "locks/"); n > 0 {
				t.Errorf("%d locks are left", n)
			}
		})
	}
}

// keepDeath is a death of, or a lost answer to, one of a Keep's calls.
type keepDeath struct {
	n   int
	how string
}

// keepPoints counts the calls of all runs until there is nothing to do.
func keepPoints(t *testing.T, g *grown) int {
	t.Helper()
	st := newStore(t)
	_, err := mirrorTo(t, g, st).Sync(t.Context(), nil)
	fstest.Must(t, err)
	clean := faulty.New(st, nil)
	k := keepUp(t, g, clean, 2)
	skip := len(clean.Calls())
	k.settle()
	return len(clean.Calls()) - skip
}

// dieKeeping dies at a call of the runs of a Keep; "late" and "lost" are answers, after
// which the process lives on.
func dieKeeping(t *testing.T, g *grown, st objstore.Store, death keepDeath) {
	t.Helper()
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	d := &dying{how: death.how, kill: kill}
	target := faulty.New(st, d.fault)
	k := keepUp(t, g, target, 2)
	d.at(len(target.Calls()) + death.n)
	for range 8 {
		if _, err := k.Keep(ctx); ctx.Err() != nil || err == nil && k.keep.upkeep.atRest() {
			return
		}
		k.clock += time.Hour
	}
}

// A dead one holds the copy until somebody claims it, and whoever copies does.
func TestMirrorOfADeadKeeper(t *testing.T) {
	t.Parallel()
	g, st := grow(t, 3), newStore(t)
	_, err := mirrorTo(t, g, st).Sync(t.Context(), nil)
	fstest.Must(t, err)
	v := openVolume(t, st)
	dead, err := v.Repo.Lock(t.Context(), repo.LockOptions{Hostname: lockHost(mirrorKeeper + "dead")})
	fstest.Must(t, err)
	seen, err := v.ReadHead(t.Context())
	fstest.Must(t, err)
	h := seen.Head
	h.Epoch, h.State, h.Claim, h.Write, h.Holder = h.Epoch+1, protocol.Held, newID(), newID(), protocol.Holder{ID: mirrorKeeper + "dead", Lock: dead.ID().String()}
	sealed, err := v.encodeHead(h)
	fstest.Must(t, err)
	_, err = st.PutIf(t.Context(), headKey, sealed, objstore.IfMatch(objstore.ETag(seen.Tag)))
	fstest.Must(t, err)
	g.more(1)
	if res, err := mirrorTo(t, g, st).Sync(t.Context(), nil); err != nil || res.Copied != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	if n := count(t, st, "locks/"); n > 0 {
		t.Errorf("%d locks are left", n)
	}
	g.wantCopy(st, 4)
}
