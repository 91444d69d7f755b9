package mem

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"drover/internal/coord"
)

const maxOps = 64 // Consul's

// find needs the lock.
func (s *Server) find(key string) (coord.Pair, error) {
	p, ok := s.pairs[key]
	if !ok {
		return coord.Pair{}, coord.ErrNotFound
	}
	p.Value = bytes.Clone(p.Value)
	return p, nil
}

// below needs the lock.
func (s *Server) below(prefix string, exact bool) []coord.Pair {
	var found []coord.Pair
	for key, p := range s.pairs {
		if key == prefix || !exact && strings.HasPrefix(key, prefix) {
			p.Value = bytes.Clone(p.Value)
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b coord.Pair) int { return strings.Compare(a.Key, b.Key) })
	return found
}

// apply needs the lock.
func (s *Server) apply(ops []coord.Op) (coord.Revision, error) {
	size := 0
	for _, op := range ops {
		if op.If != nil && *op.If != s.pairs[op.Key].Revision {
			return "", fmt.Errorf("%s: %w", op.Key, coord.ErrConflict)
		}
		if !op.Delete {
			size += len(op.Key) + len(op.Value)
		}
	}
	if size > limit {
		return "", fmt.Errorf("%d bytes, of at most %d: %w", size, limit, coord.ErrTooLarge)
	}
	s.revision++
	revision := coord.Revision(strconv.FormatUint(s.revision, 10))
	for _, op := range ops {
		if op.Delete {
			delete(s.pairs, op.Key)
		} else {
			s.pairs[op.Key] = coord.Pair{Key: op.Key, Value: append([]byte{}, op.Value...), Revision: revision}
		}
	}
	s.change()
	return revision, nil
}

// Get implements coord.KV.
func (c *Client) Get(ctx context.Context, key string) (p coord.Pair, err error) {
	if err := coord.CheckKey(key); err != nil {
		return coord.Pair{}, fmt.Errorf("get: %w", err)
	}
	err = c.do(ctx, "get "+key, func() error {
		p, err = c.server.find(key)
		return err
	})
	return p, err
}

// List implements coord.KV.
func (c *Client) List(ctx context.Context, prefix string) (found []coord.Pair, err error) {
	if err := coord.CheckPrefix(prefix); err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	err = c.do(ctx, "list "+prefix, func() error {
		found = c.server.below(prefix, false)
		return nil
	})
	return found, err
}

// write does ops at one moment.
func (c *Client) write(ctx context.Context, what string, ops ...coord.Op) (revision coord.Revision, err error) {
	if err := coord.CheckOps(ops, maxOps); err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	err = c.do(ctx, what, func() error {
		revision, err = c.server.apply(ops)
		return err
	})
	return revision, err
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

// Watch implements coord.KV.
func (c *Client) Watch(ctx context.Context, prefix string, exact bool, fn func([]coord.Pair, error)) {
	check := coord.CheckPrefix
	if exact {
		check = coord.CheckKey
	}
	if err := check(prefix); err != nil {
		coord.Refuse(ctx, fn, fmt.Errorf("watch: %w", err))
		return
	}
	watch(ctx, c, "watch "+prefix, coord.EqualPairs, fn, func() ([]coord.Pair, time.Time) {
		return c.server.below(prefix, exact), time.Time{}
	})
}
