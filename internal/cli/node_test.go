package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"drover/client"
	"drover/internal/coord"
	"drover/internal/coord/consul"
	"drover/internal/coord/etcd"
	"drover/internal/coord/object"
	"drover/internal/objstore"
	"drover/internal/objstore/file"
	"drover/internal/objstore/s3"
	"drover/internal/repo/fstest"
	"drover/internal/testkit/consulserver"
	"drover/internal/testkit/etcdserver"
	"drover/internal/testkit/s3server"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// node is an agent of a fleet, a process of its own, as two in one would disturb each other.
type node struct {
	*machine
	id, log string
	cmd     *exec.Cmd
	ended   chan struct{}
	read    int // of the log
}

// node starts an agent. In the configuration DIR is its directory.
func (p *place) node(t *testing.T, binary, id, config string) *node {
	t.Helper()
	m := newMachine(t, binary)
	m = m.with(append([]string{"DROVER_ID=" + id, "DROVER_SERVICE=shop", "DROVER_VOLUME=" + id, "DROVER_LOG_LEVEL=info"}, p.env...)...)
	config = strings.ReplaceAll("coordinator: "+p.coordinator+"\n"+config, "DIR", m.dir)
	if p.store {
		config += "\nstate: [" + m.dir + "/state]\n"
	}
	n := &node{machine: m.with("DROVER_CONFIG=" + m.write("c.yaml", config)), id: id, log: m.dir + "/log"}
	n.begin()
	return n
}

func (n *node) begin() {
	n.t.Helper()
	out, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	fstest.Must(n.t, err)
	defer func() { _ = out.Close() }()
	cmd, ended := n.command("run"), make(chan struct{})
	cmd.Stdout, cmd.Stderr = out, out
	fstest.Must(n.t, cmd.Start())
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	n.cmd, n.ended = cmd, ended
	n.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if n.t.Failed() {
			n.t.Logf("%s said:\n%s", n.id, n.text())
		}
	})
}

func (n *node) text() string {
	n.t.Helper()
	text, err := os.ReadFile(n.log)
	fstest.Must(n.t, err)
	return string(text)
}

// heard waits until the agent has shown all of the texts, in any order, after what was heard before.
func (n *node) heard(texts ...string) {
	n.t.Helper()
	var missing string
	wait(n.t, func() string { return n.id + " never said " + missing }, func() bool {
		log := n.text()[n.read:]
		end := 0
		for _, text := range texts {
			at := strings.Index(log, text)
			if missing = text; at < 0 {
				return false
			}
			end = max(end, at+len(text))
		}
		n.read += end
		return true
	})
}

// until waits until the agent's status is as wanted.
func (n *node) until(what string, want func(client.Status) bool) (st client.Status) {
	n.t.Helper()
	agent := client.New(n.dir + "/s")
	defer agent.Close()
	wait(n.t, func() string { return fmt.Sprintf("%s never: %s: %+v", n.id, what, st) }, func() bool {
		ctx, cancel := context.WithTimeout(n.t.Context(), statusTimeout)
		defer cancel()
		got, err := agent.Status(ctx)
		if err != nil {
			return false
		}
		st = got
		return want(st)
	})
	return st
}

// file is the content of a file of the node, "" without one.
func (n *node) file(name string) string {
	text, _ := os.ReadFile(n.dir + "/" + name)
	return string(text)
}

// end waits for the agent's process.
func (n *node) end() {
	n.t.Helper()
	select {
	case <-n.ended:
	case <-time.After(limit):
		n.t.Fatalf("%s does not end", n.id)
	}
}

// kill ends the agent with no time for anything.
func (n *node) kill() {
	n.t.Helper()
	worker := workerOf(n.t, n.until("its job runs", func(st client.Status) bool { return len(st.Jobs) > 0 && st.Jobs[0].PID > 0 }))
	fstest.Must(n.t, syscall.Kill(worker, syscall.SIGKILL))
	n.end()
}

// wait asks until it holds.
func wait(t *testing.T, what func() string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(limit); !holds(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(what())
		}
	}
}

// place is a coordinator, a client of it that the test has, and the line between it and
// the agents.
type place struct {
	coord.Coordinator
	t           *testing.T
	coordinator string   // for the configuration
	env         []string // of agents
	store       bool     // it is the store
	dir         string   // where it is a directory
	line        *line
	stop, start func() // of the server; nil: it is a directory
	pause, wake func() // it hangs, and no longer; nil: it cannot
}

// kinds are all that can be written to; the store is a directory, or a server.
var kinds = map[string]func(*testing.T) *place{"consul": onConsul, "etcd": onEtcd, "store": inDirectory, "s3": inBucket}

func onConsul(t *testing.T) *place {
	s := consulserver.Start(t, consulserver.Options{})
	c, err := consul.New(consul.Options{Address: s.Address, LeasePrefix: "drover/lease/"})
	fstest.Must(t, err)
	l := newLine(t, strings.TrimPrefix(s.Address, "http://"))
	return &place{Coordinator: opened(t, c), t: t, coordinator: "consul://" + l.address, env: []string{"DROVER_STORE="}, line: l, stop: s.Stop, start: s.StartAgain, pause: s.Pause, wake: s.Resume}
}

