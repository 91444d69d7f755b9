package app

import (
	"context"
	"errors"

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
	return explainedWAL(w.Store(ctx, path))
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
