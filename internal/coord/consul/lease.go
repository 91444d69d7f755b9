package consul

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"drover/internal/coord"
)

// A lease is one key for each of its slots, <prefix><name>/<number>, which is locked by the session of
// the holder and is gone with it. So Consul itself keeps a slot from two, and from the
// next one during the lock-delay.

// slot is the value of such a key.
type slot struct {
	Holder string `json:"holder"`
	Slots  int    `json:"slots"` // that the holder thinks there are
}

// slots are a lease's, as they were seen.
type slots struct {
	free    []int    // not locked, least first
	holders []string // of the others
	other   int      // another number of slots, that a holder thinks there are; 0: none does
}

// readSlots reads the pairs below folder, for a lease of number slots. Names may be
// folders of other names: what is no number is not this lease's.
func readSlots(folder string, number int, pairs api.KVPairs) slots {
	var s slots
	held := map[int]bool{}
	for _, p := range pairs {
		i, err := strconv.Atoi(strings.TrimPrefix(p.Key, folder))
		if err != nil || p.Session == "" {
			continue
		}
		var v slot
		if json.Unmarshal(p.Value, &v) != nil || v.Holder == "" {
			v = slot{Holder: p.Session, Slots: number} // not of ours; a lock all the same
		}
		held[i] = true
		s.holders = append(s.holders, v.Holder)
		if v.Slots != number {
			s.other = v.Slots
		}
	}
	for i := range number {
		if !held[i] {
			s.free = append(s.free, i)
		}
	}
	slices.Sort(s.holders)
	return s
}

// Holders implements coord.Leases.
func (c *Coordinator) Holders(ctx context.Context, name string) ([]string, error) {
	if err := coord.CheckKey(name); err != nil {
		return nil, err
	}
	folder := c.opts.LeasePrefix + name + "/"
	short, cancel := c.short(ctx)
	defer cancel()
	pairs, _, err := c.list(folder, c.consistent(short))
	if err != nil {
		return nil, explain(ctx, "list holders of "+name, err)
	}
	return readSlots(folder, 0, pairs).holders, nil
}

// Acquire implements coord.Leases.
func (c *Coordinator) Acquire(ctx context.Context, name string, opt coord.LeaseOptions) (coord.Lease, error) {
	if err := coord.CheckKey(name); err != nil {
		return nil, err
	}
	opt.TTL, opt.Slots = max(opt.TTL, c.opts.LeastTTL), max(opt.Slots, 1)
	folder := c.opts.LeasePrefix + name + "/"
	retry := coord.Backoff{Least: 100 * time.Millisecond, Most: 2 * time.Second}
	for {
		free, err := c.awaitFree(ctx, folder, opt.Slots)
		if err == nil {
			var l *lease
			if l, err = c.contend(ctx, folder, free, opt); err == nil {
				return l, nil
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("acquire %s: %w", name, ctx.Err())
		case c.ctx.Err() != nil:
			return nil, fmt.Errorf("acquire %s: the coordinator is closed: %w", name, c.ctx.Err())
		case err != nil && coord.Kind(err) == nil, errors.Is(err, coord.ErrUnauthorized), errors.Is(err, errOthers):
			return nil, fmt.Errorf("acquire %s: %w", name, err)
		}
		coord.Wait(ctx, retry.Next()) // another one was faster, the lock-delay is not over, or Consul is away
	}
}

// errOthers is for who counts other slots than the holders do.
var errOthers = fmt.Errorf("%w: it is held with another number of slots", coord.ErrConflict)

// awaitFree waits until a slot is free, and returns all that are.
func (c *Coordinator) awaitFree(ctx context.Context, folder string, number int) (free []int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	follow(ctx, c, "watch "+folder, func(q *api.QueryOptions) (api.KVPairs, *api.QueryMeta, error) {
		return c.list(folder, q)
	}, func(pairs api.KVPairs) {
		seen := readSlots(folder, number, pairs)
		switch {
		case seen.other != 0:
			err = errOthers
		case len(seen.free) > 0:
			free = seen.free
		default:
			return
		}
		cancel()
	}, func(_ context.Context, failure error) {
		if errors.Is(failure, coord.ErrUnauthorized) {
			err = failure
			cancel()
		}
	})
	return free, err
}

// contend tries to lock one of the free slots.
func (c *Coordinator) contend(ctx context.Context, folder string, free []int, opt coord.LeaseOptions) (*lease, error) {
	s, err := c.newSession(ctx, opt.Holder, opt.TTL)
	if err != nil {
		return nil, err
	}
	value, err := json.Marshal(slot{opt.Holder, opt.Slots})
	for i := 0; err == nil && i < len(free); i++ {
		key := folder + strconv.Itoa(free[i])
		err = c.lock(ctx, key, value, s)
		if err == nil {
			return c.hold(s, key), nil
		}
		if errors.Is(err, coord.ErrConflict) {
			err = nil // the next one
		}
	}
	// Should the lock have been taken all the same it goes with its session, or with the TTL.
	_ = s.end(context.WithoutCancel(ctx))
	if err == nil {
		err = coord.ErrConflict
	}
	return nil, err
}

// lock locks a key. If it is not known whether that was done, Consul is asked.
func (c *Coordinator) lock(ctx context.Context, key string, value []byte, s *session) error {
	_, err := c.txn(ctx, "lock "+key, api.TxnOps{{KV: &api.KVTxnOp{Verb: api.KVLock, Key: key, Value: value, Session: s.id}}})
	if err == nil || errors.Is(err, coord.ErrConflict) || errors.Is(err, coord.ErrUnauthorized) || ctx.Err() != nil {
		return err
	}
	short, cancel := c.short(ctx)
	defer cancel()
	if pair, _, failed := c.api.KV().Get(key, c.consistent(short)); failed == nil && pair != nil && pair.Session == s.id {
		return nil
	}
	return err
}

// lease implements coord.Lease.
type lease struct {
	s    *session
	key  string
	done chan struct{} // closed when either the session or the key is lost
	stop context.CancelFunc
}

// hold watches over a lock: the key may be deleted, or locked by another after that, while the session lives.
func (c *Coordinator) hold(s *session, key string) *lease {
	l := &lease{s: s, key: key, done: make(chan struct{})}
	var watch context.Context
	watch, l.stop = context.WithCancel(c.ctx)
	lost := func() {
		follow(watch, c, "watch "+key, func(q *api.QueryOptions) (*api.KVPair, *api.QueryMeta, error) {
			return c.api.KV().Get(key, q)
		}, func(p *api.KVPair) {
			if p == nil || p.Session != s.id {
				s.stop()
				l.stop()
			}
		}, func(context.Context, error) {})
	}
	watched := c.begin(lost)
	if !watched || !c.begin(func() {
		defer close(l.done)
		select {
		case <-s.done:
		case <-watch.Done():
		}
		s.stop()
		l.stop()
	}) {
		s.stop()
		l.stop()
		close(l.done)
	}
	return l
}

// Done implements coord.Lease.
func (l *lease) Done() <-chan struct{} { return l.done }

// Release implements coord.Lease.
func (l *lease) Release(ctx context.Context) error {
	l.stop()
	l.s.stop()
	<-l.done // before another can have it
	_, err := l.s.c.txn(ctx, "unlock "+l.key, api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVCheckSession, Key: l.key, Session: l.s.id}},
		{KV: &api.KVTxnOp{Verb: api.KVDelete, Key: l.key}},
	})
	if errors.Is(err, coord.ErrConflict) {
		err = nil // it was lost before
	}
	return errors.Join(err, l.s.end(ctx))
}
