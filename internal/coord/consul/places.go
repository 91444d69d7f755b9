package consul

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// turn is how long a query waits at most while there are more watches than places.
const turn = 5 * time.Second

// asking is how many queries that wait for nothing are made at once by watches.
const asking = 32

// errTurn ends a query that others need the place of. It says nothing about Consul.
var errTurn = errors.New("others have their turn")

// places bounds how many queries of watches are under way at once, because an agent bounds the
// connections of a client and refuses all that go beyond it. If there are more watches
// than places they take turns: each is late then, and none is left out.
type places struct {
	waiting, asking chan struct{}

	mu      sync.Mutex
	watches int
	calm    context.Context // ends when there are more watches than places
	crowd   context.CancelFunc
}

func newPlaces(n int) *places {
	p := &places{waiting: make(chan struct{}, n), asking: make(chan struct{}, asking)}
	p.calm, p.crowd = context.WithCancel(context.Background())
	return p
}

// count notes that n more watches run.
func (p *places) count(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watches += n
	switch crowded := p.watches > cap(p.waiting); {
	case crowded:
		p.crowd()
	case p.calm.Err() != nil:
		p.calm, p.crowd = context.WithCancel(context.Background())
	}
}

// waitIn calls ask as soon as there is a place, with how long it may wait: up to limit.
// Errors: ctx's, errTurn, ask's.
func (p *places) waitIn(ctx context.Context, limit time.Duration, ask func(context.Context, time.Duration) error) error {
	if err := enter(ctx, p.waiting); err != nil {
		return err
	}
	defer func() { <-p.waiting }()
	p.mu.Lock()
	calm := p.calm
	p.mu.Unlock()
	if calm.Err() != nil {
		limit = min(limit, turn)
	}
	limit -= rand.N(limit/8 + 1) // so that those who came together part
	if calm.Err() != nil {
		return ask(ctx, limit)
	}
	until, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(calm, cancel)()
	err := ask(until, limit)
	if err != nil && ctx.Err() == nil && calm.Err() != nil {
		return errTurn
	}
	return err
}

// askIn is for a query that waits for nothing.
func (p *places) askIn(ctx context.Context, ask func(context.Context) error) error {
	if err := enter(ctx, p.asking); err != nil {
		return err
	}
	defer func() { <-p.asking }()
	return ask(ctx)
}

func enter(ctx context.Context, lane chan struct{}) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case lane <- struct{}{}:
		return nil
	}
}
