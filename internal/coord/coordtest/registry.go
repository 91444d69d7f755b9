package coordtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"drover/internal/coord"
)

func registryTests() []test {
	return []test{
		{"ServiceRoundTrip", testServiceRoundTrip, ""},
		{"ServiceNobody", testServiceNobody, ""},
		{"ServiceComesAndGoes", testServiceComesAndGoes, ""},
		{"ServiceStatus", testServiceStatus, ""},
		{"ServiceChanges", testServiceChanges, ""},
		{"ServiceRegisterAgain", testServiceAgain, ""},
		{"ServiceMovesName", testServiceMoves, ""},
		{"ServiceQuery", testServiceQuery, ""},
		{"ServiceUnknown", testServiceUnknown, ""},
		{"ServiceBadRegistration", testServiceBad, ""},
		{"ServiceFallsSilent", testServiceSilent, ""},
		{"ServiceReportsInTime", testServiceReports, ""},
		{"ServiceIsRemoved", testServiceRemoved, "DeregisterAfter"},
		{"ServiceMany", testServiceMany, ""},
		{"Services", testServices, ""},
		{"ServiceCutOff", testServiceCutOff, "Partition"},
		{"ServicesOutliveARestart", testServiceRestart, "RestartServer"},
		{"ServiceOfAStranger", testServiceStranger, "Stranger"},
	}
}

type instances = []coord.Instance

// name and instance names are this test's own, without a slash.
func (s *suite) name(n string) string { return s.id + "-" + n }

// registration has a TTL that no test waits for.
func (s *suite) registration(name, id string) coord.Registration {
	return coord.Registration{
		ID: s.name(id), Name: s.name(name), Address: "192.0.2.7", Port: 8080, Tags: []string{"blue", "v1"},
		Meta: map[string]string{"zone": "a", "empty": ""}, TTL: max(2*hung, s.ServiceTTL), Initial: coord.Passing,
	}
}

func register(t *testing.T, c coord.Registry, r coord.Registration) {
	t.Helper()
	ok(t, "register "+r.ID, c.Register(call(t), r))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = c.Deregister(ctx, r.ID) // a server that is shared gets it back clean
	})
}

func report(t *testing.T, c coord.Registry, id string, status coord.Status, note string) {
	t.Helper()
	ok(t, "report "+id, c.Report(call(t), id, status, note))
}

var all = []coord.Status{coord.Passing, coord.Warning, coord.Critical, coord.Maintenance}

func (s *suite) service(t *testing.T, c coord.Catalog, name string, status ...coord.Status) *watcher[instances] {
	return s.query(t, c, coord.Query{Name: s.name(name), Status: status})
}

func (s *suite) query(t *testing.T, c coord.Catalog, q coord.Query) *watcher[instances] {
	return watch(t, coord.EqualInstances, 0, func(ctx context.Context, fn func(instances, error)) { c.WatchService(ctx, q, fn) })
}

// are says whether a call was these instances: id, status, id, status.
func (s *suite) are(idStatus ...string) func(instances, error) bool {
	return func(is instances, err error) bool {
		if err != nil {
			return false
		}
		var got []string
		for _, i := range is {
			got = append(got, i.ID, string(i.Status))
		}
		var wanted []string
		for i, x := range idStatus {
			if i%2 == 0 {
				x = s.name(x)
			}
			wanted = append(wanted, x)
		}
		return slices.Equal(got, wanted)
	}
}

func testServiceRoundTrip(t *testing.T, s *suite) {
	c, other := s.Open(t), s.Open(t)
	r := s.registration("web", "web-1")
	r.Tags = []string{"b", "a", "with space", "ünï"}
	r.Meta = map[string]string{"zone": "a", "key_2": "ü/:=\"", "empty": ""}
	register(t, c, r)
	w := s.service(t, other, "web")
	w.await("registered", s.Settle, s.are("web-1", "passing"))
	got := w.all()[len(w.all())-1].state[0]
	slices.Sort(got.Tags) // their order is not promised
	if got.Name != r.Name || got.Address != r.Address || got.Port != r.Port || !slices.Equal(got.Tags, []string{"a", "b", "with space", "ünï"}) ||
		!maps.Equal(got.Meta, r.Meta) || got.Weight < 1 {
		t.Errorf("registered %+v, told %+v", r, got)
	}
	if got.TTL != 0 || got.Initial != "" || got.DeregisterAfter != 0 {
		t.Errorf("what an instance does not tell is told: %+v", got)
	}
	// A change makes sure that the note is told with it.
	report(t, c, r.ID, coord.Warning, "a bit slow")
	w = s.service(t, other, "web", all...)
	w.await("warning", s.Settle, s.are("web-1", "warning"))
	eventually(t, s.Settle, func() string {
		w := s.service(t, other, "web", all...)
		w.await("warning", s.Settle, s.are("web-1", "warning"))
		defer w.stop()
		if note := w.all()[len(w.all())-1].state[0].Note; note != "a bit slow" {
			return fmt.Sprintf("note is %q", note)
		}
		return ""
	})
}

