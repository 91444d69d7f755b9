package coordtest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/internal/coord"
)

func watchTests() []test {
	return []test{
		{"WatchFirstState", testWatchFirst, ""},
		{"WatchNothingThere", testWatchNothing, ""},
		{"WatchPrefix", testWatchPrefix, ""},
		{"WatchExact", testWatchExact, ""},
		{"WatchBadPrefix", testWatchBadPrefix, ""},
		{"WatchNeverGoesBack", testWatchForward, ""},
		{"WatchSlowReader", testWatchSlow, ""},
		{"WatchSlowNeighbour", testWatchNeighbour, ""},
		{"WatchAll", testWatchAll, ""},
		{"WatchMany", testWatchMany, ""},
		{"WatchEnds", testWatchEnds, ""},
		{"WatchCutOff", testWatchCutOff, "Partition"},
		{"WatchCutOffUnchanged", testWatchCutOffUnchanged, "Partition"},
		{"WatchCutOffFromTheStart", testWatchFromTheStart, "Partition"},
		{"WatchHanging", testWatchHanging, "Hang"},
		{"WatchOutlivesARestart", testWatchRestart, "RestartServer"},
		{"WatchOutlivesACompaction", testWatchCompact, "Compact"},
		{"WatchOutlivesARewind", testWatchRewind, "RewindIndex"},
		{"WatchOfAStranger", testWatchStranger, "Stranger"},
	}
}

type pairs = []coord.Pair

func (s *suite) watch(t *testing.T, c coord.KV, prefix string, exact bool) *watcher[pairs] {
	return watch(t, coord.EqualPairs, 0, func(ctx context.Context, fn func(pairs, error)) { c.Watch(ctx, s.key(prefix), exact, fn) })
}

// is says whether a call was the state in which the keys, without the test's own prefix,
// have these values: key, value, key, value.
func (s *suite) is(keyValues ...string) func(pairs, error) bool {
	return func(ps pairs, err error) bool {
		if err != nil {
			return false
		}
		var got []string
		for _, p := range ps {
			got = append(got, strings.TrimPrefix(p.Key, s.key("")), string(p.Value))
		}
		return slices.Equal(got, keyValues)
	}
}

func testWatchFirst(t *testing.T, s *suite) {
	c := s.Open(t)
	r := put(t, c, s.key("dir/a"), "1")
	put(t, c, s.key("dir/b"), "\x00\xff")
	put(t, c, s.key("dirty"), "2")
	w := s.watch(t, c, "dir/", false)
	w.await("first state", s.Settle, s.is("dir/a", "1", "dir/b", "\x00\xff"))
	w.stop()
	calls := w.all()
	if len(calls) != 1 {
		t.Errorf("%d calls for one state", len(calls))
	}
	if got := calls[0].state[0].Revision; got != r {
		t.Errorf("told revision %q, put returned %q", got, r)
	}
	if _, err := c.CompareAndSwap(call(t), s.key("dir/a"), []byte("3"), calls[0].state[0].Revision); err != nil {
		t.Errorf("swap by the revision of a watch: %v", err)
	}
}

func testWatchNothing(t *testing.T, s *suite) {
	c := s.Open(t)
	below, exact := s.watch(t, c, "none/", false), s.watch(t, c, "none/a", true)
	below.await("empty prefix", s.Settle, s.is())
	exact.await("absent key", s.Settle, s.is())
	put(t, c, s.key("none/a"), "")
	below.await("first key", s.Settle, s.is("none/a", ""))
	exact.await("the key", s.Settle, s.is("none/a", ""))
	ok(t, "delete", c.Delete(call(t), s.key("none/a"), nil))
	below.await("empty again", s.Settle, s.is())
	exact.await("absent again", s.Settle, s.is())
	if n, m := len(below.all()), len(exact.all()); n != 3 || m != 3 {
		t.Errorf("%d and %d calls for three states", n, m)
	}
}

