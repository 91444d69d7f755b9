package coord_test

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"drover/internal/coord"
)

func TestCheckKey(t *testing.T) {
	for _, key := range []string{"a", "a/b/c", "a/", "ä/日本", "a b", "...", "a/..b", ".hidden", "%2f", strings.Repeat("k", 512)} {
		if err := coord.CheckKey(key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
		if err := coord.CheckPrefix(key); err != nil {
			t.Errorf("prefix %q: %v", key, err)
		}
	}
	for _, key := range []string{"", "/", "/a", "a//", "a//b", ".", "..", "a/./b", "a/..", "a\n", "\x7f", "\xff", "a\u200b", strings.Repeat("k", 513)} {
		if coord.CheckKey(key) == nil {
			t.Errorf("%q is accepted", key)
		}
	}
	if err := coord.CheckPrefix(""); err != nil {
		t.Error(err)
	}
}

// FuzzCheckKey: a key that is accepted stays the same path in a URL or a directory.
func FuzzCheckKey(f *testing.F) {
	for _, key := range []string{"a/b", "a/", "../a", "a/./b", "a//b", "\xff", "a\x00"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if coord.CheckKey(key) != nil {
			return
		}
		if path.Clean("/x/"+key) != "/x/"+strings.TrimSuffix(key, "/") || !utf8.ValidString(key) || strings.ContainsAny(key, "\x00\n\r") {
			t.Errorf("%q is accepted", key)
		}
	})
}

func TestKind(t *testing.T) {
	for _, kind := range []error{
		coord.ErrNotFound, coord.ErrConflict, coord.ErrUnauthorized, coord.ErrUnavailable, coord.ErrTooLarge, coord.ErrUnsupported,
	} {
		if got := coord.Kind(fmt.Errorf("get a: %w: %w", kind, context.Canceled)); !errors.Is(got, kind) {
			t.Errorf("the kind of %v is %v", kind, got)
		}
	}
	if coord.Kind(nil) != nil || coord.Kind(errors.New("other")) != nil {
		t.Error("an error of no kind has one")
	}
}

// TestTeller has s for a state, u, n and o for failures that are unavailable, not found and other.
func TestTeller(t *testing.T) {
	errs := map[byte]error{'u': coord.ErrUnavailable, 'n': coord.ErrNotFound, 'o': errors.New("other")}
	for in, want := range map[string]string{
		"": "", "1": "1", "11": "1", "121": "121", "1u1": "1u1", "uu1": "u1", "1uu2": "1u2", "1unuu1": "1unu1", "1oo1": "1o1",
		"ooun": "oun", "11uu11": "1u1", "0": "0", "00u00": "0u0",
	} {
		var got []byte
		tell := coord.NewTeller(func(state byte, err error) {
			for name, e := range errs {
				if errors.Is(err, e) {
					state += name
				}
			}
			got = append(got, state)
		}, func(a, b byte) bool { return a == b })
		for i := range len(in) {
			if err := errs[in[i]]; err != nil {
				tell.Failed(t.Context(), err)
			} else {
				tell.State(in[i])
			}
		}
		if string(got) != want {
			t.Errorf("%s: told %s, want %s", in, got, want)
		}
	}
}

func TestTellerIsSilentAtTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	coord.NewTeller(func(int, error) { t.Error("the end was told as a failure") }, func(a, b int) bool { return a == b }).
		Failed(ctx, coord.ErrUnavailable)
}

func TestBackoff(t *testing.T) {
	b := coord.Backoff{Least: time.Second, Most: 5 * time.Second}
	for range 2 {
		for i, most := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second} {
			if d := b.Next(); d < most/2 || d > most {
				t.Errorf("wait %d is %v, want from half of %v on", i, d, most)
			}
		}
		b.Reset()
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if !coord.Wait(t.Context(), time.Minute) || time.Since(began) != time.Minute {
			t.Errorf("waited %v", time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if coord.Wait(ctx, time.Minute) || time.Since(began) != time.Minute+time.Second {
			t.Errorf("waited %v after the context's end", time.Since(began))
		}
	})
}

func TestEqualInstances(t *testing.T) {
	one := coord.Instance{Registration: coord.Registration{ID: "a", Tags: []string{"x"}}, Status: coord.Passing, Note: "1"}
	other := one
	other.Note, other.Checks = "2", []coord.Check{{Output: "x"}}
	if !coord.EqualInstances([]coord.Instance{one}, []coord.Instance{other}) {
		t.Error("a note counts as a change")
	}
	for name, change := range map[string]func(*coord.Instance){
		"status": func(i *coord.Instance) { i.Status = coord.Warning },
		"tags":   func(i *coord.Instance) { i.Tags = nil },
		"meta":   func(i *coord.Instance) { i.Meta = map[string]string{"a": ""} },
		"port":   func(i *coord.Instance) { i.Port = 1 },
		"node":   func(i *coord.Instance) { i.NodeAddress = "x" },
		"weight": func(i *coord.Instance) { i.Weight = 2 },
	} {
		other := one
		change(&other)
		if coord.EqualInstances([]coord.Instance{one}, []coord.Instance{other}) {
			t.Errorf("%s: no change", name)
		}
	}
}

func TestQueryWants(t *testing.T) {
	q := coord.Query{Tag: "x"}
	if !q.Wants(coord.Passing, []string{"y", "x"}) || q.Wants(coord.Warning, []string{"x"}) || q.Wants(coord.Passing, nil) {
		t.Error("the default is passing, with the tag")
	}
	q = coord.Query{Status: []coord.Status{coord.Critical}}
	if q.Wants(coord.Passing, nil) || !q.Wants(coord.Critical, nil) || !slices.Equal(q.Status, []coord.Status{coord.Critical}) {
		t.Error("statuses that are asked for are those")
	}
}
