package gitkv

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"drover/internal/coord"
)

// maxList bounds the list of keys, as it is stored: it is one value. Some 30,000 keys fit.
const maxList = 400 << 10

// list is the keys that are ours, whole names.
type list map[string]bool

// plainList is the length up to which a list is readable for people; a longer one is compressed.
const plainList = 32 << 10

func (l list) encode() ([]byte, error) {
	data, err := json.Marshal(slices.Sorted(maps.Keys(l)))
	if err != nil || len(data) <= plainList {
		return data, err
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if b.Len() > maxList {
		return nil, fmt.Errorf("%d keys are more than can be kept in place: use atomic: %w", len(l), coord.ErrTooLarge)
	}
	return b.Bytes(), nil
}

func decodeList(data []byte) (list, error) {
	if bytes.HasPrefix(data, []byte("\x1f\x8b")) {
		r, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		if data, err = io.ReadAll(io.LimitReader(r, 256<<20)); err != nil {
			return nil, err
		}
	}
	var keys []string
	if err := json.Unmarshal(data, &keys); err != nil {
		return nil, err
	}
	l := list{}
	for _, k := range keys {
		l[k] = true
	}
	return l, nil
}

func checksum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// readList reads the list that the ledger is about. One that cannot be read is an error: it is not empty.
func (l *ledger) readList(ctx context.Context) (list, error) {
	if l.page.Keys == "" {
		return list{}, nil
	}
	p, err := l.kv.Get(ctx, l.list)
	if err != nil {
		return nil, fmt.Errorf("read the list of keys: %w", err)
	}
	if checksum(p.Value) != l.page.Keys {
		return nil, errors.New("read the list of keys: it is not the ledger's")
	}
	keys, err := decodeList(p.Value)
	if err != nil {
		return nil, fmt.Errorf("read the list of keys: %w", err)
	}
	return keys, nil
}

// withList adds to ops that the list becomes keys; the change is the ledger's.
func (l *ledger) withList(ops []coord.Op, keys list) ([]coord.Op, func(*page), error) {
	data, err := keys.encode()
	if err != nil {
		return nil, nil, err
	}
	sum := checksum(data)
	return append(ops, coord.Op{Key: l.list, Value: data}), func(r *page) { r.Keys = sum }, nil
}

// refKey is where git2consul keeps the commit that is there; who has read it finds it still.
func (t *target) refKey() string {
	r := t.worker.repo
	r.OmitBranch = true
	return below(r.prefix(t.ref), short(t.ref)+".ref")
}

// syncInPlace makes the keys below the prefix what they should be: in one transaction, if they fit, else the
// new ones first and then, when they are all there, the deletions.
func (t *target) syncInPlace(ctx context.Context, l *ledger) error {
	if t.isThere(l) {
		same, err := t.untouchedInPlace(ctx, l)
		if same || err != nil {
			return err
		}
	}
	made, err := t.keys(ctx)
	if err != nil {
		return err
	}
	want, err := t.withPrefix(made)
	if err != nil {
		return err
	}
	ours, err := l.readList(ctx)
	if err != nil {
		return err
	}
	if err := t.worker.s.places.own(t, slices.Collect(maps.Keys(want))); err != nil {
		return err
	}
	ops, drift, err := t.changes(ctx, l, want, ours)
	if err != nil {
		return err
	}
	done := t.isThere(l) // the branch may have moved meanwhile
	if len(ops) == 0 && done && l.page.Sum == want.sum() {
		return nil
	}
	if done {
		t.report.Drift += drift
	}
	if err := t.write(ctx, l, ops, want, ours); err != nil {
		return err
	}
	t.report.Changed = t.report.Changed || !done
	return nil
}

// isThere says whether the ledger has the commit, whole, and made as it would be now.
func (t *target) isThere(l *ledger) bool {
	return l.page.Commit == t.commit && l.page.Next == "" && l.page.Made == t.mapping.tree(t.commit)
}

// withPrefix are whole keys, and git2consul's.
func (t *target) withPrefix(made pairs) (pairs, error) {
	all := pairs{}
	for key, v := range made {
		all[below(t.prefix, key)] = v
	}
	if _, ok := all[t.refKey()]; ok {
		return nil, fmt.Errorf("a file makes key %q, where the commit is told", t.refKey())
	}
	all[t.refKey()] = []byte(t.commit)
	for key := range all {
		if within(t.worker.s.o.Root, key) {
			return nil, fmt.Errorf("a file makes key %q, where the ledgers are", key)
		}
	}
	return all, nil
}

// untouchedInPlace is as untouched.
func (t *target) untouchedInPlace(ctx context.Context, l *ledger) (bool, error) {
	if !t.compare {
		return true, nil
	}
	ours, err := l.readList(ctx)
	if err != nil {
		return false, err
	}
	if err := t.worker.s.places.own(t, slices.Collect(maps.Keys(ours))); err != nil {
		return false, err
	}
	have, err := t.list(ctx, l)
	if err != nil {
		return false, err
	}
	all := len(have)
	have = slices.DeleteFunc(have, func(p coord.Pair) bool { return !ours[p.Key] })
	t.report.Others = all - len(have)
	return sum(have, "") == l.page.Sum, nil
}

// slash is the prefix as what all keys below it begin with.
func (t *target) slash() string {
	if t.prefix == "" {
		return ""
	}
	return t.prefix + "/"
}

// list lists what is where the target's keys are.
func (t *target) list(ctx context.Context, l *ledger) ([]coord.Pair, error) {
	have, err := l.kv.List(ctx, t.slash())
	if err != nil {
		return nil, fmt.Errorf("list the keys: %w", err)
	}
	if strings.HasPrefix(t.refKey(), t.slash()) {
		return have, nil
	}
	p, err := optional(ctx, l.kv, t.refKey())
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", t.refKey(), err)
	}
	if p.Revision != "" {
		have = append(have, p)
	}
	return have, nil
}

