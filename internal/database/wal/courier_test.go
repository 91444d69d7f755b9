package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
)

// The archiver asks for one after the other; the store is asked for several at once, and
// never for one twice.
func TestStoreAhead(t *testing.T) {
	st := newStore(t)
	view := faulty.New(st, nil)
	dir := newDirectory(t, 1, 30)
	c := carry(t, open(t, view), dir)
	for n := uint64(1); n <= 30; n++ {
		if err := c.Store(t.Context(), at(dir, segment(n))); err != nil {
			t.Fatal(err)
		}
		if _, err := open(t, st).Fetch(t.Context(), segment(n)); err != nil {
			t.Fatalf("acknowledged, and not stored: %v", err)
		}
		archived(t, dir, segment(n))
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(view.Calls()); n != 30 {
		t.Errorf("%d calls of the store for 30 segments", n)
	}
	if len(c.push.going)+len(c.push.done) != 0 {
		t.Errorf("it remembers %v, %v", c.push.going, c.push.done)
	}
}

func TestStoreAheadIsParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := make(chan string, 100)
		view := faulty.New(newStore(t), func(c faulty.Call) faulty.Fault {
			if c.Op != faulty.PutIf {
				return faulty.Fault{}
			}
			begun <- c.Key
			return faulty.Fault{Hang: true}
		})
		dir := newDirectory(t, 1, 30)
		c := NewCourier(open(t, view), CourierOptions{Directory: dir})
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() { _ = c.Store(ctx, at(dir, segment(1))) })
		synctest.Wait()
		if n := len(begun); n != 1+abreast {
			t.Errorf("%d are on their way, want the one that was asked for and %d", n, abreast)
		}
		cancel()
		group.Wait()
		_ = c.Close()
	})
}

// A segment of the same name with another content is not taken for the one that was stored ahead.
func TestStoreAheadOfAnotherContent(t *testing.T) {
	st := newStore(t)
	dir := newDirectory(t, 1, 2)
	c := carry(t, open(t, st), dir)
	if err := c.Store(t.Context(), at(dir, segment(1))); err != nil {
		t.Fatal(err)
	}
	c.group.Wait()
	if _, err := open(t, st).Fetch(t.Context(), segment(2)); err != nil {
		t.Fatalf("the next one was not stored ahead: %v", err)
	}
	write(t, dir, segment(2), content(segment(2), 99))
	if err := c.Store(t.Context(), at(dir, segment(2))); !errors.Is(err, ErrConflict) {
		t.Errorf("another content: %v, want ErrConflict", err)
	}
}

// What failed ahead is tried, and its failure told, when it is asked for.
func TestStoreAheadFails(t *testing.T) {
	lost := fmt.Errorf("lost: %w", objstore.ErrUnavailable)
	st := newStore(t)
	bad := true
	var mu sync.Mutex
	view := faulty.New(st, func(c faulty.Call) faulty.Fault {
		mu.Lock()
		defer mu.Unlock()
		if bad && c.Key == "drover/log/7300000000000000001/00000001/"+segment(2).String() {
			return faulty.Fault{Before: lost}
		}
		return faulty.Fault{}
	})
	dir := newDirectory(t, 1, 3)
	c := carry(t, open(t, view), dir)
	if err := c.Store(t.Context(), at(dir, segment(1))); err != nil {
		t.Fatal(err)
	}
	if err := c.Store(t.Context(), at(dir, segment(2))); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("not stored: %v", err)
	}
	mu.Lock()
	bad = false
	mu.Unlock()
	if err := c.Store(t.Context(), at(dir, segment(2))); err != nil {
		t.Error(err)
	}
}

func TestBring(t *testing.T) {
	st := newStore(t)
	for n := uint64(1); n <= 30; n++ {
		push(t, open(t, st), segment(n), n)
	}
	view := faulty.New(st, nil)
	dir := newDirectory(t, 1, 0)
	left := filepath.Join(dir, walFolder, "drover-killed.tmp")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := carry(t, open(t, view), dir)
	to := filepath.Join(dir, walFolder, "RECOVERYXLOG")
	for n := uint64(1); n <= 30; n++ {
		if err := c.Bring(t.Context(), segment(n).String(), to); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, content(segment(n), n)) {
			t.Fatalf("segment %d is another one (%v)", n, err)
		}
	}
	if err := os.Remove(to); err != nil {
		t.Fatal(err)
	}
	if err := c.Bring(t.Context(), segment(31).String(), to); !errors.Is(err, ErrNotFound) {
		t.Errorf("the end of the log: %v", err)
	}
	if _, err := os.Lstat(to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was made of nothing: %v", err)
	}
	_ = c.Close()
	if names, _ := filepath.Glob(filepath.Join(dir, walFolder, "*")); len(names) != 1 {
		t.Errorf("left: %v", names)
	}
	gets := map[string]int{}
	for _, call := range view.Calls() {
		if call.Op == faulty.Get && call.Err == nil {
			gets[call.Key]++
		}
	}
	for key, n := range gets {
		if n != 1 {
			t.Errorf("%s was read %d times", key, n)
		}
	}
	// What appears later is found: that it was not there is not remembered.
	push(t, open(t, st), segment(31), 31)
	if err := carry(t, open(t, view), dir).Bring(t.Context(), segment(31).String(), to); err != nil {
		t.Error(err)
	}
}

