package etcd

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/internal/coord"
	"drover/internal/testkit/etcdserver"
)

// patience is a bound for tests that hang.
const patience = time.Minute

// until waits for a condition, and says what is missing if it does not come.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	for !f() {
		if time.Now().After(end) {
			t.Fatalf("still not so: %s", what)
		}
		coord.Wait(t.Context(), 20*time.Millisecond)
	}
}

// follower remembers what a watch of a prefix was told: values by key, and failures.
type follower struct {
	mu       sync.Mutex
	calls    int
	failures []error
	last     map[string]string
}

func follow(t *testing.T, c coord.KV, prefix string) *follower {
	t.Helper()
	f := &follower{}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		c.Watch(ctx, prefix, false, func(pairs []coord.Pair, err error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.calls++
			if err != nil {
				f.failures = append(f.failures, err)
				return
			}
			f.last = map[string]string{}
			for _, p := range pairs {
				f.last[p.Key] = string(p.Value)
			}
		})
	})
	t.Cleanup(func() { cancel(); group.Wait() })
	return f
}

func (f *follower) has(key, value string) func() bool {
	return func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		got, ok := f.last[key]
		return ok && got == value
	}
}

func (f *follower) kinds() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var kinds []error
	for _, err := range f.failures {
		kinds = append(kinds, coord.Kind(err))
	}
	return kinds
}

// putHard puts until it is acknowledged.
func putHard(t *testing.T, c coord.KV, key, value string) {
	t.Helper()
	until(t, "put "+key, func() bool {
		_, err := c.Put(t.Context(), key, []byte(value))
		return err == nil
	})
}

func acquire(t *testing.T, c coord.Leases, name, holder string, ttl time.Duration) coord.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := c.Acquire(ctx, name, coord.LeaseOptions{Holder: holder, TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func held(l coord.Lease) bool {
	select {
	case <-l.Done():
		return false
	default:
		return true
	}
}

// reporting reports for an instance until the test ends, as an agent does.
func reporting(t *testing.T, c coord.Registry, r coord.Registration) {
	t.Helper()
	if err := c.Register(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		for {
			_ = c.Report(ctx, r.ID, coord.Passing, "")
			if !coord.Wait(ctx, r.TTL/5) {
				return
			}
		}
	})
	t.Cleanup(func() { cancel(); group.Wait() })
}

// worst remembers whether an instance was ever not passing.
func worst(t *testing.T, c coord.Catalog, name string) func() string {
	t.Helper()
	var (
		mu    sync.Mutex
		said  string
		once  sync.Once
		group sync.WaitGroup
	)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan struct{})
	group.Go(func() {
		c.WatchService(ctx, coord.Query{Name: name}, func(is []coord.Instance, err error) {
			mu.Lock()
			defer mu.Unlock()
			once.Do(func() { close(first) })
			if err == nil && len(is) == 0 {
				said = "nobody is passing"
			}
		})
	})
	<-first
	t.Cleanup(func() { cancel(); group.Wait() })
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return said
	}
}

func TestLeaderIsLost(t *testing.T) {
	t.Parallel()
	s := etcdserver.Start(t, etcdserver.Options{Members: 3})
	const ttl = 10 * time.Second
	a, b := open(t, Options{Endpoints: s.Endpoints}), open(t, Options{Endpoints: s.Endpoints})
	lock := acquire(t, a, "lock", "a", ttl)
	reporting(t, a, coord.Registration{ID: "web-1", Name: "web", TTL: ttl, Initial: coord.Passing})
	seen, bad := follow(t, b, "n/"), worst(t, b, "web")
	putHard(t, a, "n/before", "1")
	until(t, "the watch sees a write", seen.has("n/before", "1"))
	for i := range 2 {
		first := s.Leader()
		s.StopMember(first)
		key := fmt.Sprintf("n/%d", i)
		putHard(t, a, key, "x")
		until(t, "the watch sees a write to those that are left", seen.has(key, "x"))
		coord.Wait(t.Context(), ttl) // whatever was not renewed is over
		if !held(lock) {
			t.Fatal("the lease was lost with the leader")
		}
		s.StartAgain()
	}
	if holders, err := b.Holders(t.Context(), "lock"); err != nil || !slices.Equal(holders, []string{"a"}) {
		t.Errorf("held by %q, %v", holders, err)
	}
	if why := bad(); why != "" {
		t.Errorf("an instance that reported all the time: %s", why)
	}
}

