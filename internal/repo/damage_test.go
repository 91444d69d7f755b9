package repo

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"drover/internal/objstore"
	"drover/internal/objstore/mem"
	"drover/internal/repo/format"
)

// A survey names every snapshot that lacks something, and none that does not, whatever
// it is that is lost and however many share it.
func TestSurveyNamesAllDamagedSnapshots(t *testing.T) {
	lost := func(t *testing.T, st objstore.Store, r *Repository, h format.Handle) {
		at, ok := r.Lookup(h)
		if !ok {
			t.Fatalf("no %v", h)
		}
		if err := st.Delete(t.Context(), format.DataFile.Key(at[0].Pack)); err != nil {
			t.Fatal(err)
		}
	}
	data := func(i int) []byte { return testData(uint64(i), 10_000, false) }
	dataHandle := func(i int) format.Handle { return format.Handle{Type: format.DataBlob, ID: format.Hash(data(i))} }
	for name, c := range map[string]struct {
		harm func(t *testing.T, st objstore.Store, r *Repository, ids []format.ID)
		want []int  // of the snapshots
		why  string // of each
	}{
		"nothing": {func(*testing.T, objstore.Store, *Repository, []format.ID) {}, nil, ""},
		"a snapshot object": {func(t *testing.T, st objstore.Store, _ *Repository, ids []format.ID) {
			flip(t, st, format.SnapshotFile.Key(ids[2]))
		}, []int{2}, "another id"},
		"what two files share, in the index": {func(t *testing.T, st objstore.Store, r *Repository, _ []format.ID) {
			lost(t, st, r, dataHandle(1))
		}, []int{0, 1}, "does not have its pack"},
		"the same, out of the index": {func(t *testing.T, st objstore.Store, r *Repository, _ []format.ID) {
			at, _ := r.Lookup(dataHandle(1))
			lost(t, st, r, dataHandle(1))
			if err := r.DropFromIndex(t.Context(), map[format.ID]struct{}{at[0].Pack: {}}); err != nil {
				t.Fatal(err)
			}
		}, []int{0, 1}, "in no index"},
		"a tree that two snapshots share": {func(t *testing.T, st objstore.Store, r *Repository, ids []format.ID) {
			sn, err := r.LoadSnapshot(t.Context(), ids[3])
			if err != nil {
				t.Fatal(err)
			}
			at, _ := r.Lookup(format.Handle{Type: format.TreeBlob, ID: *sn.Tree})
			flip(t, st, format.DataFile.Key(at[0].Pack))
		}, []int{3, 4}, "damaged"},
		"both kinds": {func(t *testing.T, st objstore.Store, r *Repository, ids []format.ID) {
			flip(t, st, format.SnapshotFile.Key(ids[4]))
			lost(t, st, r, dataHandle(3))
		}, []int{1, 4}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			st := mem.New()
			r := newRepo(t, st, Options{PackSize: 8 << 10})
			var ids []format.ID
			for i, blobs := range [][]int{{1, 2}, {1, 3}, {4}, {5, 6}, {5, 6}} {
				var content [][]byte
				for _, b := range blobs {
					content = append(content, data(b))
				}
				file := string(rune('a' + min(i, 3))) // the last two have the same tree
				id, _ := saveSnapshotOf(t, r, file, content...)
				ids = append(ids, id)
			}
			c.harm(t, st, r, ids)
			again := openRepo(t, st, Options{})
			s, err := again.Survey(t.Context(), SurveyOptions{})
			if strings.HasSuffix(name, "in the index") && err == nil { // that is for who looks at the packs
				missing := slices.ContainsFunc(slices.Collect(maps.Values(s.Packs)), func(u PackUse) bool { return u.Size < 0 && u.Used > 0 })
				if !missing {
					t.Fatal("the survey does not say that a pack which is needed is missing")
				}
				damaged, err := again.damaged(t.Context(), rootsOf(t, again), nil)
				if err != nil {
					t.Fatal(err)
				}
				wantDamaged(t, NewDamageError(damaged), ids, c.want, c.why)
				return
			}
			if len(c.want) == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var got *DamageError
			if !errors.As(err, &got) {
				t.Fatalf("%v", err)
			}
			wantDamaged(t, got, ids, c.want, c.why)
		})
	}
}

func rootsOf(t *testing.T, r *Repository) (roots []root) {
	t.Helper()
	err := r.Snapshots(t.Context(), func(id format.ID, sn *format.Snapshot) error {
		roots = append(roots, root{id, *sn.Tree, sn.Time})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return roots
}

func wantDamaged(t *testing.T, got *DamageError, ids []format.ID, want []int, why string) {
	t.Helper()
	var found []int
	for _, d := range got.Snapshots {
		found = append(found, slices.Index(ids, d.Snapshot))
		if !strings.Contains(d.Err.Error(), why) {
			t.Errorf("%v; want %q in it", d.Err, why)
		}
	}
	slices.Sort(found)
	if !slices.Equal(found, want) {
		t.Errorf("damaged are %v, want %v: %v", found, want, got)
	}
}

// A check whose listing of the index is old, since somebody merged the objects meanwhile,
// finds nothing wrong.
func TestCheckBesideACompaction(t *testing.T) {
	base := mem.New()
	r, _ := history(t, base)
	st := watch(base)
	merged := false
	st.setHook(func(op, key string) error {
		if op != "get" || !strings.HasPrefix(key, "index/") || merged {
			return nil
		}
		merged = true
		old, err := r.CompactIndex(t.Context(), 1, nil)
		if err != nil {
			return err
		}
		return r.RemoveIndex(t.Context(), old)
	})
	report, err := openRepo(t, st, Options{Connections: 1}).Check(t.Context(), CheckOptions{})
	if err != nil || len(report.Problems) > 0 || !merged {
		t.Errorf("%+v, %v, merged %v", report.Problems, err, merged)
	}
}
