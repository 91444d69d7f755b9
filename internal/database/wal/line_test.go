package wal

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const historyText = "1\t0/3000000\tno recovery target specified\n\n2\t0/5000000\tbefore 2026-11-26 09:00:00+00\n"

func TestParseHistory(t *testing.T) {
	line, err := ParseHistory(4, []byte("# a comment\n"+historyText))
	want := Line{{4, 0x5000000, 0}, {2, 0x3000000, 0x5000000}, {1, 0, 0x3000000}}
	if err != nil || !slices.Equal(line, want) {
		t.Errorf("%+v (%v), want %+v", line, err, want)
	}
	for _, c := range []struct {
		t   Timeline
		end LSN
		has bool
	}{{4, 0x9000000, true}, {2, 0x5000000, true}, {2, 0x5000001, false}, {1, 0x3000000, true}, {1, 0x4000000, false}, {3, 1, false}} {
		if got := line.Has(c.t, c.end); got != c.has {
			t.Errorf("timeline %d to %s: %t", c.t, c.end, got)
		}
	}
	for _, bad := range []string{"1", "0\t0/1\n", "x\t0/1\n", "1\there\n", "5\t0/1\n", "2\t0/1\n1\t0/2\n", "1\t0/5\n2\t0/4\n", "1\t0/1\n1\t0/2\n"} {
		if line, err := ParseHistory(4, []byte(bad)); err == nil {
			t.Errorf("%q is taken for %+v", bad, line)
		}
	}
}

func FuzzParseHistory(f *testing.F) {
	f.Add(uint32(4), historyText)
	f.Fuzz(func(t *testing.T, of uint32, text string) {
		line, err := ParseHistory(Timeline(of), []byte(text))
		if err != nil {
			return
		}
		if line[0].Timeline != Timeline(of) || line[0].End != 0 || line[len(line)-1].Begin != 0 {
			t.Errorf("%q: %+v", text, line)
		}
		for i := 1; i < len(line); i++ {
			if line[i].Timeline >= line[i-1].Timeline || line[i].End != line[i-1].Begin || line[i].Begin > line[i].End {
				t.Errorf("%q: %+v", text, line)
			}
		}
	})
}

func TestLineAndNewest(t *testing.T) {
	a := open(t, newStore(t))
	for n, text := range map[Timeline]string{2: "1\t0/3000000\tx\n", 3: "1\t0/3000000\tx\n2\t0/5000000\tx\n", 5: strings.Repeat(" ", 3) + "1\t0/9000000\tx\n"} {
		if err := a.Push(t.Context(), Name{Kind: History, Timeline: n}, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for known, want := range map[Timeline]Timeline{0: 3, 1: 3, 3: 3, 4: 5, 5: 5} {
		if got, err := a.Newest(t.Context(), known); err != nil || got != want {
			t.Errorf("from %d on the newest is %d (%v), want %d", known, got, err, want)
		}
	}
	if line, err := a.Line(t.Context(), 3); err != nil || len(line) != 3 {
		t.Errorf("%+v (%v)", line, err)
	}
	if line, err := a.Line(t.Context(), 1); err != nil || len(line) != 1 {
		t.Errorf("%+v (%v)", line, err)
	}
	if _, err := a.Line(t.Context(), 4); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
	}
}

func FuzzOpen(f *testing.F) {
	s, err := newSealer(secret)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Seal("key", []byte("content")))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		content, err := s.Open("key", slices.Clone(sealed))
		if err == nil && string(content) != "content" {
			t.Errorf("%x opens as %q", sealed, content)
		}
	})
}

func TestNotes(t *testing.T) {
	st := newStore(t)
	a := open(t, st)
	for _, name := range []string{"a", "b"} {
		if err := a.AddNote(t.Context(), name, []byte("of "+name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.AddNote(t.Context(), "a", []byte("another")); !errors.Is(err, ErrConflict) {
		t.Errorf("%v, want ErrConflict", err)
	}
	for _, name := range []string{"a/b", "", "..", "a b"} {
		if err := a.AddNote(t.Context(), name, nil); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v, want ErrName", name, err)
		}
	}
	sealed, _, err := st.Get(t.Context(), a.noteKey("a"), 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Put(t.Context(), a.noteKey("c"), sealed); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err = a.Notes(t.Context(), func(name string, content []byte, err error) error {
		got[name] = string(content)
		if errors.Is(err, ErrDamaged) {
			got[name] = "damaged"
		}
		return nil
	})
	if err != nil || len(got) != 3 || got["a"] != "of a" || got["b"] != "of b" || got["c"] != "damaged" {
		t.Errorf("%v (%v)", got, err)
	}
	if err := a.RemoveNote(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	if all, err := a.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("notes are taken for the log: %v (%v)", all, err)
	}
}

func TestCoverOf(t *testing.T) {
	// Timeline 2 leaves 1 in the middle of segment 4, and 3 leaves 2 at the begin of 6.
	line := Line{{3, 6 * size, 0}, {2, 4*size + 100, 6 * size}, {1, 0, 4*size + 100}}
	stored := func(names ...Name) (all []Stored) {
		for _, n := range names {
			all = append(all, Stored{Name: n})
		}
		return all
	}
	on := func(t Timeline, number uint64) Name { return numbered(t, number, size) }
	whole := []Name{on(1, 2), on(1, 3), on(2, 4), on(2, 5), on(3, 6), on(3, 7)}
	without := func(i int, more ...Name) []Stored {
		return stored(append(slices.Delete(slices.Clone(whole), i, i+1), more...)...)
	}
	for _, c := range []struct {
		what string
		all  []Stored
		want Cover
	}{
		{"all", stored(whole...), Cover{3, 8 * size, on(3, 8), false}},
		{"all, and what others wrote", stored(append(whole, on(1, 4), on(1, 5), on(2, 6), on(2, 9), Name{Kind: Partial, Timeline: 3, Low: 9})...), Cover{3, 8 * size, on(3, 8), false}},
		{"nothing", nil, Cover{1, 2 * size, on(1, 2), false}},
		{"not the first", without(0), Cover{1, 2 * size, on(1, 2), true}},
		{"not the one in which it leaves", without(2, on(1, 4)), Cover{1, 4 * size, on(2, 4), true}},
		{"not the one at which it leaves", without(4, on(2, 6)), Cover{2, 6 * size, on(3, 6), true}},
		{"not the last", without(5), Cover{3, 7 * size, on(3, 7), false}},
	} {
		if got := CoverOf(c.all, line, on(1, 2), size); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
}
