// Package etcdserver runs a real etcd for a test, on free ports of the loopback
// interface: one member or a cluster of them, plain or with TLS, with or without users.
//
// The members end with the test. A test of an outage stops, starts, pauses and resumes
// them; their data stay. What they acknowledged is safe from the end of their process, not
// from that of the machine: nothing is flushed to the disk unless asked for. What the tests
// do with it is theirs; Call makes the calls that only an administrator makes.
package etcdserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/testkit/gotool"
)

// Options are what Start may be told.
type Options struct {
	Members     int  // 0 is 1
	TLS         bool // https for clients, with a certificate of its own authority (Server.CA)
	ClientCerts bool // with TLS: a client shows a certificate (Server.Cert and Server.Key are one)
	Auth        bool // users are asked for their password; there is root with Server.Password
	Sync        bool // flush writes to the disk, as in production
	Args        []string
}

// Server is a cluster of etcd. Its methods fail the test if they cannot do what they say.
type Server struct {
	Endpoints     []string // of all members, http://127.0.0.1:port
	CA, Cert, Key string   // files; empty without TLS
	Password      string   // root's; empty without Auth

	t       testing.TB
	opts    Options
	binary  string
	dir     string
	members []*member
}

// member is one process of etcd.
type member struct {
	name                  string
	client, peer, metrics string // addresses
	log                   output
	cmd                   *exec.Cmd     // nil: stopped
	ended                 chan struct{} // closed when cmd was waited for
}

// Start builds etcd if need be, starts it and waits until every member answers.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	opts.Members = max(1, opts.Members)
	s := &Server{t: t, opts: opts, binary: gotool.Path(t, "etcd"), dir: t.TempDir()}
	if opts.TLS {
		s.CA, s.Key = certificate(t, s.dir)
		s.Cert = s.CA
	}
	t.Cleanup(func() {
		s.Stop()
		for _, m := range s.members {
			if t.Failed() {
				t.Logf("etcd %s said:\n%s", m.name, m.log.String())
			}
		}
	})
	var err error
	for range 5 { // another process may take a free port before etcd does
		s.place()
		if err = s.startAll(); err == nil {
			break
		}
		s.Stop()
		s.removeData()
	}
	if err != nil {
		t.Fatalf("start etcd: %v\n%s", err, s.members[0].log.String())
	}
	if opts.Auth {
		s.enableAuth()
	}
	return s
}

// place gives the members their addresses.
func (s *Server) place() {
	s.members, s.Endpoints = nil, nil
	addrs := freeAddresses(s.t, 3*s.opts.Members)
	for i := range s.opts.Members {
		m := &member{name: fmt.Sprintf("m%d", i), client: addrs[3*i], peer: addrs[3*i+1], metrics: addrs[3*i+2]}
		s.members = append(s.members, m)
		s.Endpoints = append(s.Endpoints, s.scheme()+"://"+m.client)
	}
}

func (s *Server) scheme() string {
	if s.opts.TLS {
		return "https"
	}
	return "http"
}

