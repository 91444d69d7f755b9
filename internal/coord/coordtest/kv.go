package coordtest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"drover/internal/coord"
)

func kvTests() []test {
	return []test{
		{"Missing", testMissing, ""},
		{"RoundTrip", testRoundTrip, ""},
		{"BadKeys", testBadKeys, ""},
		{"Prefixes", testPrefixes, ""},
		{"Swap", testSwap, ""},
		{"RevisionsOfANewLife", testNewLife, ""},
		{"Delete", testDelete, ""},
		{"Apply", testApply, ""},
		{"ApplyConditions", testApplyConditions, ""},
		{"ApplyLimits", testApplyLimits, ""},
		{"SafeSize", testSafeSize, ""},
		{"TooLarge", testTooLarge, "TooLarge"},
		{"CountersLoseNothing", testCounters, ""},
		{"BatchesAreWhole", testBatches, ""},
		{"BatchesLoseNothing", testTransfers, ""},
		{"Cancelled", testCancelled, ""},
		{"CutOff", testCutOff, "Partition"},
		{"NoAnswer", testNoAnswer, "Hang"},
		{"KeysOutliveARestart", testRestart, "RestartServer"},
		{"KeysOfAStranger", testStrangerKV, "Stranger"},
	}
}

func put(t *testing.T, c coord.KV, key, value string) coord.Revision {
	t.Helper()
	r, err := c.Put(call(t), key, []byte(value))
	ok(t, "put "+key, err)
	if r == "" {
		t.Errorf("put %s: no revision", key)
	}
	return r
}

func get(t *testing.T, c coord.KV, key string) coord.Pair {
	t.Helper()
	p, err := c.Get(call(t), key)
	ok(t, "get "+key, err)
	if p.Key != key || p.Revision == "" {
		t.Errorf("get %s: pair %q with revision %q", key, p.Key, p.Revision)
	}
	return p
}

func wantValue(t *testing.T, c coord.KV, key, value string) {
	t.Helper()
	if p := get(t, c, key); string(p.Value) != value {
		t.Errorf("%s is %q, want %q", key, p.Value, value)
	}
}

func wantNone(t *testing.T, c coord.KV, key string) {
	t.Helper()
	_, err := c.Get(call(t), key)
	want(t, "get "+key, err, coord.ErrNotFound)
}

// wantList wants the keys, without the test's own prefix, in order.
func (s *suite) wantList(t *testing.T, c coord.KV, prefix string, keys ...string) {
	t.Helper()
	pairs, err := c.List(call(t), s.key(prefix))
	ok(t, "list "+prefix, err)
	var got []string
	for _, p := range pairs {
		got = append(got, strings.TrimPrefix(p.Key, s.id+"/"))
		if p.Revision == "" {
			t.Errorf("list %s: no revision of %s", prefix, p.Key)
		}
	}
	if !slices.Equal(got, keys) {
		t.Errorf("list %q: got %q, want %q", prefix, got, keys)
	}
}

func testMissing(t *testing.T, s *suite) {
	c := s.Open(t)
	put(t, c, s.key("dir/there"), "x")
	for _, key := range []string{"nothing", "no/such/key", "dir/ther", "dir/there2", "dir", "dir/"} {
		wantNone(t, c, s.key(key))
	}
	s.wantList(t, c, "nothing")
}

