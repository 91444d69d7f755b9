package dns_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"drover/internal/coord"
	"drover/internal/coord/dns"
	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// told is what a watch was told, as text, one at a time.
func told(t *testing.T, c *dns.Catalog, q coord.Query) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ch, ended := make(chan string, 100), make(chan struct{})
	go func() {
		defer close(ended)
		c.WatchService(ctx, q, func(found []coord.Instance, err error) {
			if err != nil {
				ch <- fmt.Sprintf("error: %v", coord.Kind(err))
				return
			}
			var parts []string
			for _, i := range found {
				part := fmt.Sprintf("%s:%d", i.Address, i.Port)
				if i.Node != "" {
					part += fmt.Sprintf(" on %s, weight %d, priority %s", i.Node, i.Weight, i.Meta["priority"])
				}
				if i.Status != coord.Passing || i.Name != q.Name || i.ID == "" {
					t.Errorf("%+v", i)
				}
				parts = append(parts, part)
			}
			ch <- strings.Join(parts, "; ")
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return ch
}

func next(t *testing.T, ch <-chan string, want string) {
	t.Helper()
	select {
	case got := <-ch:
		if got != want {
			t.Fatalf("told %q, want %q", got, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("told nothing, want %q", want)
	}
}

func open(t *testing.T, s *server, r dns.Record, most time.Duration) *dns.Catalog {
	t.Helper()
	c, err := dns.New(dns.Options{
		Services: map[string]dns.Record{"web": r}, Servers: []string{s.addr},
		Least: 20 * time.Millisecond, Most: most, Timeout: 300 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const quick = 50 * time.Millisecond

func TestAddresses(t *testing.T) {
	s := start(t)
	c := open(t, s, dns.Record{Name: "web.example.", Port: 80}, quick)
	s.set("web.example. 0 A 192.0.2.2", "web.example. 0 A 192.0.2.1", "web.example. 0 AAAA 2001:db8::1", "other.example. 0 A 192.0.2.9")
	ch := told(t, c, coord.Query{Name: "web"})
	next(t, ch, "192.0.2.1:80; 192.0.2.2:80; 2001:db8::1:80")
	s.set("web.example. 0 A 192.0.2.1", "web.example. 0 A 192.0.2.2", "web.example. 0 AAAA 2001:db8::1") // another order
	s.questions()
	for asked := 0; asked < 4; asked += len(s.questions()) { // it has looked at that
		coord.Wait(t.Context(), 10*time.Millisecond)
	}
	s.set("web.example. 0 A 192.0.2.1")
	next(t, ch, "192.0.2.1:80")
	s.set("web.example. 0 TXT x") // the name is there, and has no address
	next(t, ch, "")
	s.set("web.example. 0 A 192.0.2.3")
	next(t, ch, "192.0.2.3:80")
	s.set() // the name does not exist
	next(t, ch, "")
}

func TestFailuresEmptyNothing(t *testing.T) {
	s := start(t)
	c := open(t, s, dns.Record{Name: "web.example.", Type: "a", Port: 80}, quick)
	s.set("web.example. 0 A 192.0.2.1")
	ch := told(t, c, coord.Query{Name: "web"})
	next(t, ch, "192.0.2.1:80")
	for _, rcode := range []int{mdns.RcodeServerFailure, mdns.RcodeRefused, mdns.RcodeSuccess} {
		s.fail(rcode, rcode == mdns.RcodeSuccess) // the last time it does not answer
		next(t, ch, "error: unavailable")
		s.fail(mdns.RcodeSuccess, false)
		next(t, ch, "192.0.2.1:80")
	}
}

// TestHalfAnAnswer: one of two types that is not answered makes the whole unknown, and so
// does an alias that leads in a circle.
func TestHalfAnAnswer(t *testing.T) {
	s := start(t)
	s.set("web.example. 0 A 192.0.2.1", "_web._tcp.example. 0 SRV 1 5 8080 web.example.", "_web._tcp.example. 0 SRV 1 5 8080 b.example.",
		"b.example. 0 CNAME c.elsewhere.", "c.elsewhere. 0 CNAME b.example.")
	s.failOf(mdns.TypeAAAA)
	next(t, told(t, open(t, s, dns.Record{Name: "web.example."}, quick), coord.Query{Name: "web"}), "error: unavailable")
	next(t, told(t, open(t, s, dns.Record{Name: "web.example.", Type: "A"}, quick), coord.Query{Name: "web"}), "192.0.2.1:0")
	s.failOf(mdns.TypeNone)
	next(t, told(t, open(t, s, dns.Record{Name: "_web._tcp.example.", Type: "SRV"}, quick), coord.Query{Name: "web"}), "error: unavailable")
}

func TestServices(t *testing.T) {
	s := start(t)
	c := open(t, s, dns.Record{Name: "_web._tcp.example.", Type: "SRV"}, quick)
	s.set("_web._tcp.example. 0 SRV 10 5 8080 B.example.", "_web._tcp.example. 0 SRV 20 0 8081 a.example.", "_web._tcp.example. 0 SRV 1 1 1 gone.example.",
		"a.example. 0 A 192.0.2.1", "a.example. 0 AAAA 2001:db8::1", "b.example. 0 CNAME c.example.", "c.example. 0 A 192.0.2.2")
	ch := told(t, c, coord.Query{Name: "web"})
	next(t, ch, "192.0.2.1:8081 on a.example, weight 1, priority 20; 2001:db8::1:8081 on a.example, weight 1, priority 20; 192.0.2.2:8080 on b.example, weight 5, priority 10")
	s.set("_web._tcp.example. 0 SRV 0 0 0 .")
	next(t, ch, "")
}

// TestLongAnswer comes by TCP, since it does not fit.
func TestLongAnswer(t *testing.T) {
	s := start(t)
	c := open(t, s, dns.Record{Name: "web.example.", Type: "A", Port: 1}, quick)
	var records, want []string
	for i := 100; i < 200; i++ {
		records = append(records, fmt.Sprintf("web.example. 0 A 192.0.2.%d", i))
		want = append(want, fmt.Sprintf("192.0.2.%d:1", i))
	}
	s.set(records...)
	next(t, told(t, c, coord.Query{Name: "web"}), strings.Join(want, "; "))
	if asked := s.questions(); len(asked) < 2 || asked[0] != "udp A web.example." || asked[1] != "tcp A web.example." {
		t.Errorf("asked %q", asked)
	}
}

// TestTTL: a name is asked again when its answer's time is over, and not before.
func TestTTL(t *testing.T) {
	s := start(t)
	c := open(t, s, dns.Record{Name: "web.example.", Type: "A", Port: 1}, time.Hour)
	s.set("web.example. 2 A 192.0.2.1", "web.example. 600 A 192.0.2.2")
	began := time.Now()
	ch := told(t, c, coord.Query{Name: "web"})
	next(t, ch, "192.0.2.1:1; 192.0.2.2:1")
	s.set("example. 600 SOA ns.example. me.example. 1 2 3 4 1") // and nothing is held for its last field, a second
	next(t, ch, "")
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("asked again after %v, its TTL is 2 s", took)
	}
	s.set("web.example. 600 A 192.0.2.3")
	next(t, ch, "192.0.2.3:1")
	if took := time.Since(began); took < 3*time.Second {
		t.Errorf("asked again after %v, 2 s and 1 s are the TTLs", took)
	}
	if n := len(s.questions()); n != 3 {
		t.Errorf("%d questions for three answers", n)
	}
}

// TestMost: Docker's answers hold for 600 s, its containers do not.
func TestMost(t *testing.T) {
	s := start(t)
	c := open(t, s, dns.Record{Name: "web.example.", Type: "A", Port: 1}, quick)
	s.set("web.example. 600 A 192.0.2.1")
	ch := told(t, c, coord.Query{Name: "web"})
	next(t, ch, "192.0.2.1:1")
	s.set("web.example. 600 A 192.0.2.2")
	next(t, ch, "192.0.2.2:1")
}

// TestResolvConf applies a search list, and goes on to the next server.
func TestResolvConf(t *testing.T) {
	s := start(t)
	s.set("tasks.web.my.example. 0 A 192.0.2.1", "web. 0 A 192.0.2.9")
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("search other.example my.example\noptions ndots:2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := dns.New(dns.Options{
		Services: map[string]dns.Record{"web": {Name: "tasks.web", Type: "A", Port: 80}}, Config: conf, Least: 20 * time.Millisecond, Most: quick,
	})
	if err != nil {
		t.Fatal(err)
	}
	next(t, told(t, c, coord.Query{Name: "web"}), "error: unavailable") // no server in it
	c, err = dns.New(dns.Options{
		Services: map[string]dns.Record{"web": {Name: "tasks.web", Type: "A", Port: 80}}, Servers: []string{s.addr}, Config: conf, Least: quick, Most: quick,
	})
	if err != nil {
		t.Fatal(err)
	}
	next(t, told(t, c, coord.Query{Name: "web"}), "192.0.2.1:80")
	if asked := fmt.Sprintf("%.80q", s.questions()); !strings.HasPrefix(asked, `["udp A tasks.web.other.example." "udp A tasks.web.my.example."`) {
		t.Errorf("asked %s", asked)
	}

	mute := start(t)
	mute.fail(mdns.RcodeServerFailure, false)
	c, err = dns.New(dns.Options{
		Services: map[string]dns.Record{"web": {Name: "tasks.web.my.example", Type: "A", Port: 80}}, Servers: []string{mute.addr, s.addr}, Least: quick, Most: quick,
	})
	if err != nil {
		t.Fatal(err)
	}
	next(t, told(t, c, coord.Query{Name: "web"}), "192.0.2.1:80")
	if len(mute.questions()) == 0 {
		t.Error("the first server was not asked")
	}
}

func TestQueries(t *testing.T) {
	s := start(t)
	s.set("web.example. 0 A 192.0.2.1")
	c := open(t, s, dns.Record{Name: "web.example.", Type: "A", Port: 1}, quick)
	next(t, told(t, c, coord.Query{Name: "web", Tag: "x"}), "")
	next(t, told(t, c, coord.Query{Name: "web", Status: []coord.Status{coord.Critical}}), "")
	next(t, told(t, c, coord.Query{Name: "web", Datacenter: "dc1"}), "error: not supported by this coordinator")
	next(t, told(t, c, coord.Query{Name: "other"}), "error: not found")
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	c.WatchServices(ctx, "", func(all map[string][]string, err error) {
		if calls++; err != nil || len(all) != 1 || len(all["web"]) != 0 {
			t.Errorf("services %v, %v", all, err)
		}
		cancel()
	})
	ctx, cancel = context.WithCancel(t.Context())
	c.WatchServices(ctx, "dc1", func(_ map[string][]string, err error) {
		if calls++; !errors.Is(err, coord.ErrUnsupported) {
			t.Errorf("a datacenter: %v", err)
		}
		cancel()
	})
	if calls != 2 {
		t.Errorf("%d calls", calls)
	}
}

// TestURL asks by what stands in a configuration.
func TestURL(t *testing.T) {
	s := start(t)
	s.set("web.my.example. 0 A 192.0.2.1", "_db._tcp.my.example. 0 SRV 1 1 5432 web.my.example.")
	parse := func(raw string) (*dns.Catalog, error) {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		o, err := dns.ParseURL(u)
		if err != nil {
			return nil, err
		}
		return dns.New(o)
	}
	c, err := parse("dns://" + s.addr + "/my.example?type=A&port=80")
	if err != nil {
		t.Fatal(err)
	}
	next(t, told(t, c, coord.Query{Name: "web"}), "192.0.2.1:80")
	next(t, told(t, c, coord.Query{Name: "_db._tcp"}), "192.0.2.1:5432 on web.my.example, weight 1, priority 1")
	next(t, told(t, c, coord.Query{Name: "a..b"}), "error: not found")
	for _, raw := range []string{"dns://host", "dns:///", "dns:///my.example.", "dns://[::1]/a"} {
		if _, err := parse(raw); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	}
	for _, raw := range []string{"http://host/a", "dns:a", "dns://u:p@host/a", "dns://host/a?port=x", "dns://host/a?port=-1", "dns://host/a?type=MX", "dns://host/a?x=y", "dns://host/a..b"} {
		if _, err := parse(raw); err == nil {
			t.Errorf("%s is accepted", raw)
		}
	}
}

func TestBadRecords(t *testing.T) {
	for _, r := range []dns.Record{{}, {Name: "a..b"}, {Name: "a", Type: "MX"}, {Name: "a", Port: -1}, {Name: "a", Port: 65536}} {
		if _, err := dns.New(dns.Options{Services: map[string]dns.Record{"web": r}}); err == nil {
			t.Errorf("%+v is accepted", r)
		}
	}
}
