package volume

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/fstest"
)

// A holder sleeps before each call of a commit in turn, until another one has claimed,
// gone back to an older state and pruned. Awake, it commits nothing upon that, kills its
// jobs, and what it stores late harms nothing.
func TestPausedInACommit(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 8; n++ { // the calls of a commit that follows another: at most these many
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			st := newStore(t)
			view := faulty.New(st, nil)
			a := newServer(t, view, "a", fastDir(t)+"/state").start().waitStarted()
			a.write("f", "0")
			first := a.backup().Head.Snapshot
			a.write("f", "1")
			a.backup()
			a.write("f", "2")
			var back Outcome
			var mu sync.Mutex // held while the process sleeps: none of its calls passes
			calls := 0
			slept := make(chan error, 1)
			view.Set(func(c faulty.Call) faulty.Fault {
				mu.Lock()
				defer mu.Unlock()
				if c.Op == faulty.Get && c.Key == headKey {
					return faulty.Fault{}
				}
				if calls++; calls == n {
					var err error
					back, err = takeOver(t, openVolume(t, st), first)
					slept <- err
				}
				return faulty.Fault{}
			})
			out, err := a.rt.Backup(t.Context())
			fstest.Must(t, <-slept)
			if err != nil {
				a.waitStarted() // again: it was deposed, and the other one has released
				a.want("f", "0")
				if a.jobs.kills == 0 {
					t.Error("the jobs of the deposed holder were not killed")
				}
			}
			end := a.backup()
			got := committedLine(t, a.rt.v, end.Head)
			if !slices.Contains(got, back.Head.Snapshot) || err == nil && !slices.Contains(got, out.Head.Snapshot) {
				t.Errorf("the line is %v; it lacks %s or %s (%v)", got, back.Head.Snapshot, out.Head.Snapshot, err)
			}
			fstest.Must(t, a.stop())
			_, err = prune(t.Context(), openVolume(t, st)) // of what was stored late
			fstest.Must(t, err)
			report, err := openVolume(t, st).Repo.Check(t.Context(), repo.CheckOptions{ReadData: true})
			if err != nil || len(report.Problems) != 0 {
				t.Errorf("%+v, %v", report.Problems, err)
			}
		})
	}
}

// lateCommit has an instance sleep at its first call to store an object of that kind, until
// another one has taken over and pruned; it stores that and what belongs to it, and dies.
func lateCommit(t *testing.T, st objstore.Store, kind string) (state string) {
	t.Helper()
	view := faulty.New(st, nil)
	a := newServer(t, view, "a", fastDir(t)+"/state").start().waitStarted()
	a.write("f", "0")
	first := a.backup().Head.Snapshot
	a.write("f", "1")
	a.backup()
	a.write("f", "2")
	var mu sync.Mutex // held while the process sleeps
	woken, late := false, 0
	slept, stored := make(chan error, 1), make(chan struct{})
	view.Set(func(c faulty.Call) faulty.Fault {
		mu.Lock()
		defer mu.Unlock()
		is := c.Op == faulty.Put && (strings.HasPrefix(c.Key, "index/") || strings.HasPrefix(c.Key, "snapshots/"))
		if is && !woken && strings.HasPrefix(c.Key, kind) {
			woken = true
			_, err := takeOver(t, openVolume(t, st), first)
			slept <- err
		}
		if is {
			if late++; late == 2 {
				defer close(stored)
			}
			return faulty.Fault{}
		}
		if woken {
			return faulty.Fault{Before: errDead}
		}
		return faulty.Fault{}
	})
	done := make(chan struct{})
	go func() { defer close(done); _, _ = a.rt.Backup(t.Context()) }()
	fstest.Must(t, <-slept)
	<-stored
	a.lose()
	<-done
	return a.state
}

// takeOver claims, goes back to a snapshot and prunes.
func takeOver(t *testing.T, v *Volume, snapshot string) (Outcome, error) {
	t.Helper()
	id, err := format.ParseID(snapshot)
	if err != nil {
		return Outcome{}, err
	}
	opt := sessionOptions("elsewhere")
	opt.Tree.Host = "test"
	out, err := v.Rollback(t.Context(), opt, id)
	if err != nil {
		return out, err
	}
	_, err = prune(t.Context(), v)
	return out, err
}

// A holder sleeps while it stores an index or a snapshot, until another one has claimed
// and pruned. It stores both late, and dies: nothing that it left keeps a prune or the
// upkeep from their work.
func TestPausedInACommitAndDead(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"index/", "snapshots/"} {
		for _, by := range []string{"prune", "upkeep"} {
			t.Run(kind+" "+by, func(t *testing.T) {
				t.Parallel()
				st := newStore(t)
				state := lateCommit(t, st, kind)
				if by == "prune" {
					_, err := prune(t.Context(), openVolume(t, st))
					fstest.Must(t, err)
				} else {
					k := newKeeper(newServer(t, st, "b", state).start().waitStarted(), Retention{})
					// It removes, collects after its grace, mends the index, and looks again; a round that
					// failed on a busy machine is none of them.
					for good, tries := 0, 0; good < 4 && tries < 20; tries++ {
						if _, err := k.once(t.Context()); err == nil {
							good++
						}
						k.clock += 2 * time.Hour
					}
					wantDamage(t, k, nil)
				}
				report, err := openVolume(t, st).Repo.Check(t.Context(), repo.CheckOptions{ReadData: true})
				if err != nil || len(report.Problems) != 0 {
					t.Errorf("%+v, %v", report.Problems, err)
				}
			})
		}
	}
}

// An instance dies while it keeps diverged files, when their packs are stored and their
// index is not: there is no snapshot of them yet, which would keep a prune from its work.
func TestKeepingDivergedFilesDies(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	view := faulty.New(st, nil)
	a := newServer(t, view, "a", fastDir(t)+"/state").start().waitStarted()
	a.write("f", "0")
	a.backup()
	a.write("f", "1")
	a.crash()
	_, err := takeOver(t, openVolume(t, st), mustHead(t, st))
	fstest.Must(t, err)
	before := count(t, st, "snapshots/")
	dead, saved := make(chan struct{}), make(chan struct{}, 10)
	var once sync.Once
	view.Set(func(c faulty.Call) faulty.Fault {
		select {
		case <-dead:
			return faulty.Fault{Before: errDead}
		default:
		}
		if c.Op == faulty.Put && strings.HasPrefix(c.Key, "snapshots/") {
			saved <- struct{}{}
			return faulty.Fault{}
		}
		if c.Op == faulty.Put && strings.HasPrefix(c.Key, "index/") {
			select { // what is stored beside it
			case <-saved:
			case <-time.After(100 * time.Millisecond):
			}
			once.Do(func() { close(dead) })
			return faulty.Fault{Before: errDead}
		}
		return faulty.Fault{}
	})
	a.start()
	<-dead
	a.lose()
	if n := count(t, st, "snapshots/"); n != before {
		t.Errorf("%d snapshots, and there were %d", n, before)
	}
	removeLocks(t, openVolume(t, st)) // of the dead one: by hand, as a person would
	_, err = prune(t.Context(), openVolume(t, st))
	fstest.Must(t, err)
}

// mustHead is the newest committed snapshot.
func mustHead(t *testing.T, st objstore.Store) string {
	t.Helper()
	seen, err := openVolume(t, st).ReadHead(t.Context())
	fstest.Must(t, err)
	return seen.Head.Snapshot
}
