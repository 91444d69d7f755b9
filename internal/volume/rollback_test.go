package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/restore"
)

func rollback(t *testing.T, v *Volume, snapshot string, edit ...func(*Options)) (Outcome, error) {
	t.Helper()
	opt := sessionOptions("command")
	opt.Tree.Host = "test"
	for _, f := range edit {
		f(&opt)
	}
	id, err := format.ParseID(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	return v.Rollback(t.Context(), opt, id)
}

func mustRollBack(t *testing.T, v *Volume, snapshot string) Outcome {
	t.Helper()
	out, err := rollback(t, v, snapshot)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// line lists the committed snapshots, oldest first.
func line(t *testing.T, v *Volume) (ids []string) {
	t.Helper()
	seen, err := v.ReadHead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := v.History(t.Context(), seen.Head)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b Entry) int { return int(a.Seq) - int(b.Seq) })
	for _, e := range all {
		if e.Committed {
			ids = append(ids, e.ID.String())
		}
	}
	return ids
}

// inSnapshot reads a file of a snapshot.
func inSnapshot(t *testing.T, v *Volume, id, path string) string {
	t.Helper()
	_, sn, err := v.Repo.FindSnapshot(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Repo.LoadIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := restore.Run(t.Context(), v.Repo, sn, restore.Options{Target: dir, Include: []string{path}}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The whole story: an agent that holds is in the way; once it is gone the volume goes
// back, and the next start of that very instance restores exactly, and keeps what it
// had not committed. Then it goes forward again, elsewhere.
func TestRollbackAndForward(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	a := newServer(t, st, "a", fastDir(t)+"/state").start().waitStarted()
	a.write("f", "old")
	first := a.backup().Head.Snapshot
	a.write("f", "new")
	a.write("more", "x")
	second := a.backup().Head.Snapshot
	v := openVolume(t, st)
	if _, err := rollback(t, v, first); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "stop the application") || !strings.Contains(err.Error(), `"a"`) {
		t.Fatalf("beside an agent: %v", err)
	}
	a.write("f", "never committed")
	a.crash()

	out := mustRollBack(t, openVolume(t, st), first)
	if out.Head.Seq != 3 || out.Head.Snapshot == first || out.Capture.Files != 1 || out.Capture.Bytes != 3 {
		t.Fatalf("%+v", out)
	}
	if got := line(t, v); !slices.Equal(got, []string{first, second, out.Head.Snapshot}) {
		t.Errorf("line %v", got)
	}
	a.start().waitStarted()
	a.want("f", "old")
	a.wantNone("more")
	_, stats := a.rt.Status()
	if len(stats.Diverged) != 1 {
		t.Fatalf("diverged snapshots %v, want one", stats.Diverged)
	}
	if got := inSnapshot(t, v, stats.Diverged[0], a.state+"/f"); got != "never committed" {
		t.Errorf("the diverged snapshot has %q", got)
	}
	a.write("f", "goes on")
	fourth := a.backup()
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}

	forward := mustRollBack(t, openVolume(t, st), second)
	got := line(t, v) // the last commit of an agent that stops may be one more
	if !slices.Equal(got[:4], []string{first, second, out.Head.Snapshot, fourth.Head.Snapshot}) || got[len(got)-1] != forward.Head.Snapshot {
		t.Errorf("line %v", got)
	}
	b := newServer(t, st, "b", fastDir(t)+"/other")
	b.opt = func(o *Options) { o.Tree.Paths = []string{a.state} }
	if err := os.RemoveAll(a.state); err != nil {
		t.Fatal(err)
	}
	b.start().waitStarted()
	a.want("f", "new")
	a.want("more", "x")
	// What diverged can be made the volume's state too.
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	mustRollBack(t, openVolume(t, st), stats.Diverged[0])
	if _, sn, err := v.Latest(t.Context()); err != nil || slices.Contains(sn.Tags, "diverged") || !slices.Contains(sn.Tags, "rollback:"+stats.Diverged[0][:8]) {
		t.Errorf("%+v, %v", sn, err)
	}
	if got := count(t, st, "locks/"); got != 0 {
		t.Errorf("%d locks are left", got)
	}
}

// Most of the files may go: it was asked for.
func TestRollbackMayShrink(t *testing.T) {
	t.Parallel()
	v, dir := openVolume(t, newStore(t)), fastDir(t)+"/state"
	writeFile(t, dir+"/one", "x")
	first := mustCommit(t, v, snapshotOptions(dir))
	for i := range 120 {
		writeFile(t, fmt.Sprintf("%s/%d", dir, i), "x")
	}
	mustCommit(t, v, snapshotOptions(dir))
	if out := mustRollBack(t, v, first.Head.Snapshot); out.Capture.Files != 1 {
		t.Errorf("%+v", out)
	}
}

func TestRollbackToWhatIs(t *testing.T) {
	t.Parallel()
	v, dir := openVolume(t, newStore(t)), fastDir(t)+"/state"
	writeFile(t, dir+"/one", "x")
	first := mustCommit(t, v, snapshotOptions(dir))
	out := mustRollBack(t, v, first.Head.Snapshot)
	if !out.Capture.Unchanged || out.Head.Seq != 1 || len(line(t, v)) != 1 {
		t.Errorf("%+v", out)
	}
}

func TestRollbackToOtherPaths(t *testing.T) {
	t.Parallel()
	v, dir := openVolume(t, newStore(t)), fastDir(t)
	writeFile(t, dir+"/a/f", "x")
	writeFile(t, dir+"/b/f", "x")
	first := mustCommit(t, v, snapshotOptions(dir+"/a"))
	opt := snapshotOptions(dir + "/b")
	opt.Tree.ReplacePaths = true
	mustCommit(t, v, opt)
	if _, err := rollback(t, v, first.Head.Snapshot); !errors.Is(err, ErrPaths) || !strings.Contains(err.Error(), dir+"/a") {
		t.Errorf("%v, want ErrPaths", err)
	}
	out, err := rollback(t, v, first.Head.Snapshot, func(o *Options) { o.Tree.ReplacePaths = true })
	if err != nil || !slices.Equal(out.Head.Paths, []string{dir + "/a"}) {
		t.Errorf("%+v, %v", out.Head, err)
	}
}

// The way out where the head's own snapshot object was removed.
func TestRollbackWithoutTheHeadsSnapshot(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	v, dir := openVolume(t, st), fastDir(t)+"/state"
	writeFile(t, dir+"/f", "1")
	first := mustCommit(t, v, snapshotOptions(dir))
	writeFile(t, dir+"/f", "2")
	second := mustCommit(t, v, snapshotOptions(dir))
	if err := st.Delete(t.Context(), "snapshots/"+second.Head.Snapshot); err != nil {
		t.Fatal(err)
	}
	if _, _, err := v.Latest(t.Context()); !errors.Is(err, ErrNoSnapshot) {
		t.Fatal(err)
	}
	out := mustRollBack(t, v, first.Head.Snapshot)
	if got := line(t, v); !slices.Equal(got, []string{first.Head.Snapshot, out.Head.Snapshot}) {
		t.Errorf("line %v", got)
	}
}

// A snapshot that cannot be restored never becomes the head's.
func TestRollbackToWhatIsLost(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	v, dir := openVolume(t, st), fastDir(t)+"/state"
	writeFile(t, dir+"/sub/f", "1")
	first := mustCommit(t, v, snapshotOptions(dir))
	before := keys(t, st, "data/")
	writeFile(t, dir+"/sub/f", "2")
	second := mustCommit(t, v, snapshotOptions(dir))
	for _, key := range before {
		data, _, err := st.Get(t.Context(), key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if _, err := rollback(t, openVolume(t, st), first.Head.Snapshot); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "/") {
			t.Errorf("without %s: %v, want ErrIncomplete", key, err)
		}
		if seen, err := v.ReadHead(t.Context()); err != nil || seen.Head.Snapshot != second.Head.Snapshot {
			t.Errorf("without %s: head %+v, %v", key, seen.Head, err)
		}
		if err := st.Put(t.Context(), key, data); err != nil {
			t.Fatal(err)
		}
	}
	mustRollBack(t, openVolume(t, st), first.Head.Snapshot)
}

func keys(t *testing.T, st objstore.Store, prefix string) (all []string) {
	t.Helper()
	if err := st.List(t.Context(), prefix, func(i objstore.Info) error {
		all = append(all, i.Key)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// What is only in packs that are about to go is stored anew, and outlives them.
func TestRollbackOutlivesCondemnedPacks(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	v, dir := openVolume(t, st), fastDir(t)+"/state"
	writeFile(t, dir+"/f", "1")
	first := mustCommit(t, v, snapshotOptions(dir))
	var condemned []string
	for _, key := range keys(t, st, "data/") {
		condemned = append(condemned, filepath.Base(key))
	}
	writeFile(t, dir+"/f", "2")
	second := mustCommit(t, v, snapshotOptions(dir))
	err := v.Claim(t.Context(), sessionOptions("pruner"), func(ctx context.Context, s *Session) error {
		seen, err := v.ReadHead(ctx)
		if err != nil {
			return err
		}
		return s.Condemn(ctx, seen.Head, condemned)
	})
	if err != nil {
		t.Fatal(err)
	}
	out := mustRollBack(t, openVolume(t, st), first.Head.Snapshot)
	// Only the new one is to be whole: the others would go with their packs.
	for _, id := range []string{first.Head.Snapshot, second.Head.Snapshot} {
		if err := st.Delete(t.Context(), "snapshots/"+id); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range condemned {
		if err := st.Delete(t.Context(), "data/"+p[:2]+"/"+p); err != nil {
			t.Fatal(err)
		}
	}
	if got := inSnapshot(t, openVolume(t, st), out.Head.Snapshot, dir+"/f"); got != "1" {
		t.Errorf("restored %q", got)
	}
}

// A rollback dies at each of its calls in turn: the head is the one or the other, all
// is whole, and the next one succeeds.
func TestRollbackThatDies(t *testing.T) {
	t.Parallel()
	prepare := func(t *testing.T) (st objstore.Store, first, second string) {
		st = newStore(t)
		v, dir := openVolume(t, st), fastDir(t)+"/state"
		writeFile(t, dir+"/f", "1")
		first = mustCommit(t, v, snapshotOptions(dir)).Head.Snapshot
		writeFile(t, dir+"/f", "2")
		return st, first, mustCommit(t, v, snapshotOptions(dir)).Head.Snapshot
	}
	st, first, _ := prepare(t)
	clean := faulty.New(st, nil)
	v := openVolume(t, clean)
	skip := len(clean.Calls())
	mustRollBack(t, v, first)
	for n := skip + 1; n <= len(clean.Calls()); n++ {
		for after := range 2 {
			t.Run(fmt.Sprintf("%d-%d", n, after), func(t *testing.T) {
				t.Parallel()
				st, first, second := prepare(t)
				dieAt(t, st, n, after == 1, func(ctx context.Context, v *Volume) {
					id, _ := format.ParseID(first)
					_, _ = v.Rollback(ctx, sessionOptions("command"), id)
				})
				v := openVolume(t, st)
				removeLocks(t, v) // of the dead one: by hand, as a person would
				seen, err := v.ReadHead(t.Context())
				if err != nil || seen.Head.Snapshot != second && (seen.Head.Seq != 3 || line(t, v)[2] != seen.Head.Snapshot) {
					t.Fatalf("head %+v, %v", seen.Head, err)
				}
				out := mustRollBack(t, v, first)
				if out.Head.Seq != 3 {
					t.Errorf("head %+v", out.Head)
				}
				report, err := v.Repo.Check(t.Context(), repo.CheckOptions{ReadData: true})
				if err != nil || len(report.Problems) != 0 {
					t.Errorf("%+v, %v", report, err)
				}
			})
		}
	}
}

// dieAt opens the volume and calls f in a process that dies at its n-th call of st,
// before or after that took effect.
func dieAt(t *testing.T, st objstore.Store, n int, after bool, f func(ctx context.Context, v *Volume)) {
	t.Helper()
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	var mu sync.Mutex
	dead := false
	view := faulty.New(st, func(c faulty.Call) faulty.Fault {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case dead:
			return faulty.Fault{Before: errDead}
		case c.N != n:
			return faulty.Fault{}
		}
		dead = true
		kill()
		if after {
			return faulty.Fault{After: errDead}
		}
		return faulty.Fault{Before: errDead}
	})
	if v, _, err := Open(ctx, view, OpenOptions{Name: "data", Password: password}); err == nil {
		f(ctx, v)
	}
}
