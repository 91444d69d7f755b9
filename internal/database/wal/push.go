package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"drover/internal/objstore"
)

// pushAttempts is how often one Push sends the same object, when it is known that it is not
// stored; PostgreSQL calls again.
const pushAttempts = 3

// Push stores a file of the log. It returns nil when the content is stored, by this call or before.
//
// Errors: ErrConflict, ErrDamaged (of what is there), ErrForeign: they last. Others may mend.
func (a *Archive) Push(ctx context.Context, name Name, content []byte) error {
	if err := name.check(content, a.system); err != nil {
		return fmt.Errorf("archive %s: %w", name, err)
	}
	return a.create(ctx, a.key(name), content)
}

// create stores content under key, if nothing else is there.
func (a *Archive) create(ctx context.Context, key string, content []byte) error {
	sealed := a.seal.Seal(key, content)
	var err error
	for try := range pushAttempts {
		if try > 0 {
			if err := pause(ctx, time.Duration(try)*100*time.Millisecond); err != nil {
				return err
			}
		}
		if _, err = a.st.PutIf(ctx, key, sealed, objstore.IfAbsent()); err == nil {
			return nil
		}
		if !errors.Is(err, objstore.ErrConflict) && !errors.Is(err, objstore.ErrUnavailable) {
			return fmt.Errorf("archive %s: %w", key, err)
		}
		// Refused or unclear: what is there now decides.
		have, openErr := a.open(ctx, key)
		switch {
		case errors.Is(openErr, objstore.ErrNotFound):
			continue // the same bytes again: at most one of them takes effect
		case openErr != nil:
			return fmt.Errorf("archive %s: %w", key, errors.Join(openErr, err))
		case !bytes.Equal(have, content):
			return fmt.Errorf("archive %s: %w", key, ErrConflict)
		}
		return nil
	}
	return fmt.Errorf("archive %s: %w", key, err)
}

// open reads and opens an object. Errors: objstore's, ErrDamaged.
func (a *Archive) open(ctx context.Context, key string) ([]byte, error) {
	sealed, _, err := a.st.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	return a.seal.Open(key, sealed)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
