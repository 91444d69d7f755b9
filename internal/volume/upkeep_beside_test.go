package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/mem"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/fstest"
)

// lockOf is a lock of somebody, that nobody refreshes.
func lockOf(t *testing.T, s *server, host string, pid int) *repo.Lock {
	t.Helper()
	lock, err := s.rt.v.Repo.Again().Lock(t.Context(), repo.LockOptions{Hostname: host, PID: pid})
	fstest.Must(t, err)
	return lock
}

// Index objects that were merged stay for who may have listed them: who was there at
// the merging, and who came while they were there. A reader who stays for ever holds
// them up for twice the grace only, if it came later.
func TestUpkeepKeepsMergedIndexesForReaders(t *testing.T) {
	grow := func(t *testing.T) (*server, *keeper, []string) {
		a := newServer(t, newStore(t), "a", filepath.Join(fastDir(t), "state")).start().waitStarted()
		for i := range smallIndexes + 2 {
			a.write("file", fmt.Sprint("state ", i))
			a.backup()
		}
		listed := keys(t, a.st, "index/")
		if len(listed) <= smallIndexes {
			t.Fatalf("%d index objects: nothing to merge", len(listed))
		}
		return a, newKeeper(a, Retention{}), listed
	}
	left := func(a *server, listed []string) (n int) {
		for _, key := range listed {
			if _, err := a.st.Head(a.t.Context(), key); err == nil {
				n++
			}
		}
		return n
	}
	t.Run("nobody is there", func(t *testing.T) {
		t.Parallel()
		a, k, listed := grow(t)
		k.run()
		if n := left(a, listed); n != 0 {
			t.Errorf("%d of %d merged objects are left", n, len(listed))
		}
	})
	t.Run("one who was there", func(t *testing.T) {
		t.Parallel()
		a, k, listed := grow(t)
		reader := lockOf(t, a, "elsewhere", 7)
		for range 3 {
			k.run()
			if n := left(a, listed); n != len(listed) {
				t.Fatalf("%d of %d merged objects are left beside a reader of them", n, len(listed))
			}
			k.clock += 2 * time.Hour
		}
		fstest.Must(t, reader.Unlock(t.Context()))
		k.run()
		if n := left(a, listed); n != 0 {
			t.Errorf("%d of %d are left when the reader has gone", n, len(listed))
		}
		wholeAndCount(t, a)
	})
	t.Run("one who came later", func(t *testing.T) {
		t.Parallel()
		a, k, listed := grow(t)
		reader := lockOf(t, a, "elsewhere", 7)
		k.run()
		later := lockOf(t, a, "elsewhere", 8) // lists both, old and new
		fstest.Must(t, reader.Unlock(t.Context()))
		k.run()
		if n := left(a, listed); n != len(listed) {
			t.Fatalf("%d of %d merged objects are left beside a reader that came while they were there", n, len(listed))
		}
		k.clock += 2 * time.Hour // which has read them long ago
		k.run()
		if n := left(a, listed); n != 0 {
			t.Errorf("%d of %d are left after twice the grace", n, len(listed))
		}
		fstest.Must(t, later.Unlock(t.Context()))
		wholeAndCount(t, a)
	})
}

// An instance that died and never held the volume leaves a lock that no successor
// removes. The upkeep does, when it has seen it unchanged for an hour of its own clock; not
// one that is refreshed, and none of restic, which it names for people.
func TestUpkeepRemovesTheLockOfADeadInstance(t *testing.T) {
	st := newStore(t)
	a := newServer(t, st, "a", filepath.Join(fastDir(t), "state")).start().waitStarted()
	for i := range 2 {
		a.write("file", fmt.Sprint("state ", i))
		a.backup()
	}
	k := newKeeper(a, Retention{Committed: repo.Policy{Last: 1}})
	dead := lockOf(t, a, lockHost("dead"), 1)
	alive := lockOf(t, a, lockHost("alive"), 1)
	restics := lockOf(t, a, "elsewhere", 41)
	there := func(l *repo.Lock) bool { return l.Check(t.Context()) == nil }
	for range 5 { // an hour, but for a minute
		k.run()
		fstest.Must(t, alive.Refresh(t.Context()))
		k.clock += 59 * time.Minute / 5
	}
	k.run()
	if !there(dead) {
		t.Fatal("a lock was removed that was young")
	}
	waits := k.Stats().Waits
	for _, want := range []string{"@drover-dead, process 1,", "@drover-alive, process 1,", "@elsewhere, process 41,", " ago"} {
		if !strings.Contains(waits, want) {
			t.Errorf("%q is not in %q", want, waits)
		}
	}
	k.clock += 5 * time.Minute
	k.run()
	if there(dead) || !there(alive) || !there(restics) {
		t.Errorf("there are: the dead one's %v, the living one's %v, restic's %v; want the last two", there(dead), there(alive), there(restics))
	}
	fstest.Must(t, alive.Unlock(t.Context()), restics.Unlock(t.Context()))
	for range 4 {
		k.run()
		k.clock += time.Hour
	}
	if s := k.Stats(); s.Deleted == 0 || s.Waits != "" {
		t.Errorf("%+v; want that it goes on", s)
	}
}

