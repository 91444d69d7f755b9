package consul

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/consul/api"

	"drover/internal/coord"
)

// pause comes after an answer that came sooner: of what changes all the time, states are
// skipped instead of asking all the time.
const pause = 50 * time.Millisecond

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
	c.places.count(1)
	defer c.places.count(-1)
	var index uint64
	retry := coord.Backoff{Least: 250 * time.Millisecond, Most: 20 * time.Second}
	for ctx.Err() == nil {
		began, waited := time.Now(), index != 0
		now, meta, err := askAfter(ctx, c, index, ask)
		if errors.Is(err, errTurn) {
			continue
		}
		if err != nil {
			index = 0
			failed(ctx, explain(ctx, what, err))
			coord.Wait(ctx, retry.Next())
			continue
		}
		retry.Reset()
		soon := time.Since(began) < pause
		if meta.LastIndex < index {
			index = 0
		} else {
			index = max(meta.LastIndex, 1)
			if ctx.Err() == nil {
				state(now)
			}
		}
		if waited && soon {
			coord.Wait(ctx, coord.Jitter(pause))
		}
	}
}

// askAfter asks once for a state after index; after 0, for the present one.
func askAfter[T any](ctx context.Context, c *Coordinator, index uint64,
	ask func(*api.QueryOptions) (T, *api.QueryMeta, error)) (now T, meta *api.QueryMeta, err error) {
	if index == 0 {
		err = c.places.askIn(ctx, func(ctx context.Context) (err error) {
			short, cancel := c.short(ctx)
			defer cancel()
			now, meta, err = ask(c.consistent(short))
			return err
		})
		return now, meta, err
	}
	err = c.places.waitIn(ctx, c.opts.Wait, func(ctx context.Context, limit time.Duration) (err error) {
		// Consul itself adds up to a 16th.
		long, cancel := context.WithTimeout(ctx, limit+limit/16+c.opts.Timeout)
		defer cancel()
		q := &api.QueryOptions{WaitIndex: index, WaitTime: limit}
		began := time.Now()
		now, meta, err = ask(q.WithContext(long))
		if err == nil && meta.LastIndex == index && time.Since(began) < limit {
			// Nothing new, and too soon: so ends a query when a snapshot is restored, with what was before.
			meta.LastIndex = 0
		}
		return err
	})
	return now, meta, err
}
