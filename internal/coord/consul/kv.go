package consul

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"strconv"

	"github.com/hashicorp/consul/api"

	"drover/internal/coord"
)

// txnOps is how many steps Consul takes in a transaction (its maxTxnOps). A step of the
// port may need two of them.
const txnOps = 64

// Get implements coord.KV.
func (c *Coordinator) Get(ctx context.Context, key string) (coord.Pair, error) {
	if err := coord.CheckKey(key); err != nil {
		return coord.Pair{}, err
	}
	short, cancel := c.short(ctx)
	defer cancel()
	pair, _, err := c.api.KV().Get(key, c.consistent(short))
	if err == nil && pair == nil {
		err = coord.ErrNotFound
	}
	if err != nil {
		return coord.Pair{}, explain(ctx, "get "+key, err)
	}
	return toPair(pair), nil
}

// List implements coord.KV.
func (c *Coordinator) List(ctx context.Context, prefix string) ([]coord.Pair, error) {
	if err := coord.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	short, cancel := c.short(ctx)
	defer cancel()
	pairs, _, err := c.list(prefix, c.consistent(short))
	if err != nil {
		return nil, explain(ctx, "list "+prefix, err)
	}
	return toPairs(pairs), nil
}

// errHidden is an answer of which access control has left nothing.
var errHidden = fmt.Errorf("%w: the token may see none of it", coord.ErrUnauthorized)

// list is a recursive read. That newer versions say when something was hidden is made use of where
// it would look as if there were nothing.
func (c *Coordinator) list(prefix string, q *api.QueryOptions) (api.KVPairs, *api.QueryMeta, error) {
	pairs, meta, err := c.api.KV().List(prefix, q)
	if err == nil && len(pairs) == 0 && meta.ResultsFilteredByACLs {
		err = errHidden
	}
	return pairs, meta, err
}

func toPairs(from api.KVPairs) []coord.Pair {
	pairs := make([]coord.Pair, 0, len(from))
	for _, p := range from {
		pairs = append(pairs, toPair(p))
	}
	return pairs
}

func toPair(p *api.KVPair) coord.Pair {
	return coord.Pair{Key: p.Key, Value: p.Value, Revision: revision(p.ModifyIndex)}
}

func revision(index uint64) coord.Revision { return coord.Revision(strconv.FormatUint(index, 10)) }

// index returns what revision got; 0 is a key that is not there.
func index(r coord.Revision) (uint64, error) {
	if r == "" {
		return 0, nil
	}
	i, err := strconv.ParseUint(string(r), 10, 64)
	if err != nil || i == 0 {
		return 0, fmt.Errorf("%w: %q is no revision of Consul's", coord.ErrConflict, string(r))
	}
	return i, nil
}

// Put implements coord.KV.
func (c *Coordinator) Put(ctx context.Context, key string, value []byte) (coord.Revision, error) {
	return c.set(ctx, coord.Op{Key: key, Value: value})
}

// CompareAndSwap implements coord.KV.
func (c *Coordinator) CompareAndSwap(ctx context.Context, key string, value []byte, seen coord.Revision) (coord.Revision, error) {
	return c.set(ctx, coord.Op{Key: key, Value: value, If: &seen})
}

// set is a transaction even of one step, because its answer has the revision.
func (c *Coordinator) set(ctx context.Context, op coord.Op) (coord.Revision, error) {
	answer, err := c.apply(ctx, "put "+op.Key, []coord.Op{op})
	if err != nil {
		return "", err
	}
	if len(answer) != 1 || answer[0].KV == nil {
		return "", fmt.Errorf("put %s: consul answered with %d results", op.Key, len(answer))
	}
	return revision(answer[0].KV.ModifyIndex), nil
}

// Delete implements coord.KV.
func (c *Coordinator) Delete(ctx context.Context, key string, seen *coord.Revision) error {
	_, err := c.apply(ctx, "delete "+key, []coord.Op{{Key: key, Delete: true, If: seen}})
	return err
}

