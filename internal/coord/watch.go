package coord

import (
	"bytes"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// Teller calls the function of a watch as the contract of KV.Watch says: with states that
// differ from the last one or end a failure, and once for each kind of failure in a row. It
// belongs to one goroutine, and calls the function in it.
type Teller[T any] struct {
	fn     func(T, error)
	equal  func(a, b T) bool
	told   bool // last is what fn was given
	last   T
	failed bool // fn was given a failure after that
	kind   error
}

// NewTeller returns a Teller that has told nothing. Neither fn nor the watch changes a
// state that was told.
func NewTeller[T any](fn func(T, error), equal func(a, b T) bool) *Teller[T] {
	return &Teller[T]{fn: fn, equal: equal}
}

// State tells the state that was read.
func (t *Teller[T]) State(now T) {
	if t.told && !t.failed && t.equal(t.last, now) {
		return
	}
	t.told, t.failed, t.last = true, false, now
	t.fn(now, nil)
}

// Failed tells that the state could not be read. What ctx's end made fail is not told.
func (t *Teller[T]) Failed(ctx context.Context, err error) {
	kind := Kind(err)
	if ctx.Err() != nil || t.failed && t.kind == kind {
		return
	}
	t.failed, t.kind = true, kind
	var none T
	t.fn(none, err)
}

// Refuse tells an error that stays, and returns when ctx ends: a watch that cannot be.
func Refuse[T any](ctx context.Context, fn func(T, error), err error) {
	var none T
	fn(none, err)
	<-ctx.Done()
}

// EqualPairs compares the states of a watched prefix.
func EqualPairs(a, b []Pair) bool {
	return slices.EqualFunc(a, b, func(x, y Pair) bool {
		return x.Key == y.Key && x.Revision == y.Revision && bytes.Equal(x.Value, y.Value)
	})
}

// EqualInstances compares the states of a watched service, by all that counts as a change.
func EqualInstances(a, b []Instance) bool {
	return slices.EqualFunc(a, b, func(x, y Instance) bool {
		return x.ID == y.ID && x.Name == y.Name && x.Address == y.Address && x.Port == y.Port &&
			slices.Equal(x.Tags, y.Tags) && maps.Equal(x.Meta, y.Meta) && x.Status == y.Status &&
			x.Node == y.Node && x.NodeID == y.NodeID && x.NodeAddress == y.NodeAddress && x.Datacenter == y.Datacenter &&
			maps.Equal(x.NodeMeta, y.NodeMeta) && maps.Equal(x.TaggedAddresses, y.TaggedAddresses) && x.Weight == y.Weight
	})
}

// EqualServices compares the states of a watched catalog.
func EqualServices(a, b map[string][]string) bool {
	return maps.EqualFunc(a, b, slices.Equal[[]string])
}

// Wants says whether the query means an instance of its service with this status and
// these tags.
func (q Query) Wants(status Status, tags []string) bool {
	if q.Tag != "" && !slices.Contains(tags, q.Tag) {
		return false
	}
	if len(q.Status) == 0 {
		return status == Passing
	}
	return slices.Contains(q.Status, status)
}

// Backoff spreads repetitions: each wait is up to twice as long as the one before, from
// Least to Most, and a random half of it is left away, so that many who lost one server do
// not come back at one moment. It belongs to one goroutine.
type Backoff struct {
	Least, Most time.Duration
	next        time.Duration
}

// Next returns how long to wait before the next try.
func (b *Backoff) Next() time.Duration {
	b.next = min(max(2*b.next, b.Least), b.Most)
	return Jitter(b.next)
}

// Reset starts again, after a success.
func (b *Backoff) Reset() { b.next = 0 }

// Jitter returns a random time from half of d to d.
func Jitter(d time.Duration) time.Duration {
	if d <= 1 {
		return d
	}
	return d/2 + rand.N(d/2)
}

// Wait returns after d, or false as soon as ctx ends.
func Wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}
