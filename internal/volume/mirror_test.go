package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/mem"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/fstest"
	"drover/internal/volume/protocol"
)

// grown is a source with a history of n commits of one file, each with its own text.
type grown struct {
	t    *testing.T
	st   *mem.Store
	v    *Volume
	dir  string
	made int
}

func grow(t *testing.T, n int) *grown {
	t.Helper()
	g := &grown{t: t, st: newStore(t), dir: fastDir(t) + "/state"}
	g.v = openVolume(t, g.st)
	for i := range 12 {
		writeFile(t, fmt.Sprintf("%s/%d/%d/still", g.dir, i%3, i), fmt.Sprintf("still %d", i))
	}
	g.more(n)
	return g
}

func (g *grown) more(n int) {
	g.t.Helper()
	for range n {
		g.made++
		writeFile(g.t, g.dir+"/sub/f", fmt.Sprint(g.made))
		mustCommit(g.t, g.v, snapshotOptions(g.dir))
	}
}

func mirrorTo(t *testing.T, g *grown, st objstore.Store) *Mirror {
	t.Helper()
	to := openVolume(t, st)
	return NewMirror(openVolume(t, g.st), to, MirrorOptions{Instance: "m", TTL: testTTL})
}

// wantCopy fails the test unless st has the last n states of the source in order, whole.
func (g *grown) wantCopy(st objstore.Store, n int) *Volume {
	g.t.Helper()
	v := openVolume(g.t, st)
	ids := line(g.t, v) // newest first
	if len(ids) != n {
		g.t.Fatalf("%d snapshots, want %d", len(ids), n)
	}
	for i, id := range ids {
		if got := inSnapshot(g.t, v, id, g.dir+"/sub/f"); got != fmt.Sprint(g.made-i) && got != fmt.Sprint(g.made-n+1+i) {
			g.t.Errorf("snapshot %d has %q", i, got)
		}
	}
	seen, err := v.ReadHead(g.t.Context())
	fstest.Must(g.t, err)
	if got := inSnapshot(g.t, v, seen.Head.Snapshot, g.dir+"/sub/f"); got != fmt.Sprint(g.made) || seen.Head.State != protocol.Released {
		g.t.Errorf("the newest has %q, want %d; %+v", got, g.made, seen.Head)
	}
	report, err := v.Repo.Check(g.t.Context(), repo.CheckOptions{ReadData: true})
	if err != nil || len(report.Problems) != 0 || report.Snapshots != n {
		g.t.Errorf("%+v, %v, want %d snapshots", report, err, n)
	}
	return v
}

// All of the history arrives, in order; then only what is new, of which little is read;
// the source is not written to.
func TestMirror(t *testing.T) {
	t.Parallel()
	g, st := grow(t, 3), newStore(t)
	before := fmt.Sprint(contents(t, g.st))
	m := mirrorTo(t, g, st)
	var order []uint64
	m.opt.Copied = func(seq uint64) { order = append(order, seq) }
	res, err := m.Sync(t.Context(), nil)
	if err != nil || res.Copied != 3 || res.Seq != 3 || res.Behind != 0 || fmt.Sprint(order) != "[1 2 3]" {
		t.Fatalf("%+v, %v, %v", res, err, order)
	}
	if fmt.Sprint(contents(t, g.st)) != before || len(keys(t, g.st, "locks/")) != 0 || len(keys(t, st, "locks/")) != 0 {
		t.Error("the source was changed, or locks are left")
	}
	g.wantCopy(st, 3)
	res, err = m.Sync(t.Context(), nil)
	if err != nil || res.Copied != 0 || res.Behind != 0 {
		t.Errorf("nothing new: %+v, %v", res, err)
	}
	g.more(1)
	again := mirrorTo(t, g, st) // of another process
	res, err = again.Sync(t.Context(), nil)
	if err != nil || res.Copied != 1 || res.Seq != 4 {
		t.Fatalf("%+v, %v", res, err)
	}
	g.wantCopy(st, 4)
}

