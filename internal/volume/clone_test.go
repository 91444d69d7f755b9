package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/mem"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/fstest"
	"drover/internal/repo/trees"
	"drover/internal/volume/protocol"
)

const clonePassword = "another horse"

// begun is a place where a clone has just begun, with a key that is derived quickly.
func begun(t *testing.T) *mem.Store {
	t.Helper()
	data, err := cheapBirth()
	fstest.Must(t, err)
	var b birth
	fstest.Must(t, json.Unmarshal(data, &b))
	b.Volume = "copy"
	data, err = json.Marshal(b)
	fstest.Must(t, err)
	st := mem.New()
	fstest.Must(t, st.Put(t.Context(), cloneKey, data))
	return st
}

func cloneOptions() CloneOptions {
	return CloneOptions{Name: "copy", Password: password, TTL: testTTL, Instance: "test", Log: slog.New(slog.DiscardHandler)}
}

// clone clones the newest state of v.
func clone(ctx context.Context, v *Volume, to objstore.Store) (CloneStats, error) {
	id, _, err := v.Latest(ctx)
	if err != nil {
		return CloneStats{}, err
	}
	return v.Clone(ctx, id, to, cloneOptions())
}

func openClone(t *testing.T, st objstore.Store) *Volume {
	t.Helper()
	for _, p := range []string{password, clonePassword} {
		v, _, err := Open(t.Context(), st, OpenOptions{Name: "copy", Password: p})
		if err == nil {
			return v
		}
		if !errors.Is(err, repo.ErrWrongPassword) {
			t.Fatal(err)
		}
	}
	t.Fatal("no password opens the clone")
	return nil
}

// contents reads a whole store, locks aside.
func contents(t *testing.T, st objstore.Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, key := range keys(t, st, "") {
		data, _, err := st.Get(t.Context(), key, 0, -1)
		fstest.Must(t, err)
		if !strings.HasPrefix(key, "locks/") {
			all[key] = string(data)
		}
	}
	return all
}

// wantClone fails the test unless st holds a whole volume with that one file.
func wantClone(t *testing.T, st objstore.Store, path, text string) *Volume {
	t.Helper()
	v := openClone(t, st)
	seen, err := v.ReadHead(t.Context())
	fstest.Must(t, err)
	if h := seen.Head; h.Seq != 1 || h.Epoch != 1 || h.State != protocol.Released || h.Volume != "copy" || len(line(t, v)) != 1 {
		t.Errorf("head %+v", h)
	}
	if got := inSnapshot(t, v, seen.Head.Snapshot, path); got != text {
		t.Errorf("the clone has %q, want %q", got, text)
	}
	report, err := v.Repo.Check(t.Context(), repo.CheckOptions{ReadData: true})
	if err != nil || len(report.Problems) != 0 || report.Snapshots != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	if _, err := st.Head(t.Context(), cloneKey); !errors.Is(err, objstore.ErrNotFound) {
		t.Errorf("%s is left: %v", cloneKey, err)
	}
	return v
}

// The source is only read, and may be held all the while; the clone is a volume like
// any other, with a key of its own.
func TestCloneBesideAnAgent(t *testing.T) {
	t.Parallel()
	st, to := newStore(t), mem.New()
	a := newServer(t, st, "a", fastDir(t)+"/state").start().waitStarted()
	a.write("old", "1")
	first := a.backup().Head.Snapshot
	a.write("sub/f", "2")
	a.backup()
	before := contents(t, st)
	v := openVolume(t, st)
	own := cloneOptions()
	own.Password = clonePassword
	id, _, err := v.Latest(t.Context())
	fstest.Must(t, err)
	stats, err := v.Clone(t.Context(), id, to, own)
	fstest.Must(t, err)
	after := contents(t, st)
	delete(before, headKey) // the agent may renew it
	delete(after, headKey)
	if len(before) != len(after) {
		t.Errorf("the source had %d objects and has %d", len(before), len(after))
	}
	for key := range before {
		if after[key] != before[key] {
			t.Errorf("%s of the source changed", key)
		}
	}
	c := wantClone(t, to, a.state+"/sub/f", "2")
	if c.Repo.ID() == v.Repo.ID() {
		t.Error("the clone's repository is the source's")
	}
	if c.Repo.Config().ChunkerPolynomial != v.Repo.Config().ChunkerPolynomial {
		t.Error("the clone cuts files elsewhere than the source")
	}
	if _, _, err := Open(t.Context(), to, OpenOptions{Name: "copy", Password: password}); !errors.Is(err, repo.ErrWrongPassword) {
		t.Errorf("with the source's password: %v", err)
	}
	_, sn, err := c.Latest(t.Context())
	fstest.Must(t, err)
	_, old, err := v.Latest(t.Context())
	fstest.Must(t, err)
	if !sn.Time.Equal(old.Time) || !slices.Equal(sn.Paths, old.Paths) || sn.Hostname != old.Hostname || sn.Parent != nil ||
		!slices.Contains(sn.Tags, "epoch:1") || stats.Snapshot == "" || stats.Stored == 0 {
		t.Errorf("%+v of %+v; %+v", sn, old, stats)
	}

	// An agent goes on from the clone, elsewhere.
	other := fastDir(t) + "/state"
	writeFile(t, other+"/f", "x")
	opt := snapshotOptions(other)
	opt.Protocol.Volume = "copy"
	_, err = commit(t, c, opt)
	if !errors.Is(err, ErrPaths) {
		t.Errorf("other paths on the clone: %v", err)
	}
	a.crash()
	a.write("sub/f", "3")
	opt.Tree.Paths = []string{a.state}
	out := mustCommit(t, c, opt)
	if out.Head.Seq != 2 || out.Head.Epoch < 2 || len(line(t, c)) != 2 {
		t.Errorf("%+v", out.Head)
	}
	// An older one may be cloned as well.
	id, err = format.ParseID(first)
	fstest.Must(t, err)
	to = begun(t)
	_, err = v.Clone(t.Context(), id, to, cloneOptions())
	fstest.Must(t, err)
	wantClone(t, to, a.state+"/old", "1")
}

