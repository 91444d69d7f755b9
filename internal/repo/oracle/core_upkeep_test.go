package oracle

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/internal/objstore/mem"
	"drover/internal/repo"
	"drover/internal/repo/format"
)

// Keys that restic adds open for us, and ours for restic.
func TestKeysBothWays(t *testing.T) {
	d := newDir(t)
	st, r := create(t, repo.Options{})
	save(t, r, day(1), someFiles(1))
	if _, err := r.AddKey(t.Context(), "second"); err != nil {
		t.Fatal(err)
	}
	d.dump(st)
	file := t.TempDir() + "/third"
	if err := os.WriteFile(file, []byte("third\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.restic("key", "add", "--new-password-file", file)
	second := t.TempDir() + "/second"
	if err := os.WriteFile(second, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.restic("--password-file", second, "check")
	now := d.load()
	for _, pw := range []string{password, "second", "third"} {
		if _, err := repo.Open(t.Context(), now, pw, repo.Options{}); err != nil {
			t.Errorf("%s: %v", pw, err)
		}
	}
	if _, err := repo.Open(t.Context(), now, "fourth", repo.Options{}); !errors.Is(err, repo.ErrWrongPassword) {
		t.Errorf("wrong password: %v", err)
	}
}

// Restic refuses to prune while we hold a lock, shows it, and we see restic's.
func TestLocksBothWays(t *testing.T) {
	d := newDir(t)
	st, r := create(t, repo.Options{})
	save(t, r, day(1), someFiles(1))
	lock, err := r.Lock(t.Context(), repo.LockOptions{Hostname: "drover-a"})
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.dump(st)
	if out, err := d.try("prune"); err == nil || !strings.Contains(err.Error(), "drover-a") {
		t.Errorf("restic pruned under our lock: %s %v", out, err)
	}
	d.restic("backup", os.Args[0]) // a shared lock is no obstacle
	if err := lock.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.dump(st)
	d.restic("prune")

	content := fmt.Sprintf(`{"time":%q,"exclusive":true,"hostname":"elsewhere","username":"u","pid":1,"uid":1000,"gid":1000}`, time.Now().Format(time.RFC3339Nano))
	sealed := r.Seal([]byte(content))
	if err := st.Put(t.Context(), format.LockFile.Key(format.Hash(sealed)), sealed); err != nil {
		t.Fatal(err)
	}
	d.dump(st)
	if out, err := d.try("backup", os.Args[0]); err == nil {
		t.Errorf("restic ignored an exclusive lock: %s", out)
	}
	if _, err := r.Lock(t.Context(), repo.LockOptions{}); !errors.Is(err, repo.ErrLocked) || !strings.Contains(err.Error(), "u@elsewhere") {
		t.Errorf("we ignored an exclusive lock: %v", err)
	}
}

// Our choice of what to forget is restic's, for random histories and policies.
func TestForgetChoosesAsRestic(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	d := newDir(t)
	st, r := create(t, repo.Options{})
	now := time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)
	zones := []*time.Location{time.UTC, time.FixedZone("a", 5*3600+1800), time.FixedZone("b", -11*3600)}
	id := save(t, r, now, map[string][]byte{"a": {1}})
	first, err := r.LoadSnapshot(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 70 {
		sn := *first
		now = now.Add(-time.Duration(rnd.ExpFloat64() * float64(time.Hour) * float64(1+i*i/20)))
		sn.Time = now.In(zones[rnd.IntN(len(zones))])
		sn.Tags = nil
		if rnd.IntN(8) == 0 {
			sn.Tags = []string{"precious", "x"}
		}
		if _, err := r.SaveSnapshot(t.Context(), &sn); err != nil {
			t.Fatal(err)
		}
	}
	var all []repo.SnapshotRef
	err = r.Snapshots(t.Context(), func(id format.ID, sn *format.Snapshot) error {
		all = append(all, repo.SnapshotRef{ID: id, Snapshot: sn})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.dump(st)
	count := func(n int) int { return []int{0, 0, 1, n, -1}[rnd.IntN(5)] }
	for range 15 {
		p := repo.Policy{Last: rnd.IntN(4), Hourly: count(5), Daily: count(7), Weekly: count(4), Monthly: count(6), Yearly: count(2)}
		if rnd.IntN(2) == 0 {
			p.Within = time.Duration(1+rnd.IntN(400)) * time.Hour
		}
		if rnd.IntN(2) == 0 {
			p.Tags = []string{"precious"}
		}
		compareForget(t, d, p, all)
	}
}

func compareForget(t *testing.T, d *dir, p repo.Policy, all []repo.SnapshotRef) {
	t.Helper()
	args := []string{"forget", "--dry-run", "--json", "--group-by", ""}
	for _, o := range []struct {
		name string
		n    int
	}{{"last", p.Last}, {"hourly", p.Hourly}, {"daily", p.Daily}, {"weekly", p.Weekly}, {"monthly", p.Monthly}, {"yearly", p.Yearly}} {
		switch {
		case o.n < 0:
			args = append(args, "--keep-"+o.name+"=unlimited")
		case o.n > 0:
			args = append(args, fmt.Sprintf("--keep-%s=%d", o.name, o.n))
		}
	}
	if p.Within > 0 {
		args = append(args, fmt.Sprintf("--keep-within=%dh", p.Within/time.Hour))
	}
	for _, tag := range p.Tags {
		args = append(args, "--keep-tag="+tag)
	}
	if p.Empty() {
		return // restic calls it a mistake
	}
	groups := decode[[]struct{ Keep []struct{ ID string } }](t, d.restic(args...))
	var want []string
	for _, sn := range groups[0].Keep {
		want = append(want, sn.ID)
	}
	keep, _ := p.Choose(all, time.Now())
	var got []string
	for _, sn := range keep {
		got = append(got, sn.ID.String())
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%+v: we keep %d snapshots, restic %d:\n%v\n%v", p, len(got), len(want), got, want)
	}
}

// Restic prunes ours, and finds nothing to prune after we did.
func TestPruneBothWays(t *testing.T) {
	for _, ours := range []bool{true, false} {
		d := newDir(t)
		st, r := create(t, repo.Options{PackSize: 1 << 20})
		first := save(t, r, day(1), someFiles(1))
		last := save(t, r, day(2), someFiles(2))
		abandon(t, r)
		if err := r.RemoveSnapshot(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		before := size(t, st)
		if ours {
			prune(t, r, repo.PruneOptions{RepackSmall: true})
			d.dump(st)
			out := d.restic("prune", "--dry-run", "--max-unused=0")
			if !regexp.MustCompile(`total prune: +0 blobs / 0 B`).MatchString(out) {
				t.Errorf("restic would prune more: %s", out)
			}
		} else {
			d.dump(st)
			d.restic("prune", "--max-unused=0")
			st = d.load()
			r = open(t, st, repo.Options{})
			if packs, err := unusedPacks(t, r); err != nil || len(packs) != 0 {
				t.Errorf("after restic's prune we find unused packs %v, %v", packs, err)
			}
		}
		if after := size(t, st); after > before*2/3 {
			t.Errorf("pruned from %d to only %d bytes", before, after)
		}
		d.dump(st)
		d.restic("check", "--read-data")
		target := t.TempDir()
		d.restic("restore", last.String(), "--target", target)
		checkDir(t, target, someFiles(2))
		if report, err := r.Check(t.Context(), repo.CheckOptions{ReadData: true}); err != nil || len(report.Problems) != 0 || len(report.Orphans) != 0 {
			t.Errorf("check: %+v, %v", report, err)
		}
	}
}

// abandon leaves packs that are in no index.
func abandon(t *testing.T, r *repo.Repository) {
	t.Helper()
	w := r.NewWriter(t.Context(), repo.WriterOptions{})
	for i := range 4 {
		if _, err := w.Save(t.Context(), format.DataBlob, randomBytes(uint64(1000+i), 900_000)); err != nil {
			t.Fatal(err)
		}
	}
	w.Abort()
}

func prune(t *testing.T, r *repo.Repository, opt repo.PruneOptions) repo.PruneReport {
	t.Helper()
	lock, err := r.Lock(t.Context(), repo.LockOptions{Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	report, err := r.Prune(t.Context(), lock, opt)
	if err := errors.Join(err, lock.Unlock(t.Context())); err != nil {
		t.Fatal(err)
	}
	return report
}

func size(t *testing.T, st *mem.Store) (n int64) {
	t.Helper()
	for _, o := range objects(t, st) {
		n += o.Size
	}
	return n
}

// The two-step form, as it is used under a head, leaves what restic accepts.
func TestDropAndDeleteUnusedPacks(t *testing.T) {
	d := newDir(t)
	st, r := create(t, repo.Options{PackSize: 1 << 20})
	first := save(t, r, day(1), someFiles(1))
	for i := 2; i < 8; i++ {
		save(t, r, day(i), someFiles(uint64(i)))
	}
	if err := r.RemoveSnapshot(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	packs, err := unusedPacks(t, r)
	if err != nil || len(packs) == 0 {
		t.Fatalf("unused packs %v, %v", packs, err)
	}
	set := make(map[format.ID]struct{})
	for _, id := range packs {
		set[id] = struct{}{}
	}
	r.SetCondemned(set)
	if err := r.DeletePacks(t.Context(), packs); err == nil {
		t.Error("packs were deleted that are in the index")
	}
	if err := r.DropFromIndex(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	d.dump(st)
	d.restic("check")
	if err := r.DeletePacks(t.Context(), packs); err != nil {
		t.Fatal(err)
	}
	old, err := r.CompactIndex(t.Context(), 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.RemoveIndex(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	d.dump(st)
	d.restic("check", "--read-data")
	if n := len(strings.Fields(d.restic("list", "index"))); n != 1 {
		t.Errorf("%d index objects after compaction", n)
	}
}

// unusedPacks are those of a survey that nobody needs.
func unusedPacks(t *testing.T, r *repo.Repository) (unused []format.ID, err error) {
	t.Helper()
	s, err := r.Survey(t.Context(), repo.SurveyOptions{})
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
