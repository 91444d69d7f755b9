package volume

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"drover/internal/objstore/mem"
	"drover/internal/repo"
	"drover/internal/repo/format"
)

// keeper is an upkeep of a server, with a clock that the test moves.
type keeper struct {
	*Upkeep
	s     *server
	clock time.Duration
}

func newKeeper(s *server, keep Retention) *keeper {
	k := &keeper{s: s, clock: time.Hour}
	k.Upkeep = NewUpkeep(s.rt, UpkeepOptions{
		Every: time.Hour, Grace: time.Hour, Keep: keep, now: func() time.Duration { return k.clock },
	})
	k.Upkeep.begin()
	s.t.Cleanup(k.Upkeep.end)
	return k
}

func (k *keeper) run() {
	k.s.t.Helper()
	if _, err := k.once(k.s.t.Context()); err != nil {
		k.s.t.Fatal(err)
	}
}

func wholeAndCount(t *testing.T, s *server) (packs, snapshots int) {
	t.Helper()
	report, err := s.rt.v.Repo.Check(t.Context(), repo.CheckOptions{ReadData: true})
	if err != nil || len(report.Problems) != 0 {
		t.Fatalf("check: %+v, %v", report, err)
	}
	return report.Packs, report.Snapshots
}

// The holder removes what retention does not keep, in two phases, while it goes on
// committing: nothing leaves before the grace is over.
func TestUpkeepCollectsWhileTheHolderCommits(t *testing.T) {
	st := mem.New()
	a := newServer(t, st, "a", filepath.Join(t.TempDir(), "state")).start().waitStarted()
	for i := range 5 {
		a.write("file", fmt.Sprint("state ", i))
		a.backup()
	}
	k := newKeeper(a, Retention{Committed: repo.Policy{Last: 2}})
	before, _ := wholeAndCount(t, a)
	k.run()
	packs, snapshots := wholeAndCount(t, a)
	if snapshots != 2 || packs != before {
		t.Fatalf("%d snapshots, %d of %d packs; want 2 and all", snapshots, packs, before)
	}
	head, _ := a.rt.head()
	if len(head.Condemned) == 0 {
		t.Fatal("nothing is condemned")
	}
	k.clock += time.Hour - 1
	k.run()
	if now, _ := wholeAndCount(t, a); now != before {
		t.Fatal("packs were deleted before their grace was over")
	}
	// What is condemned comes again: it is stored anew.
	a.write("file", "state 0")
	a.backup()
	k.clock += time.Hour
	for range 3 {
		k.run()
	}
	head, _ = a.rt.head()
	packs, snapshots = wholeAndCount(t, a)
	if packs >= before || snapshots != 2 {
		t.Fatalf("%d packs, before %d; %d snapshots; condemned %v", packs, before, snapshots, head.Condemned)
	}
	if s := k.Stats(); s.Deleted == 0 || s.Freed == 0 || s.Condemned == 0 || s.Removed != 4 {
		t.Errorf("%+v", s)
	}
	a.write("file", "last")
	a.backup()
	a.lose()
	newServer(t, st, "b", a.state).start().waitStarted().want("file", "last")
}

// A writer beside the head that counts on a condemned pack keeps what it needs.
func TestUpkeepWaitsForOthersAndLooksAgain(t *testing.T) {
	st := mem.New()
	a := newServer(t, st, "a", filepath.Join(t.TempDir(), "state")).start().waitStarted()
	a.write("file", "precious")
	a.backup()
	a.write("file", "newer")
	a.backup()
	k := newKeeper(a, Retention{Committed: repo.Policy{Last: 1}})
	other := a.rt.v.Repo.Again()
	head, _ := a.rt.head()
	entries, err := a.rt.v.History(t.Context(), head)
	if err != nil {
		t.Fatal(err)
	}
	old := entries[0]
	k.run() // removes the first snapshot, and condemns what only it needs
	lock, err := other.Lock(t.Context(), repo.LockOptions{Hostname: "elsewhere"})
	if err != nil {
		t.Fatal(err)
	}
	k.clock += 90 * time.Minute
	k.run()
	if head, _ := a.rt.head(); len(head.Condemned) == 0 {
		t.Fatal("nothing is condemned")
	}
	if s := k.Stats(); s.Deleted != 0 || s.Waits == "" {
		t.Fatalf("%+v; want it to wait for the lock", s)
	}
	k.clock += 2 * time.Hour
	k.run() // the lock is younger than the condemnation: the packs leave the index
	if _, err := other.SaveSnapshot(t.Context(), &format.Snapshot{Time: time.Now(), Tree: old.Tree, Hostname: "elsewhere", Paths: old.Paths}); err != nil {
		t.Fatal(err)
	}
	k.run()
	if k.Stats().Deleted != 0 {
		t.Fatal("packs were deleted under a lock that was there when they left the index")
	}
	if err := lock.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.clock += time.Hour
	for range 4 {
		k.run()
	}
	if _, snapshots := wholeAndCount(t, a); snapshots != 2 {
		t.Errorf("%d snapshots, want 2", snapshots)
	}
	if head, _ := a.rt.head(); len(head.Condemned) != 0 {
		t.Errorf("still condemned: %v", head.Condemned)
	}
}

// With a snapshot that cannot be read, nothing is deleted, and the problem is named.
func TestUpkeepDeletesNothingWhenSomethingIsUnreadable(t *testing.T) {
	st := mem.New()
	a := newServer(t, st, "a", filepath.Join(t.TempDir(), "state")).start().waitStarted()
	for i := range 3 {
		a.write("file", fmt.Sprint("state ", i))
		a.backup()
	}
	head, _ := a.rt.head()
	entries, err := a.rt.v.History(t.Context(), head)
	if err != nil {
		t.Fatal(err)
	}
	key := format.SnapshotFile.Key(entries[0].ID)
	if err := st.Put(t.Context(), key, []byte("not a snapshot")); err != nil {
		t.Fatal(err)
	}
	k := newKeeper(a, Retention{Committed: repo.Policy{Last: 1}})
	if _, err := k.once(t.Context()); err == nil {
		t.Fatal("no error")
	}
	if got := count(t, st, "snapshots/"); got != 3 {
		t.Errorf("%d snapshot objects are left, want all 3", got)
	}
}
