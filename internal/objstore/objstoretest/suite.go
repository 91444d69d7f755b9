// Package objstoretest is the conformance suite of the objstore port: every
// backend and every decorator passes it, as does a view under a prefix.
//
// It tests what the contract of objstore.Store says and no more: not the order
// of a listing, nor whether two versions of the same bytes differ in ETag.
// Speed, durability over a power cut and races between processes are left to
// the backends' own tests.
package objstoretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"drover/internal/objstore"
)

// Run tests the stores that open returns: an empty one, or an empty view of
// one, for each call.
func Run(t *testing.T, open func(t *testing.T) objstore.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, objstore.Store)
	}{
		{"Missing", testMissing},
		{"RoundTrip", testRoundTrip},
		{"Overwrite", testOverwrite},
		{"Range", testRange},
		{"RangeOfEmpty", testRangeOfEmpty},
		{"OwnBytes", testOwnBytes},
		{"Info", testInfo},
		{"BadKey", testBadKey},
		{"List", testList},
		{"ListMany", testListMany},
		{"ListStops", testListStops},
		{"Folders", testFolders},
		{"Delete", testDelete},
		{"Cancelled", testCancelled},
		{"Create", testCreate},
		{"Swap", testSwap},
		{"SwapDeleted", testSwapDeleted},
		{"BadCondition", testBadCondition},
		{"RaceToCreate", testRaceToCreate},
		{"RaceToSwap", testRaceToSwap},
		{"Parallel", testParallel},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// random returns n bytes that differ from key to key but not from run to run.
func random(seed uint64, n int) []byte {
	var s [32]byte
	s[0], s[1] = byte(seed), byte(seed>>8)
	data := make([]byte, n)
	_, _ = rand.NewChaCha8(s).Read(data)
	return data
}

func put(t *testing.T, s objstore.Store, key string, data []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, data); err != nil {
		t.Fatalf("Put %s: %v", key, err)
	}
}

func get(t *testing.T, s objstore.Store, key string) []byte {
	t.Helper()
	data, _, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatalf("Get %s: %v", key, err)
	}
	return data
}

func etag(t *testing.T, s objstore.Store, key string) objstore.ETag {
	t.Helper()
	info, err := s.Head(t.Context(), key)
	if err != nil {
		t.Fatalf("Head %s: %v", key, err)
	}
	return info.ETag
}

func want(t *testing.T, what string, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: got error %v, want %v", what, err, kind)
	}
}

func testMissing(t *testing.T, s objstore.Store) {
	put(t, s, "dir/there", []byte("x"))
	for _, key := range []string{"nothing", "no/such/thing", "dir/ther", "dir/there2", "dir"} {
		_, _, err := s.Get(t.Context(), key, 0, -1)
		want(t, "Get "+key, err, objstore.ErrNotFound)
		_, _, err = s.Get(t.Context(), key, 5, 5)
		want(t, "Get of a range of "+key, err, objstore.ErrNotFound)
		_, _, err = s.Get(t.Context(), key, 0, 0)
		want(t, "Get of nothing of "+key, err, objstore.ErrNotFound)
		_, err = s.Head(t.Context(), key)
		want(t, "Head "+key, err, objstore.ErrNotFound)
	}
}

func testRoundTrip(t *testing.T, s objstore.Store) {
	for i, size := range []int{0, 1, 4095, 64 << 10, 1<<20 + 1, 20 << 20} {
		key := fmt.Sprintf("dir/of.objects/size_%d-x", size)
		data := random(uint64(i), size)
		put(t, s, key, data)
		if got := get(t, s, key); !bytes.Equal(got, data) {
			t.Errorf("%d bytes: got %d others back", size, len(got))
		}
		info, err := s.Head(t.Context(), key)
		if err != nil || info.Size != int64(size) {
			t.Errorf("Head after %d bytes: size %d, %v", size, info.Size, err)
		}
	}
}