// Apply implements coord.KV.
func (c *Coordinator) Apply(ctx context.Context, ops []coord.Op) error {
	if len(ops) == 0 {
		return nil
	}
	_, err := c.apply(ctx, "apply batch", ops)
	return err
}

// MaxOps implements coord.KV.
func (c *Coordinator) MaxOps() int { return txnOps / 2 }

func (c *Coordinator) apply(ctx context.Context, what string, ops []coord.Op) (api.TxnResults, error) {
	if err := coord.CheckOps(ops, c.MaxOps()); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	// Consul answers 413 before it has read all, and ends the connection: who still sends may
	// see only that.
	size := 0
	for _, op := range ops {
		size += base64.StdEncoding.EncodedLen(len(op.Value)) + len(op.Key)
	}
	if size > maxRequest {
		return nil, fmt.Errorf("%s: a request of more than %d bytes: %w", what, maxRequest, coord.ErrTooLarge)
	}
	var steps api.TxnOps
	for _, op := range ops {
		kv, err := toSteps(op)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		for _, step := range kv {
			steps = append(steps, &api.TxnOp{KV: step})
		}
	}
	return c.txn(ctx, what, steps)
}

// maxRequest is what Consul takes in one request, in bytes, unless its limits.txn_max_req_len
// and kv_max_value_size say otherwise.
const maxRequest = 512 << 10

// toSteps are what a step of the port is in a transaction of Consul's. A conditional deletion is
// two, because delete-cas has nothing against a key that is gone.
func toSteps(op coord.Op) ([]*api.KVTxnOp, error) {
	if op.If == nil {
		if op.Delete {
			return []*api.KVTxnOp{{Verb: api.KVDelete, Key: op.Key}}, nil
		}
		return []*api.KVTxnOp{{Verb: api.KVSet, Key: op.Key, Value: op.Value}}, nil
	}
	seen, err := index(*op.If)
	switch {
	case err != nil:
		return nil, err
	case !op.Delete: // index 0 creates
		return []*api.KVTxnOp{{Verb: api.KVCAS, Key: op.Key, Value: op.Value, Index: seen}}, nil
	case seen == 0:
		return []*api.KVTxnOp{{Verb: api.KVCheckNotExists, Key: op.Key}}, nil
	}
	return []*api.KVTxnOp{
		{Verb: api.KVCheckIndex, Key: op.Key, Index: seen},
		{Verb: api.KVDelete, Key: op.Key},
	}, nil
}

func (c *Coordinator) txn(ctx context.Context, what string, steps api.TxnOps) (api.TxnResults, error) {
	short, cancel := c.short(ctx)
	defer cancel()
	done, answer, _, err := c.api.Txn().Txn(steps, c.query(short))
	if err == nil && !done {
		err = refused(answer.Errors)
	}
	if err != nil {
		return nil, explain(ctx, what, err)
	}
	return answer.Results, nil
}

// Watch implements coord.KV.
func (c *Coordinator) Watch(ctx context.Context, prefix string, exact bool, fn func([]coord.Pair, error)) {
	c.WatchKeysOf(ctx, "", prefix, exact, fn)
}

// WatchKeysOf is Watch in another datacenter; empty: the one that is configured.
func (c *Coordinator) WatchKeysOf(ctx context.Context, datacenter, prefix string, exact bool, fn func([]coord.Pair, error)) {
	tell := coord.NewTeller(fn, coord.EqualPairs)
	check := coord.CheckPrefix
	if exact {
		check = coord.CheckKey
	}
	if err := check(prefix); err != nil {
		tell.Failed(ctx, err)
		<-ctx.Done()
		return
	}
	follow(ctx, c, "watch "+prefix, func(q *api.QueryOptions) ([]coord.Pair, *api.QueryMeta, error) {
		q.Datacenter = cmp.Or(datacenter, q.Datacenter)
		if exact {
			pair, meta, err := c.api.KV().Get(prefix, q)
			if err != nil || pair == nil {
				return nil, meta, err
			}
			return []coord.Pair{toPair(pair)}, meta, nil
		}
		pairs, meta, err := c.list(prefix, q)
		return toPairs(pairs), meta, err
	}, tell.State, tell.Failed)
}
