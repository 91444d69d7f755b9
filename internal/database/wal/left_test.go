package wal

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// The last segment of a timeline that was left has another end at each member; what the database has of it
// is the same.
func TestStoreWhatWasLeft(t *testing.T) {
	const left = size + size/8
	leaves := []byte("1\t0/120000\tno recovery target specified\n")
	if line, err := ParseHistory(2, leaves); err != nil || line.end(1) != left {
		t.Fatal(line, err)
	}
	same := content(segment(1), 1)
	otherEnd := append([]byte{}, same...)
	otherEnd[size/8] ^= 1
	otherBegin := append([]byte{}, same...)
	otherBegin[size/8-1] ^= 1
	beyond := content(segment(2), 3)
	for _, c := range []struct {
		what        string
		name        Name
		content     []byte
		local       bool // the history is in pg_wal, else in the archive
		none        bool // it is nowhere
		isConflict  bool
		isElsewhere bool // the newest history is another line's
	}{
		{what: "another end", name: segment(1), content: otherEnd, local: true},
		{what: "another end, as the archive says", name: segment(1), content: otherEnd},
		{what: "another end of a partial one", name: Name{Kind: Partial, Timeline: 1, Low: 1}, content: otherEnd, local: true},
		{what: "beyond the end", name: segment(2), content: beyond, local: true},
		{what: "another begin", name: segment(1), content: otherBegin, local: true, isConflict: true},
		{what: "another begin, as the archive says", name: segment(1), content: otherBegin, isConflict: true},
		{what: "nobody has left it", name: segment(1), content: otherEnd, none: true, isConflict: true},
		{what: "a segment that the database has", name: segment(0), content: content(segment(0), 8), local: true, isConflict: true},
		{what: "left by no line", name: segment(1), content: otherEnd, local: true, isConflict: true, isElsewhere: true},
	} {
		t.Run(c.what, func(t *testing.T) {
			a, dir := open(t, newStore(t)), newDirectory(t, 1, 0)
			for _, n := range []Name{segment(0), segment(1), segment(2), {Kind: Partial, Timeline: 1, Low: 1}} {
				push(t, a, n, uint64(n.Low))
			}
			history := Name{Kind: History, Timeline: 2}
			switch {
			case c.isElsewhere:
				history.Timeline = 3
				leaves = []byte("2\t0/120000\tno recovery target specified\n")
				fallthrough
			case c.local:
				if err := os.WriteFile(filepath.Join(dir, walFolder, history.String()), leaves, 0o600); err != nil {
					t.Fatal(err)
				}
			case !c.none:
				if err := a.Push(t.Context(), history, leaves); err != nil {
					t.Fatal(err)
				}
			}
			write(t, dir, c.name, c.content)
			err := carry(t, a, dir).Store(t.Context(), at(dir, c.name))
			if errors.Is(err, ErrConflict) != c.isConflict || !c.isConflict && err != nil {
				t.Errorf("%v", err)
			}
			want := content(c.name, uint64(c.name.Low))
			if have, err := a.Fetch(t.Context(), c.name); err != nil || string(have) != string(want) {
				t.Errorf("what was archived first is gone: %v", err)
			}
		})
	}
}

// An empty history stands in for one that is archived, and for nothing else.
func TestStoreAnEmptyHistory(t *testing.T) {
	a, dir := open(t, newStore(t)), newDirectory(t, 1, 0)
	history := Name{Kind: History, Timeline: 2}
	write(t, dir, history, nil)
	c := carry(t, a, dir)
	if err := c.Store(t.Context(), at(dir, history)); !errors.Is(err, ErrNotFound) {
		t.Errorf("an empty history of a timeline that nobody knows: %v", err)
	}
	real := []byte("1\t0/120000\tno recovery target specified\n")
	if err := a.Push(t.Context(), history, real); err != nil {
		t.Fatal(err)
	}
	if err := c.Store(t.Context(), at(dir, history)); err != nil {
		t.Error(err)
	}
	if have, err := a.Fetch(t.Context(), history); err != nil || string(have) != string(real) {
		t.Errorf("archived: %q, %v", have, err)
	}
}
