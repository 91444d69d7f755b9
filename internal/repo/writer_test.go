package repo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/mem"
	"drover/internal/repo/format"
)

// slowStore takes a second of the bubble's time for every call.
type slowStore struct {
	*watched
	inFlight, most atomic.Int32
}

func (s *slowStore) Put(ctx context.Context, key string, data []byte) error {
	n := s.inFlight.Add(1)
	defer s.inFlight.Add(-1)
	for old := s.most.Load(); n > old && !s.most.CompareAndSwap(old, n); old = s.most.Load() {
	}
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.watched.Put(ctx, key, data)
}

// A small commit is two round trips here (the head's is the third): packs, then
// index and snapshot, each pair in parallel.
func TestSmallCommitTakesTwoRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &slowStore{watched: watch(mem.New())}
		r := newRepo(t, st, Options{})
		saveSnapshotOf(t, r, "f", testData(1, 100_000, true))
		st.take()
		st.most.Store(0)
		start := time.Now()
		saveSnapshotOf(t, r, "f", testData(2, 100_000, true))
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("the commit took %v, want two round trips of a second", took)
		}
		calls := st.take()
		if len(calls) != 4 || countPrefix(calls[:2], "put data/") != 2 || countPrefix(calls[2:], "put index/") != 1 || countPrefix(calls[2:], "put snapshots/") != 1 {
			t.Errorf("calls %v, want two packs, then index and snapshot", calls)
		}
		if st.most.Load() != 2 {
			t.Errorf("%d calls at once, want 2", st.most.Load())
		}
		start = time.Now()
		saveSnapshotOf(t, r, "f", testData(2, 100_000, true))
		if calls := st.take(); len(calls) != 1 || countPrefix(calls, "put snapshots/") != 1 || time.Since(start) != time.Second {
			t.Errorf("nothing new: calls %v in %v, want the snapshot alone", calls, time.Since(start))
		}
	})
}