func onEtcd(t *testing.T) *place {
	s := etcdserver.Start(t, etcdserver.Options{})
	c, err := etcd.Open(etcd.Options{Endpoints: s.Endpoints})
	fstest.Must(t, err)
	l := newLine(t, strings.TrimPrefix(s.Endpoints[0], "http://"))
	return &place{Coordinator: opened(t, c), t: t, coordinator: "etcd://" + l.address, env: []string{"DROVER_STORE="}, line: l, stop: s.Stop, start: s.StartAgain,
		pause: func() { s.Pause(0) }, wake: func() { s.Resume(0) }}
}

const everySecond = "{url: store, every: 1s}"

func inDirectory(t *testing.T) *place {
	dir := t.TempDir()
	st, err := file.Open(dir, file.Options{})
	fstest.Must(t, err)
	return &place{Coordinator: opened(t, object.New(st, object.Options{Interval: time.Second})), t: t, coordinator: everySecond, env: []string{"DROVER_STORE=file://" + dir}, store: true, dir: dir}
}

func inBucket(t *testing.T) *place {
	s := s3server.Start(t, s3server.Options{})
	st, err := s3.Open(t.Context(), s3.Options{
		Bucket: s.Bucket, Prefix: "app", Endpoint: s.Endpoint, Region: s.Region,
		Credentials: credentials.NewStaticV4(s.AccessKey, s.SecretKey, ""),
	})
	fstest.Must(t, err)
	t.Cleanup(func() { _ = objstore.Store(st).(objstore.Closer).Close() })
	host := strings.TrimPrefix(s.Endpoint, "http://")
	l := newLine(t, host)
	return &place{
		Coordinator: opened(t, object.New(st, object.Options{Interval: time.Second})), t: t, coordinator: everySecond, store: true, line: l,
		stop: s.Stop, start: s.StartAgain, pause: s.Pause, wake: s.Resume,
		env: []string{
			"DROVER_STORE=" + strings.Replace(s.URL("app"), host, l.address, 1), "AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey,
			"AWS_REGION=" + s.Region, "AWS_CA_BUNDLE=", "AWS_CONFIG_FILE=/none", "AWS_SHARED_CREDENTIALS_FILE=/none",
		},
	}
}

func opened(t *testing.T, c coord.Coordinator) coord.Coordinator {
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// put sets a key.
func (p *place) put(key, value string) {
	p.t.Helper()
	_, err := p.Put(p.t.Context(), key, []byte(value))
	fstest.Must(p.t, err)
}

// lists waits until the catalog lists the service as wanted: "id status" of each instance.
func (p *place) lists(service string, want ...string) (found []coord.Instance) {
	p.t.Helper()
	return p.listsOf(service, []coord.Status{coord.Passing, coord.Warning, coord.Critical, coord.Maintenance}, want...)
}

// listsOf is lists of those with some states only.
func (p *place) listsOf(service string, states []coord.Status, want ...string) (found []coord.Instance) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), limit)
	defer cancel()
	var got []string
	p.WatchService(ctx, coord.Query{Name: service, Status: states}, func(list []coord.Instance, err error) {
		if err != nil {
			return
		}
		got, found = nil, list
		for _, i := range list {
			got = append(got, fmt.Sprint(i.ID, " ", i.Status))
		}
		slices.Sort(got)
		if slices.Equal(got, want) {
			cancel()
		}
	})
	if !slices.Equal(got, want) {
		p.t.Fatalf("the catalog lists %q of %s, want %q", got, service, want)
	}
	return found
}

// line passes bytes on to a server until it is cut.
type line struct {
	t               *testing.T
	address, server string
	group           sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil: it is cut
	open     map[net.Conn]bool
}

func newLine(t *testing.T, server string) *line {
	l := &line{t: t, server: server, address: "127.0.0.1:0", open: map[net.Conn]bool{}}
	l.mend()
	l.address = l.listener.Addr().String()
	t.Cleanup(l.cut)
	return l
}

// mend opens it, at the same address as before.
func (l *line) mend() {
	l.t.Helper()
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", l.address)
	fstest.Must(l.t, err)
	l.mu.Lock()
	l.listener = listener
	l.mu.Unlock()
	l.group.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			l.group.Go(func() { l.pass(c) })
		}
	})
}

func (l *line) pass(c net.Conn) {
	defer func() { _ = c.Close() }()
	s, err := new(net.Dialer).DialContext(context.Background(), "tcp", l.server)
	if err != nil {
		return
	}
	defer func() { _ = s.Close() }()
	l.mu.Lock()
	if l.listener == nil {
		l.mu.Unlock()
		return
	}
	l.open[c], l.open[s] = true, true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.open, c)
		delete(l.open, s)
	}()
	var both sync.WaitGroup
	for _, ends := range [][2]net.Conn{{c, s}, {s, c}} {
		both.Go(func() {
			_, _ = io.Copy(ends[0], ends[1])
			_, _ = ends[0].Close(), ends[1].Close()
		})
	}
	both.Wait()
}

// cut ends all connections, and refuses new ones. Cutting twice is fine.
func (l *line) cut() {
	l.mu.Lock()
	if l.listener != nil {
		_ = l.listener.Close()
		l.listener = nil
	}
	for c := range l.open {
		_ = c.Close()
	}
	l.mu.Unlock()
	l.group.Wait()
}