// What unchanged directories hold is not read again.
func TestMirrorReadsWhatChanged(t *testing.T) {
	t.Parallel()
	g, st := grow(t, 1), newStore(t)
	_, err := mirrorTo(t, g, st).Sync(t.Context(), nil)
	fstest.Must(t, err)
	g.more(1)
	from, to := openVolume(t, g.st), openVolume(t, st)
	fstest.Must(t, loadIndexes(t.Context(), from, to))
	_, sn, err := from.Latest(t.Context())
	fstest.Must(t, err)
	_, base, err := to.Latest(t.Context())
	fstest.Must(t, err)
	told := map[string]int{}
	for _, b := range []*format.ID{nil, base.Tree} {
		_, err := from.copyTo(t.Context(), to, sn, sn, copyOptions{base: b, tell: func(path string, _ uint64) { told[path]++ }})
		fstest.Must(t, err)
	}
	for path, n := range told {
		if strings.HasSuffix(path, "/still") && n != 1 {
			t.Errorf("%s was read %d times", path, n)
		}
	}
	if told[g.dir+"/sub/f"] != 2 {
		t.Errorf("%v", told)
	}
}

// Whoever has claimed and committed in the copy has it: nothing is written there any
// more. A claim that ended without a commit, such as a prune's, is none.
func TestMirrorNeverForks(t *testing.T) {
	t.Parallel()
	g, st := grow(t, 2), newStore(t)
	m := mirrorTo(t, g, st)
	_, err := m.Sync(t.Context(), nil)
	fstest.Must(t, err)
	prune := func(ctx context.Context, s *Session) error { _, err := s.Prune(ctx, repo.PruneOptions{}); return err }
	fstest.Must(t, openVolume(t, st).Claim(t.Context(), sessionOptions("prune"), prune))
	g.more(1)
	if res, err := m.Sync(t.Context(), nil); err != nil || res.Copied != 1 {
		t.Fatalf("after a prune: %+v, %v", res, err)
	}
	g.wantCopy(st, 3)

	g.more(1)
	before := ""
	err = openVolume(t, st).Claim(t.Context(), sessionOptions("other"), func(context.Context, *Session) error {
		before = fmt.Sprint(keys(t, st, "snapshots/"))
		if _, err := m.Sync(t.Context(), nil); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), `"other"`) {
			t.Errorf("while it is held: %v", err)
		}
		return nil
	})
	fstest.Must(t, err)
	if after := fmt.Sprint(keys(t, st, "snapshots/")); after != before {
		t.Errorf("written while held: %s, %s", before, after)
	}
	// Somebody goes on here after all.
	opt := snapshotOptions(g.dir)
	writeFile(t, g.dir+"/sub/f", "there")
	mustCommit(t, openVolume(t, st), opt)
	all := fmt.Sprint(contents(t, st))
	for _, m := range []*Mirror{m, mirrorTo(t, g, st)} {
		if res, err := m.Sync(t.Context(), nil); !errors.Is(err, ErrForked) || res.Copied != 0 || !strings.Contains(err.Error(), "somebody else has committed") {
			t.Errorf("%+v, %v", res, err)
		}
	}
	if fmt.Sprint(contents(t, st)) != all {
		t.Error("the other's volume was written to")
	}
}

