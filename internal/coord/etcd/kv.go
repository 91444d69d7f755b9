package etcd

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"drover/internal/coord"
)

// checkKey refuses, beside what the port refuses, what is not the caller's to write.
func (c *Client) checkKey(key string) error {
	if err := coord.CheckKey(key); err != nil {
		return err
	}
	if strings.HasPrefix(c.opts.Prefix+key, c.own) {
		return fmt.Errorf("key %q is among Drover's own", key)
	}
	return nil
}

// named returns the port's name of a key of etcd. Drover's own have none, nor have those
// that the port cannot name: another program's, with a leading slash.
func (c *Client) named(key []byte) (string, bool) {
	name, ok := strings.CutPrefix(string(key), c.opts.Prefix)
	return name, ok && c.checkKey(name) == nil
}

func (c *Client) pair(kv *mvccpb.KeyValue) (coord.Pair, bool) {
	name, ok := c.named(kv.Key)
	return coord.Pair{Key: name, Value: kv.Value, Revision: revision(kv.ModRevision)}, ok
}

func revision(n int64) coord.Revision { return coord.Revision(strconv.FormatInt(n, 10)) }

// Get implements coord.KV.
func (c *Client) Get(ctx context.Context, key string) (p coord.Pair, err error) {
	if err := c.checkKey(key); err != nil {
		return coord.Pair{}, fmt.Errorf("get: %w", err)
	}
	err = c.do(ctx, "get "+key, func(ctx context.Context) error {
		answer, err := c.etcd.Get(ctx, c.opts.Prefix+key)
		if err != nil {
			return err
		}
		if len(answer.Kvs) == 0 {
			return coord.ErrNotFound
		}
		p, _ = c.pair(answer.Kvs[0])
		return nil
	})
	return p, err
}

// List implements coord.KV.
func (c *Client) List(ctx context.Context, prefix string) (pairs []coord.Pair, err error) {
	if err := coord.CheckPrefix(prefix); err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	err = c.do(ctx, "list "+prefix, func(ctx context.Context) error {
		answer, err := c.list(ctx, below(c.opts.Prefix+prefix))
		if err != nil {
			return err
		}
		for _, kv := range answer.Kvs {
			if p, ok := c.pair(kv); ok {
				pairs = append(pairs, p)
			}
		}
		return nil
	})
	return pairs, err
}

// span is a range of keys; without an end it is one key.
type span struct{ key, end string }

func below(prefix string) span {
	if prefix == "" {
		return span{"\x00", "\x00"} // all
	}
	return span{prefix, clientv3.GetPrefixRangeEnd(prefix)}
}

// list reads a span, sorted by key.
func (c *Client) list(ctx context.Context, s span) (*clientv3.GetResponse, error) {
	if s.end == "" {
		return c.etcd.Get(ctx, s.key)
	}
	return c.etcd.Get(ctx, s.key, clientv3.WithRange(s.end))
}

// Put implements coord.KV.
func (c *Client) Put(ctx context.Context, key string, value []byte) (coord.Revision, error) {
	return c.write(ctx, "put "+key, coord.Op{Key: key, Value: value})
}

// CompareAndSwap implements coord.KV.
func (c *Client) CompareAndSwap(ctx context.Context, key string, value []byte, seen coord.Revision) (coord.Revision, error) {
	return c.write(ctx, "swap "+key, coord.Op{Key: key, Value: value, If: &seen})
}

// Delete implements coord.KV.
func (c *Client) Delete(ctx context.Context, key string, seen *coord.Revision) error {
	_, err := c.write(ctx, "delete "+key, coord.Op{Key: key, Delete: true, If: seen})
	return err
}

// Apply implements coord.KV.
func (c *Client) Apply(ctx context.Context, ops []coord.Op) error {
	if len(ops) == 0 {
		return nil
	}
	_, err := c.write(ctx, "apply", ops...)
	return err
}

// MaxOps implements coord.KV.
func (c *Client) MaxOps() int { return maxOps }

// write does ops in one transaction, and returns the revision that it made.
func (c *Client) write(ctx context.Context, what string, ops ...coord.Op) (coord.Revision, error) {
	conds, then, err := c.transaction(ops)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	var made coord.Revision
	err = c.do(ctx, what, func(ctx context.Context) error {
		answer, err := c.etcd.Txn(ctx).If(conds...).Then(then...).Commit()
		switch {
		case err != nil:
			return err
		case !answer.Succeeded:
			return coord.ErrConflict
		}
		made = revision(answer.Header.Revision)
		return nil
	})
	return made, err
}

func (c *Client) transaction(ops []coord.Op) (conds []clientv3.Cmp, then []clientv3.Op, err error) {
	if err := coord.CheckOps(ops, maxOps); err != nil {
		return nil, nil, err
	}
	for _, op := range ops {
		if err := c.checkKey(op.Key); err != nil {
			return nil, nil, err
		}
		key := c.opts.Prefix + op.Key
		if op.If != nil {
			var at int64 // of a key that is not there
			if *op.If != "" {
				if at, err = strconv.ParseInt(string(*op.If), 10, 64); err != nil || at <= 0 {
					return nil, nil, fmt.Errorf("revision %q of %s is none of etcd's: %w", *op.If, op.Key, coord.ErrConflict)
				}
			}
			conds = append(conds, unchanged(key, at))
		}
		if op.Delete {
			then = append(then, clientv3.OpDelete(key))
		} else {
			then = append(then, clientv3.OpPut(key, string(op.Value)))
		}
	}
	return conds, then, nil
}

// unchanged is that the key is as it was at a revision, or was not there at 0.
func unchanged(key string, at int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(key), "=", at)
}