// testWatchPrefix also holds that what does not concern a watch wakes nobody: each time, a
// write elsewhere comes before one that does.
func testWatchPrefix(t *testing.T, s *suite) {
	c, writer := s.Open(t), s.Open(t)
	w := s.watch(t, c, "foo", false)
	w.await("first", s.Settle, s.is())
	put(t, writer, s.key("fo"), "elsewhere")
	put(t, writer, s.key("fop"), "elsewhere")
	put(t, writer, s.key("a/foo"), "elsewhere")
	put(t, writer, s.key("foobar/foo"), "1")
	w.await("longer name", s.Settle, s.is("foobar/foo", "1"))
	put(t, writer, s.key("fo"), "elsewhere, again")
	ok(t, "delete elsewhere", writer.Delete(call(t), s.key("fop"), nil))
	ok(t, "delete what is not there", writer.Delete(call(t), s.key("foo/none"), nil))
	put(t, writer, s.key("foo"), "2")
	w.await("the name itself", s.Settle, s.is("foo", "2", "foobar/foo", "1"))
	ok(t, "apply", writer.Apply(call(t), []coord.Op{
		{Key: s.key("foo"), Delete: true}, {Key: s.key("foo/a"), Value: []byte("3")}, {Key: s.key("fop"), Value: []byte("x")},
	}))
	w.await("a batch", s.Settle, s.is("foo/a", "3", "foobar/foo", "1"))
	if n := len(w.all()); n != 4 {
		t.Errorf("%d calls for four states: %+v", n, w.all())
	}
}

func testWatchExact(t *testing.T, s *suite) {
	c := s.Open(t)
	put(t, c, s.key("foo/a"), "below")
	w := s.watch(t, c, "foo", true)
	w.await("first", s.Settle, s.is())
	put(t, c, s.key("foobar"), "longer")
	put(t, c, s.key("foo/"), "folder")
	put(t, c, s.key("foo"), "1")
	w.await("the key", s.Settle, s.is("foo", "1"))
	put(t, c, s.key("foo/a"), "below, again")
	put(t, c, s.key("foo"), "2")
	w.await("the key again", s.Settle, s.is("foo", "2"))
	if n := len(w.all()); n != 3 {
		t.Errorf("%d calls for three states: %+v", n, w.all())
	}
}

func testWatchBadPrefix(t *testing.T, s *suite) {
	c := s.Open(t)
	for _, prefix := range []string{"/a", "a//b", "../a", "a\x00"} {
		w := watch(t, coord.EqualPairs, 0, func(ctx context.Context, fn func(pairs, error)) { c.Watch(ctx, prefix, false, fn) })
		w.failed(prefix, s.Settle, nil)
		w.stop()
	}
}

// wantForward wants numbers that do not fall, except after what all knows to have gone back.
func wantForward(t *testing.T, calls []told[pairs]) {
	t.Helper()
	last := -1
	for i, call := range calls {
		if call.err != nil || len(call.state) == 0 {
			continue
		}
		n, err := strconv.Atoi(string(call.state[0].Value))
		if err != nil || n < last {
			t.Fatalf("call %d tells %q after %d", i+1, call.state[0].Value, last)
		}
		last = n
		for _, p := range call.state {
			if string(p.Value) != string(call.state[0].Value) {
				t.Fatalf("call %d tells the state of no moment: %+v", i+1, call.state)
			}
		}
	}
}

func testWatchForward(t *testing.T, s *suite) {
	c, writer := s.Open(t), s.Open(t)
	w := s.watch(t, c, "n/", false)
	const last = 60
	for i := range last + 1 {
		v := []byte(strconv.Itoa(i))
		ok(t, "apply", writer.Apply(call(t), []coord.Op{{Key: s.key("n/a"), Value: v}, {Key: s.key("n/b"), Value: v}}))
	}
	end := strconv.Itoa(last)
	w.await("last number", s.Settle, s.is("n/a", end, "n/b", end))
	wantForward(t, w.all())
}

// testWatchSlow has a reader that takes its time while many states pass: it is told the
// last one, and not all that came before one by one.
func testWatchSlow(t *testing.T, s *suite) {
	c, writer := s.Open(t), s.Open(t)
	w := watch(t, coord.EqualPairs, s.Settle/2, func(ctx context.Context, fn func(pairs, error)) {
		c.Watch(ctx, s.key("n"), true, fn)
	})
	w.await("first", s.Settle, s.is())
	const last = 40
	for i := range last + 1 {
		put(t, writer, s.key("n"), strconv.Itoa(i))
	}
	w.await("last number", 3*s.Settle, s.is("n", strconv.Itoa(last)))
	wantForward(t, w.all())
	if n := len(w.all()); n > last/2 {
		t.Errorf("%d calls: states that were overtaken were told to a slow reader", n)
	}
}

