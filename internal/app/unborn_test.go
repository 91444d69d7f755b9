package app

import (
	"strings"
	"testing"

	"drover/internal/repo/format"
	"drover/internal/repo/fstest"
)

// A commit that died between its snapshot object and its index is told for what it is;
// what a committed snapshot lacks is not.
func TestVerifyTellsOfWhatWasNeverCommitted(t *testing.T) {
	w := newWorkshop(t)
	for _, text := range []string{"1", "2"} {
		w.write("f", text)
		w.commit()
	}
	o := w.ops()
	v, err := o.open(t.Context())
	fstest.Must(t, err)
	tree := format.Hash([]byte("nowhere"))
	_, err = v.Repo.SaveSnapshot(t.Context(), &format.Snapshot{Tree: &tree, Paths: []string{w.state}, Tags: []string{"epoch:1", "seq:2", "instance:dead"}})
	fstest.Must(t, err)
	report, err := w.ops().Verify(t.Context(), VerifyOptions{ReadData: true})
	if err != nil || len(report.Problems) != 1 || !strings.Contains(report.Problems[0], "never committed") {
		t.Fatalf("%q, %v", report.Problems, err)
	}
	_, err = w.ops().Prune(t.Context(), PruneOptions{})
	fstest.Must(t, err)
	if report, err = w.ops().Verify(t.Context(), VerifyOptions{ReadData: true}); err != nil || len(report.Problems) != 0 || report.Snapshots != 2 {
		t.Fatalf("after a prune: %+v, %v", report, err)
	}
	packs, err := v.Repo.KnownPacks(t.Context())
	fstest.Must(t, err)
	st, err := o.store(t.Context())
	fstest.Must(t, err)
	for id := range packs {
		fstest.Must(t, st.Delete(t.Context(), "data/"+format.DataFile.Key(id)))
	}
	if report, err = w.ops().Verify(t.Context(), VerifyOptions{}); err != nil || len(report.Problems) == 0 || strings.Contains(strings.Join(report.Problems, ""), "never committed") {
		t.Errorf("%q, %v", report.Problems, err)
	}
}