func testRoundTrip(t *testing.T, s *suite) {
	c, other := s.Open(t), s.Open(t)
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	values := map[string]string{
		"empty": "", "plain": "value", "binary": string(binary), "not-utf8": "\xff\xfe", "lines": "a\r\nb\n", "zero": "\x00",
		"größe/日本/🐄": "ünïcode", "with space": " ", "per%20cent": "%", "query?x=1&y#z": "?", "quote\"'`": "\"", "plus+": "+",
		"folder/": "of a folder", "folder": "beside it", "folder/in": "in it", "back\\slash": "\\", "semi;colon": ";", "a:b@c": "@", "...": "dots",
		strings.Repeat("k", 512-len(s.key(""))): "of the longest key", "json": `{"a":1}`, "large": strings.Repeat("0123456789abcdef", 4<<10), "deep/" + strings.Repeat("x/", 60) + "y": "deep",
	}
	keys := make([]string, 0, len(values))
	for key, value := range values {
		keys = append(keys, key)
		r := put(t, c, s.key(key), value)
		if got := get(t, other, s.key(key)); got.Revision != r {
			t.Errorf("%q: put returned revision %q, get %q", key, r, got.Revision)
		}
	}
	for key, value := range values {
		wantValue(t, other, s.key(key), value)
	}
	slices.Sort(keys)
	s.wantList(t, other, "", keys...)
	pairs, err := c.List(call(t), s.key(""))
	ok(t, "list", err)
	for _, p := range pairs {
		if key := strings.TrimPrefix(p.Key, s.key("")); string(p.Value) != values[key] {
			t.Errorf("list: %q is %q, want %q", key, p.Value, values[key])
		}
		if one := get(t, c, p.Key); one.Revision != p.Revision {
			t.Errorf("%s: revision %q by list, %q by get", p.Key, p.Revision, one.Revision)
		}
	}
	put(t, c, s.key("plain"), "again")
	wantValue(t, c, s.key("plain"), "again")
	put(t, c, s.key("plain"), "again") // once more does no harm
	wantValue(t, c, s.key("plain"), "again")
}

func testBadKeys(t *testing.T, s *suite) {
	c := s.Open(t)
	for _, key := range []string{"", "/", "/a", "a//b", "a/../b", "../a", "a/.", "./a", "a\nb", "a\x00", "\xff", strings.Repeat("k", 513)} {
		_, err := c.Get(call(t), key)
		if err == nil || coord.Kind(err) != nil {
			t.Errorf("get %q: %v", key, err)
		}
		if _, err := c.Put(call(t), key, nil); err == nil {
			t.Errorf("put %q: no error", key)
		}
		if _, err := c.CompareAndSwap(call(t), key, nil, ""); err == nil || errors.Is(err, coord.ErrConflict) {
			t.Errorf("swap %q: %v", key, err)
		}
		if err := c.Delete(call(t), key, nil); err == nil {
			t.Errorf("delete %q: no error", key)
		}
		if err := c.Apply(call(t), []coord.Op{{Key: key}}); err == nil {
			t.Errorf("apply %q: no error", key)
		}
	}
	s.wantList(t, c, "")
}

func testPrefixes(t *testing.T, s *suite) {
	c := s.Open(t)
	for _, key := range []string{"foo", "foobar/foo", "foobar/foo/x", "foo/", "foo/a", "foo/b/c", "fop", "a/foo", "Foo"} {
		put(t, c, s.key(key), key)
	}
	s.wantList(t, c, "foo", "foo", "foo/", "foo/a", "foo/b/c", "foobar/foo", "foobar/foo/x")
	s.wantList(t, c, "foo/", "foo/", "foo/a", "foo/b/c")
	s.wantList(t, c, "foobar", "foobar/foo", "foobar/foo/x")
	s.wantList(t, c, "foobar/foo/", "foobar/foo/x")
	s.wantList(t, c, "fo", "foo", "foo/", "foo/a", "foo/b/c", "foobar/foo", "foobar/foo/x", "fop")
	s.wantList(t, c, "oo")
	s.wantList(t, c, "foo/a/")
	all, err := c.List(call(t), "")
	ok(t, "list all", err)
	mine := 0
	for _, p := range all {
		if strings.HasPrefix(p.Key, s.key("")) {
			mine++
		}
	}
	if mine != 9 || !slices.IsSortedFunc(all, func(a, b coord.Pair) int { return strings.Compare(a.Key, b.Key) }) {
		t.Errorf("the list of all has %d of 9 keys, or is not sorted", mine)
	}
	ok(t, "delete", c.Delete(call(t), s.key("foo"), nil)) // and nothing below it
	s.wantList(t, c, "foo", "foo/", "foo/a", "foo/b/c", "foobar/foo", "foobar/foo/x")
}