// testWatchNeighbour has a reader that takes its time beside one that does not wait for it.
func testWatchNeighbour(t *testing.T, s *suite) {
	c := s.Open(t)
	slow := watch(t, coord.EqualPairs, 3*s.Settle, func(ctx context.Context, fn func(pairs, error)) {
		c.Watch(ctx, s.key("n"), true, fn)
	})
	slow.await("first", s.Settle, s.is())
	w := s.watch(t, c, "n", true)
	w.await("first", s.Settle, s.is())
	put(t, c, s.key("n"), "1")
	w.await("a change, while the neighbour has not returned", s.Settle, s.is("n", "1"))
	wantValue(t, c, s.key("n"), "1")
}

// testWatchAll watches everything, which on a shared server is not this test's alone.
func testWatchAll(t *testing.T, s *suite) {
	c := s.Open(t)
	w := watch(t, coord.EqualPairs, 0, func(ctx context.Context, fn func(pairs, error)) { c.Watch(ctx, "", false, fn) })
	for _, value := range []string{"1", "2"} {
		put(t, c, s.key("a/b"), value)
		w.await("my key among all", s.Settle, func(ps pairs, err error) bool {
			return err == nil && slices.ContainsFunc(ps, func(p coord.Pair) bool { return p.Key == s.key("a/b") && string(p.Value) == value })
		})
	}
}

func testWatchMany(t *testing.T, s *suite) {
	c := s.Open(t)
	var ws []*watcher[pairs]
	for i := range 20 {
		ws = append(ws, s.watch(t, c, fmt.Sprintf("many/%02d", i), i%2 == 0))
	}
	for i, w := range ws {
		w.await("first", s.Settle, s.is())
		put(t, c, s.key(fmt.Sprintf("many/%02d", i)), "x")
	}
	for i, w := range ws {
		w.await("change", s.Settle, s.is(fmt.Sprintf("many/%02d", i), "x"))
		w.stop()
		if n := len(w.all()); n != 2 {
			t.Errorf("watch %d: %d calls for two states", i, n)
		}
	}
}

func testWatchEnds(t *testing.T, s *suite) {
	c := s.Open(t)
	put(t, c, s.key("a"), "1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	c.Watch(ctx, s.key("a"), false, func(ps pairs, err error) {
		if err != nil {
			t.Errorf("the end of the context was told as a failure: %v", err)
		}
	})
	var group sync.WaitGroup
	for i := range 10 { // in all phases of their lives
		ctx, cancel := context.WithCancel(t.Context())
		group.Go(func() {
			c.Watch(ctx, s.key("a"), i%2 == 0, func(ps pairs, err error) {
				if err != nil {
					t.Errorf("the end of the context was told as a failure: %v", err)
				}
			})
		})
		coord.Wait(t.Context(), time.Duration(i)*s.Settle/50)
		cancel()
	}
	group.Wait()
	if took := time.Since(began); took > hung {
		t.Errorf("watches took %v to end", took)
	}
}

func testWatchCutOff(t *testing.T, s *suite) {
	c, other := s.Open(t), s.Open(t)
	put(t, c, s.key("a"), "1")
	w := s.watch(t, c, "a", true)
	w.await("first", s.Settle, s.is("a", "1"))
	for i := range 2 {
		s.Partition(t, c)
		w.failed("cut off", s.Settle, coord.ErrUnavailable)
		now := strconv.Itoa(i + 2)
		put(t, other, s.key("a"), "overtaken")
		put(t, other, s.key("a"), now)
		coord.Wait(t.Context(), s.Settle) // it tries again and again meanwhile, and tells nothing
		s.Heal(t, c)
		w.await("healed", s.Settle, s.is("a", now))
	}
	if n := len(w.all()); n != 5 {
		t.Errorf("%d calls for three states and two failures: %+v", n, w.all())
	}
}