// cloneable makes a volume with some files.
func cloneable(t *testing.T) (v *Volume, st *mem.Store, file string) {
	t.Helper()
	st = newStore(t)
	v = openVolume(t, st)
	dir := fastDir(t) + "/state"
	for i := range 30 {
		writeFile(t, fmt.Sprintf("%s/%d/f", dir, i), fmt.Sprint(i))
	}
	mustCommit(t, v, snapshotOptions(dir))
	return v, st, dir + "/7/f"
}

// Nothing is ever written where something is already.
func TestCloneNeedsAnEmptyPlace(t *testing.T) {
	t.Parallel()
	v, _, file := cloneable(t)
	full := begun(t)
	_, err := clone(t.Context(), v, full)
	fstest.Must(t, err)
	fresh := newStore(t)
	openVolume(t, fresh)
	foreign, other := mem.New(), mem.New()
	fstest.Must(t, foreign.Put(t.Context(), "config", []byte("x")), other.Put(t.Context(), "notes.txt", []byte("x")))
	headless := newStore(t)
	openVolume(t, headless)
	fstest.Must(t, headless.Delete(t.Context(), headKey))
	for want, st := range map[string]objstore.Store{
		`volume "copy" is there already`: full, `volume "copy" is there already:`: fresh,
		"there is config,": foreign, "there is notes.txt,": other, "needs a place without objects": headless,
	} {
		before := contents(t, st)
		if _, err := clone(t.Context(), v, st); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if after := contents(t, st); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("%s: the store was changed", want)
		}
	}
	wantClone(t, full, file, "7")
}

// A source that lacks a blob is no clone: the path is named, and there is no head.
func TestCloneOfWhatIsLost(t *testing.T) {
	t.Parallel()
	_, st, _ := cloneable(t)
	for _, key := range keys(t, st, "data/") {
		data, _, err := st.Get(t.Context(), key, 0, -1)
		fstest.Must(t, err)
		for what, bad := range map[string][]byte{"gone": nil, "damaged": append(bytes.Repeat([]byte{7}, 200), data[200:]...)} {
			fstest.Must(t, st.Delete(t.Context(), key))
			if bad != nil {
				fstest.Must(t, st.Put(t.Context(), key, bad))
			}
			to := begun(t)
			if _, err := clone(t.Context(), openVolume(t, st), to); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "/") {
				t.Errorf("%s %s: %v", key, what, err)
			}
			if _, err := to.Head(t.Context(), headKey); !errors.Is(err, objstore.ErrNotFound) {
				t.Errorf("%s %s: a head is there: %v", key, what, err)
			}
			fstest.Must(t, st.Put(t.Context(), key, data))
		}
	}
}

// A clone dies at each of its calls of the new place in turn: there is no head, and an
// agent refuses to begin there, or the clone is whole; the next one makes it so.
func TestCloneThatDies(t *testing.T) {
	t.Parallel()
	v, _, file := cloneable(t)
	const first = 4 // calls that end with the one which begins a clone
	clean := faulty.New(begun(t), nil)
	_, err := clone(t.Context(), v, clean)
	fstest.Must(t, err)
	for n := 1; n <= first+len(clean.Calls()); n++ {
		for after := range 2 {
			t.Run(fmt.Sprintf("%d-%d", n, after), func(t *testing.T) {
				t.Parallel()
				st, call := mem.New(), n
				if n > first {
					st, call = begun(t), n-first
				}
				dieCloning(t, v, st, call, after == 1)
				if _, err := st.Head(t.Context(), headKey); err == nil { // whole, if perhaps not tidied up
					openClone(t, st)
					return
				}
				if n > first {
					wantHalfClone(t, v, st)
				}
				_, err := clone(t.Context(), v, st)
				fstest.Must(t, err)
				wantClone(t, st, file, "7")
			})
		}
	}
}

