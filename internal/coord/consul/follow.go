package consul

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/consul/api"

	"drover/internal/coord"
)

const (
	// pause is the least time from one answer to the next query of a watch: of what
	// changes all the time, states are skipped instead of asking all the time.
	pause = 50 * time.Millisecond
	// turn is how long a query waits while there are more watches than may wait at once.
	turn = 5 * time.Second
)

// follow asks again and again for a state, each time after the index of the last answer,
// until ctx ends. What it was told it gives to state, and errors to failed.
//
// The first query, and the first after an error, waits for nothing and is a consistent one. So
// is one after the index went back: an answer that is older than what is known is believed only
// if it is the newest that there is (a server lost its data, or a snapshot of it was
// restored), and not one of a leader that is none any more.
func follow[T any](ctx context.Context, c *Coordinator, what string,
	ask func(*api.QueryOptions) (T, *api.QueryMeta, error),
	state func(T), failed func(context.Context, error)) {
	c.count(1)
	defer c.count(-1)
	var index uint64
	retry := coord.Backoff{Least: 250 * time.Millisecond, Most: 20 * time.Second}
	for ctx.Err() == nil {
		now, meta, err := wait(ctx, c, index, ask)
		if err != nil {
			index = 0
			failed(ctx, explain(ctx, what, err))
			coord.Wait(ctx, retry.Next())
			continue
		}
		retry.Reset()
		if meta.LastIndex < index {
			index = 0
			continue
		}
		index = max(meta.LastIndex, 1)
		if ctx.Err() == nil {
			state(now)
		}
		coord.Wait(ctx, coord.Jitter(pause))
	}
}

func (c *Coordinator) count(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watches += n
}

// wait asks once, when there is a place to wait in. After index 0 nothing is waited for.
func wait[T any](ctx context.Context, c *Coordinator, index uint64,
	ask func(*api.QueryOptions) (T, *api.QueryMeta, error)) (T, *api.QueryMeta, error) {
	select {
	case <-ctx.Done():
		var none T
		return none, nil, ctx.Err()
	case c.waiting <- struct{}{}:
	}
	defer func() { <-c.waiting }()
	c.mu.Lock()
	full := c.watches > cap(c.waiting)
	c.mu.Unlock()
	limit := c.opts.Wait
	if full {
		limit = min(limit, turn)
	}
	limit -= rand.N(limit/8 + 1) // so that those who came together part
	q := &api.QueryOptions{RequireConsistent: index == 0, WaitIndex: index, WaitTime: limit}
	if index == 0 {
		limit = 0
	}
	// Consul itself adds up to a 16th.
	ctx, cancel := context.WithTimeout(ctx, limit+limit/16+c.opts.Timeout)
	defer cancel()
	return ask(q.WithContext(ctx))
}