// TestMemberHangs has one of three accept connections and answer nothing.
func TestMemberHangs(t *testing.T) {
	t.Parallel()
	s := etcdserver.Start(t, etcdserver.Options{Members: 3})
	const ttl = 10 * time.Second
	c := open(t, Options{Endpoints: s.Endpoints, RequestTimeout: time.Second})
	lock := acquire(t, c, "lock", "a", ttl)
	hung := (s.Leader() + 1) % 3
	s.Pause(hung)
	seen := follow(t, c, "n/")
	for i := range 6 { // whichever member is next
		putHard(t, c, fmt.Sprintf("n/%d", i), "x")
	}
	until(t, "the watch sees the last write", seen.has("n/5", "x"))
	coord.Wait(t.Context(), ttl)
	if !held(lock) {
		t.Error("the lease was lost with one member")
	}
	s.Resume(hung)
}

func TestNoQuorum(t *testing.T) {
	t.Parallel()
	s := etcdserver.Start(t, etcdserver.Options{Members: 3})
	c := open(t, Options{Endpoints: s.Endpoints})
	seen := follow(t, c, "n/")
	putHard(t, c, "n/a", "1")
	until(t, "the watch sees a write", seen.has("n/a", "1"))
	const ttl = 6 * time.Second
	lock := acquire(t, c, "held", "a", ttl)
	last := s.Leader()
	s.StopMember((last + 1) % 3)
	s.StopMember((last + 2) % 3)
	_, err := c.Get(t.Context(), "n/a")
	is(t, "get", err, coord.ErrUnavailable)
	_, err = c.Put(t.Context(), "n/a", []byte("2"))
	is(t, "put", err, coord.ErrUnavailable)
	until(t, "the watch tells of it, although its member answers", func() bool { return len(seen.kinds()) > 0 })
	if !seen.has("n/a", "1")() {
		t.Error("the last state was told to be another one")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err = c.Acquire(ctx, "lock", coord.LeaseOptions{Holder: "a", TTL: time.Minute})
	is(t, "acquire", err, context.DeadlineExceeded)
	until(t, "the holder gives up", func() bool { return !held(lock) })
	if n := asked(t, s, last); n > 100 {
		t.Errorf("%d streams: it asks without a pause", n)
	}
	s.StartAgain()
	putHard(t, c, "n/a", "3")
	until(t, "the watch goes on", seen.has("n/a", "3"))
	for _, kind := range seen.kinds() {
		if kind != coord.ErrUnavailable {
			t.Errorf("a failure was told as %v", kind)
		}
	}
}

// asked counts the streams, one for each renewal and watch, that a member was asked for.
func asked(t *testing.T, s *etcdserver.Server, member int) int {
	t.Helper()
	resp, err := http.Get(s.MetricsURL(member))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "etcd_server_client_requests_total") && strings.Contains(line, `type="stream"`) {
			n, err := strconv.ParseFloat(strings.Fields(line)[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
	}
	t.Fatal("etcd does not count streams")
	return 0
}

func TestNoSpace(t *testing.T) {
	t.Parallel()
	s := etcdserver.Start(t, etcdserver.Options{Args: []string{"--quota-backend-bytes", strconv.Itoa(8 << 20)}})
	c := open(t, Options{Endpoints: s.Endpoints})
	putHard(t, c, "small", "x")
	var err error
	for i := 0; err == nil && i < 20; i++ {
		_, err = c.Put(t.Context(), fmt.Sprintf("n/%d", i), make([]byte, 1<<20))
	}
	is(t, "put into a full etcd", err, coord.ErrUnavailable)
	if p, err := c.Get(t.Context(), "small"); err != nil || string(p.Value) != "x" {
		t.Errorf("get from a full etcd: %q, %v", p.Value, err)
	}
}

// deleteKeys deletes what is below a prefix as an administrator may, leases being left.
func deleteKeys(t *testing.T, s *etcdserver.Server, prefix string) {
	t.Helper()
	end := []byte(prefix)
	end[len(end)-1]++
	var answer struct{ Deleted string }
	s.Call(0, "/v3/kv/deleterange", map[string]string{
		"key": base64.StdEncoding.EncodeToString([]byte(prefix)), "range_end": base64.StdEncoding.EncodeToString(end),
	}, &answer)
	if answer.Deleted == "" {
		t.Fatalf("nothing was below %s", prefix)
	}
}

func TestKeysAreDeletedBehindTheBack(t *testing.T) {
	t.Parallel()
	s := etcdserver.Start(t, etcdserver.Options{})
	c := open(t, Options{Endpoints: s.Endpoints})
	const ttl = 2 * time.Second
	l := acquire(t, c, "lock", "a", ttl)
	deleteKeys(t, s, ".drover/lease/")
	until(t, "the holder knows", func() bool { return !held(l) })

	r := coord.Registration{ID: "web-1", Name: "web", TTL: ttl, Initial: coord.Passing, DeregisterAfter: time.Hour}
	report := func() error { return c.Report(t.Context(), r.ID, coord.Passing, "") }
	if err := c.Register(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := report(); err != nil {
		t.Fatal(err)
	}
	deleteKeys(t, s, ".drover/service/")
	until(t, "who reports knows", func() bool { return coord.Kind(report()) == coord.ErrNotFound })
	if err := c.Register(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := report(); err != nil {
		t.Errorf("after it was registered again: %v", err)
	}
}

func TestLeasesAreRevokedBehindTheBack(t *testing.T) {
	t.Parallel()
	s := etcdserver.Start(t, etcdserver.Options{})
	c := open(t, Options{Endpoints: s.Endpoints})
	for after, want := range map[time.Duration]error{0: nil, time.Hour: coord.ErrNotFound} {
		r := coord.Registration{ID: "web-1", Name: "web", TTL: time.Minute, Initial: coord.Passing, DeregisterAfter: after}
		if err := c.Register(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if err := c.Report(t.Context(), r.ID, coord.Passing, ""); err != nil {
			t.Fatal(err)
		}
		for _, id := range s.Leases() {
			s.Revoke(id)
		}
		if err := c.Report(t.Context(), r.ID, coord.Passing, ""); coord.Kind(err) != want {
			t.Errorf("report, to be deregistered after %v: %v", after, err)
		}
		if want == nil && len(s.Leases()) != 1 {
			t.Errorf("leases are %v, want the new one", s.Leases())
		}
		if err := c.Deregister(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
	}
	if left := s.Leases(); len(left) != 0 {
		t.Errorf("leases are left: %v", left)
	}
}

// TestRelist holds that a watch which lists again now and then tells nothing by it, and that one
// which waits for a revision to come sees that etcd is not so far.
func TestRelist(t *testing.T) {
	t.Parallel()
	s := etcdserver.Start(t, etcdserver.Options{})
	c := open(t, Options{Endpoints: s.Endpoints, Relist: 50 * time.Millisecond})
	seen := follow(t, c, "n/")
	until(t, "the first state", func() bool {
		seen.mu.Lock()
		defer seen.mu.Unlock()
		return seen.calls > 0
	})
	for i := range 10 {
		putHard(t, c, "n/a", strconv.Itoa(i))
		until(t, "the watch sees a write", seen.has("n/a", strconv.Itoa(i)))
		coord.Wait(t.Context(), 60*time.Millisecond)
	}
	if seen.mu.Lock(); seen.calls != 11 {
		t.Errorf("%d calls for eleven states", seen.calls)
	}
	seen.mu.Unlock()
	err := c.stream(t.Context(), below("n/"), s.Revision()+1000, false, nil)
	is(t, "watch from a revision that is far away", err, errOvertaken)
}

func TestForeignKeys(t *testing.T) {
	t.Parallel()
	s := etcdserver.Start(t, etcdserver.Options{})
	all, team := open(t, Options{Endpoints: s.Endpoints}), open(t, Options{Endpoints: s.Endpoints, Prefix: "team/"})
	acquire(t, all, "a", "x", time.Minute)
	theirs := acquire(t, team, "a", "y", time.Minute)   // another name: another prefix
	if err := theirs.Release(t.Context()); err != nil { // one prefix within another one sees all that is in it
		t.Fatal(err)
	}
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, key := range []string{"/registry/x", "a//b", "a\xff", "team"} {
		s.Call(0, "/v3/kv/put", map[string]string{"key": encode(key), "value": encode("x")}, nil)
	}
	seen := follow(t, all, "")
	putHard(t, team, "b", "1")
	putHard(t, all, "c", "2")
	until(t, "the watch sees the writes", seen.has("c", "2"))
	keys := func(pairs []coord.Pair) string {
		var names []string
		for _, p := range pairs {
			names = append(names, p.Key)
		}
		return strings.Join(names, " ")
	}
	pairs, err := all.List(t.Context(), "")
	if err != nil || keys(pairs) != "c team team/b" {
		t.Errorf("all keys are %q, %v", keys(pairs), err)
	}
	if pairs, err = team.List(t.Context(), ""); err != nil || keys(pairs) != "b" {
		t.Errorf("the team's keys are %q, %v", keys(pairs), err)
	}
	if _, err := all.Put(t.Context(), ".drover/lease/a/0", nil); err == nil {
		t.Error("Drover's own keys can be written")
	}
	seen.mu.Lock()
	defer seen.mu.Unlock()
	if len(seen.last) != 3 {
		t.Errorf("the watch sees %v", seen.last)
	}
}
