// Package env is the source of secrets in the agent's environment.
//
// A variable is one secret, whose Data has its value under "value". The environment of a
// process does not change, so it is told once. Whoever may read the agent's /proc entry, and
// every child that inherits it, sees such a secret: it is for what cannot be had otherwise.
package env

import (
	"context"
	"fmt"

	"drover/internal/secret"
)

// Source is a secret.Source.
type Source struct{ lookup func(string) (string, bool) }

var _ secret.Source = Source{}

// New returns a source of what lookup knows: os.LookupEnv.
func New(lookup func(string) (string, bool)) Source { return Source{lookup: lookup} }

// Watch implements secret.Source.
func (s Source) Watch(ctx context.Context, r secret.Request, fn func(*secret.Secret, error)) {
	value, ok := s.lookup(r.Path)
	switch {
	case ctx.Err() != nil:
	case r.List || r.Params != nil:
		fn(nil, fmt.Errorf("read the variable %s: the environment is neither listed nor asked with parameters", r.Path))
	case !ok:
		fn(nil, fmt.Errorf("read the variable %s: %w", r.Path, secret.ErrNotFound))
	default:
		fn(&secret.Secret{Data: map[string]any{"value": value}}, nil)
	}
	<-ctx.Done()
}

// Close implements secret.Source.
func (s Source) Close(context.Context) error { return nil }
