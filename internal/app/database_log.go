package app

import (
	"context"
	"errors"
	"sync"

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
	ctx, end := a.relief.within(ctx)
	defer end()
	if err = w.Store(ctx, path); err != nil && errors.Is(context.Cause(ctx), errRelieved) {
		return refused(client.KindHeld, "%s", errRelieved.Error())
	}
	return explainedWAL(err)
}

// errRelieved is why a server that is being stopped need not wait for its log to be stored.
var errRelieved = errors.New("this server ends, and another member has its log, and stores it")

// relief ends pushes of the log while it is on: PostgreSQL does not end before its archiver has.
type relief struct {
	mu    sync.Mutex
	on    bool
	calls map[*context.CancelCauseFunc]bool
}

func (r *relief) set(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.on = on
	if on {
		for cancel := range r.calls {
			(*cancel)(errRelieved)
		}
	}
}

// within is a context that ends when it is on.
func (r *relief) within(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.on {
		cancel(errRelieved)
	}
	if r.calls == nil {
		r.calls = map[*context.CancelCauseFunc]bool{}
	}
	r.calls[&cancel] = true
	return ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.calls, &cancel)
		cancel(nil)
	}
}

// FetchWAL is control.Agent's.
func (a *agent) FetchWAL(ctx context.Context, name, path string) error {
	w, err := a.carrier()
	if err != nil {
		return err
	}
	return explainedWAL(w.Bring(ctx, name, path))
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
