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
	// With several members that archive the same log (archive_mode = always) most files are there already for all
	// but one of them: that costs a look then, instead of a file there and back.
	if a.others.Load() {
		if same, known := a.look(ctx, name, content); known && same {
			return nil
		}
	}
	existed, err := a.create(ctx, a.key(name), content)
	a.others.Store(existed)
	return err
}

// look tells by the head of a stored file whether its content is that. Not known: it is not there, or nobody can tell.
func (a *Archive) look(ctx context.Context, name Name, content []byte) (same, known bool) {
	head, _, err := a.st.Get(ctx, a.key(name), 0, digestEnd)
	if err != nil {
		return false, false
	}
	return a.seal.Same(a.key(name), head, content)
}

// create stores content under key, if nothing else is there. existed: that content was there before.
func (a *Archive) create(ctx context.Context, key string, content []byte) (existed bool, err error) {
	sealed := a.seal.Seal(key, content)
	for try := range pushAttempts {
		if try > 0 {
			if err := pause(ctx, time.Duration(try)*100*time.Millisecond); err != nil {
				return false, err
			}
		}
		if _, err = a.st.PutIf(ctx, key, sealed, objstore.IfAbsent()); err == nil {
			return false, nil
		}
		if !errors.Is(err, objstore.ErrConflict) && !errors.Is(err, objstore.ErrUnavailable) {
			return false, fmt.Errorf("archive %s: %w", key, err)
		}
		// Refused or unclear: what is there now decides.
		have, openErr := a.open(ctx, key)
		switch {
		case errors.Is(openErr, objstore.ErrNotFound):
			continue // the same bytes again: at most one of them takes effect
		case openErr != nil:
			return false, fmt.Errorf("archive %s: %w", key, errors.Join(openErr, err))
		case !bytes.Equal(have, content):
			return false, fmt.Errorf("archive %s: %w", key, ErrConflict)
		}
		return errors.Is(err, objstore.ErrConflict), nil
	}
	return false, fmt.Errorf("archive %s: %w", key, err)
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
