package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/mem"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/fstest"
	"drover/internal/repo/restore"
)

// death is what happens to the upkeep of a life: at the nth call to anything but the
// head, or at the nth write of the head that changes the list of the condemned.
type death struct {
	call, edit int // 0: never
	mode       string
}

// What may happen to a write of the head. After all but the last the process is dead.
const (
	beforeIt = "before" // it took no effect
	afterIt  = "after"  // it took effect, and nobody heard of it
	lateIt   = "late"   // it comes when the successor is there
	lostIt   = "lost"   // it took effect, and the answer is lost
)

// keptLife is a history with garbage of every kind, upon which an upkeep runs to its end:
// it condemns, rescues what somebody's restic counts on, packs anew, deletes, forgives.
type keptLife struct {
	t     *testing.T
	death death
	base  *mem.Store
	view  *faulty.Store

	mu       sync.Mutex
	v        *Volume // reads the heads that are written
	counting bool
	dead     bool
	kill     context.CancelFunc
	calls    int
	edits    int
	write    string   // of the head that was counted last
	list     []string // in it

	states map[string]string // what the file has in each snapshot that stays or goes
}

func newKeptLife(t *testing.T, d death) *keptLife {
	l := &keptLife{t: t, death: d, base: newStore(t), kill: func() {}, states: map[string]string{}}
	l.view = faulty.New(l.base, l.script)
	return l
}

func (l *keptLife) script(c faulty.Call) faulty.Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.dead:
		return faulty.Fault{Before: errDead}
	case kindOfKey(c.Key) == "head":
		return l.headWrite(c)
	case l.counting:
		if l.calls++; l.calls == l.death.call {
			return l.die(faulty.Fault{Before: errDead})
		}
	}
	return faulty.Fault{}
}

func (l *keptLife) die(f faulty.Fault) faulty.Fault {
	l.dead = true
	l.kill()
	return f
}

// headWrite counts a write of the head, once however often it is sent, if it is one of
// the upkeep's: the list differs.
func (l *keptLife) headWrite(c faulty.Call) faulty.Fault {
	if c.Op != faulty.PutIf || l.v == nil {
		return faulty.Fault{}
	}
	h, err := l.v.decodeHead(slices.Clone(c.Data))
	if err != nil {
		l.t.Errorf("a head that cannot be read: %v", err)
	}
	if h.Write == l.write || slices.Equal(h.Condemned, l.list) {
		return faulty.Fault{}
	}
	l.write, l.list = h.Write, h.Condemned
	if l.edits++; l.edits != l.death.edit {
		return faulty.Fault{}
	}
	switch l.death.mode {
	case beforeIt:
		return l.die(faulty.Fault{Before: errDead})
	case afterIt:
		return l.die(faulty.Fault{After: errDead})
	case lateIt:
		return l.die(faulty.Fault{Late: errDead})
	}
	return faulty.Fault{After: fmt.Errorf("lost: %w", objstore.ErrUnavailable)}
}

func (l *keptLife) count(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counting = on
}

func (l *keptLife) died() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

// commit writes the file and others, and notes what the snapshot has. Most of the pack
// of a commit is unused when the next one has another "changes".
func (l *keptLife) commit(s *server, content string) string {
	l.t.Helper()
	s.write("file", content)
	s.write("changes", string(fstest.Noise(9000+len(l.states))))
	id := s.backup().Head.Snapshot
	l.states[id] = content
	return id
}

// keptRounds is how many runs the upkeep takes, an hour apart, for all that there is to do.
const keptRounds = 7

// play lives until the death, or the end of the work. Then another instance takes over.
func (l *keptLife) play(byRestic bool) {
	t := l.t
	a := newServer(t, l.view, "a", filepath.Join(fastDir(t), "state")).start().waitStarted()
	l.mu.Lock()
	l.v = openVolume(t, l.base)
	l.mu.Unlock()
	a.write("stays", string(fstest.Noise(3000)))
	first := l.commit(a, "state 0")
	for i := range 3 {
		l.commit(a, fmt.Sprint("state ", i+1))
	}
	last := l.keepUp(a, first)
	a.crash()
	if l.death.mode == beforeIt || l.death.mode == afterIt {
		l.whole(byRestic)
	}
	fstest.Must(t, os.RemoveAll(a.state))
	b := newServer(t, l.base, "b", a.state).start()
	for l.view.Late() > 0 { // refused, if the claim was first; else the claim is tried again
		_ = l.view.Deliver(0)
	}
	b.waitStarted()
	b.want("file", last)
	l.whole(false)
	l.restorable()
	l.commit(b, "state 0") // of a pack that is condemned, or gone
	next := newKeeper(b, Retention{Committed: repo.Policy{Last: 2}})
	for range keptRounds {
		next.run()
		next.clock += time.Hour
	}
	l.tidy(b, byRestic)
}