func TestLocksAreDescribedForPeople(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	lock := func(host string, stale bool) owners {
		l := repo.LockInfo{ID: format.ID{0xab}, Time: now.Add(-90 * time.Minute), Hostname: host, Username: "root", PID: 12, Stale: stale}
		return owners{ownerOf(l): l}
	}
	for _, c := range []struct {
		o    owners
		want string
	}{
		{lock("laptop", false), "shared lock ab000000 of root@laptop, process 12, since 2026-03-01T10:30:00Z, 1h30m0s ago"},
		{lock("laptop", true), "1h30m0s ago (stale: `restic unlock` removes it)"},
		{lock("drover-x", true), "1h30m0s ago (stale: it is removed when nobody has refreshed it for 1h0m0s)"},
	} {
		if got := c.o.describe(now); !strings.HasSuffix(got, c.want) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// What a survey finds damaged, and what somebody else removed, is told: all of it
// counted, the first ones by name.
func TestUpkeepTellsOfDamagedSnapshots(t *testing.T) {
	st := newStore(t)
	a := newServer(t, st, "a", filepath.Join(fastDir(t), "state")).start().waitStarted()
	var ids []string
	var packs []format.ID // of the file, in each commit
	for i := range 5 {
		content := fstest.Noise(2000 + i)
		a.write("file", string(content))
		ids = append(ids, a.backup().Head.Snapshot)
		at, ok := a.rt.v.Repo.Lookup(format.Handle{Type: format.DataBlob, ID: format.Hash(content)})
		if !ok {
			t.Fatal("the file is in no pack")
		}
		packs = append(packs, at[0].Pack)
	}
	k := newKeeper(a, Retention{})
	k.run()
	if s := k.Stats(); s.DamagedCount != 0 || len(s.Damaged) != 0 {
		t.Fatalf("%+v", s.Damaged)
	}
	snapshot := func(i int) string { return string(format.SnapshotFile) + "/" + ids[i] }
	fstest.Must(t, st.Delete(t.Context(), snapshot(0)))
	k.run()
	wantDamage(t, k, map[string]string{ids[0]: "somebody else removed"})
	fstest.Must(t, st.Delete(t.Context(), format.DataFile.Key(packs[2])))
	k.Upkeep.surveyed = false
	for range 3 { // it mends the index, and looks again
		_, _ = k.once(t.Context())
	}
	wantDamage(t, k, map[string]string{ids[0]: "somebody else removed", ids[2]: "in no index"})
	sealed, _, err := st.Get(t.Context(), snapshot(1), 0, -1)
	fstest.Must(t, err, st.Put(t.Context(), snapshot(1), []byte("not a snapshot")))
	again := newKeeper(a, Retention{Committed: repo.Policy{Last: 1}}) // of another tenure, on another disk
	fstest.Must(t, again.shelf.file.Truncate(0))
	again.end()
	again.begin()
	if _, err := again.once(t.Context()); err == nil {
		t.Error("no error")
	}
	wantDamage(t, again, map[string]string{ids[1]: "another id", ids[2]: "in no index"})
	if n := count(t, st, "snapshots/"); n < 4 {
		t.Errorf("%d snapshots are left: retention went on beside damage", n)
	}
	// It heals as things come back, and then retention removes the other one, too.
	fstest.Must(t, st.Put(t.Context(), snapshot(1), sealed))
	again.run()
	wantDamage(t, again, nil)
}

func wantDamage(t *testing.T, k *keeper, want map[string]string) {
	t.Helper()
	s := k.Stats()
	if s.DamagedCount != len(want) || len(s.Damaged) != len(want) {
		t.Errorf("%d are damaged, want %d: %+v; %v", s.DamagedCount, len(want), s.Damaged, s.Problem)
	}
	for _, d := range s.Damaged {
		if why := want[d.Snapshot]; why == "" || !strings.Contains(d.Why, why) {
			t.Errorf("%s: %s; want %q", d.Snapshot[:8], d.Why, why)
		}
	}
}

func TestDamagedSnapshotsAreBounded(t *testing.T) {
	u := &Upkeep{missing: map[format.ID]time.Time{}}
	for i := range 50 {
		u.missing[format.ID{byte(i)}] = time.Unix(int64(i), 0)
	}
	u.tellDamage()
	if s := u.Stats(); s.DamagedCount != 50 || len(s.Damaged) != mostDamaged || s.Damaged[0].Snapshot[:2] != "31" {
		t.Errorf("%d, of which %d are named: %+v", s.DamagedCount, len(s.Damaged), s.Damaged)
	}
}

// A snapshot object that was read once is not read again, by this process or the next
// one on the same disk; and what the disk has made of it does not matter.
func TestUpkeepReadsASnapshotOnce(t *testing.T) {
	st := mem.New()
	beginVolume(t, st)
	view := &readings{Store: st}
	a := newServer(t, view, "a", filepath.Join(fastDir(t), "state")).start().waitStarted()
	const commits = 12
	for i := range commits {
		a.write("file", fmt.Sprint("state ", i))
		a.backup()
	}
	policy := Retention{Committed: repo.Policy{Last: 100}}
	reads := func(k *keeper) int {
		view.n.Store(0)
		k.run()
		return int(view.n.Load())
	}
	k := newKeeper(a, policy)
	if n := reads(k); n != commits {
		t.Errorf("the first run reads %d snapshots, want %d", n, commits)
	}
	a.write("file", "more")
	a.backup()
	k.surveyed = false
	if n := reads(k); n != 1 {
		t.Errorf("the second run reads %d snapshots, want the new one", n)
	}
	k.end()
	k = newKeeper(a, policy)
	if n := reads(k); n != 0 {
		t.Errorf("another tenure reads %d snapshots, want none", n)
	}
	path := k.shelf.path
	k.end()
	fstest.Must(t, flipByte(path, 100))
	k = newKeeper(a, policy)
	if n := reads(k); n != 1 {
		t.Errorf("with one damaged on the disk, it reads %d", n)
	}
	if s := k.Stats(); s.DamagedCount != 0 {
		t.Errorf("%+v", s.Damaged)
	}
}

// A run among many snapshots: without the shelf, as before, each is read twice by the
// first run of a tenure and once by each other one; with it, each once in all. DROVER_SOAK: 10,000.
func TestUpkeepOfManySnapshots(t *testing.T) {
	n := 500
	if os.Getenv("DROVER_SOAK") != "" {
		n = 10_000
	}
	st := mem.New()
	beginVolume(t, st)
	view := &readings{Store: st}
	a := newServer(t, view, "a", filepath.Join(fastDir(t), "state")).start().waitStarted()
	a.write("file", "state")
	_, sn, err := a.rt.v.Repo.FindSnapshot(t.Context(), a.backup().Head.Snapshot)
	fstest.Must(t, err)
	for i := range n {
		old := *sn
		old.Time = sn.Time.Add(-time.Duration(i+1) * time.Minute)
		_, err := a.rt.v.Repo.SaveSnapshot(t.Context(), &old)
		fstest.Must(t, err)
	}
	for _, c := range []struct {
		name          string
		shelf, tenure bool // tenure: the first run of one
		want          int
	}{
		{"without, first run", false, true, 2 * (n + 1)},
		{"without, another run", false, false, n + 1},
		{"with, first run", true, true, n + 1},
		{"with, another run", true, false, 0},
		{"with, first run of another tenure", true, true, 0},
	} {
		k := newKeeper(a, Retention{Committed: repo.Policy{Last: 1 << 20}})
		if !c.shelf {
			k.end()
			fstest.Must(t, os.Remove(a.data.Path("snapshots")))
		}
		k.surveyed = !c.tenure
		view.n.Store(0)
		began := time.Now()
		k.run()
		if got := int(view.n.Load()); got != c.want {
			t.Errorf("%s: %d snapshots were read, want %d", c.name, got, c.want)
		}
		t.Logf("%s: %d of %d snapshots read, %s", c.name, view.n.Load(), n+1, time.Since(began).Round(time.Millisecond))
		k.end()
	}
}

// What is of snapshots that are gone leaves the file, when it is most of it.
func TestShelfIsTidied(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shelf")
	h, err := openShelf(path)
	fstest.Must(t, err)
	var ids []format.ID
	for i := range 40 {
		data := fstest.Noise(100_000 + i)
		h.put(format.Hash(data), data)
		ids = append(ids, format.Hash(data))
	}
	stays := ids[7]
	fstest.Must(t, h.tidy(func(id format.ID) bool { return id != ids[0] }))
	if h.size < 39*100_000 {
		t.Errorf("%d bytes: tidied in vain", h.size)
	}
	fstest.Must(t, h.tidy(func(id format.ID) bool { return id == stays }))
	for range 2 {
		_, gone := h.get(ids[3])
		data, ok := h.get(stays)
		if gone || !ok || format.Hash(data) != stays || h.size > 200_000 {
			t.Fatalf("%d bytes, one that is gone: %v, the one that stays: %v", h.size, gone, ok)
		}
		fstest.Must(t, h.close())
		h, err = openShelf(path)
		fstest.Must(t, err)
	}
	fstest.Must(t, h.close())
}

// readings counts how often snapshot objects are read.
type readings struct {
	*mem.Store
	n atomic.Int64
}

func (s *readings) Get(ctx context.Context, key string, offset, length int64) ([]byte, objstore.Info, error) {
	if strings.HasPrefix(key, "snapshots/") {
		s.n.Add(1)
	}
	return s.Store.Get(ctx, key, offset, length)
}

// flipByte changes a byte of a file.
func flipByte(path string, offset int) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[offset] ^= 1
	return os.WriteFile(path, data, 0o600)
}
