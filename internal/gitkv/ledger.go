package gitkv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"drover/internal/coord"
)

// page is what a ledger says of a place: a prefix, and what is below it. It is the only thing that says which
// keys are ours.
type page struct {
	Version int    `json:"version"` // of this format
	Repo    string `json:"repo"`    // its name
	Ref     string `json:"ref"`
	Prefix  string `json:"prefix"`
	Mode    Mode   `json:"mode"`
	Commit  string `json:"commit,omitempty"` // the one that is there, whole
	Sum     string `json:"sum,omitempty"`    // of its keys and values

	// Atomic. Each tree that may have a key is in one of these, from before its first key is written.
	Tree    string   `json:"tree,omitempty"`    // the current one
	Trees   []string `json:"trees,omitempty"`   // those that were current, newest first, the current one included
	Next    string   `json:"next,omitempty"`    // atomic: a tree that is being made. In place: a commit that is under way
	Garbage []string `json:"garbage,omitempty"` // to be removed

	// In place.
	Keys string `json:"keys,omitempty"` // a checksum of the list beside it
	Made string `json:"made,omitempty"` // how the keys of Commit were made, as a tree would be called

	Missing int `json:"missing,omitempty"` // how often, in a row, the branch was not there

	// Writer and Step make each write of a ledger differ from every other.
	Writer string `json:"writer"`
	Step   uint64 `json:"step"`
}

const ledgerVersion = 1

// errDeposed: somebody else has written the ledger since it was read.
var errDeposed = fmt.Errorf("another writer is at work: %w", coord.ErrConflict)

// steps number all writes of this process.
type steps struct{ n atomic.Uint64 }

// ledger is a place's ledger as it was seen last, and the only way to write below its prefix.
type ledger struct {
	kv     coord.KV
	key    string
	list   string // the key of the list of keys
	writer string
	steps  *steps
	seen   coord.Revision // "": not there
	page   page
}

// ledgerKey is where the ledger of a prefix is; listKey, where its list of keys. A prefix may be empty.
func ledgerKey(root, prefix string) string { return root + "/ledgers/@" + prefix }
func listKey(root, prefix string) string   { return root + "/keys/@" + prefix }

// open reads the ledger; there need not be one.
func (l *ledger) open(ctx context.Context) error {
	p, err := l.kv.Get(ctx, l.key)
	if errors.Is(err, coord.ErrNotFound) {
		l.seen, l.page = "", page{}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	var r page
	if err := json.Unmarshal(p.Value, &r); err != nil {
		return fmt.Errorf("read the ledger at %s: %w", l.key, err)
	}
	if r.Version > ledgerVersion {
		return fmt.Errorf("the ledger at %s is of a newer version: %d", l.key, r.Version)
	}
	l.seen, l.page = p.Revision, r
	return nil
}

// apply does ops, and changes the ledger, in one transaction, if nobody has written the ledger since it was seen.
// It takes room() ops. If the answer was lost, or was a conflict, it reads back what has happened.
func (l *ledger) apply(ctx context.Context, ops []coord.Op, change func(*page)) error {
	next := l.page
	next.Trees, next.Garbage = slices.Clone(next.Trees), slices.Clone(next.Garbage)
	if change != nil {
		change(&next)
	}
	next.Version, next.Writer, next.Step = ledgerVersion, l.writer, l.steps.n.Add(1)
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	seen := l.seen
	guard := coord.Op{Key: l.key, Value: text, If: &seen}
	applyErr := l.kv.Apply(ctx, append(slices.Clone(ops), guard))
	if errors.Is(applyErr, coord.ErrTooLarge) {
		return applyErr // it was not tried
	}
	p, err := l.kv.Get(ctx, l.key)
	if err != nil && !errors.Is(err, coord.ErrNotFound) {
		return errors.Join(applyErr, fmt.Errorf("read the ledger back: %w", err))
	}
	switch {
	case err == nil && bytes.Equal(p.Value, text): // each text is written once
		l.seen, l.page = p.Revision, next
		return nil
	case p.Revision != l.seen:
		return errDeposed
	case applyErr == nil:
		return fmt.Errorf("a write that was acknowledged is not there: %w", coord.ErrUnavailable)
	}
	return applyErr
}

func (l *ledger) room() int { return l.kv.MaxOps() - 1 }

// batchBytes is how much is sent in one transaction: half of what Consul takes.
const batchBytes = 256 << 10

// applyAll does ops in as few transactions as it can, in their order.
func (l *ledger) applyAll(ctx context.Context, ops []coord.Op) error {
	limit := l.room()
	for len(ops) > 0 {
		n, size := 0, 0
		for n < min(limit, len(ops)) {
			if size += len(ops[n].Key) + len(ops[n].Value); n > 0 && size > batchBytes {
				break
			}
			n++
		}
		err := l.apply(ctx, ops[:n], nil)
		if errors.Is(err, coord.ErrTooLarge) && n > 1 {
			limit = n / 2
			continue
		}
		if err != nil {
			if n == 1 {
				return fmt.Errorf("write key %s: %w", ops[0].Key, err)
			}
			return err
		}
		ops = ops[n:]
	}
	return nil
}

// fits says whether ops can be one transaction.
func (l *ledger) fits(ops []coord.Op) bool {
	size := 0
	for _, op := range ops {
		size += len(op.Key) + len(op.Value)
	}
	return len(ops) <= l.room() && size <= batchBytes
}