// keepUp runs a's upkeep. When the first snapshot is gone, somebody's restic makes one of the
// same tree, whose packs are condemned by then.
func (l *keptLife) keepUp(a *server, first string) (last string) {
	t := l.t
	t.Helper()
	_, sn, err := openVolume(t, l.base).Repo.FindSnapshot(t.Context(), first)
	fstest.Must(t, err)
	k := newKeeper(a, Retention{Committed: repo.Policy{Last: 2}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l.mu.Lock()
	l.kill = cancel
	l.mu.Unlock()
	last = "state 3"
	for i := range keptRounds {
		l.count(true)
		if _, err := k.once(ctx); err != nil && ctx.Err() == nil {
			t.Fatal(err)
		}
		l.count(false)
		k.clock += time.Hour
		if i == 0 {
			other := openVolume(t, l.base).Repo
			id, err := other.SaveSnapshot(t.Context(), &format.Snapshot{Time: sn.Time, Tree: sn.Tree, Paths: sn.Paths, Hostname: "elsewhere"})
			fstest.Must(t, err)
			l.states[id.String()] = "state 0"
		}
		if l.died() {
			return last
		}
		if i == 2 { // more garbage, and a commit that counts on what there is
			last = "state 1"
			l.commit(a, last)
		}
	}
	return last
}

// whole checks the repository as it stands.
func (l *keptLife) whole(byRestic bool) repo.Report {
	t := l.t
	t.Helper()
	report, err := openVolume(t, l.base).Repo.Check(t.Context(), repo.CheckOptions{ReadData: true})
	if err != nil || len(report.Problems) != 0 {
		t.Fatalf("check: %+v, %v", report.Problems, err)
	}
	if byRestic {
		resticCheck(t, l.base, password, "--no-lock") // those of the dead are there
	}
	return report
}

// restorable restores each snapshot object that there is.
func (l *keptLife) restorable() {
	t := l.t
	t.Helper()
	r := openVolume(t, l.base).Repo
	fstest.Must(t, r.LoadIndex(t.Context()))
	fstest.Must(t, r.Snapshots(t.Context(), func(id format.ID, sn *format.Snapshot) error {
		want, ok := l.states[id.String()]
		if !ok {
			t.Errorf("snapshot %s is nobody's", id.Short())
		}
		target := fastDir(t)
		if _, err := restore.Run(t.Context(), r, sn, restore.Options{Target: target}); err != nil {
			t.Errorf("restore snapshot %s: %v", id.Short(), err)
		}
		if got := readFiles(t, filepath.Join(target, sn.Paths[0]))["file"]; got != want {
			t.Errorf("snapshot %s has %q, want %q", id.Short(), got, want)
		}
		return nil
	}))
}

// tidy checks that the work is done: two committed snapshots and restic's, and no garbage.
func (l *keptLife) tidy(b *server, byRestic bool) {
	t := l.t
	t.Helper()
	report := l.whole(byRestic)
	l.restorable()
	if report.Snapshots != 3 || len(report.Orphans) > 0 {
		t.Errorf("%d snapshots are left, want 3; packs in no index: %v", report.Snapshots, report.Orphans)
	}
	if head, _ := b.rt.head(); len(head.Condemned) != 0 {
		t.Errorf("still condemned: %v", head.Condemned)
	}
	s, err := b.rt.v.Repo.Again().Survey(t.Context(), repo.SurveyOptions{})
	fstest.Must(t, err)
	for id, u := range s.Packs {
		if u.Used == 0 || float64(u.Unused) > wasteful*float64(u.Used+u.Unused) {
			t.Errorf("pack %s is left: %+v", id.Short(), u)
		}
	}
}

// The upkeep dies at each of its calls in turn; another instance takes over and ends the
// work: all that is reached is there, and nothing stays condemned.
func TestUpkeepThatDies(t *testing.T) {
	l := newKeptLife(t, death{})
	l.play(true)
	if l.calls < 100 {
		t.Fatalf("only %d calls", l.calls)
	}
	step, each := l.calls/12, 4 // in the short run
	if os.Getenv("DROVER_SOAK") != "" {
		step, each = 1, 1
	}
	var lived atomic.Int64
	t.Run("lives", func(t *testing.T) {
		slots := make(chan struct{}, 24) // lives mostly wait
		for n := 1; n <= l.calls; n += step {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				t.Parallel()
				slots <- struct{}{}
				defer func() { <-slots }()
				newKeptLife(t, death{call: n}).play(n/step%each == 0)
				lived.Add(1)
			})
		}
	})
	t.Logf("%d calls, %d lives", l.calls, lived.Load())
}

// The same at each write of the head that the upkeep makes: before it took effect, after
// it, with the write landing when the successor is there; and once with the answer lost,
// which it survives.
func TestUpkeepThatDiesAtTheHead(t *testing.T) {
	l := newKeptLife(t, death{})
	l.play(false)
	if l.edits < 5 {
		t.Fatalf("only %d writes of the head", l.edits)
	}
	soak := os.Getenv("DROVER_SOAK") != ""
	var lived, died atomic.Int64
	t.Run("lives", func(t *testing.T) {
		slots := make(chan struct{}, 24)
		for n := 1; n <= l.edits; n++ {
			for i, mode := range []string{beforeIt, afterIt, lateIt, lostIt} {
				t.Run(fmt.Sprint(n, "-", mode), func(t *testing.T) {
					t.Parallel()
					slots <- struct{}{}
					defer func() { <-slots }()
					one := newKeptLife(t, death{edit: n, mode: mode})
					one.play(soak || (n+i)%4 == 0)
					lived.Add(1)
					if one.died() == (mode == lostIt) {
						t.Errorf("died: %v", one.died())
					}
					if one.died() {
						died.Add(1)
					}
				})
			}
		}
	})
	t.Logf("%d writes of the head, %d lives, %d deaths", l.edits, lived.Load(), died.Load())
}