// wantHalfClone fails the test unless nobody but a clone goes on there.
func wantHalfClone(t *testing.T, v *Volume, st objstore.Store) {
	t.Helper()
	if len(keys(t, st, "keys/")) == 0 {
		return // nothing but the mark of a clone: the place is as good as empty
	}
	if _, _, err := Open(t.Context(), st, OpenOptions{Name: "copy", Password: password, Create: true}); !errors.Is(err, ErrForeign) {
		t.Errorf("an agent on a half clone: %v", err)
	}
	opt := cloneOptions()
	opt.Password = "third horse"
	id, _, err := v.Latest(t.Context())
	fstest.Must(t, err)
	if _, err := v.Clone(t.Context(), id, st, opt); !errors.Is(err, repo.ErrWrongPassword) || !strings.Contains(err.Error(), "begin anew") {
		t.Errorf("with another password: %v", err)
	}
}

func dieCloning(t *testing.T, v *Volume, st objstore.Store, n int, after bool) {
	t.Helper()
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	var mu sync.Mutex
	dead := false
	_, _ = clone(ctx, v, faulty.New(st, func(c faulty.Call) faulty.Fault {
		mu.Lock()
		defer mu.Unlock()
		if !dead && c.N != n {
			return faulty.Fault{}
		}
		first := !dead
		dead = true
		kill()
		if first && after {
			return faulty.Fault{After: errDead}
		}
		return faulty.Fault{Before: errDead}
	}))
}

// Of clones that race for one place exactly one has made a volume.
func TestClonesRace(t *testing.T) {
	t.Parallel()
	v, _, file := cloneable(t)
	for round := range 5 {
		st := begun(t)
		if round == 0 {
			st = mem.New()
		}
		errs := make(chan error, 4)
		for range cap(errs) {
			go func() {
				_, err := clone(t.Context(), openVolume(t, v.st), st)
				errs <- err
			}()
		}
		won := 0
		for range cap(errs) {
			if err := <-errs; err == nil {
				won++
			}
		}
		if won != 1 {
			t.Errorf("%d clones succeeded", won)
		}
		c := openClone(t, st)
		_, sn, err := c.Latest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(sn.Tags, "instance:test") {
			t.Errorf("%+v", sn)
		}
		if got := inSnapshot(t, c, line(t, c)[0], file); got != "7" {
			t.Errorf("the clone has %q", got)
		}
	}
}

// A head whose answer is lost is read back; none is written twice.
func TestClonedHeadIsReadBack(t *testing.T) {
	t.Parallel()
	v, _, file := cloneable(t)
	st := begun(t)
	puts := 0
	view := faulty.New(st, func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.PutIf && c.Key == headKey {
			puts++
			return faulty.Fault{After: objstore.ErrUnavailable}
		}
		return faulty.Fault{}
	})
	if _, err := clone(t.Context(), v, view); err != nil || puts != 1 {
		t.Fatalf("%d puts, %v", puts, err)
	}
	wantClone(t, st, file, "7")
	// One that takes effect only later is no success, and no harm.
	late := begun(t)
	slow := faulty.New(late, func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.PutIf && c.Key == headKey {
			return faulty.Fault{Late: objstore.ErrUnavailable}
		}
		return faulty.Fault{}
	})
	if _, err := clone(t.Context(), v, slow); !errors.Is(err, objstore.ErrUnavailable) || !strings.Contains(err.Error(), "goes on from here") {
		t.Errorf("a late head: %v", err)
	}
	_, err := clone(t.Context(), v, late)
	fstest.Must(t, err)
	wantClone(t, late, file, "7")
}

// What a clone notes before it reads is bounded.
func TestCopyIsBounded(t *testing.T) {
	t.Parallel()
	v, dir := openVolume(t, newStore(t)), fastDir(t)+"/state"
	for i := range 100 {
		writeFile(t, fmt.Sprintf("%s/%d", dir, i), fmt.Sprint(i))
	}
	mustCommit(t, v, snapshotOptions(dir))
	_, sn, err := v.Latest(t.Context())
	fstest.Must(t, err)
	to := openVolume(t, newStore(t))
	c := copier{from: v.Repo, to: to.Repo, w: to.Repo.NewWriter(t.Context(), repo.WriterOptions{}), most: 7}
	defer c.w.Abort()
	c.begin()
	fstest.Must(t, trees.Walk(t.Context(), v.Repo, *sn.Tree, trees.Visitor{Entry: func(path string, n *format.Node) error {
		err := c.entry(t.Context(), path, n)
		if len(c.paths) >= 7 {
			t.Errorf("%d blobs are noted after %s", len(c.paths), path)
		}
		return err
	}}))
}
