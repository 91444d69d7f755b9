package consul_test

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/internal/coord"
	"drover/internal/coord/consul"
	"drover/internal/testkit/consulserver"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t *testing.T, what string, err, kind error) {
	t.Helper()
	if err == nil || coord.Kind(err) != kind {
		t.Errorf("%s: got %v, want %v", what, err, kind)
	}
}

// TestSnapshotIsRestored: the index and the keys go back while the server runs.
func TestSnapshotIsRestored(t *testing.T) {
	s := consulserver.Start(t, consulserver.Options{LeastTTL: leastTTL})
	g := startGate(t, s.Address)
	c := open(t, consul.Options{Address: g.server.URL})
	put := func(value string) {
		t.Helper()
		_, err := c.Put(t.Context(), "a", []byte(value))
		must(t, err)
	}
	put("kept")
	snapshot := s.Ask(http.MethodGet, "/v1/snapshot", "")
	for i := range 20 {
		put(fmt.Sprint(i))
	}
	l, err := c.Acquire(t.Context(), "lock", coord.LeaseOptions{Holder: "x", TTL: time.Minute})
	must(t, err)
	r := told(t, c)
	r.await(10*time.Second, "19")
	// A query that comes after the restoration waits for an index that is not yet; one
	// that waits already is ended by it.
	g.await(t, "kv/a?index=")
	g.await(t, "lock/0?index=")
	s.Ask(http.MethodPut, "/v1/snapshot", string(snapshot))
	r.await(10*time.Second, "19", "kept")
	put("later")
	r.await(10*time.Second, "19", "kept", "later")
	select { // the snapshot has no such session
	case <-l.Done():
	case <-time.After(10 * time.Second):
		t.Error("a lease outlived the loss of its key")
	}
	must(t, l.Release(t.Context()))
}

func TestNoLeader(t *testing.T) {
	s := consulserver.Start(t, consulserver.Options{NoLeader: true})
	c := open(t, consul.Options{Address: s.Address})
	_, err := c.Get(t.Context(), "a")
	wantKind(t, "get", err, coord.ErrUnavailable)
	_, err = c.Put(t.Context(), "a", nil)
	wantKind(t, "put", err, coord.ErrUnavailable)
	_, err = c.Holders(t.Context(), "a")
	wantKind(t, "holders", err, coord.ErrUnavailable)
	told(t, c).await(10*time.Second, "error unavailable")
}

// TestPausedServer: who answers nothing costs a lease its TTL, not more, and is told.
func TestPausedServer(t *testing.T) {
	s := consulserver.Start(t, consulserver.Options{LeastTTL: leastTTL})
	c := open(t, consul.Options{Address: s.Address, Wait: time.Second, Timeout: time.Second})
	_, err := c.Put(t.Context(), "a", []byte("1"))
	must(t, err)
	l, err := c.Acquire(t.Context(), "lock", coord.LeaseOptions{Holder: "x"})
	must(t, err)
	r := told(t, c)
	r.await(10*time.Second, "1")
	s.Pause()
	defer s.Resume()
	select {
	case <-l.Done():
	case <-time.After(leastTTL + time.Second):
		t.Error("the lease outlived its TTL")
	}
	_, err = c.Get(t.Context(), "a")
	wantKind(t, "get", err, coord.ErrUnavailable)
	r.await(10*time.Second, "1", "error unavailable")
	s.Resume()
	r.await(30*time.Second, "1", "error unavailable", "1")
	must(t, l.Release(t.Context()))
}

