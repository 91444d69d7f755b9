package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/mem"
)

func TestNames(t *testing.T) {
	for text, want := range map[string]Name{
		"000000010000000A000000FE":                 {Segment, 1, 10, 254, 0},
		"000000010000000A000000FE.partial":         {Partial, 1, 10, 254, 0},
		"0000000C.history":                         {History, 12, 0, 0, 0},
		"000000010000000A000000FE.00000028.backup": {Backup, 1, 10, 254, 40},
	} {
		got, err := ParseName(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: %+v, %v, again %s", text, got, err, got)
		}
	}
	for _, text := range []string{
		"", "history", ".history", "000000010000000A000000FE.", "000000010000000A000000FE.history", "00000001.partial",
		"000000010000000a000000FE", "../../etc/passwd", "000000010000000A000000FE/x", "00000000.history",
		"000000010000000A000000FE.0000002.backup", "000000010000000A000000FE.00000028.00000028.backup", "RECOVERYXLOG",
	} {
		if n, err := ParseName(text); !errors.Is(err, ErrName) {
			t.Errorf("%q is taken for %+v (%v)", text, n, err)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, text := range []string{"000000010000000A000000FE", "00000001.history", "000000010000000A000000FE.00000028.backup"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := ParseName(text); err == nil && n.String() != text {
			t.Errorf("%q becomes %q", text, n)
		}
	})
}

func TestPositions(t *testing.T) {
	l, err := ParseLSN("16/B374D848")
	if err != nil || l != 0x16B374D848 || l.String() != "16/B374D848" {
		t.Errorf("%v (%v)", l, err)
	}
	const usual = 16 << 20
	n := SegmentAt(3, l, usual)
	if n.String() != "0000000300000016000000B3" || n.Begin(usual) > l || n.Next(usual).Begin(usual) <= l {
		t.Errorf("%s from %s", n, n.Begin(usual))
	}
	last := Name{Kind: Segment, Timeline: 1, High: 1, Low: 255}
	if next := last.Next(usual); next.String() != "000000010000000200000000" {
		t.Errorf("after %s comes %s", last, next)
	}
	if n := SegmentBefore(1, LSN(usual*5), usual); n.Low != 4 {
		t.Errorf("a log that ends at a segment's begin needs %s", n)
	}
}

func TestPushAndFetch(t *testing.T) {
	st := newStore(t)
	a := open(t, st)
	n := segment(3)
	push(t, a, n, 3)
	push(t, a, n, 3) // again
	if err := a.Push(t.Context(), n, content(n, 4)); !errors.Is(err, ErrConflict) {
		t.Errorf("another content: %v, want ErrConflict", err)
	}
	got, err := a.Fetch(t.Context(), n)
	if err != nil || !bytes.Equal(got, content(n, 3)) {
		t.Errorf("fetched something else: %v", err)
	}
	for _, n := range []Name{segment(4), {Kind: Partial, Timeline: 1, Low: 3}, {Kind: History, Timeline: 1}} {
		if _, err := a.Fetch(t.Context(), n); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", n, err)
		}
	}
	history := Name{Kind: History, Timeline: 2}
	if err := a.Push(t.Context(), history, []byte("1\t0/3000000\tno recovery target specified\n")); err != nil {
		t.Error(err)
	}
	if err := a.Push(t.Context(), history, []byte("1\t0/4000000\tno recovery target specified\n")); !errors.Is(err, ErrConflict) {
		t.Errorf("a timeline claimed twice: %v, want ErrConflict", err)
	}
}

// What restic does not look at, and nobody can read.
func TestWhereAndHowItLies(t *testing.T) {
	st := newStore(t)
	a := open(t, st)
	n := segment(1)
	b := content(n, 1)
	copy(b[size/2:], "a secret that everyone would find in the bucket")
	if err := a.Push(t.Context(), n, b); err != nil {
		t.Fatal(err)
	}
	key := "drover/log/7300000000000000001/00000001/000000010000000000000001"
	sealed, _, err := st.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("secret")) || bytes.Contains(sealed, b[:64]) || len(sealed) > size/2 {
		t.Errorf("%d bytes, not sealed or not compressed", len(sealed))
	}
}