// A source that is another one, or went back, is not copied.
func TestMirrorOfAnotherHistory(t *testing.T) {
	t.Parallel()
	g, st := grow(t, 2), newStore(t)
	old, _, err := g.st.Get(t.Context(), headKey, 0, -1)
	fstest.Must(t, err)
	g.more(1)
	_, err = mirrorTo(t, g, st).Sync(t.Context(), nil)
	fstest.Must(t, err)
	before := fmt.Sprint(contents(t, st))
	fstest.Must(t, g.st.Put(t.Context(), headKey, old)) // put back by somebody
	if _, err := mirrorTo(t, g, st).Sync(t.Context(), nil); !errors.Is(err, ErrForked) || !strings.Contains(err.Error(), "went back") {
		t.Errorf("a source that went back: %v", err)
	}
	g.more(2)
	if _, err := mirrorTo(t, g, st).Sync(t.Context(), nil); !errors.Is(err, ErrForked) || !strings.Contains(err.Error(), "seq 3") {
		t.Errorf("a source that went back and on: %v", err)
	}
	other := newStoreOfItsOwn(t)
	dir := fastDir(t) + "/state"
	writeFile(t, dir+"/f", "x")
	ov, _, err := Open(t.Context(), other, OpenOptions{Name: "data", Password: "other"})
	fstest.Must(t, err)
	mustCommit(t, ov, snapshotOptions(dir))
	if _, err := NewMirror(ov, openVolume(t, st), MirrorOptions{Instance: "m", TTL: testTTL}).Sync(t.Context(), nil); !errors.Is(err, ErrForked) || !strings.Contains(err.Error(), "another repository") {
		t.Errorf("another source: %v", err)
	}
	if fmt.Sprint(contents(t, st)) != before {
		t.Error("the copy was written to")
	}
}

func newStoreOfItsOwn(t *testing.T) *mem.Store {
	t.Helper()
	st := mem.New()
	_, _, err := Open(t.Context(), st, OpenOptions{Name: "data", Password: "other", Create: true})
	fstest.Must(t, err)
	return st
}

// A copier sleeps before each of its writes of the head while another one, of the next
// holder, copies newer states: the sleeper's older one never lands upon them.
func TestMirrorOfAPausedHolder(t *testing.T) {
	t.Parallel()
	g, st := grow(t, 2), newStore(t)
	openVolume(t, st)
	slept := false
	sleepy := faulty.New(st, func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.PutIf && c.Key == headKey && !slept {
			slept = true
			g.more(2)
			if res, err := mirrorTo(t, g, st).Sync(t.Context(), nil); err != nil || res.Seq != 4 {
				t.Errorf("%+v, %v", res, err)
			}
		}
		return faulty.Fault{}
	})
	m := mirrorTo(t, g, sleepy)
	if res, err := m.Sync(t.Context(), nil); err == nil || !slept {
		t.Errorf("the sleeper's head landed: %+v", res)
	}
	v := openVolume(t, st)
	seen, err := v.ReadHead(t.Context())
	fstest.Must(t, err)
	if got := inSnapshot(t, v, seen.Head.Snapshot, g.dir+"/sub/f"); got != "4" || seen.Head.Seq != 4 {
		t.Errorf("the copy went back to %q", got)
	}
	_, err = m.Sync(t.Context(), nil) // tidies up
	fstest.Must(t, err)
	g.wantCopy(st, 4)
}

// A copy dies, or gets no answer, at each of its calls of either store in turn; the next
// process goes on, and nothing is twice there.
func TestMirrorThatDies(t *testing.T) {
	t.Parallel()
	g := grow(t, 2)
	clean := faulty.New(newStore(t), nil)
	openVolume(t, clean)
	skip := len(clean.Calls())
	cleanFrom := faulty.New(g.st, nil)
	_, err := NewMirror(openVolume(t, cleanFrom), openVolume(t, clean), MirrorOptions{Instance: "m", TTL: testTTL}).Sync(t.Context(), nil)
	fstest.Must(t, err)
	for n := skip + 1; n <= len(clean.Calls()); n++ {
		for _, how := range []string{"before", "after", "late", "lost"} {
			t.Run(fmt.Sprintf("%d-%s", n, how), func(t *testing.T) {
				t.Parallel()
				st := newStore(t)
				dieMirroring(t, g, g.st, st, st, n, how)
				finish(t, g, st)
			})
		}
	}
	for n := 1; n <= len(cleanFrom.Calls()); n++ {
		t.Run(fmt.Sprintf("source-%d", n), func(t *testing.T) {
			t.Parallel()
			st := newStore(t)
			dieMirroring(t, g, g.st, st, nil, n, "before")
			finish(t, g, st)
		})
	}
}

