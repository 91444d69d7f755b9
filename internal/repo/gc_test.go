package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"drover/internal/objstore"
	"drover/internal/objstore/mem"
	"drover/internal/repo/format"
)

// history makes a repository with garbage of every kind: an unused pack, partly
// used ones, a blob stored twice, a pack that is in no index. It returns the
// snapshots that are left and their blobs.
func history(t *testing.T, st objstore.Store) (*Repository, map[format.ID][][]byte) {
	t.Helper()
	r := newRepo(t, st, Options{PackSize: 64 << 10})
	blob := func(i int) []byte { return testData(uint64(i), 10_000, false) }
	first, _ := saveSnapshotOf(t, r, "a", blob(1), blob(2), blob(3))
	second, ids := saveSnapshotOf(t, r, "b", blob(2), blob(4), blob(5))
	l, _ := r.Lookup(format.Handle{Type: format.DataBlob, ID: ids[1]})
	r.SetCondemned(map[format.ID]struct{}{l[0].Pack: {}})
	third, _ := saveSnapshotOf(t, r, "c", blob(4), blob(6)) // stores 4 again
	r.SetCondemned(nil)
	gone, _ := saveSnapshotOf(t, r, "d", blob(7))
	for _, id := range []format.ID{first, gone} {
		if err := r.RemoveSnapshot(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	w := r.NewWriter(t.Context(), WriterOptions{})
	for i := range 10 {
		if _, err := w.Save(t.Context(), format.DataBlob, blob(100+i)); err != nil {
			t.Fatal(err)
		}
	}
	w.wgWaitForTest()
	w.Abort()
	return r, map[format.ID][][]byte{second: {blob(2), blob(4), blob(5)}, third: {blob(4), blob(6)}}
}

// wgWaitForTest lets the packs under way be stored before the abort.
func (w *Writer) wgWaitForTest() { w.wg.Wait() }

// intact makes sure that every snapshot's blobs are readable, and the check has
// nothing to say.
func intact(t *testing.T, st objstore.Store, want map[format.ID][][]byte) Report {
	t.Helper()
	r := openRepo(t, st, Options{})
	for id, blobs := range want {
		if _, err := r.LoadSnapshot(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		for _, b := range blobs {
			got, err := r.LoadBlob(t.Context(), format.Handle{Type: format.DataBlob, ID: format.Hash(b)}, nil)
			if err != nil || !bytes.Equal(got, b) {
				t.Fatalf("a blob of snapshot %s: %v", id.Short(), err)
			}
		}
	}
	report, err := r.Check(t.Context(), CheckOptions{ReadData: true})
	if err != nil || len(report.Problems) != 0 {
		t.Fatalf("check: %+v, %v", report, err)
	}
	return report
}

// unusedPacks are those of a survey that nobody needs.
func unusedPacks(t *testing.T, r *Repository) (unused []format.ID, err error) {
	t.Helper()
	s, err := r.Survey(t.Context(), SurveyOptions{})
	if err != nil {
		return nil, err
	}
	for id, u := range s.Packs {
		if u.Used == 0 && !u.InUse {
			unused = append(unused, id)
		}
	}
	return unused, nil
}

func exclusive(t *testing.T, r *Repository) *Lock {
	t.Helper()
	l, err := r.Lock(t.Context(), LockOptions{Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestPruneLeavesOnlyWhatIsReached(t *testing.T) {
	st := mem.New()
	r, want := history(t, st)
	l := exclusive(t, r)
	plan, err := r.Prune(t.Context(), l, PruneOptions{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	told := map[PruneStep][2]int{}
	report, err := r.Prune(t.Context(), l, PruneOptions{Progress: func(step PruneStep, done, total int) { told[step] = [2]int{done, total} }})
	if err != nil {
		t.Fatal(err)
	}
	anew, gone := len(report.Repacked), len(report.Repacked)+len(report.Deleted)
	if want := map[PruneStep][2]int{PruneReading: {2, 0}, PruneRepacking: {anew, anew}, PruneDeleting: {gone, gone}}; !maps.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
	if !slices.Equal(plan.Deleted, report.Deleted) || !slices.Equal(plan.Repacked, report.Repacked) || len(report.Deleted) < 2 || len(report.Repacked) == 0 {
		t.Errorf("planned %+v, did %+v", plan, report)
	}
	unlock(t, l)
	if check := intact(t, st, want); len(check.Orphans) != 0 || check.Blobs != 4+2 {
		t.Errorf("after pruning: %+v; want 4 data blobs and 2 trees", check)
	}
	shared, err := r.Lock(t.Context(), LockOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Prune(t.Context(), shared, PruneOptions{}); err == nil {
		t.Error("pruned with a shared lock")
	}
}

// Killed before or after any call that changes the store, a prune leaves all that
// is reached, and the next one ends the work.
func TestPruneIsCrashSafe(t *testing.T) {
	for at := 0; ; at++ {
		inner := mem.New()
		st := watch(inner)
		r, want := history(t, st)
		l := exclusive(t, r)
		ctx, cancel := context.WithCancel(t.Context())
		var calls atomic.Int32
		st.setHook(func(op, _ string) error {
			if op != "put" && op != "delete" {
				return nil
			}
			if int(calls.Add(1)) > at {
				cancel()
				return errInjected
			}
			return nil
		})
		_, err := r.Prune(ctx, l, PruneOptions{})
		cancel()
		st.setHook(nil)
		intact(t, inner, want)
		if err == nil {
			if at < 5 {
				t.Errorf("a prune makes only %d changes: the test sees too little", at)
			}
			return
		}
		unlock(t, l)
		r = openRepo(t, inner, Options{PackSize: 64 << 10})
		l = exclusive(t, r)
		if _, err := r.Prune(t.Context(), l, PruneOptions{}); err != nil {
			t.Fatalf("the next prune, after a crash at change %d: %v", at, err)
		}
		if check := intact(t, inner, want); len(check.Orphans) != 0 || check.Blobs != 6 {
			t.Errorf("after a crash at change %d and a second prune: %+v", at, check)
		}
	}
}

// Any error while looking ends garbage collection before anything is removed.
func TestNothingIsDeletedBecauseOfAnError(t *testing.T) {
	for _, prefix := range []string{"snapshots/", "index/", "data/"} {
		for _, op := range []string{"list", "listed", "get"} {
			for _, fault := range []error{objstore.ErrUnavailable, objstore.ErrUnauthorised, fmt.Errorf("x: %w", errInjected)} {
				st := watch(mem.New())
				r, want := history(t, st)
				l := exclusive(t, r)
				st.take()
				st.setHook(func(o, key string) error {
					if o == op && strings.HasPrefix(key, prefix) {
						return fault
					}
					return nil
				})
				_, err := r.Prune(t.Context(), l, PruneOptions{})
				wantError(t, err, fault)
				_, err = unusedPacks(t, r)
				wantError(t, err, fault)
				if prefix == "snapshots/" {
					_, _, err = r.Forget(t.Context(), Policy{Last: 1}, nil)
					wantError(t, err, fault)
				}
				if n := countPrefix(st.take(), "delete"); n != 0 {
					t.Errorf("%s %s: %d objects were deleted", op, prefix, n)
				}
				st.setHook(nil)
				intact(t, st, want)
			}
		}
	}
}

// A damaged tree or snapshot hides what it reaches: nothing may be called unused.
func TestNothingIsUnusedWhileSomethingIsUnreadable(t *testing.T) {
	for _, prefix := range []string{"snapshots/", "index/", "data/"} {
		st := mem.New()
		r, _ := history(t, st)
		for _, key := range keys(t, st, prefix) {
			flip(t, st, key)
		}
		l := exclusive(t, r)
		if packs, err := unusedPacks(t, r); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s damaged: unused %v, %v", prefix, packs, err)
		}
		if report, err := r.Prune(t.Context(), l, PruneOptions{}); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s damaged: pruned %v, %v", prefix, report, err)
		}
	}
}

// flip changes one bit in the middle of an object.
func flip(t *testing.T, st objstore.Store, key string) {
	t.Helper()
	data, _, err := st.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 4
	put(t, st, key, data)
}

// What a Writer of this Repository stores or counts on is not unused, although no
// snapshot reaches it yet.
func TestPacksOfAWriterAtWorkAreNotUnused(t *testing.T) {
	st := mem.New()
	r, _ := history(t, st)
	before, err := unusedPacks(t, r)
	if err != nil {
		t.Fatal(err)
	}
	w := r.NewWriter(t.Context(), WriterOptions{})
	defer w.Abort()
	for i := range 20 {
		if _, err := w.Save(t.Context(), format.DataBlob, testData(uint64(500+i), 10_000, false)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Save(t.Context(), format.DataBlob, testData(7, 10_000, false)); err != nil { // in the unused pack of "d"
		t.Fatal(err)
	}
	w.wgWaitForTest()
	now, err := unusedPacks(t, r)
	if err != nil || len(now) != len(before)-1 {
		t.Errorf("unused %d packs before, %d now, %v; want one less", len(before), len(now), err)
	}
}

func TestForget(t *testing.T) {
	st := mem.New()
	r := newRepo(t, st, Options{})
	var ids []format.ID
	for i := range 5 {
		id, _ := saveSnapshotOf(t, r, fmt.Sprint(i), []byte{byte(i)})
		ids = append(ids, id)
	}
	pinned := ids[3]
	kept, removed, err := r.Forget(t.Context(), Policy{Last: 1}, func(sn SnapshotRef) bool { return sn.ID == pinned })
	if err != nil || len(removed) < 3 || len(kept)+len(removed) != 5 {
		t.Fatalf("kept %d, removed %d, %v", len(kept), len(removed), err)
	}
	if _, err := r.LoadSnapshot(t.Context(), pinned); err != nil {
		t.Error(err)
	}
	_, err = r.LoadSnapshot(t.Context(), removed[0].ID)
	wantError(t, err, ErrSnapshotNotFound)
	if _, removed, err := r.Forget(t.Context(), Policy{}, nil); err != nil || len(removed) != 0 {
		t.Errorf("an empty policy removed %v, %v", removed, err)
	}
}

func TestCompactIndex(t *testing.T) {
	st := mem.New()
	r, want := history(t, st)
	n := len(keys(t, st, "index/"))
	if old, err := r.CompactIndex(t.Context(), n, nil); err != nil || len(old) != 0 || len(keys(t, st, "index/")) != n {
		t.Errorf("%d index objects, %v; the limit was not passed", len(keys(t, st, "index/")), err)
	}
	old, err := r.CompactIndex(t.Context(), n-1, nil)
	if err != nil || len(old) != n || len(keys(t, st, "index/")) != n+1 {
		t.Errorf("%d of %d index objects superseded, %d are there, %v", len(old), n, len(keys(t, st, "index/")), err)
	}
	intact(t, st, want)
	if again, err := r.CompactIndex(t.Context(), 1, old); err != nil || len(again) != 0 {
		t.Errorf("what is superseded was merged again: %v, %v", again, err)
	}
	if err := r.RemoveIndex(t.Context(), old); err != nil || len(keys(t, st, "index/")) != 1 {
		t.Errorf("%d index objects, %v; want 1", len(keys(t, st, "index/")), err)
	}
	intact(t, st, want)
}
