package repo

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"drover/internal/objstore"
	"drover/internal/objstore/mem"
	"drover/internal/repo/format"
)

// A flipped bit in any object is found, named, and said to touch the right paths.
func TestCheckNamesEveryDamagedObject(t *testing.T) {
	base := mem.New()
	r := newRepo(t, base, Options{})
	content := testData(1, 50_000, true)
	sn, _ := saveSnapshotOf(t, r, "file", content)
	for _, key := range keys(t, base, "") {
		if key == "config" {
			continue // without it there is no repository to check
		}
		st := copyStore(t, base)
		r := openRepo(t, st, Options{})
		flip(t, st, key)
		report, err := r.Check(t.Context(), CheckOptions{ReadData: true})
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(report.Problems, func(p Problem) bool { return p.Object == key })
		if i < 0 {
			t.Errorf("%s is damaged, and the report says %+v", key, report.Problems)
			continue
		}
		var paths []string
		for _, p := range report.Problems {
			paths = append(paths, p.Paths...)
		}
		if strings.HasPrefix(key, "data/") && len(paths) != 1 {
			t.Errorf("%s is damaged, and the paths are %v", key, paths)
		}
		if strings.HasPrefix(key, "snapshots/") && !slices.Contains(report.Problems[i].Snapshots, sn) {
			t.Errorf("%s is damaged, and the snapshots are %v", key, report.Problems[i].Snapshots)
		}
	}
}

func copyStore(t *testing.T, from objstore.Store) *mem.Store {
	t.Helper()
	to := mem.New()
	for _, key := range keys(t, from, "") {
		data, _, err := from.Get(t.Context(), key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		put(t, to, key, data)
	}
	return to
}

// Without ReadData, a pack that is gone or short is found by the listing.
func TestCheckFindsMissingAndShortPacks(t *testing.T) {
	base := mem.New()
	r := newRepo(t, base, Options{})
	sn, ids := saveSnapshotOf(t, r, "file", testData(1, 5000, true))
	l, _ := r.Lookup(format.Handle{Type: format.DataBlob, ID: ids[0]})
	key := format.DataFile.Key(l[0].Pack)
	for name, damage := range map[string]func(*mem.Store){
		"gone": func(st *mem.Store) {
			if err := st.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		},
		"short": func(st *mem.Store) {
			data, _, err := st.Get(t.Context(), key, 0, 100)
			if err != nil {
				t.Fatal(err)
			}
			put(t, st, key, data)
		},
	} {
		st := copyStore(t, base)
		damage(st)
		report, err := openRepo(t, st, Options{}).Check(t.Context(), CheckOptions{})
		if err != nil || len(report.Problems) != 1 {
			t.Fatalf("%s: %+v, %v", name, report, err)
		}
		p := report.Problems[0]
		if p.Object != key || !slices.Equal(p.Paths, []string{"/file"}) || !slices.Equal(p.Snapshots, []format.ID{sn}) {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestCheckDoesNotCallAnUnansweredCallDamage(t *testing.T) {
	for _, prefix := range []string{"keys/", "index/", "data/", "snapshots/"} {
		for _, op := range []string{"list", "get"} {
			st := watch(mem.New())
			r := newRepo(t, st, Options{})
			saveSnapshotOf(t, r, "file", testData(1, 5000, true))
			st.setHook(func(o, key string) error {
				if o == op && strings.HasPrefix(key, prefix) {
					return objstore.ErrUnavailable
				}
				return nil
			})
			report, err := r.Check(t.Context(), CheckOptions{ReadData: true})
			if !errors.Is(err, objstore.ErrUnavailable) || len(report.Problems) != 0 {
				t.Errorf("%s %s: %+v, %v", op, prefix, report.Problems, err)
			}
		}
	}
}

// A damaged blob is read from another pack if there is one; else it is refused.
func TestDamagedBlobIsReadFromItsOtherCopy(t *testing.T) {
	st := mem.New()
	r := newRepo(t, st, Options{})
	blobs := [][]byte{testData(1, 5000, true), testData(2, 7000, false)}
	_, ids := saveSnapshotOf(t, r, "a", blobs...)
	h := format.Handle{Type: format.DataBlob, ID: ids[0]}
	first, _ := r.Lookup(h)
	r.SetCondemned(map[format.ID]struct{}{first[0].Pack: {}})
	saveSnapshotOf(t, r, "b", blobs[0])
	r.SetCondemned(nil)
	data, _, err := st.Get(t.Context(), format.DataFile.Key(first[0].Pack), 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		data[i] ^= 1 // every blob of the pack
	}
	put(t, st, format.DataFile.Key(first[0].Pack), data)

	if _, err := r.LoadBlob(t.Context(), h, nil); err != nil {
		t.Error(err)
	}
	_, err = r.LoadBlob(t.Context(), format.Handle{Type: format.DataBlob, ID: ids[1]}, nil)
	wantError(t, err, ErrDamaged)
	_, err = r.LoadBlob(t.Context(), format.Handle{Type: format.DataBlob, ID: numberedID(1)}, nil)
	wantError(t, err, ErrBlobNotFound)

	results := make(map[format.ID]error)
	err = r.LoadPackBlobs(t.Context(), first[0].Pack, r.idx().packBlobs()[first[0].Pack], func(h format.Handle, data []byte, err error) error {
		results[h.ID] = err
		if err == nil && format.Hash(data) != h.ID {
			t.Errorf("wrong content of %s", h)
		}
		return nil
	})
	if err != nil || len(results) != 2 || results[ids[0]] != nil || !errors.Is(results[ids[1]], ErrDamaged) {
		t.Errorf("%v, %v", results, err)
	}
	report, err := r.Check(t.Context(), CheckOptions{ReadData: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range report.Problems {
		if slices.Contains(p.Paths, "/b") {
			t.Errorf("/b has a good copy: %+v", p)
		}
	}
}

// Near blobs come with one request, far ones do not cost what lies between.
func TestLoadPackBlobsCoalesces(t *testing.T) {
	st := watch(mem.New())
	r := newRepo(t, st, Options{Compression: CompressionOff})
	var blobs [][]byte
	for i := range 30 {
		blobs = append(blobs, testData(uint64(i), 200_000, false))
	}
	_, ids := saveSnapshotOf(t, r, "f", blobs...)
	var want []PackedBlob
	for _, i := range []int{29, 0, 2, 1, 28, 15} {
		h := format.Handle{Type: format.DataBlob, ID: ids[i]}
		l, _ := r.Lookup(h)
		want = append(want, PackedBlob{h, l[0]})
	}
	st.take()
	var order []format.ID
	err := r.LoadPackBlobs(t.Context(), want[0].Pack, want, func(h format.Handle, _ []byte, err error) error {
		order = append(order, h.ID)
		return err
	})
	if err != nil || !slices.Equal(order, []format.ID{ids[0], ids[1], ids[2], ids[15], ids[28], ids[29]}) {
		t.Errorf("order %v, %v", order, err)
	}
	if calls := st.take(); len(calls) != 3 {
		t.Errorf("%d requests, want 3: %v", len(calls), calls)
	}
}
