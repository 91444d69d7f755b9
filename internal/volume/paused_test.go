package volume

import (
	"fmt"
	"slices"
	"sync"
	"testing"

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