func TestACL(t *testing.T) {
	s := consulserver.Start(t, consulserver.Options{ACL: true, LeastTTL: leastTTL})
	admin := open(t, consul.Options{Address: s.Address, Token: s.Token})
	for _, key := range []string{"open/a", "closed/a"} {
		_, err := admin.Put(t.Context(), key, []byte("x"))
		must(t, err)
	}
	reader := open(t, consul.Options{Address: s.Address, Token: s.NewToken("reader", `
		key_prefix "open/" { policy = "read" }
		key_prefix "drover/lease/" { policy = "read" }
		service_prefix "web" { policy = "read" }
		node_prefix "" { policy = "read" }`)})
	got, err := reader.Get(t.Context(), "open/a")
	must(t, err)
	_, err = reader.Get(t.Context(), "closed/a")
	wantKind(t, "get", err, coord.ErrUnauthorized)
	_, err = reader.Put(t.Context(), "open/a", nil)
	wantKind(t, "put", err, coord.ErrUnauthorized)
	_, err = reader.CompareAndSwap(t.Context(), "open/a", nil, got.Revision)
	wantKind(t, "swap", err, coord.ErrUnauthorized)
	_, err = reader.CompareAndSwap(t.Context(), "open/a", nil, "1")
	wantKind(t, "swap of another state", err, coord.ErrUnauthorized)
	wantKind(t, "delete", reader.Delete(t.Context(), "open/a", &got.Revision), coord.ErrUnauthorized)
	wantKind(t, "apply", reader.Apply(t.Context(), []coord.Op{{Key: "open/b"}, {Key: "closed/b"}}), coord.ErrUnauthorized)
	_, err = reader.Acquire(t.Context(), "lock", coord.LeaseOptions{Holder: "x"})
	wantKind(t, "acquire", err, coord.ErrUnauthorized)
	wantKind(t, "register", reader.Register(t.Context(), instance("web", "w")), coord.ErrUnauthorized)
	must(t, admin.Register(t.Context(), instance("web", "w")))
	wantKind(t, "report", reader.Report(t.Context(), "w", coord.Passing, ""), coord.ErrUnauthorized)
	wantKind(t, "deregister", reader.Deregister(t.Context(), "w"), coord.ErrUnauthorized)
	must(t, admin.Report(t.Context(), "w", coord.Passing, ""))
	if strings.Contains(fmt.Sprint(err), s.Token) {
		t.Errorf("an error shows the token: %v", err)
	}
}

// TestLeastRights: what docs/COORDINATORS.md says that a token needs is enough.
func TestLeastRights(t *testing.T) {
	page, err := os.ReadFile("../../../docs/COORDINATORS.md")
	must(t, err)
	_, rules, found := strings.Cut(string(page), "```hcl\n")
	rules, _, ended := strings.Cut(rules, "```")
	if !found || !ended {
		t.Fatal("the page has no rules")
	}
	s := consulserver.Start(t, consulserver.Options{ACL: true, LeastTTL: leastTTL})
	_, err = open(t, consul.Options{Address: s.Address, Token: s.Token}).Put(t.Context(), "config/a", []byte("1"))
	must(t, err)
	c := open(t, consul.Options{Address: s.Address, Token: s.NewToken("agent", rules)})
	if pairs, err := c.List(t.Context(), "config/"); err != nil || len(pairs) != 1 {
		t.Errorf("list: %v, %v", pairs, err)
	}
	l := acquire(t, c, "x")
	must(t, l.Release(t.Context()))
	must(t, c.Register(t.Context(), instance("web", "w")))
	must(t, c.Report(t.Context(), "w", coord.Maintenance, ""))
	must(t, c.Report(t.Context(), "w", coord.Passing, ""))
	r := newRecord(t)
	r.run(func() {
		c.WatchService(r.ctx, coord.Query{Name: "web"}, func(is []coord.Instance, err error) { r.add(fmt.Sprint(len(is), err)) })
	})
	r.awaitThat(10*time.Second, func(l []string) bool { return slices.Contains(l, "1 <nil>") }, "1 <nil>")
	wantKind(t, "report of what is not there", c.Report(t.Context(), "web-2", coord.Passing, ""), coord.ErrNotFound)
	must(t, c.Deregister(t.Context(), "w"))
	must(t, c.Deregister(t.Context(), "web-2"))
}

func instance(name, id string) coord.Registration {
	return coord.Registration{ID: id, Name: name, Address: "192.0.2.1", Port: 80, TTL: time.Minute, Initial: coord.Passing}
}