func testServiceNobody(t *testing.T, s *suite) {
	w := s.service(t, s.Open(t), "nobody")
	w.await("nobody", s.Settle, s.are())
	w.stop()
	if n := len(w.all()); n != 1 {
		t.Errorf("%d calls for one state", n)
	}
}

func testServiceComesAndGoes(t *testing.T, s *suite) {
	c, other := s.Open(t), s.Open(t)
	w := s.service(t, c, "web")
	w.await("nobody", s.Settle, s.are())
	register(t, c, s.registration("web", "web-2"))
	w.await("one", s.Settle, s.are("web-2", "passing"))
	register(t, c, s.registration("webby", "webby-1")) // another service, whose name begins so
	register(t, other, s.registration("web", "web-1"))
	w.await("two", s.Settle, s.are("web-1", "passing", "web-2", "passing"))
	ok(t, "deregister", c.Deregister(call(t), s.name("web-2")))
	w.await("one again", s.Settle, s.are("web-1", "passing"))
	ok(t, "deregister again", c.Deregister(call(t), s.name("web-2")))
	ok(t, "deregister", other.Deregister(call(t), s.name("web-1")))
	w.await("nobody again", s.Settle, s.are())
	if n := len(w.all()); n != 5 {
		t.Errorf("%d calls for five states: %+v", n, w.all())
	}
}

func testServiceStatus(t *testing.T, s *suite) {
	c, other := s.Open(t), s.Open(t)
	r := s.registration("web", "web-1")
	r.Initial = ""
	register(t, c, r)
	passing, every := s.service(t, other, "web"), s.service(t, other, "web", all...)
	passing.await("nobody is passing", s.Settle, s.are())
	every.await("critical until the first report", s.Settle, s.are("web-1", "critical"))
	for _, status := range []coord.Status{coord.Passing, coord.Warning, coord.Critical, coord.Maintenance, coord.Passing} {
		report(t, c, r.ID, status, "now "+string(status))
		every.await(string(status), s.Settle, s.are("web-1", string(status)))
		if status == coord.Passing {
			passing.await("is passing", s.Settle, s.are("web-1", "passing"))
		} else {
			passing.await("is not passing", s.Settle, s.are())
		}
	}
	for range 3 {
		report(t, c, r.ID, coord.Passing, "still")
	}
	ok(t, "deregister", c.Deregister(call(t), r.ID))
	every.await("gone", s.Settle, s.are())
	passing.await("gone", s.Settle, s.are())
	if n, m := len(every.all()), len(passing.all()); n != 7 || m != 5 {
		t.Errorf("%d and %d calls for 7 and 5 states: a report that changes nothing was told", n, m)
	}
}

func testServiceChanges(t *testing.T, s *suite) {
	c, other := s.Open(t), s.Open(t)
	r := s.registration("web", "web-1")
	register(t, c, r)
	w := s.service(t, other, "web")
	w.await("registered", s.Settle, s.are("web-1", "passing"))
	for name, change := range map[string]func(*coord.Registration){
		"address": func(r *coord.Registration) { r.Address = "192.0.2.8" },
		"port":    func(r *coord.Registration) { r.Port++ },
		"tags":    func(r *coord.Registration) { r.Tags = []string{"green"} },
		"no tags": func(r *coord.Registration) { r.Tags = nil },
		"meta":    func(r *coord.Registration) { r.Meta = map[string]string{"zone": "b"} },
		"no meta": func(r *coord.Registration) { r.Meta = nil },
	} {
		change(&r)
		ok(t, "register again", c.Register(call(t), r))
		w.await(name, s.Settle, func(is instances, err error) bool {
			return err == nil && len(is) == 1 && is[0].Address == r.Address && is[0].Port == r.Port &&
				slices.Equal(is[0].Tags, r.Tags) && maps.Equal(is[0].Meta, r.Meta)
		})
	}
	for _, i := range w.all() {
		if i.err != nil || len(i.state) != 1 || i.state[0].Status != coord.Passing {
			t.Errorf("a change of what it says of itself was told as %+v, %v", i.state, i.err)
		}
	}
}