// A damaged segment that was read ahead is not given out, whole or in part.
func TestBringDamaged(t *testing.T) {
	st := newStore(t)
	a := open(t, st)
	push(t, a, segment(1), 1)
	push(t, a, segment(2), 2)
	sealed, _, err := st.Get(t.Context(), a.key(segment(2)), 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	sealed[len(sealed)/2] ^= 4
	if err := st.Put(t.Context(), a.key(segment(2)), sealed); err != nil {
		t.Fatal(err)
	}
	dir := newDirectory(t, 1, 0)
	c := carry(t, a, dir)
	to := filepath.Join(dir, walFolder, "RECOVERYXLOG")
	if err := c.Bring(t.Context(), segment(1).String(), to); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(to); err != nil {
		t.Fatal(err)
	}
	if err := c.Bring(t.Context(), segment(2).String(), to); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v, want ErrDamaged", err)
	}
	if _, err := os.Lstat(to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was written all the same: %v", err)
	}
}

// Whoever may ask the agent cannot have it read or write anything else.
func TestPathsOutside(t *testing.T) {
	st := newStore(t)
	push(t, open(t, st), segment(1), 1)
	dir, other := newDirectory(t, 1, 1), newDirectory(t, 1, 1)
	c := carry(t, open(t, st), dir)
	name := segment(1).String()
	for _, path := range []string{
		at(other, segment(1)), "/etc/" + name, "pg_wal/" + name, filepath.Join(dir, name), dir + "/x/../base/" + name,
		filepath.Join(dir, readyFolder, name), "/pg_wal/" + name, "",
	} {
		if err := c.Store(t.Context(), path); !errors.Is(err, ErrPath) {
			t.Errorf("store %s: %v, want ErrPath", path, err)
		}
		if err := c.Bring(t.Context(), name, path); !errors.Is(err, ErrPath) {
			t.Errorf("bring to %s: %v, want ErrPath", path, err)
		}
	}
	for _, base := range []string{"postgresql.auto.conf", "archive_status", "RECOVERYXLOG.x", segment(2).String()} {
		if err := c.Bring(t.Context(), name, filepath.Join(dir, walFolder, base)); !errors.Is(err, ErrPath) {
			t.Errorf("bring to %s: %v, want ErrPath", base, err)
		}
	}
	for _, text := range []string{"../../../config", "config", name + "/../../head"} {
		if err := c.Bring(t.Context(), text, filepath.Join(dir, walFolder, "RECOVERYXLOG")); !errors.Is(err, ErrName) {
			t.Errorf("bring %s: %v, want ErrName", text, err)
		}
	}
	// Links that the database's user made.
	secret := filepath.Join(other, "secret")
	if err := os.WriteFile(secret, content(segment(7), 7), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, at(dir, segment(7))); err != nil {
		t.Fatal(err)
	}
	if err := c.Store(t.Context(), at(dir, segment(7))); err == nil {
		t.Error("a file was read through a link out of the directory")
	}
	if err := unix.Mkfifo(at(dir, segment(8)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Store(t.Context(), at(dir, segment(8))); !errors.Is(err, ErrForeign) {
		t.Errorf("a pipe: %v, want ErrForeign", err)
	}
	linked := t.TempDir()
	if err := os.Symlink(filepath.Join(other, walFolder), filepath.Join(linked, walFolder)); err != nil {
		t.Fatal(err)
	}
	l := carry(t, open(t, st), linked)
	if err := l.Store(t.Context(), filepath.Join(linked, walFolder, name)); err == nil {
		t.Error("pg_wal is a link out of the directory, and was followed")
	}
	if err := l.Bring(t.Context(), name, filepath.Join(linked, walFolder, "RECOVERYXLOG")); err == nil {
		t.Error("pg_wal is a link out of the directory, and was written to")
	}
}

// A data directory may be named through a link: PostgreSQL knows it by its real name.
func TestPathThroughALink(t *testing.T) {
	dir := newDirectory(t, 1, 1)
	link := filepath.Join(t.TempDir(), "data")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	c := carry(t, open(t, newStore(t)), link)
	if err := c.Store(t.Context(), at(dir, segment(1))); err != nil {
		t.Error(err)
	}
}

func TestManyAtOnce(t *testing.T) {
	st := newStore(t)
	dir := newDirectory(t, 1, 24)
	c := carry(t, open(t, st), dir)
	var group sync.WaitGroup
	for n := uint64(1); n <= 24; n++ {
		group.Go(func() {
			if err := c.Store(t.Context(), at(dir, segment(n))); err != nil {
				t.Error(err)
			}
			if err := c.Bring(t.Context(), segment(n).String(), at(dir, segment(n))); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if err := c.Store(canceled(t), at(dir, segment(1))); err == nil {
		t.Error("a caller that has left was told that it is stored, without a look")
	}
}

// What was stored, what failed and what waits is counted.
func TestStats(t *testing.T) {
	dir := newDirectory(t, 1, 3)
	c := carry(t, open(t, newStore(t)), dir)
	w, err := WaitingIn(dir)
	if err != nil || w.Segments != 3 || w.Bytes == 0 || w.Since.IsZero() {
		t.Errorf("%+v waits (%v), want 3", w, err)
	}
	if err := c.Store(t.Context(), at(dir, segment(1))); err != nil {
		t.Fatal(err)
	}
	archived(t, dir, segment(1))
	if s := c.Stats(); s.Last != segment(1) || s.Stored.IsZero() || s.Failures != 0 || s.Problem != nil {
		t.Errorf("after one: %+v", s)
	}
	if w, err := WaitingIn(dir); err != nil || w.Segments != 2 {
		t.Errorf("%+v waits (%v), want 2", w, err)
	}
	if err := c.Store(t.Context(), "/nowhere/pg_wal/"+segment(2).String()); err == nil {
		t.Error("stored from nowhere")
	}
	if s := c.Stats(); s.Last != segment(1) || s.Failures != 1 || !errors.Is(s.Problem, ErrPath) {
		t.Errorf("after a failure: %+v", s)
	}
}
