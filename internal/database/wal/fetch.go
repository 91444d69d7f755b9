package wal

import (
	"context"
	"errors"
	"fmt"

	"drover/internal/objstore"
)

// Fetch returns the content of a file of the log.
// Errors: ErrNotFound, ErrDamaged, ErrForeign; any other says that nothing is known.
func (a *Archive) Fetch(ctx context.Context, name Name) ([]byte, error) {
	sealed, err := a.sealed(ctx, name)
	if err != nil {
		return nil, err
	}
	return a.unseal(name, sealed)
}

// sealed reads the object of a file.
func (a *Archive) sealed(ctx context.Context, name Name) ([]byte, error) {
	sealed, _, err := a.st.Get(ctx, a.key(name), 0, -1)
	if errors.Is(err, objstore.ErrNotFound) {
		if err := a.here(ctx); err != nil {
			return nil, fmt.Errorf("fetch %s: %w", name, err)
		}
		return nil, fmt.Errorf("fetch %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", name, err)
	}
	return sealed, nil
}

// unseal opens what sealed has read, and checks that it is what the name says. It changes sealed.
func (a *Archive) unseal(name Name, sealed []byte) ([]byte, error) {
	content, err := a.seal.Open(a.key(name), sealed)
	if err == nil {
		err = name.check(content, a.system)
	}
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", name, err)
	}
	return content, nil
}