// Every bit counts, the name too.
func TestDamage(t *testing.T) {
	st := newStore(t)
	a := open(t, st)
	push(t, a, segment(1), 1)
	key := a.key(segment(1))
	sealed, _, err := st.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 1, 32, 33, 44, 45, 46, 60, len(sealed) / 2, len(sealed) - 1} {
		bad := bytes.Clone(sealed)
		bad[at] ^= 1
		if err := st.Put(t.Context(), key, bad); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Fetch(t.Context(), segment(1)); !errors.Is(err, ErrDamaged) {
			t.Errorf("bit %d flipped: %v, want ErrDamaged", at, err)
		}
		if err := a.Push(t.Context(), segment(1), content(segment(1), 1)); !errors.Is(err, ErrDamaged) {
			t.Errorf("bit %d flipped, pushed again: %v, want ErrDamaged", at, err)
		}
	}
	for _, short := range []int{0, 5, 40, len(sealed) - 1} {
		if err := st.Put(t.Context(), key, sealed[:short]); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Fetch(t.Context(), segment(1)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%d bytes are left: %v, want ErrDamaged", short, err)
		}
	}
	if err := st.Put(t.Context(), a.key(segment(2)), sealed); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Fetch(t.Context(), segment(2)); !errors.Is(err, ErrDamaged) {
		t.Errorf("another one's object: %v, want ErrDamaged", err)
	}
	if err := st.Put(t.Context(), key, append([]byte{2}, sealed[1:]...)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Fetch(t.Context(), segment(1)); err == nil || !errors.Is(err, errTooNew) {
		t.Errorf("a newer format: %v", err)
	}
}

func TestForeignSegments(t *testing.T) {
	a := open(t, newStore(t))
	good := content(segment(5), 1)
	spoil := func(at int, b byte) []byte {
		bad := bytes.Clone(good)
		bad[at] ^= b
		return bad
	}
	for what, b := range map[string][]byte{
		"short": good[:size/2], "empty": nil, "odd": good[:size-1], "of another system": spoil(24, 1),
		"of another place": spoil(10, 0x10), "of a later timeline": spoil(4, 6), "without a head": spoil(2, 2),
	} {
		if err := a.Push(t.Context(), segment(5), b); !errors.Is(err, ErrForeign) {
			t.Errorf("a segment %s: %v, want ErrForeign", what, err)
		}
	}
	if err := a.Push(t.Context(), Name{Kind: Segment, Timeline: 2, Low: 5}, good); err != nil {
		t.Errorf("the first segment of a new timeline begins as the old one's: %v", err)
	}
}

// A store whose answer is lost, late, or that of a proxy that repeated the request.
func TestPushWhoseAnswerIsLost(t *testing.T) {
	lost := fmt.Errorf("lost: %w", objstore.ErrUnavailable)
	refused := fmt.Errorf("refused: %w", objstore.ErrConflict)
	putif := func(n int, f faulty.Fault) faulty.Script {
		seen := 0
		return func(c faulty.Call) faulty.Fault {
			if c.Op != faulty.PutIf {
				return faulty.Fault{}
			}
			if seen++; seen > n {
				return faulty.Fault{}
			}
			return f
		}
	}
	for what, f := range map[string]faulty.Fault{
		"answer lost": {After: lost}, "refused after it took effect": {After: refused}, "repeated by a proxy": {Twice: true},
		"request lost": {Before: lost}, "refused for no reason": {Before: refused},
	} {
		st := newStore(t)
		a := open(t, faulty.New(st, putif(1, f)))
		push(t, a, segment(1), 1)
		if got, err := open(t, st).Fetch(t.Context(), segment(1)); err != nil || !bytes.Equal(got, content(segment(1), 1)) {
			t.Errorf("%s: acknowledged, and not stored: %v", what, err)
		}
	}
	view := faulty.New(newStore(t), putif(99, faulty.Fault{Before: lost}))
	if err := open(t, view).Push(t.Context(), segment(1), content(segment(1), 1)); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("never stored: %v, want ErrUnavailable", err)
	}
	// Read back in vain: nothing is known, nothing is acknowledged.
	view = faulty.New(newStore(t), func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.PutIf {
			return faulty.Fault{After: lost}
		}
		return faulty.Fault{Before: lost}
	})
	if err := open(t, view).Push(t.Context(), segment(1), content(segment(1), 1)); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("nothing known: %v, want ErrUnavailable", err)
	}
	// The first request takes effect after the second was sent.
	st := newStore(t)
	late := faulty.New(st, putif(1, faulty.Fault{Late: lost}))
	push(t, open(t, late), segment(1), 1)
	if err := late.Deliver(0); !errors.Is(err, objstore.ErrConflict) {
		t.Errorf("late, and it replaced what was stored: %v", err)
	}
}