func testOverwrite(t *testing.T, s objstore.Store) {
	for _, data := range []string{"first, and long", "second", "", "fourth"} {
		put(t, s, "a", []byte(data))
		if got := get(t, s, "a"); string(got) != data {
			t.Errorf("got %q, want %q", got, data)
		}
	}
}

func testRange(t *testing.T, s objstore.Store) {
	put(t, s, "ten", []byte("0123456789"))
	for _, c := range []struct {
		offset, length int64
		want           string
	}{
		{0, -1, "0123456789"}, {0, 10, "0123456789"}, {0, 11, "0123456789"}, {0, 1, "0"}, {0, 0, ""},
		{3, 4, "3456"}, {3, -1, "3456789"}, {9, 1, "9"}, {9, 2, "9"}, {9, -1, "9"}, {3, 0, ""},
		{5, 1 << 40, "56789"}, {10, -1, ""}, {10, 1, ""}, {10, 0, ""},
	} {
		got, info, err := s.Get(t.Context(), "ten", c.offset, c.length)
		if err != nil || string(got) != c.want {
			t.Errorf("Get(%d, %d): %q, %v; want %q", c.offset, c.length, got, err, c.want)
		}
		if err == nil && info.Size != 10 {
			t.Errorf("Get(%d, %d): Info has size %d, want the whole object's", c.offset, c.length, info.Size)
		}
	}
	for _, length := range []int64{-1, 0, 1} {
		_, _, err := s.Get(t.Context(), "ten", 11, length)
		want(t, fmt.Sprintf("Get(11, %d)", length), err, objstore.ErrRange)
	}
	if _, _, err := s.Get(t.Context(), "ten", -1, 1); err == nil {
		t.Error("Get from -1: no error")
	}
}

func testRangeOfEmpty(t *testing.T, s objstore.Store) {
	put(t, s, "empty", nil)
	for _, length := range []int64{-1, 0, 1} {
		got, info, err := s.Get(t.Context(), "empty", 0, length)
		if err != nil || len(got) != 0 || info.Size != 0 || info.ETag == "" {
			t.Errorf("Get(0, %d): %q, %+v, %v", length, got, info, err)
		}
		_, _, err = s.Get(t.Context(), "empty", 1, length)
		want(t, fmt.Sprintf("Get(1, %d)", length), err, objstore.ErrRange)
	}
}

func testOwnBytes(t *testing.T, s objstore.Store) {
	data := []byte("as it was")
	put(t, s, "a", data)
	for i := range data {
		data[i] = 'X'
	}
	first := get(t, s, "a")
	if string(first) != "as it was" {
		t.Errorf("got %q after the caller reused its buffer", first)
	}
	first[0] = 'Y'
	if again := get(t, s, "a"); string(again) != "as it was" {
		t.Errorf("got %q after a reader changed what it got", again)
	}
}