// However fast blobs come, at most Connections packs are stored at once.
func TestUploadsAreBoundedAndParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &slowStore{watched: watch(mem.New())}
		r := newRepo(t, st, Options{Connections: 3, PackSize: 100 << 10})
		w := r.NewWriter(t.Context(), WriterOptions{})
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := range 20 {
					if _, err := w.Save(t.Context(), format.DataBlob, testData(uint64(g*100+i), 20_000, false)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		_, stats, err := w.Finish(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if stats.DataBlobs != 160 || stats.Packs != 32 {
			t.Errorf("stats %+v, want 160 blobs in 32 packs", stats)
		}
		if st.most.Load() != 3 {
			t.Errorf("%d packs stored at once, want 3", st.most.Load())
		}
		for g := range 8 {
			for i := range 20 {
				id := format.Hash(testData(uint64(g*100+i), 20_000, false))
				if _, err := r.LoadBlob(t.Context(), format.Handle{Type: format.DataBlob, ID: id}, nil); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// The same blob from many goroutines is stored once, also while it is under way.
func TestSameBlobIsStoredOnce(t *testing.T) {
	r := newRepo(t, mem.New(), Options{})
	w := r.NewWriter(t.Context(), WriterOptions{})
	defer w.Abort()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for i := range 50 {
				if _, err := w.Save(t.Context(), format.DataBlob, testData(uint64(i), 5000, true)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	_, stats, err := w.Finish(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if stats.DataBlobs != 50 || stats.Known != 450 || stats.Bytes != 50*5000 {
		t.Errorf("stats %+v", stats)
	}
	if len(w.Packs()) != 1 {
		t.Errorf("packs %v", w.Packs())
	}
}

func TestFailedUploadFailsTheBackup(t *testing.T) {
	for _, what := range []string{"data/", "index/", "snapshots/"} {
		st := watch(mem.New())
		r := newRepo(t, st, Options{PackSize: 64 << 10, Connections: 2})
		st.setHook(func(op, key string) error {
			if op == "put" && strings.HasPrefix(key, what) {
				return fmt.Errorf("put %s: %w", key, objstore.ErrUnavailable)
			}
			return nil
		})
		w := r.NewWriter(t.Context(), WriterOptions{})
		var err error
		for i := 0; i < 50 && err == nil; i++ {
			_, err = w.Save(t.Context(), format.DataBlob, testData(uint64(i), 20_000, false))
		}
		tree := format.Hash(nil)
		id, _, finishErr := w.Finish(t.Context(), &format.Snapshot{Tree: &tree})
		if !id.IsZero() || !errors.Is(finishErr, objstore.ErrUnavailable) {
			t.Errorf("%s: finish gave %v, %v", what, id, finishErr)
		}
		if what != "snapshots/" && r.idx().len() != 0 {
			t.Errorf("%s: blobs of a failed backup are in the index", what)
		}
		if _, err := w.Save(t.Context(), format.DataBlob, nil); err == nil {
			t.Error("saved after the end")
		}
		st.setHook(nil)
		if ids, err := listIDs(t.Context(), r.st, format.SnapshotFile); err != nil || len(ids) != 0 {
			t.Errorf("%s: %d snapshots of a failed backup are left, %v", what, len(ids), err)
		}
	}
}

// Who has given up removes nothing any more.
func TestCancelledFinishRemovesNothing(t *testing.T) {
	st := watch(mem.New())
	r := newRepo(t, st, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	stored := make(chan struct{})
	st.setHook(func(op, key string) error {
		switch {
		case op == "put" && strings.HasPrefix(key, "index/"):
			<-stored
			cancel()
			return objstore.ErrUnavailable
		case op == "delete":
			t.Errorf("%s was removed", key)
		}
		return nil
	})
	w := r.NewWriter(ctx, WriterOptions{})
	_, err := w.Save(ctx, format.DataBlob, testData(1, 20_000, false))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			if ids, err := listIDs(context.WithoutCancel(ctx), r.st, format.SnapshotFile); err != nil || len(ids) > 0 {
				close(stored)
				return
			}
		}
	}()
	tree := format.Hash(nil)
	if _, _, err := w.Finish(ctx, &format.Snapshot{Tree: &tree}); err == nil {
		t.Error("it succeeded")
	}
}

func TestCancelledSaveDoesNotHang(t *testing.T) {
	st := watch(mem.New())
	r := newRepo(t, st, Options{PackSize: 64 << 10, Connections: 1})
	release := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	st.setHook(func(op, key string) error {
		if op == "put" {
			cancel() // from now on the one connection is busy, and Save is to block
			<-release
		}
		return nil
	})
	w := r.NewWriter(t.Context(), WriterOptions{})
	var err error
	for i := 0; err == nil; i++ {
		_, err = w.Save(ctx, format.DataBlob, testData(uint64(i), 20_000, false))
		if i > 20 {
			t.Fatal("Save goes on after its context has ended")
		}
	}
	wantError(t, err, context.Canceled)
	close(release)
	w.Abort()
}

// Condemned packs are read from but not counted on.
func TestCondemnedPacksAreNotDeduplicatedAgainst(t *testing.T) {
	r := newRepo(t, mem.New(), Options{})
	blob := testData(1, 5000, true)
	_, ids := saveSnapshotOf(t, r, "f", blob)
	h := format.Handle{Type: format.DataBlob, ID: ids[0]}
	first, _ := r.Lookup(h)
	condemned := map[format.ID]struct{}{first[0].Pack: {}}
	r.SetCondemned(condemned)
	if r.Has(h) {
		t.Error("a condemned copy counts")
	}
	if err := r.LoadIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.Has(h) {
		t.Error("a condemned copy counts after loading the index")
	}
	if _, err := r.LoadBlob(t.Context(), h, nil); err != nil {
		t.Error(err)
	}
	saveSnapshotOf(t, r, "g", blob)
	now, _ := r.Lookup(h)
	if len(now) != 2 || now[0].Pack == first[0].Pack || !r.Has(h) {
		t.Errorf("copies now %v", now)
	}
	unused, err := unusedPacks(t, r)
	if err != nil || len(unused) != 1 || unused[0] != first[0].Pack {
		t.Errorf("unused %v, %v; want the condemned pack, whose blob has a new copy", unused, err)
	}
}

// A pack that the index names and the store lost is stored again, and the index mended.
func TestMissingPacksAreNotDeduplicatedAgainst(t *testing.T) {
	st := mem.New()
	r := newRepo(t, st, Options{})
	blob := testData(1, 5000, true)
	_, ids := saveSnapshotOf(t, r, "f", blob)
	h := format.Handle{Type: format.DataBlob, ID: ids[0]}
	lost, _ := r.Lookup(h)
	if err := st.Delete(t.Context(), format.DataFile.Key(lost[0].Pack)); err != nil {
		t.Fatal(err)
	}
	r = openRepo(t, st, Options{})
	if missing := r.MissingPacks(); len(missing) != 1 || missing[0] != lost[0].Pack {
		t.Errorf("missing packs %v", missing)
	}
	_, err := r.LoadBlob(t.Context(), h, nil)
	wantError(t, err, objstore.ErrNotFound)
	saveSnapshotOf(t, r, "f", blob)
	if _, err := r.LoadBlob(t.Context(), h, nil); err != nil {
		t.Error(err)
	}
	if err := r.DropFromIndex(t.Context(), map[format.ID]struct{}{lost[0].Pack: {}}); err != nil {
		t.Fatal(err)
	}
	r = openRepo(t, st, Options{})
	if len(r.MissingPacks()) != 0 || !r.Has(h) {
		t.Errorf("after mending: missing %v, has %v", r.MissingPacks(), r.Has(h))
	}
}

// A Writer hangs while it stores its index; meanwhile another one removes its packs, which
// are orphans, and this process loads the index anew. Awake, the Writer must not put into
// that index what is gone.
func TestLateIndexIsNotDeduplicatedAgainst(t *testing.T) {
	st := mem.New()
	awake, asleep := make(chan struct{}), make(chan struct{})
	r := newRepo(t, &hungIndex{Store: st, asleep: asleep, awake: awake}, Options{})
	data := testData(1, 10_000, true)
	late := make(chan error, 1)
	go func() {
		w := r.NewWriter(t.Context(), WriterOptions{})
		if _, err := w.Save(t.Context(), format.DataBlob, data); err != nil {
			late <- err
			return
		}
		_, _, err := w.Finish(t.Context(), nil)
		late <- err
	}()
	<-asleep
	other := openRepo(t, st, Options{})
	if _, err := other.Prune(t.Context(), exclusive(t, other), PruneOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := r.LoadIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(awake)
	if err := <-late; err != nil {
		t.Fatal(err)
	}
	if r.Has(format.Handle{Type: format.DataBlob, ID: format.Hash(data)}) {
		t.Error("a pack that was removed counts as stored")
	}
}

// hungIndex hangs at the first index object that is stored.
type hungIndex struct {
	objstore.Store
	once          sync.Once
	asleep, awake chan struct{}
}

func (s *hungIndex) Put(ctx context.Context, key string, data []byte) error {
	if strings.HasPrefix(key, "index/") {
		s.once.Do(func() { close(s.asleep); <-s.awake })
	}
	return s.Store.Put(ctx, key, data)
}

func TestReadOnlyStoresNothing(t *testing.T) {
	st := watch(mem.New())
	newRepo(t, st, Options{})
	r := openRepo(t, st, Options{ReadOnly: true})
	st.take()
	w := r.NewWriter(t.Context(), WriterOptions{})
	defer w.Abort()
	_, err := w.Save(t.Context(), format.DataBlob, []byte("x"))
	wantError(t, err, ErrReadOnly)
	tree := format.Hash(nil)
	_, err = r.SaveSnapshot(t.Context(), &format.Snapshot{Tree: &tree})
	wantError(t, err, ErrReadOnly)
	_, err = r.Lock(t.Context(), LockOptions{})
	wantError(t, err, ErrReadOnly)
	wantError(t, r.RemoveSnapshot(t.Context(), tree), ErrReadOnly)
	wantError(t, r.DropFromIndex(t.Context(), map[format.ID]struct{}{tree: {}}), ErrReadOnly)
	wantError(t, r.DeletePacks(t.Context(), []format.ID{tree}), ErrReadOnly)
	if calls := st.take(); countPrefix(calls, "put")+countPrefix(calls, "delete") != 0 {
		t.Errorf("calls %v", calls)
	}
}

// A large backup writes index objects on the way, of bounded size.
func TestLongBackupWritesSeveralIndexes(t *testing.T) {
	st := mem.New()
	r := newRepo(t, st, Options{PackSize: 1 << 20})
	w := r.NewWriter(t.Context(), WriterOptions{})
	defer w.Abort()
	const n = indexBlobs*2 + 100
	for i := range n {
		if _, err := w.Save(t.Context(), format.DataBlob, fmt.Appendf(nil, "blob %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := w.Finish(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if len(w.pending) != 0 {
		t.Errorf("%d blobs are pending still", len(w.pending))
	}
	if got := len(keys(t, st, "index/")); got < 2 || got > 3 {
		t.Errorf("%d index objects", got)
	}
	r = openRepo(t, st, Options{})
	for i := range n {
		if !r.Has(format.Handle{Type: format.DataBlob, ID: format.Hash(fmt.Appendf(nil, "blob %d", i))}) {
			t.Fatalf("blob %d is in no index", i)
		}
	}
}
