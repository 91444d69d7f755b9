package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"drover/internal/coord"
)

// tries is how often a write is worked out anew when somebody else changed the instance meanwhile.
const tries = 10

var errRaced = fmt.Errorf("others change it all the time: %w", coord.ErrUnavailable)

// instance is what the client remembers of one that it reports for. It belongs to who holds
// turn.
type instance struct {
	turn chan struct{}

	known    bool // the rest is set
	name     string
	record   record
	said     health
	life     clientv3.LeaseID // the record's; 0: it has none
	pulse    clientv3.LeaseID // the health's own; 0: it has none
	renewed  time.Time        // when the renewal of life was sent
	verified time.Time        // when the keys were seen
}

// remembered returns the instance's memory, locked.
func (c *Client) remembered(ctx context.Context, id string) (*instance, func(), error) {
	c.mu.Lock()
	i := c.instances[id]
	if i == nil {
		i = &instance{turn: make(chan struct{}, 1)}
		c.instances[id] = i
	}
	c.mu.Unlock()
	select {
	case i.turn <- struct{}{}:
		return i, func() { <-i.turn }, nil
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("%w: %w", coord.ErrUnavailable, ctx.Err())
	}
}

// state is what etcd has of an instance.
type state struct {
	name                  string // of its service
	index, record, health *mvccpb.KeyValue
	said                  record
	status                health
}

// rev is of which revision a key is that may not be there.
func rev(kv *mvccpb.KeyValue) int64 { return kv.GetModRevision() }

func leaseOf(kv *mvccpb.KeyValue) clientv3.LeaseID { return clientv3.LeaseID(kv.GetLease()) }

// look reads the state of an instance. Errors: ErrNotFound.
func (c *Client) look(ctx context.Context, id string) (st state, err error) {
	err = c.do(ctx, "look for it", func(ctx context.Context) error {
		index, err := c.etcd.Get(ctx, c.indexKey(id))
		if err != nil {
			return err
		}
		if len(index.Kvs) == 0 {
			return coord.ErrNotFound
		}
		st, err = c.lookIn(ctx, string(index.Kvs[0].Value), id)
		st.index = index.Kvs[0]
		return err
	})
	return st, err
}

// lookIn reads the state of an instance of a service, but for its index.
func (c *Client) lookIn(ctx context.Context, name, id string) (state, error) {
	st := state{name: name}
	both, err := c.list(ctx, below(c.instanceDir(name, id)))
	if err != nil {
		return st, err
	}
	for _, kv := range both.Kvs {
		switch f, ok := parseFact(kv); {
		case ok && f.record != nil:
			st.record, st.said = kv, *f.record
		case ok:
			st.health, st.status = kv, *f.health
		}
	}
	if st.record == nil {
		return st, coord.ErrNotFound
	}
	return st, nil
}

// commit writes the instance if it is as it was seen. It returns false if it is not, or if a lease
// has ended meanwhile.
func (c *Client) commit(ctx context.Context, id, name string, seen state, ops []clientv3.Op) (done bool, err error) {
	dir := c.instanceDir(name, id)
	err = c.do(ctx, "write it", func(ctx context.Context) error {
		answer, err := c.etcd.Txn(ctx).If(
			unchanged(c.indexKey(id), rev(seen.index)),
			unchanged(dir+recordPart, rev(seen.record)),
			unchanged(dir+healthPart, rev(seen.health)),
		).Then(ops...).Commit()
		if err == nil {
			done = answer.Succeeded
		}
		return err
	})
	if errors.Is(err, coord.ErrNotFound) {
		return false, nil
	}
	return done, err
}

func put(key string, value any, lease clientv3.LeaseID) (clientv3.Op, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return clientv3.Op{}, err
	}
	return clientv3.OpPut(key, string(text), clientv3.WithLease(lease)), nil
}

// Register implements coord.Registry.
func (c *Client) Register(ctx context.Context, r coord.Registration) error {
	if err := coord.CheckRegistration(r); err != nil {
		return fmt.Errorf("register: %w", err)
	}
	i, unlock, err := c.remembered(ctx, r.ID)
	if err == nil {
		defer unlock()
		err = c.register(ctx, i, r)
	}
	if err != nil {
		return fmt.Errorf("register %s: %w", r.ID, err)
	}
	return nil
}