func testInfo(t *testing.T, s objstore.Store) {
	put(t, s, "a", []byte("one"))
	_, got, err := s.Get(t.Context(), "a", 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	head, err := s.Head(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if got.Key != "a" || head.Key != "a" {
		t.Errorf("keys %q and %q, want a", got.Key, head.Key)
	}
	if got.ETag == "" || got.ETag != head.ETag {
		t.Errorf("ETags of one version: %q by Get, %q by Head", got.ETag, head.ETag)
	}
	if head.ModTime.IsZero() || got.ModTime.IsZero() {
		t.Error("no time of modification")
	}
	put(t, s, "a", []byte("two"))
	if etag(t, s, "a") == head.ETag {
		t.Error("another version has the same ETag")
	}
}

func testBadKey(t *testing.T, s objstore.Store) {
	for _, key := range []string{"", "/a", "a/", "a//b", "a/../b", "..", "./a", "a b", "a\x00b", "ä"} {
		_, _, err := s.Get(t.Context(), key, 0, -1)
		if err == nil || errors.Is(err, objstore.ErrNotFound) {
			t.Errorf("Get %q: %v", key, err)
		}
		if err := s.Put(t.Context(), key, []byte("x")); err == nil {
			t.Errorf("Put %q: no error", key)
		}
		if _, err := s.PutIf(t.Context(), key, []byte("x"), objstore.IfAbsent()); err == nil {
			t.Errorf("PutIf %q: no error", key)
		}
		if err := s.Delete(t.Context(), key); err == nil {
			t.Errorf("Delete %q: no error", key)
		}
	}
	wantKeys(t, s, "")
}

// keys lists prefix, sorted, and finds what is listed twice.
func keys(t *testing.T, s objstore.Store, prefix string) []string {
	t.Helper()
	var found []string
	err := s.List(t.Context(), prefix, func(i objstore.Info) error {
		found = append(found, i.Key)
		return nil
	})
	if err != nil {
		t.Fatalf("List %q: %v", prefix, err)
	}
	slices.Sort(found)
	if n := len(found); n != len(slices.Compact(slices.Clone(found))) {
		t.Errorf("List %q: some of the %d keys are twice there", prefix, n)
	}
	return found
}

func wantKeys(t *testing.T, s objstore.Store, prefix string, expected ...string) {
	t.Helper()
	slices.Sort(expected)
	if got := keys(t, s, prefix); !slices.Equal(got, expected) {
		t.Errorf("List %q: got %q, want %q", prefix, got, expected)
	}
}

func testList(t *testing.T, s objstore.Store) {
	wantKeys(t, s, "")
	wantKeys(t, s, "a/")
	for i, key := range []string{"a/1", "a/2/x", "a/2/y", "a/20", "ab", "b/a/1", "config"} {
		put(t, s, key, make([]byte, i))
	}
	wantKeys(t, s, "", "a/1", "a/2/x", "a/2/y", "a/20", "ab", "b/a/1", "config")
	wantKeys(t, s, "a/", "a/1", "a/2/x", "a/2/y", "a/20")
	wantKeys(t, s, "a", "a/1", "a/2/x", "a/2/y", "a/20", "ab")
	wantKeys(t, s, "a/2", "a/2/x", "a/2/y", "a/20")
	wantKeys(t, s, "a/2/", "a/2/x", "a/2/y")
	wantKeys(t, s, "a/2/x", "a/2/x")
	wantKeys(t, s, "a/2/x/")
	wantKeys(t, s, "con", "config")
	wantKeys(t, s, "c/")
	err := s.List(t.Context(), "a/2/", func(i objstore.Info) error {
		if wanted := map[string]int64{"a/2/x": 1, "a/2/y": 2}[i.Key]; i.Size != wanted {
			t.Errorf("%s: listed with %d bytes, want %d", i.Key, i.Size, wanted)
		}
		if i.ETag != "" && i.ETag != etag(t, s, i.Key) {
			t.Errorf("%s: listed with ETag %q, Head says %q", i.Key, i.ETag, etag(t, s, i.Key))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func testFolders(t *testing.T, s objstore.Store) {
	folders := func() (names []string) {
		t.Helper()
		if err := objstore.Folders(t.Context(), s, func(name string) error {
			names = append(names, name)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		return names
	}
	if names := folders(); len(names) != 0 {
		t.Errorf("an empty store has folders %q", names)
	}
	for _, key := range []string{"b/1", "a/1", "a/2/x", "a-b/c", "ab", "c/d/e"} {
		put(t, s, key, nil)
	}
	if names, wanted := folders(), []string{"a", "a-b", "b", "c"}; !slices.Equal(names, wanted) {
		t.Errorf("folders %q, want %q", names, wanted)
	}
	stop, calls := errors.New("stop"), 0
	if err := objstore.Folders(t.Context(), s, func(string) error { calls++; return stop }); !errors.Is(err, stop) || calls != 1 {
		t.Errorf("stopped: %d calls, %v", calls, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	want(t, "Folders", objstore.Folders(ctx, s, func(string) error { return nil }), context.Canceled)
}

// testListMany has more keys than a server puts into one answer (1000).
func testListMany(t *testing.T, s objstore.Store) {
	const n = 1100
	expected := make([]string, n)
	for i := range expected {
		expected[i] = fmt.Sprintf("many/%02x/%04d", i%16, i)
	}
	each(t, 8, n, func(i int) error { return s.Put(t.Context(), expected[i], nil) })
	put(t, s, "other", nil)
	wantKeys(t, s, "many/", expected...)
}

func testListStops(t *testing.T, s objstore.Store) {
	for i := range 5 {
		put(t, s, fmt.Sprintf("k%d", i), nil)
	}
	stop := errors.New("enough")
	calls := 0
	err := s.List(t.Context(), "", func(objstore.Info) error {
		calls++
		if calls == 2 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || calls != 2 {
		t.Errorf("got error %v after %d calls, want %v after 2", err, calls, stop)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err = s.List(ctx, "", func(objstore.Info) error { cancel(); return nil })
	if err != nil {
		want(t, "List whose context ended on the way", err, context.Canceled)
	}
}

func testDelete(t *testing.T, s objstore.Store) {
	put(t, s, "d/a", []byte("x"))
	put(t, s, "d/b", []byte("y"))
	for range 2 {
		if err := s.Delete(t.Context(), "d/a"); err != nil {
			t.Fatalf("Delete: %v", err)
		}
	}
	if err := s.Delete(t.Context(), "never/was"); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
	_, err := s.Head(t.Context(), "d/a")
	want(t, "Head of a deleted object", err, objstore.ErrNotFound)
	wantKeys(t, s, "d/", "d/b")
	put(t, s, "d/a", []byte("again"))
	if got := get(t, s, "d/a"); string(got) != "again" {
		t.Errorf("got %q", got)
	}
}

func testCancelled(t *testing.T, s objstore.Store) {
	put(t, s, "a", []byte("kept"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := s.Get(ctx, "a", 0, -1)
	want(t, "Get", err, context.Canceled)
	_, err = s.Head(ctx, "a")
	want(t, "Head", err, context.Canceled)
	want(t, "Put", s.Put(ctx, "a", []byte("changed")), context.Canceled)
	_, err = s.PutIf(ctx, "b", []byte("made"), objstore.IfAbsent())
	want(t, "PutIf", err, context.Canceled)
	want(t, "List", s.List(ctx, "", func(objstore.Info) error { return nil }), context.Canceled)
	want(t, "Delete", s.Delete(ctx, "a"), context.Canceled)
	if got := get(t, s, "a"); string(got) != "kept" {
		t.Errorf("a is %q", got)
	}
	wantKeys(t, s, "", "a")
}

// each calls do(0) … do(n-1) from several goroutines and fails on any error.
func each(t *testing.T, workers, n int, do func(i int) error) {
	t.Helper()
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for i := w; i < n; i += workers {
				if err := do(i); err != nil {
					t.Errorf("%d: %v", i, err)
				}
			}
		})
	}
	group.Wait()
}

// testParallel has readers see whole versions only while writers replace them.
func testParallel(t *testing.T, s objstore.Store) {
	const size = 100_000
	put(t, s, "p", bytes.Repeat([]byte{1}, size))
	each(t, 8, 48, func(i int) error {
		if i%2 == 0 {
			return s.Put(t.Context(), "p", bytes.Repeat([]byte{byte(i)}, size))
		}
		data, info, err := s.Get(t.Context(), "p", 0, -1)
		if err != nil {
			return err
		}
		if len(data) != size || info.Size != size || bytes.Count(data, data[:1]) != size {
			return fmt.Errorf("torn read: %d bytes, %d of them alike", len(data), bytes.Count(data, data[:1]))
		}
		return nil
	})
}
