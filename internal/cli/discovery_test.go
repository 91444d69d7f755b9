package cli

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"drover/client"
	"drover/internal/coord"
	"drover/internal/repo/fstest"
	"drover/internal/testkit/s3server"
)

// TestDiscovery has stories of agents on real coordinators.
func TestDiscovery(t *testing.T) {
	s3server.ClearEnv(t)
	binary := buildBinary(t)
	stories := map[string]func(*testing.T, string, *place){"service": testServiceStory, "outage": testOutageStory, "hang": testHangStory}
	for kind, open := range kinds {
		for name, story := range stories {
			if name == "outage" && kind == "store" || name == "service" && kind == "s3" || name == "hang" && (kind == "store" || kind == "s3") {
				continue // a directory is not away, and the store has stories of its own
			}
			t.Run(name+" on "+kind, func(t *testing.T) {
				t.Parallel()
				story(t, binary, open(t))
			})
		}
	}
	for kind := range noticed {
		t.Run("notice on "+kind, func(t *testing.T) { t.Parallel(); testNoticeStory(t, binary, kind, kinds[kind](t)) })
	}
	t.Run("render", func(t *testing.T) { t.Parallel(); testRenderStory(t, newMachine(t, binary), inDirectory(t)) })
	t.Run("fleet on consul", func(t *testing.T) { t.Parallel(); testFleetStory(t, binary, onConsul(t)) })
	t.Run("secrets", func(t *testing.T) { t.Parallel(); testSecretsStory(t, binary, inDirectory(t)) })
}

const provider = `
jobs:
  web:
    main: true
    command: "trap 'touch DIR/asked; exit 0' TERM; while :; do sleep 0.05; done"
    checks: {up: {exec: [test, -e, DIR/up], every: 300ms, threshold: 1}}
    service: {name: web, port: 8080, address: "static:10.0.0.1", tags: [a, b], meta: {zone: z1}, ttl: 4s, drain: 3s}
`

const consumer = `
watches: {web: web, level: {key: shop/level}}
templates:
  conf:
    content: "level=[[ key \"shop/level\" ]] web=[[ range service \"web\" ]][[ .Address ]]:[[ .Port ]][[ end ]]."
    destination: DIR/conf
    on_change: {signal: app}
jobs:
  app: {command: "trap 'echo got $(cat DIR/conf)' HUP; echo first $(cat DIR/conf); while :; do sleep 0.05; done"}
  on_up: {command: "echo web is there", on: ["healthy:web"]}
  on_down: {command: "echo web is gone", on: ["unhealthy:web"]}
  on_change: {command: "echo web has changed", on: ["changed:web"]}
  told: {command: "echo the level has changed", on: ["changed:level"]}
`

// testServiceStory: a service is there while its check passes, and others follow it and a key.
// Its entry goes before it stops, and is critical when its agent is killed.
func testServiceStory(t *testing.T, binary string, p *place) {
	two := p.node(t, binary, "two", consumer)
	st := two.until("blocked", func(st client.Status) bool {
		return len(st.Templates) == 1 && st.Templates[0].State == "blocked" && strings.Contains(st.Message, "key(shop/level)")
	})
	if st.Health != "degraded" || jobOf(st, "app").PID != 0 {
		t.Errorf("without its key: %+v", st)
	}
	p.put("shop/level", "1")
	two.heard("first level=1 web=.", "the level has changed")

	one := p.node(t, binary, "one", provider)
	one.until("its check fails", func(st client.Status) bool { return jobOf(st, "web").Health == "unhealthy" })
	if st := one.until("known", func(st client.Status) bool { return len(st.Services) == 1 }); st.Services[0].Wanted != "" {
		t.Errorf("it is told of before it was ever healthy: %+v", st.Services[0])
	}
	one.write("up", "")
	found := p.lists("web", "web-one passing")
	if i := found[0]; i.Address != "10.0.0.1" || i.Port != 8080 || strings.Join(i.Tags, " ") != "a b" || !maps.Equal(i.Meta, map[string]string{"zone": "z1"}) {
		t.Errorf("registered as %+v", i)
	}
	two.heard("got level=1 web=10.0.0.1:8080.", "web is there", "web has changed")
	fstest.Must(t, os.Remove(one.dir+"/up"))
	p.lists("web", "web-one critical")
	two.heard("got level=1 web=.", "web is gone", "web has changed")
	one.write("up", "")
	two.heard("got level=1 web=10.0.0.1:8080.", "web is there", "web has changed")
	p.put("shop/level", "2")
	two.heard("got level=2 web=10.0.0.1:8080.", "the level has changed")
	two.until("all is well", func(st client.Status) bool {
		return st.Health == "ok" && st.Watches[1].Size == 1 && st.Watches[1].Known && len(st.Templates[0].Stale) == 0
	})

	fstest.Must(t, one.cmd.Process.Signal(syscall.SIGTERM))
	p.lists("web")
	if _, err := os.Stat(one.dir + "/asked"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the job was asked to stop while the catalog listed it: %v", err)
	}
	two.heard("web is gone")
	one.end()
	if _, err := os.Stat(one.dir + "/asked"); err != nil {
		t.Errorf("the job was not asked to stop: %v", err)
	}

	one.begin()
	p.lists("web", "web-one passing")
	two.heard("web is there")
	one.kill()
	p.lists("web", "web-one critical")
	two.heard("web is gone")
}

