package gitkv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"drover/internal/coord"
)

// current names the key that names the tree which counts.
const current = "current"

// diff is what makes have, which all begin with prefix, what want is.
func diff(have []coord.Pair, prefix string, want pairs) (puts, deletes []coord.Op) {
	left := maps.Clone(want)
	for _, p := range have {
		key := strings.TrimPrefix(p.Key, prefix)
		v, ok := left[key]
		if !ok {
			deletes = append(deletes, coord.Op{Key: p.Key, Delete: true})
			continue
		}
		if delete(left, key); !bytes.Equal(v, p.Value) {
			puts = append(puts, coord.Op{Key: p.Key, Value: v})
		}
	}
	for key, v := range left {
		puts = append(puts, coord.Op{Key: prefix + key, Value: v})
	}
	slices.SortFunc(puts, func(a, b coord.Op) int { return strings.Compare(a.Key, b.Key) })
	return puts, deletes
}

// optional reads a key that may not be there.
func optional(ctx context.Context, kv coord.KV, key string) (coord.Pair, error) {
	p, err := kv.Get(ctx, key)
	if errors.Is(err, coord.ErrNotFound) {
		return coord.Pair{Key: key}, nil
	}
	return p, err
}

// syncAtomic makes the tree of a commit, moves current to it, and removes trees that are too
// old. The tree is compared, key by key, before current is moved to it, whatever the ledger says of it.
func (t *target) syncAtomic(ctx context.Context, l *ledger) error {
	name, prefix := t.mapping.tree(t.commit), below(t.prefix, "")
	pointer, err := optional(ctx, l.kv, prefix+current)
	if err != nil {
		return fmt.Errorf("read what is current: %w", err)
	}
	moved := string(pointer.Value) == name && pointer.Revision != ""
	if moved && l.page.Tree == name && l.page.Commit == t.commit {
		same, err := t.untouched(ctx, l, prefix+name+"/")
		if err != nil {
			return err
		}
		if same {
			return t.collect(ctx, l, prefix)
		}
	}
	if !moved && l.page.Tree == name {
		t.report.Drift++
	}
	want, err := t.keys(ctx)
	if err != nil {
		return err
	}
	name = t.mapping.tree(t.commit) // the branch may have moved meanwhile
	moved = string(pointer.Value) == name && pointer.Revision != ""
	if !slices.Contains(l.page.Trees, name) && l.page.Next != name {
		if err := l.apply(ctx, nil, func(r *page) { r.begin(t, name) }); err != nil {
			return err
		}
	}
	if err := t.makeTree(ctx, l, prefix+name+"/", want, moved); err != nil {
		return err
	}
	if !moved || l.page.Tree != name || l.page.Commit != t.commit {
		ops := []coord.Op{{Key: prefix + current, Value: []byte(name), If: &pointer.Revision}}
		if moved {
			ops = nil // it is right, only the ledger is not
		}
		if err := l.apply(ctx, ops, func(r *page) { r.moved(t, name, want.sum()) }); err != nil {
			return fmt.Errorf("move %s: %w", current, err)
		}
		t.report.Changed = true
	}
	return t.collect(ctx, l, prefix)
}

// untouched says whether a tree that is current needs no look, or is as it was made.
func (t *target) untouched(ctx context.Context, l *ledger, prefix string) (bool, error) {
	if !t.compare {
		return true, nil
	}
	have, err := l.kv.List(ctx, prefix)
	if err != nil {
		return false, fmt.Errorf("list the tree: %w", err)
	}
	return sum(have, prefix) == l.page.Sum, nil
}

// begin notes a tree before its first key is written.
func (r *page) begin(t *target, name string) {
	r.of(t)
	if r.Next != "" && !slices.Contains(r.Trees, r.Next) {
		r.Garbage = append(r.Garbage, r.Next)
	}
	r.Next = name
	r.Garbage = without(r.Garbage, name)
}

func (r *page) of(t *target) {
	r.Repo, r.Ref, r.Prefix, r.Mode, r.Missing = t.worker.repo.Name, t.ref, t.prefix, t.worker.repo.Mode, 0
}

// moved notes that current names a tree.
func (r *page) moved(t *target, name, sum string) {
	r.of(t)
	r.Commit, r.Tree, r.Sum = t.commit, name, sum
	r.Trees = append([]string{name}, without(r.Trees, name)...)
	if r.Next == name {
		r.Next = ""
	}
}

func without(all []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == one })
}

// makeTree makes a tree what it should be.
func (t *target) makeTree(ctx context.Context, l *ledger, prefix string, want pairs, live bool) error {
	have, err := l.kv.List(ctx, prefix)
	if err != nil {
		return fmt.Errorf("list the tree: %w", err)
	}
	puts, deletes := diff(have, prefix, want)
	if live { // it was whole once: somebody has been at it
		t.report.Drift += len(puts) + len(deletes)
	}
	t.report.Written += len(puts)
	if err := l.applyAll(ctx, slices.Concat(puts, deletes)); err != nil {
		return fmt.Errorf("write the tree: %w", err)
	}
	return nil
}

// collect removes what was begun and never became current, and the oldest of the trees that
// were. current was read after the ledger, and both move in one transaction: as long as the ledger is as it was
// seen, the tree that current names is not among them.
func (t *target) collect(ctx context.Context, l *ledger, prefix string) error {
	for _, name := range l.page.old(t.worker.repo.Keep) {
		have, err := l.kv.List(ctx, prefix+name+"/")
		if err != nil {
			return fmt.Errorf("list the old tree %s: %w", name, err)
		}
		var ops []coord.Op
		for _, p := range have {
			ops = append(ops, coord.Op{Key: p.Key, Delete: true})
		}
		if err := l.applyAll(ctx, ops); err != nil {
			return fmt.Errorf("remove the old tree %s: %w", name, err)
		}
		err = l.apply(ctx, nil, func(r *page) { r.Trees, r.Garbage = without(r.Trees, name), without(r.Garbage, name) })
		if err != nil {
			return fmt.Errorf("remove the old tree %s: %w", name, err)
		}
		t.report.Collected++
	}
	return nil
}

// old lists the trees that may go.
func (r *page) old(keep int) []string {
	all := slices.Clone(r.Garbage)
	if len(r.Trees) > keep {
		all = append(all, r.Trees[keep:]...)
	}
	return slices.DeleteFunc(all, func(name string) bool { return name == r.Tree || name == r.Next || name == "" })
}