func freeAddresses(t testing.TB, n int) []string {
	t.Helper()
	addrs := make([]string, 0, n)
	for range n {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }() // at the end, so that they differ
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

func (s *Server) startAll() error {
	for _, m := range s.members { // none is ready before most of them run
		if err := s.start(m); err != nil {
			return err
		}
	}
	for _, m := range s.members {
		if err := m.ready(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) args(m *member) []string {
	var cluster []string
	for _, o := range s.members {
		cluster = append(cluster, o.name+"=http://"+o.peer)
	}
	url := s.scheme() + "://" + m.client
	args := []string{
		"--name", m.name, "--data-dir", s.dataDir(m), "--log-level", "warn", "--logger", "zap",
		"--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", "http://" + m.peer, "--initial-advertise-peer-urls", "http://" + m.peer,
		"--initial-cluster", strings.Join(cluster, ","), "--listen-metrics-urls", "http://" + m.metrics,
	}
	if s.opts.Members == 1 { // its elections are over at once, and leases of a second become possible
		args = append(args, "--heartbeat-interval", "50", "--election-timeout", "500")
	}
	if s.opts.TLS {
		args = append(args, "--cert-file", s.Cert, "--key-file", s.Key)
	}
	if s.opts.ClientCerts {
		args = append(args, "--client-cert-auth", "--trusted-ca-file", s.CA)
	}
	if s.opts.Auth {
		args = append(args, "--bcrypt-cost", "4") // the least: logins are not what is tested
	}
	if !s.opts.Sync {
		args = append(args, "--unsafe-no-fsync")
	}
	return append(args, s.opts.Args...)
}

func (s *Server) dataDir(m *member) string { return filepath.Join(s.dir, m.name) }

func (s *Server) start(m *member) error {
	cmd := exec.CommandContext(context.Background(), s.binary, s.args(m)...)
	cmd.Env = []string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH")} // without any ETCD_ of the machine
	cmd.Dir = s.dir
	cmd.Stdout, cmd.Stderr = &m.log, &m.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // should the test be killed
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { // ends with the process, which stop waits for
		_ = cmd.Wait()
		close(ended)
	}()
	m.cmd, m.ended = cmd, ended
	return nil
}

// ready waits until the member has a leader and answers.
func (m *member) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.metrics+"/health", nil)
		if err != nil {
			return err
		}
		resp, err := transport.RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-m.ended:
			return errors.New("it ended before it was ready")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		case <-tick.C:
		}
	}
}

// Stop ends all members: their ports refuse connections. Stopping twice is fine.
func (s *Server) Stop() {
	for i := range s.members {
		s.StopMember(i)
	}
}

// StopMember ends one member, at once and unprepared, as a machine's death does.
func (s *Server) StopMember(i int) {
	m := s.members[i]
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Kill()
	<-m.ended
	m.cmd = nil
}

// StartAgain starts the members that are stopped, at the same addresses with their data.
func (s *Server) StartAgain() {
	s.t.Helper()
	var started []*member
	for _, m := range s.members {
		if m.cmd != nil {
			continue
		}
		if err := s.start(m); err != nil {
			s.t.Fatalf("start etcd %s again: %v", m.name, err)
		}
		started = append(started, m)
	}
	for _, m := range started {
		if err := m.ready(); err != nil {
			s.t.Fatalf("start etcd %s again: %v\n%s", m.name, err, m.log.String())
		}
	}
}

// Wipe ends all members, removes what they hold and starts them, empty and at the first
// revision, as a restored backup would be at an early one. Of users there is only root.
func (s *Server) Wipe() {
	s.t.Helper()
	s.Stop()
	s.removeData()
	s.StartAgain()
	if s.opts.Auth {
		s.enableAuth()
	}
}

func (s *Server) removeData() {
	for _, m := range s.members {
		if err := os.RemoveAll(s.dataDir(m)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// Pause makes a member hang: connections are accepted and nothing is answered. It returns
// when every thread of it has stopped.
func (s *Server) Pause(i int) {
	s.t.Helper()
	s.signal(i, syscall.SIGSTOP)
	for {
		err := unix.Waitid(unix.P_PID, s.members[i].cmd.Process.Pid, nil, unix.WSTOPPED, nil)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EINTR) {
			s.t.Fatalf("pause etcd: %v", err)
		}
	}
}

// Resume ends a pause.
func (s *Server) Resume(i int) { s.signal(i, syscall.SIGCONT) }

func (s *Server) signal(i int, sig syscall.Signal) {
	s.t.Helper()
	if s.members[i].cmd == nil {
		s.t.Fatalf("signal etcd %s: it is stopped", s.members[i].name)
	}
	if err := s.members[i].cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("signal etcd: %v", err)
	}
}

// Pid is that of a member's process.
func (s *Server) Pid(i int) int { return s.members[i].cmd.Process.Pid }

// MetricsURL is where a member shows its figures, without TLS.
func (s *Server) MetricsURL(i int) string { return "http://" + s.members[i].metrics + "/metrics" }

// output collects what a member prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
