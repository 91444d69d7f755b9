package mem

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"drover/internal/coord"
)

// margin is how much longer than a TTL the server keeps a slot: a holder has given up when
// the next one gets it, also where both live by one clock.
const margin = time.Millisecond

// semaphore is a name and who holds it.
type semaphore struct {
	slots   int
	holders []*lease
}

// lease is a held slot. Its fields but expires never change.
type lease struct {
	client  *Client
	name    string
	opt     coord.LeaseOptions
	expires time.Time // under the server's lock

	ctx  context.Context // ends with Release
	stop context.CancelFunc
	done chan struct{}
	once sync.Once
}

// sweep drops who fell silent, and returns when the next one will have. It needs the lock.
func (m *semaphore) sweep(now time.Time) (next time.Time) {
	m.holders = slices.DeleteFunc(m.holders, func(l *lease) bool { return !l.expires.After(now) })
	for _, l := range m.holders {
		if next.IsZero() || l.expires.Before(next) {
			next = l.expires
		}
	}
	return next
}

func (s *Server) loseLeases(which func(*lease) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.leases {
		m.holders = slices.DeleteFunc(m.holders, which)
	}
	s.change()
}

// Acquire implements coord.Leases.
func (c *Client) Acquire(ctx context.Context, name string, opt coord.LeaseOptions) (coord.Lease, error) {
	if err := coord.CheckKey(name); err != nil {
		return nil, fmt.Errorf("acquire: %w", err)
	}
	if opt.TTL <= 0 {
		return nil, fmt.Errorf("acquire %s: TTL %v is not positive", name, opt.TTL)
	}
	opt.Slots = max(1, opt.Slots)
	for {
		c.server.mu.Lock()
		changed := c.server.changed
		c.server.mu.Unlock()
		var (
			l     *lease
			until time.Time
		)
		sent := time.Now()
		err := c.do(ctx, "acquire "+name, func() (err error) {
			changed = c.server.changed
			l, until, err = c.take(name, opt, sent)
			return err
		})
		switch {
		case ctx.Err() != nil && l == nil:
			return nil, fmt.Errorf("acquire %s: %w", name, ctx.Err())
		case errors.Is(err, coord.ErrUnavailable):
		case err != nil:
			return nil, err
		case l != nil:
			return l, nil
		}
		waitChange(ctx, changed, until)
	}
}

// take takes a slot, or returns when one may become free by time alone. It needs the lock.
func (c *Client) take(name string, opt coord.LeaseOptions, sent time.Time) (*lease, time.Time, error) {
	m := c.server.leases[name]
	if m == nil {
		m = &semaphore{}
		c.server.leases[name] = m
	}
	next := m.sweep(time.Now())
	switch {
	case len(m.holders) > 0 && m.slots != opt.Slots:
		return nil, next, fmt.Errorf("it is held with %d slots, not %d: %w", m.slots, opt.Slots, coord.ErrConflict)
	case len(m.holders) >= opt.Slots:
		return nil, next, nil
	}
	m.slots = opt.Slots
	l := &lease{client: c, name: name, opt: opt, expires: time.Now().Add(opt.TTL + margin), done: make(chan struct{})}
	l.ctx, l.stop = context.WithCancel(c.ctx)
	m.holders = append(m.holders, l)
	c.server.change()
	c.leases.Go(func() { l.keep(sent.Add(opt.TTL)) })
	return l, time.Time{}, nil
}

// keep renews the lease until it is lost, released or its client is closed.
func (l *lease) keep(until time.Time) {
	defer l.once.Do(func() { close(l.done) })
	for coord.Wait(l.ctx, min(l.opt.TTL/3, time.Until(until))) && time.Now().Before(until) {
		sent := time.Now()
		ctx, cancel := context.WithDeadline(l.ctx, until)
		err := l.client.do(ctx, "renew "+l.name, l.renew)
		cancel()
		switch {
		case errors.Is(err, coord.ErrNotFound):
			return
		case err == nil:
			until = sent.Add(l.opt.TTL)
		}
	}
}

// renew needs the lock.
func (l *lease) renew() error {
	m := l.client.server.leases[l.name]
	m.sweep(time.Now())
	if !slices.Contains(m.holders, l) {
		return coord.ErrNotFound
	}
	l.expires = time.Now().Add(l.opt.TTL + margin)
	return nil
}

// Done implements coord.Lease.
func (l *lease) Done() <-chan struct{} { return l.done }

// Release implements coord.Lease.
func (l *lease) Release(ctx context.Context) error {
	l.stop()
	l.once.Do(func() { close(l.done) })
	return l.client.do(ctx, "release "+l.name, func() error {
		m := l.client.server.leases[l.name]
		m.holders = slices.DeleteFunc(m.holders, func(o *lease) bool { return o == l })
		l.client.server.change()
		return nil
	})
}

// Holders implements coord.Leases.
func (c *Client) Holders(ctx context.Context, name string) (names []string, err error) {
	if err := coord.CheckKey(name); err != nil {
		return nil, fmt.Errorf("list holders: %w", err)
	}
	err = c.do(ctx, "list holders of "+name, func() error {
		m := c.server.leases[name]
		if m == nil {
			return nil
		}
		m.sweep(time.Now())
		for _, l := range m.holders {
			names = append(names, l.opt.Holder)
		}
		slices.Sort(names)
		return nil
	})
	return names, err
}
