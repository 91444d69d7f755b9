// Package readonly lets another store only be read: whatever would change it is refused, before it is sent, as a store
// does whose credentials may not write.
package readonly

import (
	"context"
	"fmt"

	"drover/internal/objstore"
)

// Store is a store that is only read. Use New.
type Store struct{ objstore.Store }

var (
	_ objstore.Store     = (*Store)(nil)
	_ objstore.Describer = (*Store)(nil)
	_ objstore.Closer    = (*Store)(nil)
)

// New returns under, to be read.
func New(under objstore.Store) *Store { return &Store{under} }

func refuse(what, key string) error {
	return fmt.Errorf("%s %s: this store is only read from here: %w", what, key, objstore.ErrUnauthorised)
}

// Put implements objstore.Store.
func (s *Store) Put(_ context.Context, key string, _ []byte) error { return refuse("put", key) }

// PutIf implements objstore.Store.
func (s *Store) PutIf(_ context.Context, key string, _ []byte, _ objstore.Condition) (objstore.ETag, error) {
	return "", refuse("put", key)
}

// Delete implements objstore.Store.
func (s *Store) Delete(_ context.Context, key string) error { return refuse("delete", key) }

// Describe implements objstore.Describer.
func (s *Store) Describe() string {
	if d, ok := s.Store.(objstore.Describer); ok {
		return d.Describe()
	}
	return "the store"
}

// Close implements objstore.Closer.
func (s *Store) Close() error {
	if c, ok := s.Store.(objstore.Closer); ok {
		return c.Close()
	}
	return nil
}