// Push is killed at each call: what is stored is whole, and the next one ends it.
func TestPushThatDies(t *testing.T) {
	dead := errors.New("dead")
	for n := 1; n <= 2; n++ {
		for _, f := range []faulty.Fault{{Before: dead}, {After: dead}} {
			st := newStore(t)
			err := open(t, faulty.New(st, faulty.At(n, f))).Push(t.Context(), segment(1), content(segment(1), 1))
			if n == 1 && err == nil {
				t.Error("a Push that died succeeded")
			}
			push(t, open(t, st), segment(1), 1)
			if _, err := open(t, st).Fetch(t.Context(), segment(1)); err != nil {
				t.Error(err)
			}
		}
	}
}

// What is not known is never "not found".
func TestFetchGuessesNothing(t *testing.T) {
	kinds := []error{objstore.ErrUnavailable, objstore.ErrUnauthorised, errors.New("the bucket does not exist")}
	for _, kind := range kinds {
		st := newStore(t)
		for n := 1; n <= 2; n++ {
			_, err := open(t, faulty.New(st, faulty.At(n, faulty.Fault{Before: kind}))).Fetch(t.Context(), segment(1))
			if err == nil || errors.Is(err, ErrNotFound) || !errors.Is(err, kind) {
				t.Errorf("call %d fails by %v: %v", n, kind, err)
			}
		}
	}
	if _, err := open(t, mem.New()).Fetch(t.Context(), segment(1)); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("a store without the volume: %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		a := open(t, faulty.New(newStore(t), func(c faulty.Call) faulty.Fault { return faulty.Fault{Hang: c.Op != faulty.Put} }))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := a.Fetch(ctx, segment(1)); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("a store that hangs: %v", err)
		}
	})
}

