// Package polling makes a source of secrets of a function that reads one.
//
// It promises what the port does: states that differ are told, and the first after a failure;
// failures are told once for each kind in a row, and the reading is tried again with back-off
// and jitter. Each watch reads for itself. What reading is, is left to others.
package polling

import (
	"context"
	"math/rand/v2"
	"reflect"
	"time"

	"drover/internal/secret"
)

// Read reads a secret. Its errors have no secret in them.
type Read func(ctx context.Context, r secret.Request) (*secret.Secret, error)

// Source is a secret.Source.
type Source struct {
	read  Read
	every time.Duration
}

var _ secret.Source = Source{}

// New returns a source that reads every so often, give or take a tenth.
func New(read Read, every time.Duration) Source { return Source{read: read, every: every} }

// Watch implements secret.Source.
func (s Source) Watch(ctx context.Context, r secret.Request, fn func(*secret.Secret, error)) {
	var last map[string]any
	var failed, kind error
	pause := s.first()
	for first := true; ; first = false {
		got, err := s.read(ctx, r)
		if ctx.Err() != nil {
			return
		}
		wait := s.every
		switch {
		case err != nil:
			if failed == nil || kind != secret.Kind(err) {
				fn(nil, err)
			}
			failed, kind = err, secret.Kind(err)
			wait, pause = pause, min(2*pause, s.every)
		case first || failed != nil || !reflect.DeepEqual(got.Data, last):
			last, failed, pause = got.Data, nil, s.first()
			fn(got, nil)
		}
		timer := time.NewTimer(wait - wait/10 + rand.N(wait/5+1))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// first is the pause after a first failure.
func (s Source) first() time.Duration { return min(time.Second, s.every) }

// Close implements secret.Source: nothing was leased.
func (s Source) Close(context.Context) error { return nil }