func testSwap(t *testing.T, s *suite) {
	c, other := s.Open(t), s.Open(t)
	key := s.key("swap")
	one, err := c.CompareAndSwap(call(t), key, []byte("one"), "")
	ok(t, "create", err)
	_, err = other.CompareAndSwap(call(t), key, []byte("two"), "")
	want(t, "create what is there", err, coord.ErrConflict)
	wantValue(t, other, key, "one")
	if p := get(t, other, key); p.Revision != one {
		t.Errorf("swap returned revision %q, get %q", one, p.Revision)
	}
	two, err := other.CompareAndSwap(call(t), key, []byte("two"), one)
	ok(t, "swap", err)
	_, err = c.CompareAndSwap(call(t), key, []byte("three"), one)
	want(t, "swap of what is no more", err, coord.ErrConflict)
	wantValue(t, c, key, "two")
	four := put(t, c, key, "four")
	if two == four || one == two {
		t.Errorf("revisions %q, %q, %q are not three", one, two, four)
	}
	_, err = c.CompareAndSwap(call(t), key, []byte("five"), two)
	want(t, "swap after a put", err, coord.ErrConflict)
	_, err = c.CompareAndSwap(call(t), s.key("never"), []byte("x"), one)
	want(t, "swap of what never was", err, coord.ErrConflict)
	wantNone(t, c, s.key("never"))
	_, err = c.CompareAndSwap(call(t), key, nil, four)
	ok(t, "swap for nothing", err)
	wantValue(t, c, key, "")
}

func testNewLife(t *testing.T, s *suite) {
	c := s.Open(t)
	key := s.key("lives")
	seen := map[coord.Revision]bool{}
	var old coord.Revision
	for range 5 {
		r, err := c.CompareAndSwap(call(t), key, []byte("same"), "")
		ok(t, "create", err)
		if seen[r] {
			t.Fatalf("revision %q is that of a former life", r)
		}
		if old != "" {
			_, err = c.CompareAndSwap(call(t), key, []byte("x"), old)
			want(t, "swap of a former life", err, coord.ErrConflict)
			want(t, "delete of a former life", c.Delete(call(t), key, &old), coord.ErrConflict)
		}
		seen[r], old = true, r
		ok(t, "delete", c.Delete(call(t), key, &r))
	}
}

func testDelete(t *testing.T, s *suite) {
	c := s.Open(t)
	key, none := s.key("gone"), coord.Revision("")
	ok(t, "delete of what never was", c.Delete(call(t), key, nil))
	ok(t, "delete of what is not there, as seen", c.Delete(call(t), key, &none))
	one := put(t, c, key, "one")
	want(t, "delete of what is there, seen absent", c.Delete(call(t), key, &none), coord.ErrConflict)
	put(t, c, key, "two")
	want(t, "delete of what was overwritten", c.Delete(call(t), key, &one), coord.ErrConflict)
	wantValue(t, c, key, "two")
	ok(t, "delete", c.Delete(call(t), key, nil))
	wantNone(t, c, key)
	want(t, "delete of what was deleted", c.Delete(call(t), key, &one), coord.ErrConflict)
	three := put(t, c, key, "three")
	ok(t, "delete as seen", c.Delete(call(t), key, &three))
	wantNone(t, c, key)
}

func testApply(t *testing.T, s *suite) {
	c := s.Open(t)
	put(t, c, s.key("b"), "old")
	put(t, c, s.key("c"), "old")
	ok(t, "apply nothing", c.Apply(call(t), nil))
	ok(t, "apply", c.Apply(call(t), []coord.Op{
		{Key: s.key("a"), Value: []byte("new")}, {Key: s.key("b"), Value: []byte{}}, {Key: s.key("c"), Delete: true},
		{Key: s.key("d"), Delete: true}, {Key: s.key("é/"), Value: []byte{0, 0xff}},
	}))
	s.wantList(t, c, "", "a", "b", "é/")
	wantValue(t, c, s.key("a"), "new")
	wantValue(t, c, s.key("b"), "")
	wantValue(t, c, s.key("é/"), "\x00\xff")
	err := c.Apply(call(t), []coord.Op{{Key: s.key("x"), Value: []byte("1")}, {Key: s.key("x"), Value: []byte("2")}})
	if err == nil || coord.Kind(err) != nil {
		t.Errorf("apply of one key twice: %v", err)
	}
	wantNone(t, c, s.key("x"))
}

