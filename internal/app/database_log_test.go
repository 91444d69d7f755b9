package app

import (
	"bytes"
	"context"
	le "encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"drover/client"
	"drover/internal/database/wal"
	"drover/internal/objstore/mem"
	"drover/internal/repo/fstest"
)

// The log of a database goes through the agent: without one nothing is said to be absent, and each
// outcome arrives as what it is.
func TestDatabaseLog(t *testing.T) {
	s := runs(t, "jobs: {idle: {command: [sleep, infinity]}}")
	c := client.New(s.cfg.Socket)
	t.Cleanup(c.Close)
	kind := func(err error) string {
		var refusal *client.Error
		if err == nil || !errors.As(err, &refusal) {
			return ""
		}
		return refusal.Kind
	}
	const name, size, system = "000000010000000000000003", 1 << 20, 42
	dir := t.TempDir()
	fstest.Must(t, os.Mkdir(filepath.Join(dir, "pg_wal"), 0o700))
	file := filepath.Join(dir, "pg_wal", name)
	if err := c.FetchWAL(t.Context(), name, file); kind(err) != client.KindInvalid {
		t.Errorf("fetched without a database: %v", err)
	}
	if err := c.PushWAL(t.Context(), file); kind(err) != client.KindInvalid {
		t.Errorf("pushed without a database: %v", err)
	}
	st := mem.New()
	archive, err := wal.New(st, wal.Options{Secret: make([]byte, 32), System: system})
	fstest.Must(t, err)
	courier := wal.NewCourier(archive, wal.CourierOptions{Directory: dir})
	t.Cleanup(func() { _ = courier.Close() })
	s.setWALArchive(courier)
	if err := c.FetchWAL(t.Context(), name, file); kind(err) != client.KindFailed {
		t.Errorf("fetched from a store without the volume: %v", err)
	}
	fstest.Must(t, st.Put(t.Context(), "config", []byte("x")))
	if err := c.FetchWAL(t.Context(), name, file); kind(err) != client.KindAbsent {
		t.Errorf("fetched what is not there: %v", err)
	}
	b := make([]byte, size)
	le.LittleEndian.PutUint16(b[2:], 2)
	le.LittleEndian.PutUint32(b[4:], 1)
	le.LittleEndian.PutUint64(b[8:], 3*size)
	le.LittleEndian.PutUint64(b[24:], system)
	le.LittleEndian.PutUint32(b[32:], size)
	fstest.Must(t, os.WriteFile(file, b, 0o600))
	fstest.Must(t, c.PushWAL(t.Context(), file))
	fstest.Must(t, os.Remove(file))
	fstest.Must(t, c.FetchWAL(t.Context(), name, file))
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, b) {
		t.Errorf("something else came back (%v)", err)
	}
	b[size-1]++
	fstest.Must(t, os.WriteFile(file, b, 0o600))
	if err := c.PushWAL(t.Context(), file); kind(err) != client.KindConflict {
		t.Errorf("pushed another content: %v", err)
	}
	for _, path := range []string{"/etc/passwd", filepath.Join(dir, name), "pg_wal/" + name} {
		if err := c.PushWAL(t.Context(), path); kind(err) != client.KindInvalid {
			t.Errorf("pushed %s: %v", path, err)
		}
	}
}

// hungArchive never gets done.
type hungArchive struct {
	walArchive
	begun chan struct{}
}

func (h hungArchive) Store(ctx context.Context, _ string) error {
	h.begun <- struct{}{}
	<-ctx.Done()
	return context.Cause(ctx)
}

// A server that is being stopped while another member has its log waits for no store, whether it was asked before or is then.
func TestRelief(t *testing.T) {
	a := &agent{}
	h := hungArchive{begun: make(chan struct{}, 1)}
	a.setWALArchive(h)
	relieved := func(err error) {
		t.Helper()
		var r *client.Error
		if !errors.As(err, &r) || r.Kind != client.KindHeld {
			t.Errorf("want that another one stores it, got: %v", err)
		}
	}
	done := make(chan error)
	go func() { done <- a.PushWAL(t.Context(), "x") }()
	<-h.begun
	a.relieved.set(true)
	relieved(<-done)
	relieved(a.PushWAL(t.Context(), "x"))
	<-h.begun
	a.relieved.set(false)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- a.PushWAL(ctx, "x") }()
	<-h.begun
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func (h hungArchive) Bring(ctx context.Context, _, _ string) error { return h.Store(ctx, "") }

// A server that is to receive nothing waits for no store: it could not be promoted before.
func TestDetachedServerFetchesNothing(t *testing.T) {
	a := &agent{}
	h := hungArchive{begun: make(chan struct{}, 1)}
	a.setWALArchive(h)
	absent := func(err error) {
		t.Helper()
		var r *client.Error
		if !errors.As(err, &r) || r.Kind != client.KindAbsent {
			t.Errorf("want that the log ends here, got: %v", err)
		}
	}
	done := make(chan error)
	go func() { done <- a.FetchWAL(t.Context(), "x", "y") }()
	<-h.begun
	a.detached.set(true)
	absent(<-done)
	absent(a.FetchWAL(t.Context(), "x", "y"))
	<-h.begun
	a.detached.set(false)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- a.FetchWAL(ctx, "x", "y") }()
	<-h.begun
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// countedArchive answers with an error, and counts.
type countedArchive struct {
	walArchive
	err   error
	calls int
}

func (c *countedArchive) Bring(context.Context, string, string) error {
	c.calls++
	time.Sleep(5 * time.Second)
	return c.err
}

// A store that did not answer is not asked for the next file at once; that a file is not there is an answer.
func TestSilentStoreIsLetAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, c := &agent{}, &countedArchive{err: wal.ErrNotFound}
		a.setWALArchive(c)
		fetch := func(calls int) {
			t.Helper()
			if err := a.FetchWAL(t.Context(), "x", "y"); err == nil || c.calls != calls {
				t.Errorf("%v, after %d calls of %d", err, c.calls, calls)
			}
		}
		fetch(1)
		fetch(2)
		c.err = errors.New("it does not answer")
		fetch(3)
		fetch(3)
		time.Sleep(silenceLasts)
		fetch(4)
		fetch(4)
	})
}
