package cli

import (
	"os"
	"syscall"
	"testing"
	"time"

	"drover/client"
	"drover/internal/repo/fstest"
)

// noticed is how soon docs/discovery.md says that watches and templates notice a
// coordinator that takes calls and answers none.
var noticed = map[string]time.Duration{"etcd": 20 * time.Second, "s3": 21 * time.Second, "consul": 6 * time.Minute}

// testNoticeStory: a coordinator that hangs is noticed as soon as docs/discovery.md says. What was
// known stays, the jobs run on, and when it answers again all is as before. The queries that wait for
// Consul take minutes to notice, for which DROVER_SOAK has to be set.
func testNoticeStory(t *testing.T, binary, kind string, p *place) {
	const told = 4*time.Second/3 + 5*time.Second // of the TTL of provider
	const slack = 5 * time.Second                // of a busy machine
	p.put("shop/level", "1")
	two := p.node(t, binary, "two", consumer)
	one := p.node(t, binary, "one", provider)
	one.write("up", "")
	two.heard("web=10.0.0.1:8080.")
	well := func(st client.Status) bool {
		return st.Health == "ok" && jobOf(st, "app").PID > 0 && len(st.Templates[0].Stale) == 0 &&
			st.Watches[0].Error == "" && st.Watches[1].Error == "" && st.Watches[1].Size == 1
	}
	before := two.until("all is well", well)
	one.until("all is well", func(st client.Status) bool { return st.Health == "ok" && st.Services[0].Error == "" })
	p.pause()
	hung := time.Now()
	t.Cleanup(p.wake) // before the server's own end
	took := one.within(t, told+slack, func(st client.Status) bool { return st.Services[0].Error != "" })
	t.Logf("%s hangs: the service notices after %v", kind, took.Round(10*time.Millisecond))
	if most := noticed[kind]; most < time.Minute || os.Getenv("DROVER_SOAK") != "" {
		two.within(t, most+slack-time.Since(hung), func(st client.Status) bool {
			return len(st.Templates[0].Stale) > 0 && st.Watches[0].Error != "" && st.Watches[1].Error != ""
		})
		t.Logf("%s hangs: watches and templates notice after %v", kind, time.Since(hung).Round(10*time.Millisecond))
	}
	away := two.until("it is answered", func(client.Status) bool { return true })
	if away.Health != "ok" && !p.store || away.Templates[0].State != "rendered" || !away.Watches[0].Known || away.Watches[1].Size != 1 || two.file("conf") != "level=1 web=10.0.0.1:8080." {
		t.Errorf("while it hangs: %q, %+v", two.file("conf"), away)
	}
	p.wake()
	wait(t, func() string { return "the server does not take a key" }, func() bool {
		_, err := p.Put(t.Context(), "shop/level", []byte("2"))
		return err == nil
	})
	two.heard("got level=2")
	after := two.until("all is well again", func(st client.Status) bool { return well(st) && two.file("conf") == "level=2 web=10.0.0.1:8080." })
	one.until("all is well again", func(st client.Status) bool { return st.Health == "ok" && st.Services[0].Error == "" })
	if a, b := jobOf(before, "app"), jobOf(after, "app"); a.PID != b.PID || b.Restarts != 0 {
		t.Errorf("the job did not run on: %+v, then %+v", a, b)
	}
	fstest.Must(t, one.cmd.Process.Signal(syscall.SIGTERM))
	one.end()
}

// within waits until the agent's status is as wanted, and returns how long that took; no longer than most.
func (n *node) within(t *testing.T, most time.Duration, want func(client.Status) bool) time.Duration {
	t.Helper()
	agent := client.New(n.dir + "/s")
	defer agent.Close()
	began := time.Now()
	var st client.Status
	for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C {
		var err error
		if st, err = agent.Status(t.Context()); err == nil && want(st) {
			tick.Stop()
			return time.Since(began)
		}
		if time.Since(began) > most {
			tick.Stop()
			t.Fatalf("%s does not notice within %v: %+v, %v", n.id, most, st, err)
		}
	}
}