// changes lists what must be written and deleted: of what is there, only what is ours is deleted, by
// its name.
func (t *target) changes(ctx context.Context, l *ledger, want pairs, ours list) (ops []coord.Op, drift int, err error) {
	have, err := t.list(ctx, l)
	if err != nil {
		return nil, 0, err
	}
	all := len(have)
	have = slices.DeleteFunc(have, func(p coord.Pair) bool {
		_, wanted := want[p.Key]
		return !wanted && !ours[p.Key]
	})
	t.report.Others = all - len(have)
	puts, deletes := diff(have, "", want)
	t.report.Written += len(puts)
	t.report.Deleted += len(deletes)
	return slices.Concat(puts, deletes), len(puts) + len(deletes), nil
}

// write does ops and notes whose keys they are: what is new before it is written, what is gone after.
func (t *target) write(ctx context.Context, l *ledger, ops []coord.Op, want pairs, ours list) error {
	final := list{}
	for key := range want {
		final[key] = true
	}
	finish := func(ops []coord.Op) ([]coord.Op, func(*page), error) {
		ops, noted, err := l.withList(ops, final)
		return ops, func(r *page) {
			r.of(t)
			noted(r)
			r.Commit, r.Made, r.Next, r.Sum = t.commit, t.mapping.tree(t.commit), "", want.sum()
		}, err
	}
	all, change, err := finish(ops)
	if err != nil {
		return err
	}
	if l.fits(all) {
		if err = l.apply(ctx, all, change); !errors.Is(err, coord.ErrTooLarge) {
			return err
		}
	}
	t.report.Parts = true
	both := maps.Clone(ours)
	maps.Copy(both, final)
	first, noted, err := l.withList(nil, both)
	if err != nil {
		return err
	}
	err = l.apply(ctx, first, func(r *page) {
		r.of(t)
		noted(r)
		r.Next = t.commit
	})
	if err != nil {
		return err
	}
	if err := l.applyAll(ctx, ops); err != nil {
		return err
	}
	last, change, err := finish(nil)
	if err != nil {
		return err
	}
	return l.apply(ctx, last, change)
}