func testServiceAgain(t *testing.T, s *suite) {
	c, other := s.Open(t), s.Open(t)
	r := s.registration("web", "web-1")
	r.Initial = coord.Critical
	register(t, c, r)
	report(t, c, r.ID, coord.Warning, "slow")
	w := s.service(t, other, "web", all...)
	w.await("warning", s.Settle, s.are("web-1", "warning"))
	for range 3 {
		ok(t, "register the same", c.Register(call(t), r))
	}
	r.Port++
	ok(t, "register another port", c.Register(call(t), r))
	w.await("the port", s.Settle, func(is instances, err error) bool { return err == nil && len(is) == 1 && is[0].Port == r.Port })
	for _, i := range w.all() {
		if i.err != nil || len(i.state) != 1 || i.state[0].Status != coord.Warning {
			t.Errorf("to register again changed what was reported: %+v, %v", i.state, i.err)
		}
	}
	report(t, c, r.ID, coord.Passing, "")
	w.await("passing", s.Settle, s.are("web-1", "passing"))
}

func testServiceMoves(t *testing.T, s *suite) {
	c := s.Open(t)
	register(t, c, s.registration("old", "x"))
	from, to := s.service(t, c, "old", all...), s.service(t, c, "new", all...)
	from.await("there", s.Settle, s.are("x", "passing"))
	register(t, c, s.registration("new", "x"))
	from.await("moved away", s.Settle, s.are())
	to.await("moved here", s.Settle, s.are("x", "passing"))
	ok(t, "deregister", c.Deregister(call(t), s.name("x")))
	to.await("gone", s.Settle, s.are())
}

func testServiceQuery(t *testing.T, s *suite) {
	c := s.Open(t)
	for i, status := range all {
		r := s.registration("web", "web-"+string(status))
		r.Tags = []string{[]string{"even", "odd"}[i%2], "every"}
		register(t, c, r)
		report(t, c, r.ID, status, "")
	}
	for _, q := range []struct {
		tag    string
		status []coord.Status
		want   []string
	}{
		{"", nil, []string{"web-passing", "passing"}},
		{"", []coord.Status{coord.Critical, coord.Warning}, []string{"web-critical", "critical", "web-warning", "warning"}},
		{"", []coord.Status{coord.Maintenance}, []string{"web-maintenance", "maintenance"}},
		{"", all, []string{"web-critical", "critical", "web-maintenance", "maintenance", "web-passing", "passing", "web-warning", "warning"}},
		{"odd", all, []string{"web-maintenance", "maintenance", "web-warning", "warning"}},
		{"even", nil, []string{"web-passing", "passing"}},
		{"odd", nil, nil}, {"eve", all, nil}, {"Every", all, nil},
	} {
		w := s.query(t, c, coord.Query{Name: s.name("web"), Tag: q.tag, Status: q.status})
		w.await(fmt.Sprintf("tag %q, status %q", q.tag, q.status), s.Settle, s.are(q.want...))
		w.stop()
	}
}

func testServiceUnknown(t *testing.T, s *suite) {
	c, other := s.Open(t), s.Open(t)
	want(t, "report of what never was", c.Report(call(t), s.name("none"), coord.Passing, ""), coord.ErrNotFound)
	ok(t, "deregister what never was", c.Deregister(call(t), s.name("none")))
	r := s.registration("web", "web-1")
	register(t, c, r)
	report(t, c, r.ID, coord.Passing, "")
	ok(t, "deregister by another", other.Deregister(call(t), r.ID))
	eventually(t, s.Settle, func() string {
		if err := c.Report(call(t), r.ID, coord.Passing, ""); coord.Kind(err) != coord.ErrNotFound {
			return fmt.Sprintf("report of what the catalog forgot: %v", err)
		}
		return ""
	})
	ok(t, "register again", c.Register(call(t), r))
	report(t, c, r.ID, coord.Passing, "")
	s.service(t, other, "web").await("back", s.Settle, s.are("web-1", "passing"))
}

