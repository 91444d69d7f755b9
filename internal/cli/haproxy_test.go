package cli

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"drover/client"
	"drover/internal/testkit/consulserver"
)

// proxied is examples/haproxy as it stands: HAProxy and instances of the application, each
// with an agent of its own, and a Consul.
type proxied struct {
	t       *testing.T
	binary  string
	example string
	consul  string
	front   string // host:port of HAProxy
	proxy   *machine
	web     map[string]*process // by instance
}

// TestHAProxyFollowsTheCatalog: no request fails while instances are added, stopped and
// replaced. Of one that is killed it is measured what fails, and for how long.
func TestHAProxyFollowsTheCatalog(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", "")
	p := newProxied(t)
	defer p.end()
	p.add("a")
	p.add("b")
	p.serves("a", "b")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := startLoad(ctx, "http://"+p.front)
	defer l.wait()
	defer cancel()
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"c is added", func() { p.add("c"); p.serves("a", "b", "c"); l.reached(t, "c") }},
		{"a is stopped", func() { p.stop("a"); p.serves("b", "c") }},
		{"b is replaced by d", func() { p.add("d"); p.serves("b", "c", "d"); p.stop("b"); p.serves("c", "d") }},
		{"c is replaced by e", func() { p.add("e"); p.serves("c", "d", "e"); p.stop("c"); p.serves("d", "e") }},
	} {
		step.do()
		made, failed := l.count()
		t.Logf("%s: %d requests so far, %d failed", step.what, made, len(failed))
		if len(failed) > 0 {
			t.Errorf("%s: %s", step.what, strings.Join(failed[:min(5, len(failed))], "; "))
		}
	}
	if again := p.unusual(); len(again) > 0 {
		t.Errorf("HAProxy tried %d requests twice, or could not send them at all: the drain was too short\n%s", len(again), strings.Join(again[:min(5, len(again))], "\n"))
	}
	p.killed("the application is killed", "e", l, p.killJob)
	p.addInBox("f")
	p.serves("d", "f")
	p.killed("the whole instance is killed", "f", l, p.killMachine)
	t.Logf("requests that failed or were tried twice: %d", len(p.unusual()))
}

// killed tells what the sudden end of an instance costs, and how long. kill brings it about.
func (p *proxied) killed(how, name string, l *load, kill func(*process)) {
	p.t.Helper()
	web := p.web[name]
	l.reached(p.t, name)
	made, failed := l.count()
	begin := time.Now()
	kill(web)
	p.await("HAProxy takes it for dead", func(s map[string]string) bool {
		state, there := s["web-"+name]
		return len(s) > 0 && (!there || strings.HasPrefix(state, "DOWN"))
	})
	down := time.Since(begin)
	p.await("it is out of the catalog", func(s map[string]string) bool { return len(s) > 0 && s["web-"+name] == "" })
	gone := time.Since(begin)
	web.wait()
	delete(p.web, name)
	after, failures := l.count()
	p.t.Logf("%s: of %d requests %d failed; HAProxy sends nothing there after %s, the catalog has not got it after %s",
		how, after-made, len(failures)-len(failed), down.Round(10*time.Millisecond), gone.Round(10*time.Millisecond))
	for _, f := range failures[len(failed):] {
		p.t.Log(f)
	}
}

// killJob kills the application, not its agent.
func (p *proxied) killJob(web *process) {
	jobs := web.m.status("runs", func(s client.Status) bool { return len(s.Jobs) == 1 && s.Jobs[0].PID > 0 }).Jobs
	p.killPID(jobs[0].PID)
}

// killMachine kills all of an instance at once: it runs in a PID namespace.
func (p *proxied) killMachine(web *process) { p.killPID(web.cmd.Process.Pid) }

func (p *proxied) killPID(pid int) {
	p.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		p.t.Fatal(err)
	}
}

func newProxied(t *testing.T) *proxied {
	t.Helper()
	example, err := filepath.Abs("../../examples/haproxy")
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimPrefix(consulserver.Start(t, consulserver.Options{}).Address, "http://")
	p := &proxied{t: t, binary: buildBinary(t), example: example, consul: "consul://" + address, front: aPort(t), web: map[string]*process{}}
	p.proxy = p.machine("proxy", "BIND="+p.front)
	p.proxy.env = append(p.proxy.env, "STATS="+p.proxy.dir+"/stats", "HAPROXY_CFG="+p.proxy.dir+"/haproxy.cfg", "TEMPLATE="+example+"/haproxy.cfg.tmpl")
	p.web["proxy"] = p.start(p.proxy, "proxy.yaml")
	p.serves()
	return p
}

// aPort is host:port, where nobody listens.
func aPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// proxyPatience is how long a client's connection may be idle, in HAProxy; an
// instance runs on for longer after it left the catalog.
const (
	proxyPatience = 2 * time.Second
	proxyDrain    = 5 * time.Second
)

func (p *proxied) machine(id string, env ...string) *machine {
	p.t.Helper()
	return newMachine(p.t, p.binary).with(append(env, "DROVER_ID="+id, "DROVER_STORE=", "DROVER_PASSWORD=", "COORDINATOR="+p.consul, "NAME="+id,
		"PATH="+p.example+":"+filepath.Dir(p.binary)+":"+os.Getenv("PATH")+":/usr/sbin",
		"KEEPALIVE="+proxyPatience.String(), "DRAIN="+proxyDrain.String())...)
}