func testWatchCutOffUnchanged(t *testing.T, s *suite) {
	c := s.Open(t)
	put(t, c, s.key("a"), "1")
	w := s.watch(t, c, "a", false)
	w.await("first", s.Settle, s.is("a", "1"))
	s.Partition(t, c)
	w.failed("cut off", s.Settle, coord.ErrUnavailable)
	s.Heal(t, c)
	w.await("the same state again, since the failure is over", s.Settle, s.is("a", "1"))
	put(t, c, s.key("a"), "2")
	w.await("a change after it", s.Settle, s.is("a", "2"))
	if n := len(w.all()); n != 4 {
		t.Errorf("%d calls, want state, failure, state, state: %+v", n, w.all())
	}
}

func testWatchFromTheStart(t *testing.T, s *suite) {
	c, other := s.Open(t), s.Open(t)
	put(t, other, s.key("a"), "1")
	s.Partition(t, c)
	w := s.watch(t, c, "", false)
	w.failed("cut off", s.Settle, coord.ErrUnavailable)
	s.Heal(t, c)
	w.await("healed", s.Settle, s.is("a", "1"))
	if n := len(w.all()); n != 2 {
		t.Errorf("%d calls, want a failure and a state: %+v", n, w.all())
	}
}

// testWatchHanging wants no more of a hang than that it can end, and that the watch goes on.
func testWatchHanging(t *testing.T, s *suite) {
	c, other := s.Open(t), s.Open(t)
	w, short := s.watch(t, c, "a", false), s.watch(t, c, "a", true)
	w.await("first", s.Settle, s.is())
	short.await("first", s.Settle, s.is())
	s.Hang(t, c)
	put(t, other, s.key("a"), "1")
	coord.Wait(t.Context(), s.Settle/4)
	short.stop()
	s.Heal(t, c)
	w.await("healed", s.Settle, s.is("a", "1"))
}

func (s *suite) testGoesOn(t *testing.T, c coord.Coordinator, w *watcher[pairs], f func()) {
	w.await("first", s.Settle, s.is())
	for i := range 5 {
		put(t, c, s.key("n"), strconv.Itoa(i))
	}
	w.await("before", s.Settle, s.is("n", "4"))
	f()
	eventually(t, s.Settle, func() string {
		if _, err := c.Put(call(t), s.key("n"), []byte("5")); err != nil {
			return err.Error()
		}
		return ""
	})
	w.await("after", s.Settle, s.is("n", "5"))
	put(t, c, s.key("n"), "6")
	w.await("and later", s.Settle, s.is("n", "6"))
}

func testWatchRestart(t *testing.T, s *suite) {
	c := s.Open(t)
	w := s.watch(t, c, "n", true)
	s.testGoesOn(t, c, w, func() { s.RestartServer(t) })
	wantForward(t, w.all())
}

func testWatchCompact(t *testing.T, s *suite) {
	c := s.Open(t)
	w := s.watch(t, c, "n", true)
	s.testGoesOn(t, c, w, func() { s.Compact(t) })
	wantForward(t, w.all())
	if s.Partition == nil || s.Heal == nil {
		return
	}
	other := s.Open(t) // compacted while a watcher is away, so that its place in the history is gone
	s.Partition(t, c)
	w.failed("cut off", s.Settle, coord.ErrUnavailable)
	for i := range 20 {
		put(t, other, s.key("n"), strconv.Itoa(7+i))
	}
	s.Compact(t)
	s.Heal(t, c)
	w.await("compacted while away", s.Settle, s.is("n", "26"))
}

func testWatchRewind(t *testing.T, s *suite) {
	c := s.Open(t)
	s.testGoesOn(t, c, s.watch(t, c, "n", true), func() { s.RewindIndex(t) })
}

func testWatchStranger(t *testing.T, s *suite) {
	c := s.Stranger(t)
	w := s.watch(t, c, "a", false)
	w.failed("a stranger", s.Settle, coord.ErrUnauthorized)
	coord.Wait(t.Context(), s.Settle/2) // it tries again meanwhile, and tells nothing
	w.stop()
	if n := len(w.all()); n != 1 {
		t.Errorf("%d calls for one failure: %+v", n, w.all())
	}
}
