// Package secret is the port of secrets: Vault, files, the environment and commands are
// behind it, one folder each.
//
// A source gives a secret and goes on giving its newer states; it renews what can be
// renewed and fetches again what cannot, in time. Where the secret goes (a file in memory,
// a template, a job's environment) is left to others, and so is keeping it out of sight
// there: no source ever puts one in a log or an error.
package secret

import (
	"context"
	"errors"
	"time"
)

// The kinds of errors that a caller can act on.
var (
	// ErrNotFound: there is no such secret. It is known, not guessed.
	ErrNotFound = errors.New("not found")
	// ErrUnauthorized: the source does not let us in, or not there.
	ErrUnauthorized = errors.New("unauthorised")
	// ErrUnavailable: nobody answered, or the source is sealed.
	ErrUnavailable = errors.New("unavailable")
)

// Kind is which of the kinds above an error is; nil: none of them.
func Kind(err error) error {
	for _, kind := range []error{ErrNotFound, ErrUnauthorized, ErrUnavailable} {
		if errors.Is(err, kind) {
			return kind
		}
	}
	return nil
}

// Request names a secret. Requests are equal if all but Known is.
type Request struct {
	// Path is the source's own: secret/data/app of Vault, a file, a variable, a command.
	Path string
	// Params make it a write (a certificate to issue, a value to encrypt); nil: a read.
	// They are not changed any more.
	Params map[string]any
	// List asks for the names below Path instead.
	List bool
	// Known is a state that an earlier run got and that is still there, such as the certificate
	// in a file. If it is good for a while yet it is given back, and nothing is
	// asked of the source until it is not. Only its Data counts.
	Known *Secret
}

// Secret is one state of a secret. It is shared: nobody changes it.
type Secret struct {
	// Data as the source gives it; numbers are json.Number. A list of names is under
	// "keys", as []any.
	Data map[string]any
	// LeaseID, LeaseDuration and Renewable as the source says; zero if it says nothing.
	LeaseID       string
	LeaseDuration time.Duration
	Renewable     bool
	RequestID     string
	Warnings      []string
	// Expires is when it ends by the wall clock of this machine, as was known when it was
	// given: renewals move it, and are no newer state. Zero: not known to end.
	Expires time.Time
}

// Source gives secrets. All methods may be called from any goroutine.
type Source interface {
	// Watch calls fn with the secret, soon, and with each newer state, until ctx ends; it
	// returns then. While it runs, what it gave last is kept alive. Two watches of equal
	// requests share one lease.
	//
	// A failure is told by fn(nil, err), once for each kind of error in a row, and says
	// that what was given before stays; Watch tries again by itself, with back-off and jitter, for
	// ever. The row ends with the next success, which is told even if the state is the same as
	// before. No error has a secret in it. fn is called from one goroutine at a time.
	//
	// When ctx ends, the lease of the last state is renewed further, for jobs that are
	// still stopping, as long as the source lets it; it is not replaced. Close revokes it.
	Watch(ctx context.Context, r Request, fn func(*Secret, error))

	// Close revokes what was leased, within ctx, and ends what runs for the source
	// itself. It is called after the jobs have stopped.
	Close(ctx context.Context) error
}
