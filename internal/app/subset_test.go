package app

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"drover/internal/repo"
	"drover/internal/repo/fstest"
)

func TestParseSubset(t *testing.T) {
	for spec, want := range map[string]Subset{
		"1/1": {group: 1, groups: 1}, "7/256": {group: 7, groups: 256}, "100%": {percent: 100}, "2.5%": {percent: 2.5},
		"10G": {bytes: 10 << 30}, "3k": {bytes: 3 << 10}, "50MB": {bytes: 50e6}, "7": {bytes: 7},
		"next:5%": {percent: 5, next: true}, "next:1T": {bytes: 1 << 40, next: true},
	} {
		if got, err := ParseSubset(spec); err != nil || got != want {
			t.Errorf("%s: %+v, %v", spec, got, err)
		}
	}
	for _, spec := range []string{"", "0/1", "2/1", "1/257", "-1/2", "1/", "a/b", "1/2/3", "0%", "101%", "-5%", "NaN%", "%", "0", "-3", "G", "5X", "next:", "next:1/2", "NEXT:5%", "99999999T"} {
		if got, err := ParseSubset(spec); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %+v, %v", spec, got, err)
		}
	}
}

// TestChoose: a sample has the size that was asked for, and one pack at least.
func TestChoose(t *testing.T) {
	packs := func() []repo.StoredPack {
		all := make([]repo.StoredPack, 200)
		for i := range all {
			all[i].ID[0], all[i].Size = byte(i), 10
		}
		return all
	}
	reverse := func(n int, swap func(i, j int)) {
		for i := range n / 2 {
			swap(i, n-1-i)
		}
	}
	for _, c := range []struct {
		spec         string
		after        byte
		want         int
		first, final byte
	}{
		{"5%", 0, 10, 199, 190}, {"0.01%", 0, 1, 199, 199}, {"100%", 0, 200, 199, 0},
		{"95", 0, 10, 199, 190}, {"1", 0, 1, 199, 199}, {"1G", 0, 200, 199, 0},
		{"next:5%", 9, 10, 10, 19}, {"next:95", 195, 10, 196, 5}, {"next:1", 199, 1, 0, 0}, {"next:1G", 100, 200, 101, 100},
		{"4/100", 0, 2, 3, 103},
	} {
		s, err := ParseSubset(c.spec)
		fstest.Must(t, err)
		var after repo.StoredPack
		after.ID[0], after.ID[31] = c.after, 1
		got := s.choose(packs(), after.ID, reverse)
		if len(got) != c.want || got[0].ID[0] != c.first || got[len(got)-1].ID[0] != c.final {
			t.Errorf("%s after %d: %d packs, %d to %d", c.spec, c.after, len(got), got[0].ID[0], got[len(got)-1].ID[0])
		}
		if none := s.choose(nil, after.ID, reverse); len(none) != 0 {
			t.Errorf("%s of none: %v", c.spec, none)
		}
	}
}

// packs are the files of a workshop's packs.
func (w *workshop) packs() []string {
	w.t.Helper()
	all, err := filepath.Glob(filepath.Join(w.bucket, "data/data/*/*"))
	fstest.Must(w.t, err)
	return all
}

func (w *workshop) verify(o *Ops, spec string) VerifyReport {
	w.t.Helper()
	s, err := ParseSubset(spec)
	fstest.Must(w.t, err)
	report, err := o.Verify(w.t.Context(), VerifyOptions{ReadData: true, Subset: s})
	fstest.Must(w.t, err)
	return report
}

// flip damages one bit in the middle of a file.
func flip(t *testing.T, name string) {
	t.Helper()
	data, err := os.ReadFile(name)
	fstest.Must(t, err, os.Chmod(name, 0o600))
	data[len(data)/2] ^= 1
	fstest.Must(t, os.WriteFile(name, data, 0o600))
}

// TestGroupsAreRestics: of each group both read as many packs, and all groups are all.
func TestGroupsAreRestics(t *testing.T) {
	w := newWorkshop(t)
	for i := range 8 {
		w.write("f"+strconv.Itoa(i), string(fstest.Noise(1000+i)))
		w.commit()
	}
	sum := 0
	for n := 1; n <= 3; n++ {
		group := fmt.Sprintf("%d/3", n)
		said := restic(t, filepath.Join(w.bucket, "data"), "sesame", "check", "--read-data-subset="+group)
		m := regexp.MustCompile(`read group #\d of (\d+) data packs`).FindStringSubmatch(said)
		if m == nil {
			t.Fatalf("restic says nothing of the group: %s", said)
		}
		ours := w.verify(w.ops(), group)
		if strconv.Itoa(ours.PacksRead) != m[1] || len(ours.Problems) > 0 {
			t.Errorf("group %s: %+v, and restic reads %s", group, ours, m[1])
		}
		sum += ours.PacksRead
	}
	if n := len(w.packs()); sum != n || n < 8 {
		t.Errorf("%d packs in all groups, of %d", sum, n)
	}
}

// TestNextReadsAllInTurn: a flipped bit in any pack is found within one round of runs
// that read one pack each, and from then on by each run.
func TestNextReadsAllInTurn(t *testing.T) {
	w := newWorkshop(t)
	for i := range 4 {
		w.write("f", string(fstest.Noise(1000+i)))
		w.commit()
	}
	data := t.TempDir()
	next := func() VerifyReport { return w.verify(w.ops("DROVER_DATA_DIR", data), "next:1") }
	packs := w.packs()
	for range len(packs) + 2 { // one round, and into the next
		if r := next(); r.PacksRead != 1 || len(r.Problems) > 0 {
			t.Fatalf("got %+v", r)
		}
	}
	for _, name := range packs {
		flip(t, name)
		runs := 1
		for len(next().Problems) == 0 {
			if runs++; runs > len(packs) {
				t.Fatalf("%s was not read within a round", name)
			}
		}
		if len(next().Problems) == 0 {
			t.Error("the next run went on beyond the damage")
		}
		flip(t, name)
	}
	fstest.Must(t, os.WriteFile(filepath.Join(data, "data/verify"), []byte("{"), 0o600))
	if r := next(); r.PacksRead != 1 || len(r.Problems) > 0 {
		t.Errorf("with a position that cannot be read: %+v", r)
	}
}