// start runs an agent, whose output is in the file log of its machine.
func (p *proxied) start(m *machine, config string) *process {
	p.t.Helper()
	log, err := os.Create(m.dir + "/log")
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	w := &process{m: m, cmd: m.command("run", "-c", filepath.Join(p.example, config)), ended: make(chan error, 1)}
	w.cmd.Stdout, w.cmd.Stderr = log, log
	if err := w.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() { w.ended <- w.cmd.Wait() }()
	return w
}

func (p *proxied) instance(name string) *machine {
	p.t.Helper()
	_, port, _ := net.SplitHostPort(aPort(p.t))
	return p.machine(name, "PORT="+port, "ADDRESS=static:127.0.0.1")
}

func (p *proxied) add(name string) {
	p.t.Helper()
	p.web[name] = p.start(p.instance(name), "web.yaml")
}

// addInBox starts an instance as PID 1 of a namespace, as in a container.
func (p *proxied) addInBox(name string) {
	p.t.Helper()
	m := p.instance(name)
	m.box = true
	p.web[name] = p.start(m, "web.yaml")
}

func (p *proxied) log(m *machine) string {
	text, err := os.ReadFile(m.dir + "/log")
	if err != nil {
		p.t.Error(err)
	}
	return string(text)
}

// unusual are the requests that HAProxy wrote down: those that failed, and those that it had to try
// a second time, as the first connection was refused.
func (p *proxied) unusual() (list []string) {
	for line := range strings.Lines(p.log(p.proxy)) {
		if strings.Contains(line, "] web web/") {
			list = append(list, strings.TrimSpace(line))
		}
	}
	return list
}

// stop ends an instance in order.
func (p *proxied) stop(name string) {
	p.t.Helper()
	web := p.web[name]
	delete(p.web, name)
	web.signal(syscall.SIGTERM)
	if got := web.wait(); got.code != 0 {
		p.t.Errorf("%s ended with %d: %s", name, got.code, p.log(web.m))
	}
}

// end ends what still runs.
func (p *proxied) end() {
	for _, name := range slices.Sorted(maps.Keys(p.web)) {
		web := p.web[name]
		_ = web.cmd.Process.Kill()
		<-web.ended
		if p.t.Failed() {
			p.t.Logf("%s:\n%s", name, p.log(web.m))
		}
	}
}

// serves waits until HAProxy has these servers, all up, and no other.
func (p *proxied) serves(names ...string) {
	p.t.Helper()
	p.await("the servers are "+strings.Join(names, ", "), func(s map[string]string) bool {
		for _, name := range names {
			if !strings.HasPrefix(s["web-"+name], "UP") {
				return false
			}
		}
		return len(s) == len(names)
	})
}

// await asks HAProxy's newest worker for the states of its servers until they are as wanted.
func (p *proxied) await(what string, want func(states map[string]string) bool) {
	p.t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		states, err := p.states()
		if err == nil && want(states) {
			return
		}
		select {
		case <-deadline:
			p.t.Fatalf("never %s: %v, %v", what, states, err)
		case <-tick.C:
		}
	}
}

func (p *proxied) states() (map[string]string, error) {
	conn, err := net.Dial("unix", p.proxy.dir+"/stats")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "show stat\n"); err != nil {
		return nil, err
	}
	rows := csv.NewReader(conn)
	rows.FieldsPerRecord = -1
	all, err := rows.ReadAll()
	states := map[string]string{}
	for _, row := range all {
		if len(row) > 17 && row[0] == "web" && row[1] != "FRONTEND" && row[1] != "BACKEND" {
			states[row[1]] = row[17]
		}
	}
	return states, err
}

// load is clients that send requests and never send one again.
type load struct {
	group sync.WaitGroup
	begin time.Time

	mu     sync.Mutex
	made   int
	by     map[string]int // who answered
	failed []string
}

// startLoad makes 200 requests a second at most until ctx ends: half of them on connections that
// stay, which idle in between, half of them on new ones; some are slow.
func startLoad(ctx context.Context, url string) *load {
	l := &load{begin: time.Now(), by: map[string]int{}}
	for i := range 20 {
		transport := &http.Transport{
			DisableKeepAlives: i%2 == 0,
			IdleConnTimeout:   proxyPatience / 2, // a client gives up idle connections before the proxy does
		}
		client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
		path := "/"
		gap := 100 * time.Millisecond
		switch i % 5 {
		case 3:
			path = "/?ms=300"
		case 4:
			gap = proxyPatience / 3
		}
		l.group.Go(func() {
			defer transport.CloseIdleConnections()
			tick := time.NewTicker(gap + time.Duration(i)*time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					who, err := post(client, url+path)
					l.note(fmt.Sprintf("client %d", i), who, err)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return l
}

// post sends a request that net/http does not send again, whatever happens to it: it has a
// body that can be read once, and is not idempotent.
func post(client *http.Client, url string) (string, error) {
	request, err := http.NewRequest(http.MethodPost, url, struct{ io.Reader }{strings.NewReader("once")})
	if err != nil {
		return "", err
	}
	request.ContentLength = int64(len("once"))
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	who, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(answer.Status)
	}
	return strings.TrimSpace(string(who)), err
}

func (l *load) note(client, who string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made++
	if err != nil {
		l.failed = append(l.failed, fmt.Sprintf("%s after %s: %v", client, time.Since(l.begin).Round(time.Millisecond), err))
		return
	}
	l.by[who]++
}

func (l *load) count() (made int, failed []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.made, slices.Clone(l.failed)
}

// reached waits until an instance has answered.
func (l *load) reached(t *testing.T, who string) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		l.mu.Lock()
		n := l.by[who]
		l.mu.Unlock()
		if n > 0 {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("no request ever reached %s", who)
		case <-tick.C:
		}
	}
}

func (l *load) wait() { l.group.Wait() }