func testServiceBad(t *testing.T, s *suite) {
	c := s.Open(t)
	for _, change := range []func(*coord.Registration){
		func(r *coord.Registration) { r.ID = "" },
		func(r *coord.Registration) { r.Name = "" },
		func(r *coord.Registration) { r.ID = "a/b" },
		func(r *coord.Registration) { r.Name = "a/b" },
		func(r *coord.Registration) { r.Name = ".." },
		func(r *coord.Registration) { r.TTL = 0 },
	} {
		r := s.registration("bad", "bad-1")
		change(&r)
		if err := c.Register(call(t), r); err == nil || coord.Kind(err) != nil {
			t.Errorf("register %+v: %v", r, err)
		}
	}
	s.service(t, c, "bad", all...).await("nobody", s.Settle, s.are())
}

func testServiceSilent(t *testing.T, s *suite) {
	c, other := s.Open(t), s.Open(t)
	r := s.registration("web", "silent")
	r.TTL = s.ServiceTTL
	register(t, c, s.registration("web", "other"))
	w := s.service(t, other, "web", all...)
	w.await("first", s.Settle, s.are("other", "passing"))
	register(t, c, r)
	report(t, c, r.ID, coord.Passing, "")
	reported := time.Now()
	w.await("passing", s.Settle, s.are("other", "passing", "silent", "passing"))
	w.await("silent", s.ServiceTTL+s.ServiceLate+s.Settle, s.are("other", "passing", "silent", "critical"))
	if after := time.Since(reported); after < s.ServiceTTL-s.Settle/10 {
		t.Errorf("critical %v after its report, before its TTL of %v was over", after, s.ServiceTTL)
	}
	report(t, c, r.ID, coord.Passing, "back")
	w.await("back", s.Settle, s.are("other", "passing", "silent", "passing"))
}

func testServiceReports(t *testing.T, s *suite) {
	c, other := s.Open(t), s.Open(t)
	r := s.registration("web", "web-1")
	r.TTL = s.ServiceTTL
	register(t, c, r)
	w := s.service(t, other, "web", all...)
	w.await("passing", s.Settle, s.are("web-1", "passing"))
	for range 3 * 3 { // three TTLs
		coord.Wait(t.Context(), s.ServiceTTL/3)
		report(t, c, r.ID, coord.Passing, "")
	}
	if n := len(w.all()); n != 1 {
		t.Errorf("an instance that reported in time was told %d times: %+v", n, w.all())
	}
}

func testServiceRemoved(t *testing.T, s *suite) {
	c, other := s.Open(t), s.Open(t)
	r := s.registration("web", "silent")
	r.TTL, r.DeregisterAfter = s.ServiceTTL, s.DeregisterAfter
	stays := s.registration("web", "stays")
	stays.TTL = s.ServiceTTL
	register(t, c, r)
	register(t, c, stays)
	w := s.service(t, other, "web", all...)
	w.await("passing", s.Settle, s.are("silent", "passing", "stays", "passing"))
	registered := time.Now()
	late := s.ServiceTTL + s.ServiceLate + s.DeregisterAfter + s.DeregisterLate + s.Settle
	w.await("removed", late, s.are("stays", "critical"))
	if after := time.Since(registered); after < s.DeregisterAfter {
		t.Errorf("removed after %v, before %v were over", after, s.DeregisterAfter)
	}
	eventually(t, s.Settle, func() string {
		if err := c.Report(call(t), r.ID, coord.Passing, ""); coord.Kind(err) != coord.ErrNotFound {
			return fmt.Sprintf("report of what was removed: %v", err)
		}
		return ""
	})
	ok(t, "register again", c.Register(call(t), r))
	w.await("back", s.Settle, s.are("silent", "passing", "stays", "critical"))
}

func testServiceMany(t *testing.T, s *suite) {
	const n = 30
	clients := []coord.Coordinator{s.Open(t), s.Open(t)}
	w := s.service(t, clients[0], "many")
	w.await("nobody", s.Settle, s.are())
	var (
		group  sync.WaitGroup
		wanted []string
	)
	for i := range n {
		id := fmt.Sprintf("i%02d", i)
		wanted = append(wanted, id, "passing")
		group.Go(func() {
			r := s.registration("many", id)
			r.Initial = ""
			c := clients[i%2]
			if err := c.Register(call(t), r); err != nil {
				t.Errorf("register: %v", err)
			}
			if err := c.Report(call(t), r.ID, coord.Passing, ""); err != nil {
				t.Errorf("report: %v", err)
			}
		})
	}
	group.Wait()
	w.await("all", s.Settle, s.are(wanted...))
	for i := range n {
		ok(t, "deregister", clients[i%2].Deregister(call(t), s.name(fmt.Sprintf("i%02d", i))))
	}
	w.await("nobody again", s.Settle, s.are())
}