func (c *Client) register(ctx context.Context, i *instance, r coord.Registration) error {
	i.known = false // until the next report
	for range tries {
		st, err := c.look(ctx, r.ID)
		if err == nil && st.name != r.Name { // it has changed services: another instance
			if err := c.deregister(ctx, r.ID); err != nil {
				return err
			}
			continue
		}
		if err != nil && !errors.Is(err, coord.ErrNotFound) {
			return err
		}
		ops, err := c.registration(ctx, st, r)
		if err != nil || len(ops) == 0 {
			return err
		}
		if done, err := c.commit(ctx, r.ID, r.Name, st, ops); done || err != nil {
			return err
		}
	}
	return errRaced
}

// registration is what has to be written for r. Leases that are granted and then not used
// expire.
func (c *Client) registration(ctx context.Context, seen state, r coord.Registration) (ops []clientv3.Op, err error) {
	want, isNew := recordOf(r), seen.record == nil
	life := leaseOf(seen.record)
	timed := isNew || want.TTL != seen.said.TTL || want.DeregisterAfter != seen.said.DeregisterAfter
	if timed {
		if life, err = c.bound(ctx, want.lifetime()); err != nil {
			return nil, err
		}
	}
	dir := c.instanceDir(r.Name, r.ID)
	if timed || !seen.said.equal(want) {
		op, err := put(dir+recordPart, want, life)
		if err != nil {
			return nil, err
		}
		ops = append(ops, op, clientv3.OpPut(c.indexKey(r.ID), r.Name, clientv3.WithLease(life)))
	}
	status := seen.status
	if isNew {
		if status = (health{Status: r.Initial}); r.Initial == "" {
			status.Status = coord.Critical
		}
	}
	if isNew || timed && seen.health != nil { // one that is silent stays so
		pulse := life
		if status.Status != coord.Maintenance {
			if pulse, err = c.bound(ctx, want.ttl()); err != nil {
				return nil, err
			}
		}
		op, err := put(dir+healthPart, status, pulse)
		if err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	return ops, nil
}

// bound returns a lease of etcd for a key that lives for ttl; none for one that stays.
func (c *Client) bound(ctx context.Context, ttl time.Duration) (clientv3.LeaseID, error) {
	if ttl <= 0 {
		return clientv3.NoLease, nil
	}
	id, _, err := c.grant(ctx, ttl)
	return id, err
}

// Report implements coord.Registry.
func (c *Client) Report(ctx context.Context, id string, s coord.Status, note string) error {
	i, unlock, err := c.remembered(ctx, id)
	if err == nil {
		defer unlock()
		err = c.report(ctx, i, id, health{s, note})
	}
	if err != nil {
		return fmt.Errorf("report %s: %w", id, err)
	}
	return nil
}

// report renews leases if nothing has changed, which writes nothing to etcd's log, and writes
// otherwise.
func (c *Client) report(ctx context.Context, i *instance, id string, say health) error {
	if i.known && i.said == say {
		same, err := c.confirm(ctx, i, id)
		if same || err != nil {
			return err
		}
	}
	i.known = false
	for range tries {
		now, done, err := c.rewrite(ctx, id, say)
		if errors.Is(err, errEnded) {
			continue // a lease, and its key with it: look again
		}
		if done {
			now.turn = i.turn
			*i = now
		}
		if done || err != nil {
			return err
		}
	}
	return errRaced
}

// confirm renews what was written before, and looks once in a TTL whether it is still there. It
// returns false if it is to be written again.
func (c *Client) confirm(ctx context.Context, i *instance, id string) (same bool, err error) {
	switch err := c.renew(ctx, i); {
	case errors.Is(err, errEnded):
		return false, nil
	case err != nil:
		return false, err
	case time.Since(i.verified) < i.record.ttl():
		return true, nil
	}
	sent := time.Now()
	var st state
	err = c.do(ctx, "look for it", func(ctx context.Context) (err error) {
		st, err = c.lookIn(ctx, i.name, id)
		return err
	})
	if err != nil {
		i.known = false
		return false, err
	}
	i.verified = sent
	return st.health != nil && st.status == i.said && leaseOf(st.health) == i.bound() && leaseOf(st.record) == i.life, nil
}

// rewrite looks at the instance, and writes its health if it is not what it should be.
func (c *Client) rewrite(ctx context.Context, id string, say health) (now instance, done bool, err error) {
	sent := time.Now()
	st, err := c.look(ctx, id)
	if err != nil {
		return now, false, err
	}
	now = instance{known: true, name: st.name, record: st.said, said: say, life: leaseOf(st.record), verified: sent}
	if now.pulse, err = c.pulse(ctx, st, say.Status); err != nil {
		return now, false, err
	}
	if err := c.renewLife(ctx, &now); err != nil {
		return now, false, err
	}
	if st.health != nil && st.status == say && leaseOf(st.health) == now.bound() {
		return now, true, nil
	}
	op, err := put(c.instanceDir(st.name, id)+healthPart, say, now.bound())
	if err != nil {
		return now, false, err
	}
	done, err = c.commit(ctx, id, st.name, st, []clientv3.Op{op})
	return now, done, err
}

// bound is the lease that the health's key is bound to. Maintenance does not end with silence,
// but with the record.
func (i *instance) bound() clientv3.LeaseID {
	if i.said.Status == coord.Maintenance {
		return i.life
	}
	return i.pulse
}

// pulse is the lease that the health will be bound to for itself: the one that it has,
// renewed, or a new one.
func (c *Client) pulse(ctx context.Context, st state, s coord.Status) (clientv3.LeaseID, error) {
	if s == coord.Maintenance {
		return clientv3.NoLease, nil
	}
	had := leaseOf(st.health)
	if had != clientv3.NoLease && st.status.Status != coord.Maintenance {
		return had, ended(c.keepAlive(ctx, had))
	}
	return c.bound(ctx, st.said.ttl())
}

// errEnded is that a lease of etcd has, which says nothing yet of the instance.
var errEnded = errors.New("a lease has ended")

func ended(err error) error {
	if errors.Is(err, coord.ErrNotFound) {
		return errEnded
	}
	return err
}

// renew keeps the health from ending and, unless it is critical, the record. Errors: errEnded.
func (c *Client) renew(ctx context.Context, i *instance) error {
	if i.pulse != clientv3.NoLease {
		if err := c.keepAlive(ctx, i.pulse); err != nil {
			return ended(err)
		}
	}
	return c.renewLife(ctx, i)
}

func (c *Client) renewLife(ctx context.Context, i *instance) error {
	if i.life == clientv3.NoLease || i.said.Status == coord.Critical || time.Since(i.renewed) < i.record.slack() {
		return nil
	}
	sent := time.Now()
	if err := c.keepAlive(ctx, i.life); err != nil {
		return ended(err)
	}
	i.renewed = sent
	return nil
}

// Deregister implements coord.Registry.
func (c *Client) Deregister(ctx context.Context, id string) error {
	i, unlock, err := c.remembered(ctx, id)
	if err == nil {
		defer unlock()
		i.known = false
		err = c.deregister(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("deregister %s: %w", id, err)
	}
	return nil
}

// deregister deletes the keys, and then their leases, so that whoever reports for the
// instance learns of it by the next renewal.
func (c *Client) deregister(ctx context.Context, id string) error {
	for range tries {
		st, err := c.look(ctx, id)
		if errors.Is(err, coord.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		dir := c.instanceDir(st.name, id)
		done, err := c.commit(ctx, id, st.name, st, []clientv3.Op{
			clientv3.OpDelete(dir + recordPart), clientv3.OpDelete(dir + healthPart), clientv3.OpDelete(c.indexKey(id)),
		})
		if err != nil {
			return err
		}
		if done {
			for _, lease := range []clientv3.LeaseID{leaseOf(st.record), leaseOf(st.health)} {
				if lease != clientv3.NoLease {
					_ = c.revoke(ctx, lease) // else it expires, and a look at the keys tells
				}
			}
			return nil
		}
	}
	return errRaced
}