func testApplyConditions(t *testing.T, s *suite) {
	c := s.Open(t)
	none, stale := coord.Revision(""), put(t, c, s.key("a"), "1")
	now := put(t, c, s.key("a"), "2")
	write := coord.Op{Key: s.key("w"), Value: []byte("written")}
	for name, cond := range map[string]coord.Op{
		"set, stale":             {Key: s.key("a"), Value: []byte("x"), If: &stale},
		"set, seen absent":       {Key: s.key("a"), Value: []byte("x"), If: &none},
		"delete, stale":          {Key: s.key("a"), Delete: true, If: &stale},
		"delete, seen absent":    {Key: s.key("a"), Delete: true, If: &none},
		"set, seen, is gone":     {Key: s.key("gone"), Value: []byte("x"), If: &now},
		"delete, seen, but gone": {Key: s.key("gone"), Delete: true, If: &now},
	} {
		want(t, name, c.Apply(call(t), []coord.Op{write, cond}), coord.ErrConflict)
		want(t, name+", first", c.Apply(call(t), []coord.Op{cond, write}), coord.ErrConflict)
	}
	s.wantList(t, c, "", "a")
	wantValue(t, c, s.key("a"), "2")
	ok(t, "apply as seen", c.Apply(call(t), []coord.Op{
		{Key: s.key("a"), Value: []byte("3"), If: &now}, {Key: s.key("b"), Value: []byte("new"), If: &none},
		{Key: s.key("gone"), Delete: true, If: &none}, write,
	}))
	s.wantList(t, c, "", "a", "b", "w")
	now = get(t, c, s.key("a")).Revision
	ok(t, "delete as seen", c.Apply(call(t), []coord.Op{{Key: s.key("a"), Delete: true, If: &now}}))
	s.wantList(t, c, "", "b", "w")
}

func testApplyLimits(t *testing.T, s *suite) {
	c := s.Open(t)
	n := c.MaxOps()
	if n < 32 {
		t.Fatalf("MaxOps is %d, want at least 32", n)
	}
	none := coord.Revision("")
	batch := func(n int, o coord.Op) (ops []coord.Op) {
		for i := range n {
			o.Key = s.key(fmt.Sprintf("batch/%04d", i))
			ops = append(ops, o)
		}
		return ops
	}
	want(t, "apply of one more than MaxOps", c.Apply(call(t), batch(n+1, coord.Op{Value: []byte("x")})), coord.ErrTooLarge)
	s.wantList(t, c, "")
	ok(t, "apply of MaxOps", c.Apply(call(t), batch(n, coord.Op{Value: []byte("x"), If: &none})))
	pairs, err := c.List(call(t), s.key("batch/"))
	ok(t, "list", err)
	if len(pairs) != n {
		t.Fatalf("%d keys of %d were written", len(pairs), n)
	}
	remove := batch(n, coord.Op{Delete: true})
	for i := range remove {
		remove[i].If = &pairs[i].Revision
	}
	ok(t, "apply of MaxOps conditional deletes", c.Apply(call(t), remove))
	s.wantList(t, c, "")
}

func testSafeSize(t *testing.T, s *suite) {
	c := s.Open(t)
	size := coord.SafeSize - 64 - len(s.key("large"))
	value := bytes.Repeat([]byte{0xfe}, size)
	put(t, c, s.key("large"), string(value))
	wantValue(t, c, s.key("large"), string(value))
	const parts = 16
	var ops []coord.Op
	for i := range parts {
		ops = append(ops, coord.Op{Key: s.key(fmt.Sprintf("part/%02d", i)), Value: value[:size/parts-32-len(s.id)]})
	}
	ok(t, "apply a large batch", c.Apply(call(t), ops))
	wantValue(t, c, ops[parts-1].Key, string(ops[parts-1].Value))
}

func testTooLarge(t *testing.T, s *suite) {
	c := s.Open(t)
	value := bytes.Repeat([]byte("x"), s.TooLarge)
	put(t, c, s.key("a"), "small")
	_, err := c.Put(call(t), s.key("a"), value)
	want(t, "put", err, coord.ErrTooLarge)
	_, err = c.CompareAndSwap(call(t), s.key("b"), value, "")
	want(t, "swap", err, coord.ErrTooLarge)
	err = c.Apply(call(t), []coord.Op{{Key: s.key("c"), Value: []byte("x")}, {Key: s.key("d"), Value: value}})
	want(t, "apply", err, coord.ErrTooLarge)
	s.wantList(t, c, "", "a")
	wantValue(t, c, s.key("a"), "small")
	put(t, c, s.key("a"), "still works")
}