func finish(t *testing.T, g *grown, st objstore.Store) {
	t.Helper()
	m := mirrorTo(t, g, st)
	_, err := m.Sync(t.Context(), nil)
	fstest.Must(t, err)
	sub := *g
	sub.t = t
	sub.wantCopy(st, g.made)
}

// dieMirroring copies in a process that fails at the n-th call of the store faulted: the
// copy's, or the source's. "lost" and "late" are answers that are lost, after which the
// process lives on and tries again.
func dieMirroring(t *testing.T, g *grown, from, to, faulted objstore.Store, n int, how string) {
	t.Helper()
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	d := &dying{n: n, how: how, kill: kill}
	script := d.fault
	source, target := from, to
	if faulted == nil {
		source = faulty.New(from, script)
	} else {
		target = faulty.New(to, script)
	}
	fv, _, err := Open(ctx, source, OpenOptions{Name: "data", Password: password})
	if err != nil {
		return
	}
	tv, _, err := Open(ctx, target, OpenOptions{Name: "data", Password: password})
	if err != nil {
		return
	}
	m := NewMirror(fv, tv, MirrorOptions{Instance: "m", TTL: testTTL})
	for range 3 {
		if _, err = m.Sync(ctx, nil); err == nil {
			return
		}
	}
}

// dying is a process that fails at the n-th call of a store.
type dying struct {
	how  string // before, after: it dies; late, lost: it lives on without the answer
	kill func()

	mu   sync.Mutex
	n    int // 0: at none yet
	dead bool
}

func (d *dying) at(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n = n
}

func (d *dying) fault(c faulty.Call) faulty.Fault {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := !d.dead && c.N == d.n
	lives := d.how == "lost" || d.how == "late"
	switch {
	case first && d.how == "lost":
		return faulty.Fault{After: objstore.ErrUnavailable}
	case first && d.how == "late":
		return faulty.Fault{Late: objstore.ErrUnavailable}
	case first || d.dead:
		d.dead = !lives
		d.kill()
		if first && d.how == "after" {
			return faulty.Fault{After: errDead}
		}
		return faulty.Fault{Before: errDead}
	}
	return faulty.Fault{}
}

// Snapshots that are pruned while they wait to be copied, or have lost data, hold nothing up.
func TestMirrorOfWhatIsGone(t *testing.T) {
	t.Parallel()
	g, st := grow(t, 1), newStore(t)
	m := mirrorTo(t, g, st)
	_, err := m.Sync(t.Context(), nil)
	fstest.Must(t, err)
	g.more(2)
	ids := line(t, g.v)
	second, err := format.ParseID(ids[1])
	fstest.Must(t, err)
	fstest.Must(t, g.v.Repo.RemoveSnapshot(t.Context(), second))
	res, err := m.Sync(t.Context(), nil)
	if err != nil || res.Copied != 1 || res.Seq != 3 {
		t.Fatalf("%+v, %v", res, err)
	}
	// Of two more the older one loses a file's only copy: the first time that is an error.
	g.more(2)
	h := format.Handle{Type: format.DataBlob, ID: format.Hash([]byte("4"))}
	fstest.Must(t, g.v.Repo.LoadIndex(t.Context()))
	at, ok := g.v.Repo.Lookup(h)
	if !ok {
		t.Fatal("the blob is not known")
	}
	fstest.Must(t, g.st.Delete(t.Context(), format.DataFile.Key(at[0].Pack)))
	if res, err = m.Sync(t.Context(), nil); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "/sub/f") || res.Behind != 2 {
		t.Errorf("%+v, %v", res, err)
	}
	if res, err = m.Sync(t.Context(), nil); err != nil || res.Seq != 5 || len(res.Skipped) != 1 || res.Behind != 0 {
		t.Errorf("%+v, %v", res, err)
	}
}
