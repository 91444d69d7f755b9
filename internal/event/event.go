// Package event is the bus on which the parts of an agent tell one another what
// happened.
//
// It promises:
//
//   - All subscribers see the same order, that in which Publish was called; Seq
//     counts it from 1 without gaps.
//   - Publish never waits for a subscriber, and never fails.
//   - A subscriber that does not keep up loses its oldest events and is told how
//     many. One that asks for Coalesce loses none that differ: of events with the
//     same name and source that it has not taken, it gets the newest only, in that
//     one's place in the order.
//
// It leaves to others what the events mean. It keeps the newest few for those who
// come late.
package event

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// ErrClosed: the subscription was closed.
var ErrClosed = errors.New("subscription is closed")

// Event is one thing that happened.
type Event struct {
	Seq    uint64    `json:"seq"`
	Time   time.Time `json:"time"`
	Name   string    `json:"event"`
	Source string    `json:"source,omitempty"` // what it happened to: a job's name, a watch's; empty: the instance
	Text   string    `json:"text,omitempty"`   // for people, one line
	Status *int      `json:"status,omitempty"` // exit status, of a job's end
}

// Bus carries events from anyone to everyone. The zero value is not useful.
type Bus struct {
	mu     sync.Mutex
	seq    uint64
	recent []Event // the newest, oldest first; at most keep
	keep   int
	subs   []*Subscription
	now    func() time.Time
}

// NewBus makes a bus that keeps the newest events, as many as keep says.
func NewBus(keep int) *Bus { return &Bus{keep: keep, now: time.Now} }

// Publish tells everyone. Seq and Time are filled in.
func (b *Bus) Publish(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seq++
	e.Seq, e.Time = b.seq, b.now()
	if len(b.recent) == b.keep && b.keep > 0 {
		b.recent = slices.Delete(b.recent, 0, 1)
	}
	if b.keep > 0 {
		b.recent = append(b.recent, e)
	}
	for _, s := range b.subs {
		s.add(e)
	}
}

// Options of Subscribe.
type Options struct {
	Only     func(Event) bool // nil: all. It is called with the bus held: it must be quick and must not publish.
	Queue    int              // how many may wait, at least 1; without meaning if Coalesce
	Coalesce bool
	Recent   int // begin with so many of the newest that were kept
}

// Subscribe begins to queue events. Close must be called.
func (b *Bus) Subscribe(o Options) *Subscription {
	s := &Subscription{bus: b, options: o, more: make(chan struct{}, 1)}
	s.options.Queue = max(1, o.Queue)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.recent[max(0, len(b.recent)-o.Recent):] {
		s.add(e)
	}
	b.subs = append(b.subs, s)
	return s
}

// Subscription is one subscriber's queue. Its methods may be called from one
// goroutine at a time, Close from any.
type Subscription struct {
	bus     *Bus
	options Options
	more    chan struct{} // capacity 1

	// Guarded by bus.mu.
	queue  []Event
	missed int
	closed bool
}

// add is called with the bus held.
func (s *Subscription) add(e Event) {
	if s.options.Only != nil && !s.options.Only(e) {
		return
	}
	if s.options.Coalesce {
		s.queue = slices.DeleteFunc(s.queue, func(old Event) bool { return old.Name == e.Name && old.Source == e.Source })
	} else if len(s.queue) >= s.options.Queue {
		s.queue = slices.Delete(s.queue, 0, 1)
		s.missed++
	}
	s.queue = append(s.queue, e)
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// Next waits for the next event. missed is how many were lost before it since the
// last call. The error is ErrClosed or ctx's.
func (s *Subscription) Next(ctx context.Context) (e Event, missed int, err error) {
	for {
		e, missed, ok, err := s.take()
		if ok || err != nil {
			return e, missed, err
		}
		select {
		case <-s.more:
		case <-ctx.Done():
			return Event{}, 0, ctx.Err()
		}
	}
}

func (s *Subscription) take() (e Event, missed int, ok bool, err error) {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	if s.closed {
		return Event{}, 0, false, ErrClosed
	}
	if len(s.queue) == 0 {
		return Event{}, 0, false, nil
	}
	e, missed = s.queue[0], s.missed
	s.queue, s.missed = slices.Delete(s.queue, 0, 1), 0
	return e, missed, true, nil
}

// Close ends the subscription; a Next that waits returns.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	s.closed = true
	s.bus.subs = slices.DeleteFunc(s.bus.subs, func(other *Subscription) bool { return other == s })
	select {
	case s.more <- struct{}{}:
	default:
	}
}
