package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"drover/client"
	"drover/internal/database/wal"
)

// walArchive carries the log of the instance's database; a wal.Courier is one.
type walArchive interface {
	Store(ctx context.Context, file string) error
	Bring(ctx context.Context, name, file string) error
}

// setWALArchive says who carries the database's log from now on; nil: nobody.
func (a *agent) setWALArchive(w walArchive) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.walArchive = w
}

func (a *agent) carrier() (walArchive, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.walArchive == nil {
		return nil, refused(client.KindInvalid, "this agent has no database, or does not know it yet: there is no log to archive or to fetch")
	}
	return a.walArchive, nil
}

// PushWAL is control.Agent's.
func (a *agent) PushWAL(ctx context.Context, path string) error {
	w, err := a.carrier()
	if err != nil {
		return err
	}
	ctx, end := a.relieved.within(ctx, errRelieved)
	defer end()
	if err = w.Store(ctx, path); err != nil && errors.Is(context.Cause(ctx), errRelieved) {
		return refused(client.KindHeld, "%s", errRelieved.Error())
	}
	return explainedWAL(err)
}

var (
	// errRelieved is why a server that is being stopped need not wait for its log to be stored: it does not end before its
	// archiver has.
	errRelieved = errors.New("this server ends, and another member has its log, and stores it")
	// errDetached is why a server that receives nothing gets nothing from the archive either: it reads its configuration, and is
	// promoted, only between two files.
	errDetached = errors.New("this member receives nothing, from the archive neither")
)

// gate ends calls while it is shut.
type gate struct {
	mu    sync.Mutex
	shut  bool
	calls map[*call]bool
}

type call struct {
	why    error
	cancel context.CancelCauseFunc
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	if shut {
		for c := range g.calls {
			c.cancel(c.why)
		}
	}
}

// within is a context that ends when the gate is shut, with that cause.
func (g *gate) within(ctx context.Context, why error) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		cancel(why)
	}
	if g.calls == nil {
		g.calls = map[*call]bool{}
	}
	c := &call{why, cancel}
	g.calls[c] = true
	return ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.calls, c)
		cancel(nil)
	}
}

// FetchWAL is control.Agent's.
func (a *agent) FetchWAL(ctx context.Context, name, path string) error {
	w, err := a.carrier()
	if err != nil {
		return err
	}
	ctx, end := a.detached.within(ctx, errDetached)
	defer end()
	if err := a.silence.lately(); err != nil {
		return fmt.Errorf("the store is not asked again yet: %w", err)
	}
	began := time.Now()
	err = w.Bring(ctx, name, path)
	if err != nil && errors.Is(context.Cause(ctx), errDetached) {
		return refused(client.KindAbsent, "%s", errDetached.Error())
	}
	a.silence.note(err, time.Since(began))
	return explainedWAL(err)
}

// storeSilence remembers that the store did not answer: a replica asks for several files before it asks its primary, and would wait for each.
type storeSilence struct {
	mu  sync.Mutex
	err error
	at  time.Time
}

// silenceBegins is from when on a call that failed is one that was not answered, and silenceLasts is for how long the store is
// not asked again then.
const (
	silenceBegins = time.Second
	silenceLasts  = 10 * time.Second
)

// note remembers what the last call brought, which took so long.
func (s *storeSilence) note(err error, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err = err; errors.Is(err, wal.ErrNotFound) || took < silenceBegins {
		s.err = nil // it answered
	}
	s.at = time.Now()
}

// lately is what the store did instead of an answer; nil: it answered, or that is long ago.
func (s *storeSilence) lately() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil || time.Since(s.at) >= silenceLasts {
		return nil
	}
	return s.err
}

// explainedWAL gives the errors of the log their kinds. What is not named here is not known, and has failed.
func explainedWAL(err error) error {
	for _, row := range []struct {
		err  error
		kind string
	}{
		{wal.ErrNotFound, client.KindAbsent}, {wal.ErrConflict, client.KindConflict},
		{wal.ErrPath, client.KindInvalid}, {wal.ErrName, client.KindInvalid},
	} {
		if errors.Is(err, row.err) {
			return refused(row.kind, "%s", err.Error())
		}
	}
	return err
}