// Of many who store different contents under one name, exactly one is told that it did.
func TestRacingPrimaries(t *testing.T) {
	a := open(t, newStore(t))
	var group sync.WaitGroup
	var mu sync.Mutex
	won := []uint64{}
	for seed := range uint64(8) {
		group.Go(func() {
			err := a.Push(t.Context(), segment(1), content(segment(1), seed))
			if err != nil && !errors.Is(err, ErrConflict) {
				t.Error(err)
			}
			if err == nil {
				mu.Lock()
				won = append(won, seed)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if len(won) != 1 {
		t.Fatalf("%v were told that they stored it", won)
	}
	if got, err := a.Fetch(t.Context(), segment(1)); err != nil || !bytes.Equal(got, content(segment(1), won[0])) {
		t.Errorf("another content is stored than the winner's (%v)", err)
	}
}

func TestListMissingRemove(t *testing.T) {
	st := newStore(t)
	a := open(t, st)
	for _, n := range []uint64{2, 3, 4, 6, 7, 9} {
		push(t, a, segment(n), n)
	}
	push(t, a, Name{Kind: Segment, Timeline: 2, Low: 7}, 1)
	for _, n := range []Name{{Kind: History, Timeline: 2}, {Kind: Backup, Timeline: 1, Low: 3, Offset: 40}} {
		if err := a.Push(t.Context(), n, []byte("text")); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Put(t.Context(), a.folder(1)+"note", []byte("not ours")); err != nil {
		t.Fatal(err)
	}
	all, err := a.List(t.Context())
	if err != nil || len(all) != 9 || all[len(all)-2].Kind != History {
		t.Fatalf("%v (%v)", all, err)
	}
	want := []Range{{1, 2, 4}, {1, 6, 7}, {1, 9, 9}, {2, 7, 7}}
	if got := Ranges(all, size); !slices.Equal(got, want) {
		t.Errorf("ranges %v, want %v", got, want)
	}
	for _, last := range []uint64{7, 20} { // asked one by one, and by a listing
		got, err := a.Missing(t.Context(), segment(2), segment(last), size)
		if err != nil || got[0] != segment(5) || last == 7 && len(got) != 1 || last == 20 && len(got) != 13 {
			t.Errorf("missing to %d: %v (%v)", last, got, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := a.Await(ctx, segment(2), segment(7), size); err == nil || !strings.Contains(err.Error(), segment(5).String()) {
		t.Errorf("waiting for a gap to close: %v", err)
	}
	if n, err := a.Remove(t.Context(), segment(4).Begin(size)+5, size); err != nil || n != 3 {
		t.Errorf("removed %d (%v), want 2 segments and the note about a backup", n, err)
	}
	all, _ = a.List(t.Context())
	if got := Ranges(all, size); !slices.Equal(got, []Range{{1, 4, 4}, {1, 6, 7}, {1, 9, 9}, {2, 7, 7}}) || len(all) != 6 {
		t.Errorf("left: %v", got)
	}
}

// Killed at each deletion, what is left has no gap.
func TestRemoveThatDies(t *testing.T) {
	for n := 1; n <= 7; n++ {
		st := newStore(t)
		for i := uint64(1); i <= 8; i++ {
			push(t, open(t, st), segment(i), i)
		}
		_, err := open(t, faulty.New(st, faulty.At(n, faulty.Fault{Before: errors.New("dead")}))).Remove(t.Context(), segment(7).Begin(size), size)
		if err == nil {
			t.Errorf("call %d failed, and it succeeded", n)
		}
		all, _ := open(t, st).List(t.Context())
		if got := Ranges(all, size); len(got) != 1 || got[0].Last != 8 {
			t.Errorf("died at call %d: %v is left", n, got)
		}
	}
}

func TestStreamsGoTheirOwnWay(t *testing.T) {
	st := newStore(t)
	a := open(t, st)
	b, err := New(st, Options{Secret: secret, System: system, Stream: "copy"})
	if err != nil {
		t.Fatal(err)
	}
	push(t, a, segment(1), 1)
	push(t, b, segment(1), 2)
	for _, other := range []string{"note", "x/y", "07/z"} { // none of ours
		if err := st.Put(t.Context(), root+other, nil); err != nil {
			t.Fatal(err)
		}
	}
	list, err := Streams(t.Context(), st)
	slices.SortFunc(list, func(a, b Stream) int { return strings.Compare(a.Name, b.Name) })
	if err != nil || !slices.Equal(list, []Stream{{system, ""}, {system, "copy"}}) {
		t.Errorf("streams %v (%v)", list, err)
	}
	for _, opt := range []Options{{Secret: secret}, {Secret: secret, System: 1, Stream: "a/b"}, {Secret: secret[:16], System: 1}} {
		if _, err := New(st, opt); err == nil {
			t.Errorf("%+v is taken", opt)
		}
	}
}

// Who stores what another has stored already finds that out by a look at its head.
func TestPushOfManyMembers(t *testing.T) {
	st := newStore(t)
	for n := uint64(1); n <= 10; n++ {
		push(t, open(t, st), segment(n), n)
	}
	view := faulty.New(st, nil)
	a := open(t, view)
	for n := uint64(1); n <= 10; n++ {
		push(t, a, segment(n), n)
	}
	ops := map[faulty.Op]int{}
	for _, c := range view.Calls() {
		ops[c.Op]++
	}
	if ops[faulty.PutIf] != 1 || ops[faulty.Get] != 10 {
		t.Errorf("10 files that were there: %v", ops)
	}
	if err := a.Push(t.Context(), segment(5), content(segment(5), 99)); !errors.Is(err, ErrConflict) {
		t.Errorf("another content: %v, want ErrConflict", err)
	}
	push(t, a, segment(11), 11)
	if got, err := a.Fetch(t.Context(), segment(11)); err != nil || !bytes.Equal(got, content(segment(11), 11)) {
		t.Errorf("acknowledged, and not stored: %v", err)
	}
}
