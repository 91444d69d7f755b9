package etcd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"drover/internal/coord"
)

// claim is the value of a contender's key.
type claim struct {
	Holder string `json:"holder"`
	Slots  int    `json:"slots"`
}

// parseClaim reads what any program may have written: one that is not understood is
// somebody, with one slot.
func parseClaim(text []byte) claim {
	var c claim
	if json.Unmarshal(text, &c) != nil || c.Slots < 1 {
		c.Slots = 1
	}
	return c
}

// lease implements coord.Lease.
type lease struct {
	session *session
	name    string
}

// contenders is the prefix of the keys of who holds or wants name. Each is bound to a
// lease of etcd and named after it. Those that were created first hold.
func (c *Client) contenders(name string) string {
	return c.own + "lease/" + url.PathEscape(name) + "/"
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
	wait := retryBackoff()
	for {
		s, err := c.contend(ctx, name, opt)
		switch {
		case err == nil:
			return &lease{s, name}, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("acquire %s: %w", name, ctx.Err())
		case !errors.Is(err, coord.ErrUnavailable) && !errors.Is(err, coord.ErrNotFound):
			return nil, fmt.Errorf("acquire %s: %w", name, err)
		}
		coord.Wait(ctx, wait.Next()) // away, or the session was lost: from the start again
	}
}

// contend waits for a slot with one session. Errors: ErrNotFound when that is lost.
func (c *Client) contend(ctx context.Context, name string, opt coord.LeaseOptions) (*session, error) {
	var entered atomic.Bool
	key := func(s *session) string { return fmt.Sprintf("%s%016x", c.contenders(name), s.id) }
	s, err := c.newSession(ctx, opt.TTL, func(ctx context.Context, s *session) error {
		if !entered.Load() {
			return nil
		}
		return c.there(ctx, key(s))
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	err = c.enter(ctx, s, key(s), claim{opt.Holder, opt.Slots})
	if err == nil {
		entered.Store(true)
		err = c.await(ctx, name, key(s), opt.Slots)
	}
	switch {
	case s.ctx.Err() != nil:
		err = coord.ErrNotFound
		if c.ctx.Err() != nil {
			err = errClosed
		}
		fallthrough
	case err != nil:
		s.abandon()
		return nil, err
	}
	return s, nil
}

// enter writes the contender's key. The key is the session's alone, so that it can be done
// again until it is known to be there.
func (c *Client) enter(ctx context.Context, s *session, key string, said claim) error {
	text, err := json.Marshal(said)
	if err != nil {
		return err
	}
	wait := retryBackoff()
	for {
		err := c.do(ctx, "contend", func(ctx context.Context) error {
			_, err := c.etcd.Txn(ctx).If(unchanged(key, 0)).Then(clientv3.OpPut(key, string(text), clientv3.WithLease(s.id))).Commit()
			return err
		})
		if !errors.Is(err, coord.ErrUnavailable) || !coord.Wait(ctx, wait.Next()) {
			return err
		}
	}
}

// await returns when the key is among the first. It only looks at who came before: their
// deletions are all that can change its turn.
func (c *Client) await(ctx context.Context, name, key string, slots int) error {
	wait := retryBackoff()
	for {
		before, at, err := c.before(ctx, name, key)
		switch {
		case err == nil && len(before) < slots:
			return mismatch(before, slots)
		case err == nil:
			if err = mismatch(before, slots); err != nil {
				return err
			}
			err = c.follow(ctx, "wait for "+name, below(c.contenders(name)), at+1, true, func(events []*mvccpb.Event) bool {
				left := map[string]bool{}
				for _, e := range events {
					left[string(e.Kv.Key)] = true
				}
				before = slices.DeleteFunc(before, func(kv *mvccpb.KeyValue) bool { return left[string(kv.Key)] })
				return len(before) >= slots && !left[key]
			})
			if err == nil {
				wait.Reset()
				continue
			}
		}
		again := errors.Is(err, coord.ErrUnavailable) || errors.Is(err, errOvertaken)
		if !again || !coord.Wait(ctx, wait.Next()) {
			return err
		}
	}
}

// mismatch is an error if who came first, and so holds, counts other slots.
func mismatch(before []*mvccpb.KeyValue, slots int) error {
	if len(before) == 0 {
		return nil
	}
	if theirs := parseClaim(before[0].Value).Slots; theirs != slots {
		return fmt.Errorf("it is held with %d slots, not %d: %w", theirs, slots, coord.ErrConflict)
	}
	return nil
}

// before returns who came before the key, in their order, and the revision at which that was so.
// Errors: ErrNotFound if the key itself is gone.
func (c *Client) before(ctx context.Context, name, key string) ([]*mvccpb.KeyValue, int64, error) {
	all, at, err := c.queue(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	i := slices.IndexFunc(all, func(kv *mvccpb.KeyValue) bool { return string(kv.Key) == key })
	if i < 0 {
		return nil, 0, coord.ErrNotFound
	}
	return all[:i], at, nil
}

// queue returns all who hold or want name, in their order.
func (c *Client) queue(ctx context.Context, name string) (all []*mvccpb.KeyValue, at int64, err error) {
	err = c.do(ctx, "list holders of "+name, func(ctx context.Context) error {
		answer, err := c.list(ctx, below(c.contenders(name)))
		if err == nil {
			all, at = answer.Kvs, answer.Header.Revision
		}
		return err
	})
	slices.SortFunc(all, func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) })
	return all, at, err
}

// Holders implements coord.Leases.
func (c *Client) Holders(ctx context.Context, name string) ([]string, error) {
	if err := coord.CheckKey(name); err != nil {
		return nil, fmt.Errorf("list holders: %w", err)
	}
	all, _, err := c.queue(ctx, name)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	var names []string
	for _, kv := range all[:min(len(all), parseClaim(all[0].Value).Slots)] {
		names = append(names, parseClaim(kv.Value).Holder)
	}
	slices.Sort(names)
	return names, nil
}

// Done implements coord.Lease.
func (l *lease) Done() <-chan struct{} { return l.session.ctx.Done() }

// Release implements coord.Lease.
func (l *lease) Release(ctx context.Context) error {
	l.session.lose()
	if err := l.session.client.revoke(ctx, l.session.id); err != nil {
		return fmt.Errorf("release %s: %w", l.name, err)
	}
	return nil
}