func testServices(t *testing.T, s *suite) {
	c, other := s.Open(t), s.Open(t)
	// Others may use the server: only this test's names count, and calls may come for others.
	mine := func(m map[string][]string) map[string][]string {
		found := map[string][]string{}
		for name, tags := range m {
			if len(name) > len(s.id) && name[:len(s.id)] == s.id {
				found[name] = tags
			}
		}
		return found
	}
	w := watch(t, coord.EqualServices, 0, func(ctx context.Context, fn func(map[string][]string, error)) { other.WatchServices(ctx, "", fn) })
	are := func(wanted map[string][]string) func(map[string][]string, error) bool {
		return func(m map[string][]string, err error) bool { return err == nil && coord.EqualServices(mine(m), wanted) }
	}
	w.await("none", s.Settle, are(nil))
	web, db := s.name("web"), s.name("db")
	one, two, three := s.registration("web", "web-1"), s.registration("web", "web-2"), s.registration("db", "db-1")
	one.Tags, two.Tags, three.Tags, three.Initial = []string{"b", "a"}, []string{"c", "a"}, nil, coord.Critical
	register(t, c, one)
	w.await("one", s.Settle, are(map[string][]string{web: {"a", "b"}}))
	register(t, c, two)
	register(t, c, three)
	w.await("three", s.Settle, are(map[string][]string{web: {"a", "b", "c"}, db: nil}))
	report(t, c, two.ID, coord.Critical, "") // it is listed all the same
	ok(t, "deregister", c.Deregister(call(t), one.ID))
	w.await("fewer tags", s.Settle, are(map[string][]string{web: {"a", "c"}, db: nil}))
	ok(t, "deregister", c.Deregister(call(t), two.ID))
	ok(t, "deregister", c.Deregister(call(t), three.ID))
	w.await("none again", s.Settle, are(nil))
}

func testServiceCutOff(t *testing.T, s *suite) {
	c, other := s.Open(t), s.Open(t)
	register(t, other, s.registration("web", "web-1"))
	w := s.service(t, c, "web")
	w.await("first", s.Settle, s.are("web-1", "passing"))
	s.Partition(t, c)
	w.failed("cut off", s.Settle, coord.ErrUnavailable)
	want(t, "register", c.Register(call(t), s.registration("web", "web-9")), coord.ErrUnavailable)
	register(t, other, s.registration("web", "web-2"))
	s.Heal(t, c)
	w.await("healed", s.Settle, s.are("web-1", "passing", "web-2", "passing"))
	ok(t, "deregister", other.Deregister(call(t), s.name("web-1")))
	w.await("a change after it", s.Settle, s.are("web-2", "passing"))
}

func testServiceRestart(t *testing.T, s *suite) {
	c := s.Open(t)
	r := s.registration("web", "web-1")
	register(t, c, r)
	w := s.service(t, c, "web")
	w.await("first", s.Settle, s.are("web-1", "passing"))
	s.RestartServer(t)
	eventually(t, s.Settle, func() string { // as an agent does: what was forgotten is registered again
		err := c.Report(call(t), r.ID, coord.Passing, "")
		if coord.Kind(err) == coord.ErrNotFound {
			err = c.Register(call(t), r)
		}
		if err != nil {
			return err.Error()
		}
		return ""
	})
	w.await("after the restart", s.Settle, s.are("web-1", "passing"))
	register(t, c, s.registration("web", "web-2"))
	w.await("a change after it", s.Settle, s.are("web-1", "passing", "web-2", "passing"))
}

func testServiceStranger(t *testing.T, s *suite) {
	c := s.Stranger(t)
	want(t, "register", c.Register(call(t), s.registration("web", "x")), coord.ErrUnauthorized)
	want(t, "report", c.Report(call(t), s.name("x"), coord.Passing, ""), coord.ErrUnauthorized)
	s.service(t, c, "web").failed("a stranger", s.Settle, coord.ErrUnauthorized)
}