// testCounters has many count by compare-and-swap, each its own way: every one that was
// acknowledged counts.
func testCounters(t *testing.T, s *suite) {
	const writers, each = 8, 5
	key := s.key("counter")
	clients := []coord.Coordinator{s.Open(t), s.Open(t), s.Open(t)}
	ctx := call(t)
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			c := clients[w%len(clients)]
			for range each {
				if err := count(t, c, key, w); err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	group.Wait()
	p, err := clients[0].Get(ctx, key)
	ok(t, "get", err)
	n, _, _ := strings.Cut(string(p.Value), " ")
	if n != strconv.Itoa(writers*each) {
		t.Errorf("the counter is at %q, want %d", p.Value, writers*each)
	}
}

func count(t *testing.T, c coord.KV, key string, who int) error {
	ctx := call(t)
	for {
		p, err := c.Get(ctx, key)
		if err != nil && !errors.Is(err, coord.ErrNotFound) {
			return err
		}
		text, _, _ := strings.Cut(string(p.Value), " ")
		n, _ := strconv.Atoi(text)
		_, err = c.CompareAndSwap(ctx, key, fmt.Appendf(nil, "%d by %d", n+1, who), p.Revision)
		if err == nil || !errors.Is(err, coord.ErrConflict) {
			return err
		}
	}
}

// testBatches has two keys that are always written together, and looks for a moment at
// which they differ.
func testBatches(t *testing.T, s *suite) {
	writer, reader := s.Open(t), s.Open(t)
	const rounds = 20
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		defer close(done)
		for i := range rounds {
			v := []byte(strconv.Itoa(i))
			if err := writer.Apply(call(t), []coord.Op{{Key: s.key("pair/a"), Value: v}, {Key: s.key("pair/b"), Value: v}}); err != nil {
				t.Errorf("apply: %v", err)
				return
			}
		}
	})
	defer group.Wait()
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		pairs, err := reader.List(call(t), s.key("pair/"))
		ok(t, "list", err)
		if n := len(pairs); n != 0 && (n != 2 || !bytes.Equal(pairs[0].Value, pairs[1].Value)) {
			t.Fatalf("a list is of no moment: %q", pairs)
		}
	}
	wantValue(t, reader, s.key("pair/b"), strconv.Itoa(rounds-1))
}

// testTransfers has many move one from account to account, by batches that are conditional
// on both: whoever looks finds the same sum.
func testTransfers(t *testing.T, s *suite) {
	const accounts, movers, each = 5, 4, 6
	clients := []coord.Coordinator{s.Open(t), s.Open(t)}
	for i := range accounts {
		put(t, clients[0], s.key(fmt.Sprintf("account/%d", i)), "100 at first")
	}
	sum := func(c coord.KV) (pairs []coord.Pair, err error) {
		pairs, err = c.List(call(t), s.key("account/"))
		total := 0
		for _, p := range pairs {
			total += balance(p)
		}
		if err == nil && total != 100*accounts {
			err = fmt.Errorf("the sum is %d, want %d", total, 100*accounts)
		}
		return pairs, err
	}
	var group sync.WaitGroup
	for m := range movers {
		group.Go(func() {
			c := clients[m%len(clients)]
			for n := 0; n < each; {
				pairs, err := sum(c)
				if err != nil {
					t.Errorf("mover %d: %v", m, err)
					return
				}
				from, to := pairs[(m+n)%accounts], pairs[(m+2*n+1)%accounts]
				if from.Key == to.Key {
					n++
					continue
				}
				err = c.Apply(call(t), []coord.Op{
					{Key: from.Key, Value: fmt.Appendf(nil, "%d by %d.%d", balance(from)-1, m, n), If: &from.Revision},
					{Key: to.Key, Value: fmt.Appendf(nil, "%d by %d.%d", balance(to)+1, m, n), If: &to.Revision},
				})
				if err != nil && !errors.Is(err, coord.ErrConflict) {
					t.Errorf("mover %d: %v", m, err)
					return
				}
				if err == nil {
					n++
				}
			}
		})
	}
	group.Wait()
	if _, err := sum(clients[0]); err != nil {
		t.Error(err)
	}
}

func balance(p coord.Pair) int {
	text, _, _ := strings.Cut(string(p.Value), " ")
	n, _ := strconv.Atoi(text)
	return n
}
