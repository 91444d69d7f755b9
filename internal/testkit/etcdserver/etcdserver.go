// Package etcdserver runs a real etcd for a test, on free ports of the loopback
// interface: one member or a cluster of them, plain or with TLS, with or without users.
//
// The members end with the test. A test of an outage stops, starts, pauses and resumes
// them; their data stay. What they acknowledged is safe from the end of their process, not
// from that of the machine: nothing is flushed to the disk unless asked for. What the tests
// do with it is theirs; Call makes the calls that only an administrator makes.
package etcdserver

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/internal/testkit/certificate"
	"drover/internal/testkit/gotool"
	"drover/internal/testkit/process"
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
	*process.Process

	name                  string
	client, peer, metrics string // addresses
}

// Start builds etcd if need be, starts it and waits until every member answers.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	opts.Members = max(1, opts.Members)
	s := &Server{t: t, opts: opts, binary: gotool.Path(t, "etcd"), dir: t.TempDir()}
	if opts.TLS {
		s.CA, s.Key = certificate.SelfSigned(t, s.dir, "server", pkix.Name{Locality: []string{"drover test"}}) // a common name would be a user's
		s.Cert = s.CA
	}
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
		t.Fatalf("start etcd: %v\n%s", err, s.members[0].Output())
	}
	if opts.Auth {
		s.enableAuth()
	}
	return s
}

// place gives the members their addresses.
func (s *Server) place() {
	s.members, s.Endpoints = nil, nil
	addrs := process.FreeAddresses(s.t, 3*s.opts.Members)
	for i := range s.opts.Members {
		m := &member{name: fmt.Sprintf("m%d", i), client: addrs[3*i], peer: addrs[3*i+1], metrics: addrs[3*i+2]}
		m.Process = process.New(s.t, "etcd "+m.name, syscall.SIGKILL, time.Minute)
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
	return m.Start(cmd)
}

// ready waits until the member has a leader and answers.
func (m *member) ready() error {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	return m.Until(func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.metrics+"/health", nil)
		if err != nil {
			return err
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

// Stop ends all members: their ports refuse connections. Stopping twice is fine.
func (s *Server) Stop() {
	for i := range s.members {
		s.StopMember(i)
	}
}

// StopMember ends one member, at once and unprepared, as a machine's death does.
func (s *Server) StopMember(i int) { s.members[i].Stop() }

// StartAgain starts the members that are stopped, at the same addresses with their data.
func (s *Server) StartAgain() {
	s.t.Helper()
	var started []*member
	for _, m := range s.members {
		if m.Running() {
			continue
		}
		if err := s.start(m); err != nil {
			s.t.Fatalf("start etcd %s again: %v", m.name, err)
		}
		started = append(started, m)
	}
	for _, m := range started {
		if err := m.ready(); err != nil {
			s.t.Fatalf("start etcd %s again: %v\n%s", m.name, err, m.Output())
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
	s.members[i].Pause()
}

// Resume ends a pause.
func (s *Server) Resume(i int) {
	s.t.Helper()
	s.members[i].Resume()
}

// Pid is that of a member's process.
func (s *Server) Pid(i int) int { return s.members[i].Process.Pid() }

// MetricsURL is where a member shows its figures, without TLS.
func (s *Server) MetricsURL(i int) string { return "http://" + s.members[i].metrics + "/metrics" }
