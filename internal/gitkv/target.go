package gitkv

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"drover/internal/coord"
)

// target is a branch or tag, and where its keys are.
type target struct {
	worker  *worker
	ref     string
	prefix  string
	mapping mapping
	done    string // the commit that this writer has brought it to
	last    Target // and what there is to say of that

	// Of one pass.
	commit  string
	compare bool
	report  *Target
	bad     refused
}

// refused is a commit that cannot be made into keys, whatever is tried.
type refused struct {
	commit string
	err    error
}

// sum is what the keys and values of a commit are known by, so that they can be compared without
// fetching the commit again.
func sum(all []coord.Pair, prefix string) string {
	h := sha256.New()
	for _, p := range slices.SortedFunc(slices.Values(all), func(a, b coord.Pair) int { return strings.Compare(a.Key, b.Key) }) {
		v := sha256.Sum256(p.Value)
		fmt.Fprintf(h, "%d %s %x\n", len(p.Key)-len(prefix), strings.TrimPrefix(p.Key, prefix), v)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func (made pairs) sum() string {
	var all []coord.Pair
	for key, v := range made {
		all = append(all, coord.Pair{Key: key, Value: v})
	}
	return sum(all, "")
}

// keys fetches the commit that the branch is at now, which may be a newer one than was listed.
func (t *target) keys(ctx context.Context) (pairs, error) {
	if t.bad.err != nil && t.bad.commit == t.commit {
		return nil, t.bad.err
	}
	snapshot, err := t.worker.source.Fetch(ctx, t.ref, t.mapping.wants)
	if err != nil {
		return nil, err
	}
	t.commit = snapshot.Commit
	made, notes, err := t.mapping.keys(snapshot.Files, t.base())
	for _, k := range snapshot.Skipped {
		if rel, ok := t.mapping.within(k.Path); ok && !t.mapping.excluded(rel) {
			notes = append(notes, fmt.Sprintf("%q is left out: %s", k.Path, k.Why))
		}
	}
	t.report.Notes = notes
	if err != nil {
		t.bad = refused{t.commit, fmt.Errorf("commit %s: %w", t.commit, err)}
		return nil, t.bad.err
	}
	return made, nil
}

// base is what each key of the commit begins with.
func (t *target) base() string {
	if t.worker.repo.Mode == InPlace {
		return t.slash()
	}
	return t.slash() + t.mapping.tree(t.commit) + "/"
}

// sync makes the target's keys those of the commit.
func (t *target) sync(ctx context.Context, commit string, compare bool) Target {
	t.report = t.worker.newReport(t.ref)
	t.commit, t.compare = commit, compare
	t.done = ""
	err := t.run(ctx)
	if err != nil {
		t.report.Error = err.Error()
		return *t.report
	}
	t.done, t.last = t.commit, *t.report
	t.last.Changed, t.last.Parts = false, false
	t.last.Written, t.last.Deleted, t.last.Drift, t.last.Collected = 0, 0, 0, 0
	return *t.report
}

func (t *target) run(ctx context.Context) error {
	l := t.worker.ledger(t.prefix)
	if err := l.open(ctx); err != nil {
		return err
	}
	defer func() { t.report.Commit, t.report.Tree = l.page.Commit, l.page.Tree }()
	mode := t.worker.repo.Mode
	if l.page.Mode != "" && l.page.Mode != mode {
		return fmt.Errorf("the keys below %q are %s: another mode needs another mountpoint", t.prefix, l.page.Mode)
	}
	if r := l.page; l.seen != "" && (r.Missing > 0 || r.Ref != t.ref || r.Repo != t.worker.repo.Name) {
		if err := l.apply(ctx, nil, func(r *page) { r.of(t) }); err != nil {
			return err
		}
	}
	if mode == InPlace {
		return t.syncInPlace(ctx, l)
	}
	return t.syncAtomic(ctx, l)
}

// missing counts that the branch was not there, and removes the keys if it was asked to and this is the
// second time in a row: whoever renames a branch deletes it for a moment.
// A list without any branch may be a server's that shows nothing any more: it does not count.
func (t *target) missing(ctx context.Context, counts bool) Target {
	t.report = t.worker.newReport(t.ref)
	t.report.Missing = true
	t.done = ""
	if err := t.runMissing(ctx, counts); err != nil {
		t.report.Error = err.Error()
	}
	return *t.report
}

const missingPasses = 2

func (t *target) runMissing(ctx context.Context, counts bool) error {
	l := t.worker.ledger(t.prefix)
	if err := l.open(ctx); err != nil {
		return err
	}
	t.report.Commit, t.report.Tree = l.page.Commit, l.page.Tree
	if l.seen == "" || l.page.Ref != t.ref || l.page.Repo != t.worker.repo.Name {
		return errors.New("there is no such branch or tag")
	}
	if !t.worker.repo.RemoveDeleted || !counts {
		return nil
	}
	if l.page.Missing < missingPasses {
		if err := l.apply(ctx, nil, func(r *page) { r.Missing++ }); err != nil {
			return err
		}
	}
	if l.page.Missing < missingPasses {
		return nil
	}
	return t.remove(ctx, l)
}

// remove takes all keys of the target away, what readers look at first, and at last the ledger.
func (t *target) remove(ctx context.Context, l *ledger) error {
	if l.page.Mode == InPlace {
		if err := t.removeInPlace(ctx, l); err != nil {
			return err
		}
	} else if err := t.removeTrees(ctx, l); err != nil {
		return err
	}
	ops := []coord.Op{{Key: l.key, Delete: true, If: &l.seen}, {Key: l.list, Delete: true}}
	if err := l.kv.Apply(ctx, ops); err != nil {
		return fmt.Errorf("remove the ledger: %w", err)
	}
	t.worker.s.places.forget(t)
	t.report.Removed, t.report.Commit, t.report.Tree = true, "", ""
	return nil
}

func (t *target) removeInPlace(ctx context.Context, l *ledger) error {
	ours, err := l.readList(ctx)
	if err != nil {
		return err
	}
	ops, _, err := t.changes(ctx, l, pairs{}, ours)
	if err != nil {
		return err
	}
	// From here on it is not that commit that is there, even if the branch comes back.
	if err := l.apply(ctx, nil, func(r *page) { r.Commit, r.Next = "", "" }); err != nil {
		return err
	}
	return l.applyAll(ctx, ops)
}

func (t *target) removeTrees(ctx context.Context, l *ledger) error {
	pointer := []coord.Op{{Key: t.slash() + current, Delete: true}}
	err := l.apply(ctx, pointer, func(r *page) {
		r.Garbage = append(r.Garbage, r.Trees...)
		if r.Next != "" {
			r.Garbage = append(r.Garbage, r.Next)
		}
		r.Commit, r.Tree, r.Next, r.Trees = "", "", "", nil
	})
	if err != nil {
		return err
	}
	return t.collect(ctx, l, t.slash())
}