func TestTLS(t *testing.T) {
	s := consulserver.Start(t, consulserver.Options{TLS: true, Clients: true, Unix: true})
	full := consul.Options{Address: s.Address, CAFile: s.CA, CertFile: s.Cert, KeyFile: s.Key}
	c := open(t, full)
	_, err := c.Put(t.Context(), "a", []byte("1"))
	must(t, err)
	told(t, c).await(10*time.Second, "1")
	untrusted, anonymous, misnamed := full, full, full
	untrusted.CAFile = ""
	anonymous.CertFile, anonymous.KeyFile = "", ""
	misnamed.ServerName = "other.example"
	for name, o := range map[string]consul.Options{"untrusted": untrusted, "anonymous": anonymous, "misnamed": misnamed} {
		_, err := open(t, o).Get(t.Context(), "a")
		wantKind(t, name, err, coord.ErrUnavailable)
		if !strings.Contains(fmt.Sprint(err), "certificate") { // it says what is wrong
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	s := consulserver.Start(t, consulserver.Options{Unix: true})
	c := open(t, consul.Options{Address: "unix://" + s.Socket})
	_, err := c.Put(t.Context(), "a", []byte("1"))
	must(t, err)
	told(t, c).await(10*time.Second, "1")
}

// TestTurns: more watches than places to wait in. No query is ended by another key's change, as one
// for a key that is not there would be, and each could wait for a minute.
func TestTurns(t *testing.T) {
	t.Parallel()
	s := consulserver.Start(t, consulserver.Options{})
	c := open(t, consul.Options{Address: s.Address, Waiting: 2, Wait: time.Minute})
	const n = 6
	var all, first []string
	r := newRecord(t)
	for i := range n {
		key := fmt.Sprintf("turns/%02d", i)
		all, first = append(all, key+" new"), append(first, key+" old")
		_, err := c.Put(t.Context(), key, []byte("old"))
		must(t, err)
		r.run(func() {
			c.Watch(r.ctx, key, true, func(pairs []coord.Pair, err error) {
				if err != nil || len(pairs) != 1 {
					r.add(fmt.Sprint(key, len(pairs), err))
					return
				}
				r.add(key + " " + string(pairs[0].Value))
			})
		})
		r.awaitThat(10*time.Second, func(l []string) bool { return len(l) == i+1 }, "the first states")
	}
	// The last in the queue has its turn, too, though nobody's change makes room.
	_, err := c.Put(t.Context(), "turns/05", []byte("new"))
	must(t, err)
	r.await(30*time.Second, append(first, all[n-1])...)
}

// TestOperatorsMaintenance is not ended by a report; ours is, by the next agent, too.
func TestOperatorsMaintenance(t *testing.T) {
	s := consulserver.Start(t, consulserver.Options{})
	c := open(t, consul.Options{Address: s.Address})
	must(t, c.Register(t.Context(), instance("web", "w")))
	r := newRecord(t)
	r.run(func() {
		c.WatchService(r.ctx, coord.Query{Name: "web", Status: []coord.Status{coord.Passing, coord.Maintenance}}, func(is []coord.Instance, err error) {
			if err != nil || len(is) != 1 {
				r.add(fmt.Sprint(err, len(is)))
				return
			}
			r.add(string(is[0].Status) + " " + is[0].Note)
		})
	})
	must(t, c.Report(t.Context(), "w", coord.Maintenance, "restore"))
	next := open(t, consul.Options{Address: s.Address})
	must(t, next.Register(t.Context(), instance("web", "w")))
	r.awaitThat(10*time.Second, func(l []string) bool { return len(l) > 0 && l[len(l)-1] == "maintenance restore" }, "maintenance")
	must(t, next.Report(t.Context(), "w", coord.Passing, ""))
	r.awaitThat(10*time.Second, func(l []string) bool { return strings.HasPrefix(l[len(l)-1], "passing") }, "passing")
	s.Ask(http.MethodPut, "/v1/agent/service/maintenance/w?enable=true&reason=mine", "")
	must(t, c.Register(t.Context(), instance("web", "w")))
	for _, c := range []coord.Coordinator{c, next, open(t, consul.Options{Address: s.Address})} {
		must(t, c.Report(t.Context(), "w", coord.Passing, "well"))
	}
	r.awaitThat(10*time.Second, func(l []string) bool { return l[len(l)-1] == "maintenance mine" }, "maintenance")
	if checks := s.Ask(http.MethodGet, "/v1/agent/checks", ""); !strings.Contains(string(checks), `"_service_maintenance:w"`) {
		t.Errorf("an operator's maintenance was ended: %s", checks)
	}
}

// TestDeregisterCritical takes the minute that is Consul's least, and its looking each half a minute.
func TestDeregisterCritical(t *testing.T) {
	t.Parallel()
	s := consulserver.Start(t, consulserver.Options{})
	c := open(t, consul.Options{Address: s.Address})
	gone := instance("web", "gone")
	gone.TTL, gone.DeregisterAfter = time.Second, time.Second
	must(t, c.Register(t.Context(), gone))
	stays := instance("web", "stays")
	stays.TTL = time.Second
	must(t, c.Register(t.Context(), stays))
	r := newRecord(t)
	r.run(func() {
		c.WatchService(r.ctx, coord.Query{Name: "web", Status: []coord.Status{coord.Critical}}, func(is []coord.Instance, err error) {
			ids := fmt.Sprint(err)
			for _, i := range is {
				ids += " " + i.ID
			}
			r.add(ids)
		})
	})
	r.awaitThat(3*time.Minute, func(l []string) bool {
		return slices.Contains(l, "<nil> gone stays") && l[len(l)-1] == "<nil> stays"
	}, "both critical, then one")
	wantKind(t, "report", c.Report(t.Context(), "gone", coord.Passing, ""), coord.ErrNotFound)
}
