package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"drover/internal/coord"
)

// maxOps is generous: a batch is one write, whatever is in it.
const maxOps = 1024

// pairs are all keys, as stored.
type pairs map[string]pair

type pair struct {
	Value    []byte         `json:"value"`
	Revision coord.Revision `json:"revision"`
}

func (p pair) of(key string) coord.Pair {
	return coord.Pair{Key: key, Value: append([]byte{}, p.Value...), Revision: p.Revision}
}

func (ps pairs) below(prefix string, exact bool) []coord.Pair {
	var found []coord.Pair
	for key, p := range ps {
		if key == prefix || !exact && strings.HasPrefix(key, prefix) {
			found = append(found, p.of(key))
		}
	}
	slices.SortFunc(found, func(a, b coord.Pair) int { return strings.Compare(a.Key, b.Key) })
	return found
}

// Get implements coord.KV.
func (c *Client) Get(ctx context.Context, key string) (coord.Pair, error) {
	if err := coord.CheckKey(key); err != nil {
		return coord.Pair{}, fmt.Errorf("get: %w", err)
	}
	s, err := c.keys.read(ctx)
	if err != nil {
		return coord.Pair{}, fmt.Errorf("get %s: %w", key, err)
	}
	p, ok := s.Value[key]
	if !ok {
		return coord.Pair{}, fmt.Errorf("get %s: %w", key, coord.ErrNotFound)
	}
	return p.of(key), nil
}

// List implements coord.KV.
func (c *Client) List(ctx context.Context, prefix string) ([]coord.Pair, error) {
	if err := coord.CheckPrefix(prefix); err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	s, err := c.keys.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	return s.Value.below(prefix, false), nil
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

func (c *Client) write(ctx context.Context, what string, ops ...coord.Op) (coord.Revision, error) {
	if err := coord.CheckOps(ops, maxOps); err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("%s: %w: %w", what, coord.ErrUnavailable, err)
	}
	id := newID()
	count, err := c.keys.update(ctx, id, func(now pairs, count uint64) (pairs, error) {
		return now.apply(ops, revision(count, id))
	})
	if errors.Is(err, errSame) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	return revision(count, id), nil
}

// revision is that of all keys that one write sets. The id is in it, so that none repeats
// when somebody emptied the bucket and counting began anew.
func revision(count uint64, id string) coord.Revision {
	return coord.Revision(strconv.FormatUint(count, 10) + "." + id[:8])
}

func (ps pairs) apply(ops []coord.Op, revision coord.Revision) (pairs, error) {
	next := maps.Clone(ps)
	if next == nil {
		next = pairs{}
	}
	changed := false
	for _, op := range ops {
		old, there := ps[op.Key]
		if op.If != nil && *op.If != old.Revision {
			return nil, fmt.Errorf("%s: %w", op.Key, coord.ErrConflict)
		}
		changed = changed || there || !op.Delete
		if op.Delete {
			delete(next, op.Key)
		} else {
			next[op.Key] = pair{bytes.Clone(op.Value), revision}
		}
	}
	if !changed {
		return nil, errSame
	}
	return next, nil
}

// Watch implements coord.KV. All watches of a client look at the same object, together.
func (c *Client) Watch(ctx context.Context, prefix string, exact bool, fn func([]coord.Pair, error)) {
	check := coord.CheckPrefix
	if exact {
		check = coord.CheckKey
	}
	if err := check(prefix); err != nil {
		coord.Refuse(ctx, fn, fmt.Errorf("watch: %w", err))
		return
	}
	look(ctx, c, coord.EqualPairs, fn, func(ctx context.Context) ([]coord.Pair, error) {
		s, err := c.keys.recent(ctx, c.opt.Interval/2)
		if err != nil {
			return nil, fmt.Errorf("watch %s: %w", prefix, err)
		}
		return s.Value.below(prefix, exact), nil
	})
}