// testHangStory: a coordinator that takes calls and does not answer holds up neither a
// start nor, for long, a stop; when it answers again it is told of who is there.
func testHangStory(t *testing.T, binary string, p *place) {
	one := p.node(t, binary, "one", provider)
	one.write("up", "")
	p.lists("web", "web-one passing")
	p.pause()
	t.Cleanup(p.wake) // before the server's own end
	three := p.node(t, binary, "three", strings.ReplaceAll(provider, "10.0.0.1", "10.0.0.3"))
	three.write("up", "")
	three.until("its job runs", func(st client.Status) bool { return jobOf(st, "web").Health == "healthy" })
	if st := one.until("it is answered", func(client.Status) bool { return true }); jobOf(st, "web").Restarts != 0 {
		t.Errorf("%+v", st.Jobs)
	}
	fstest.Must(t, one.cmd.Process.Signal(syscall.SIGTERM))
	one.end() // with status 0: its job was asked, and not killed
	p.wake()
	// The dead one is out if its last call was heard after all, else silent.
	p.listsOf("web", []coord.Status{coord.Passing}, "web-three passing")
}

// testOutageStory: while the coordinator is away the jobs run on with what was known, and
// the status says so; after, all is as if it had never been away.
func testOutageStory(t *testing.T, binary string, p *place) {
	p.put("shop/level", "1")
	two := p.node(t, binary, "two", consumer+`
  busy: {command: "while :; do date > DIR/state/busy; sleep 0.2; done"}
`)
	one := p.node(t, binary, "one", provider)
	one.write("up", "")
	two.heard("web=10.0.0.1:8080.")
	p.lists("web", "web-one passing")
	before := two.until("all is well", func(st client.Status) bool {
		return st.Health == "ok" && jobOf(st, "app").PID > 0 && jobOf(st, "busy").PID > 0
	})
	first := one.until("all is well", func(st client.Status) bool { return st.Health == "ok" && st.Services[0].Error == "" })

	// Under load: keys change all the time, up to the outage, in it, and after it.
	ctx := t.Context()
	stop := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		for n := 0; ; n++ {
			_, _ = p.Put(ctx, fmt.Sprintf("shop/load/%d", n%5), []byte(fmt.Sprint(n)))
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	t.Cleanup(sync.OnceFunc(func() { close(stop); load.Wait() }))
	p.line.cut()
	p.stop()
	away := two.until("it says that it is away", func(st client.Status) bool {
		return len(st.Templates[0].Stale) > 0 && st.Watches[0].Error != "" && st.Watches[1].Error != ""
	})
	if away.Templates[0].State != "rendered" || !away.Watches[0].Known || away.Watches[0].Size != 1 || away.Watches[1].Size != 1 {
		t.Errorf("while it is away: %+v", away)
	}
	one.until("it says that the catalog is away", func(st client.Status) bool { return st.Services[0].Error != "" })
	if os.Getenv("DROVER_SOAK") != "" { // for minutes, longer than every TTL and every pause
		<-time.After(3 * time.Minute)
		two.until("it still says so", func(st client.Status) bool {
			return st.Health == away.Health && len(st.Templates[0].Stale) > 0 && st.Watches[0].Error != "" && st.Watches[1].Error != "" && st.Watches[1].Size == 1
		})
	}
	p.start()
	wait(t, func() string { return "the server does not take a key" }, func() bool {
		_, err := p.Put(ctx, "shop/level", []byte("2"))
		return err == nil
	})
	if got := two.file("conf"); got != "level=1 web=10.0.0.1:8080." {
		t.Errorf("while it is away the file is %q", got)
	}
	p.line.mend()
	two.heard("got level=2")
	two.heard("web=10.0.0.1:8080.")
	p.lists("web", "web-one passing")
	after := two.until("all is well again", func(st client.Status) bool {
		return st.Health == "ok" && len(st.Templates[0].Stale) == 0 && st.Watches[0].Error == "" && st.Watches[1].Error == "" && st.Watches[1].Size == 1
	})
	last := one.until("all is well again", func(st client.Status) bool {
		return st.Health == "ok" && st.Services[0].Error == "" && st.Services[0].Status == "passing"
	})
	for _, of := range []struct {
		job       string
		was, then client.Status
	}{{"app", before, after}, {"busy", before, after}, {"web", first, last}} {
		if a, b := jobOf(of.was, of.job), jobOf(of.then, of.job); a.PID != b.PID || b.Restarts != 0 {
			t.Errorf("job %s did not run on: %+v, then %+v", of.job, a, b)
		}
	}
	two.until("the file", func(client.Status) bool { return two.file("conf") == "level=2 web=10.0.0.1:8080." })
}

const fleet = `
templates:
  conf:
    content: "[[ key \"shop/conf\" ]]"
    destination: DIR/conf
    on_change: {restart: app}
    roll: {limit: 1, name: app, settle: 300ms, timeout: 3s}
jobs:
  app:
    command: "exec sleep 1000"
    checks: {up: {exec: "case $(cat DIR/conf) in bad) exit 1;; late) test -e DIR/mended;; esac", every: 200ms, timeout: 2s, threshold: 1}}
`

// testFleetStory: five instances change one at a time. The first one turns unhealthy: the others keep
// what they have, and say why. The next change goes to all, and a stopped one does when it is
// resumed.
func testFleetStory(t *testing.T, binary string, p *place) {
	p.put("shop/conf", "v1")
	var all []*node
	for i := range 5 {
		all = append(all, p.node(t, binary, fmt.Sprint("i", i), fleet))
	}
	every := func(want string) {
		t.Helper()
		for _, n := range all {
			n.until(want+" and well", func(st client.Status) bool {
				return n.file("conf") == want && st.Health == "ok" && jobOf(st, "app").Health == "healthy" && st.Rolls[0].State == ""
			})
		}
	}
	stopped := func(change, kept string) {
		t.Helper()
		sick, why := "", ""
		for _, n := range all {
			st := n.until("changed, or stopped", func(st client.Status) bool {
				return st.Health == "degraded" && (n.file("conf") == change && st.Rolls[0].State != "changing" || st.Rolls[0].State == "stopped")
			})
			switch {
			case n.file("conf") == change && sick != "":
				t.Errorf("%s and %s have changed", sick, n.id)
			case n.file("conf") == change:
				sick = n.id
			case n.file("conf") != kept || st.Health != "degraded" || jobOf(st, "app").Health != "healthy":
				t.Errorf("%s: %q, %+v", n.id, n.file("conf"), st)
			default:
				why = st.Rolls[0].Why
			}
			if sick != n.id {
				n.is(0, "the roll is stopped: i", "status")
			}
		}
		if sick == "" || !strings.Contains(why, sick+": not healthy after the change") {
			t.Errorf("%q is sick: %s", sick, why)
		}
	}
	every("v1")
	p.put("shop/conf", "bad")
	stopped("bad", "v1")
	p.put("shop/conf", "v2")
	every("v2")
	p.put("shop/conf", "late")
	stopped("late", "v2")
	for _, n := range all {
		n.write("mended", "")
	}
	all[0].is(0, "roll app goes on; it was stopped by i", "roll", "resume", "app")
	every("late")
	if _, err := p.Get(t.Context(), "drover/shop/rolls/app/stop"); !errors.Is(err, coord.ErrNotFound) {
		t.Errorf("the record of the stop: %v", err)
	}
	all[0].is(0, "was not stopped", "roll", "resume", "app")
}

// testRenderStory: drover render needs no agent, and its exit code says what came of it.
func testRenderStory(t *testing.T, m *machine, p *place) {
	m = m.with(append(p.env, "DROVER_CONFIG="+m.write("c.yaml", strings.ReplaceAll(`
templates:
  conf: {content: "level=[[ key \"shop/level\" ]]", destination: DIR/conf, check: {command: [grep, -v, bad, "{file}"]}}
  host: {content: "x", destination: DIR/host}
`, "DIR", m.dir)))...)
	if got := m.do("render", "--timeout", "1s"); got.code != 1 || got.out != m.dir+"/host: written\n" || !strings.Contains(got.err, "render conf: missing: key(shop/level)") {
		t.Errorf("without the key: %+v", got)
	}
	m.is(2, `there is no template "cnf"`, "render", "cnf")
	fstest.Must(t, os.Remove(m.dir+"/host"))
	waits := m.start("render")
	wait(t, func() string { return "it renders nothing" }, func() bool {
		_, err := os.Stat(m.dir + "/host")
		return err == nil
	})
	waits.signal(syscall.SIGINT)
	if got := waits.wait(); got.code != 130 {
		t.Errorf("interrupted: %+v", got)
	}
	p.put("shop/level", "1")
	m.is(0, "+level=1", "render", "--dry-run")
	if _, err := os.Stat(m.dir + "/conf"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after a dry run: %v", err)
	}
	m.is(0, m.dir+"/conf: written", "render", "conf")
	p.put("shop/level", "bad")
	m.is(1, "check refused the file", "render")
	if text, err := os.ReadFile(m.dir + "/conf"); err != nil || string(text) != "level=1" {
		t.Errorf("after a refusal: %q, %v", text, err)
	}
}
