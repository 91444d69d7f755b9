// Package consulserver runs a real Consul (one server that is its own agent) for a test: on
// free ports of the loopback interface, with nothing in it.
//
// The server ends with the test. A test of an outage stops, starts, pauses and resumes
// it; its data directory stays, unless Wipe is called. The program is Debian's package,
// fetched once into the cache of the test kit. What the tests do with it is theirs.
package consulserver

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/testkit/certificate"
	"drover/internal/testkit/process"
)

// Options are what Start may be told.
type Options struct {
	TLS     bool // https, with a certificate of its own authority (Server.CA)
	Clients bool // with TLS: clients must show a certificate (Server.Cert, Server.Key)
	ACL     bool // deny what no token allows (Server.Token may do everything)
	Unix    bool // listen on a socket, too (Server.Socket)
	// NoLeader waits for a second server, which never comes.
	NoLeader bool
	// LeastTTL is the shortest TTL that sessions may have; Consul's own default is 10 s.
	LeastTTL time.Duration
	// Connections is how many one client may have; Consul's own default is 200.
	Connections int
}

// Server is a running, stopped or paused Consul. Its methods fail the test if they cannot do
// what they say.
type Server struct {
	*process.Process

	Address string // http://127.0.0.1:port
	Node    string // the name of its node
	Token   string // of the administrator, with ACLs
	Socket  string // path, where asked for
	CA      string // file of the authority's certificate; empty without TLS
	Cert    string // files of a client's certificate, with TLS
	Key     string

	t         testing.TB
	opts      Options
	binary    string
	dir       string
	files     [2]string // certificate and key of the server
	ports     map[string]json.Number
	transport *http.Transport
}

// Start fetches Consul if need be, starts it and waits until it has a leader.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	s := &Server{Node: "test-node", t: t, opts: opts, binary: Program(t), dir: t.TempDir(), transport: &http.Transport{}}
	if opts.ACL {
		s.Token = "6b1d8a3e-1f0c-4c0e-9d58-5f8f4f6b2f11"
	}
	if opts.TLS {
		a := certificate.NewAuthority(t, s.dir)
		s.CA = a.File
		s.files[0], s.files[1] = a.Leaf("server")
		s.Cert, s.Key = a.Leaf("client")
		pair, err := tls.LoadX509KeyPair(s.Cert, s.Key)
		if err != nil {
			t.Fatal(err)
		}
		s.transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}
	}
	t.Cleanup(s.transport.CloseIdleConnections)
	s.Process = process.New(t, "consul", syscall.SIGTERM, 3*time.Second)
	var err error
	for range 5 { // another process may take a free port before the server does
		s.choosePorts()
		s.Wipe()
		if err = s.start(); err == nil {
			return s
		}
	}
	t.Fatalf("start consul: %v\n%s", err, s.Output())
	return nil
}

// choosePorts finds three ports that are free at present.
func (s *Server) choosePorts() {
	s.t.Helper()
	s.ports = map[string]json.Number{"http": "-1", "https": "-1", "dns": "-1", "grpc": "-1", "serf_wan": "-1"}
	web, scheme := "http", "http://"
	if s.opts.TLS {
		web, scheme = "https", "https://"
	}
	addrs := process.FreeAddresses(s.t, 3)
	for i, name := range []string{web, "serf_lan", "server"} {
		_, port, err := net.SplitHostPort(addrs[i])
		if err != nil {
			s.t.Fatal(err)
		}
		s.ports[name] = json.Number(port)
	}
	s.Address = scheme + addrs[0]
}

// config writes the agent's configuration and returns its file.
func (s *Server) config() (string, error) {
	c := map[string]any{
		"server": true, "bootstrap_expect": 1, "node_name": s.Node, "datacenter": "dc1",
		"bind_addr": "127.0.0.1", "ports": s.ports, "data_dir": filepath.Join(s.dir, "data"),
		"performance": map[string]any{"raft_multiplier": 1}, "log_level": "WARN",
		"disable_update_check": true, "leave_on_terminate": false, "connect": map[string]any{"enabled": false},
	}
	addresses := map[string]string{"http": "127.0.0.1", "https": "127.0.0.1"}
	if s.opts.Unix {
		s.Socket = filepath.Join(s.dir, "http.sock")
		addresses["http"] += " unix://" + s.Socket
	}
	c["addresses"] = addresses
	if s.opts.NoLeader {
		c["bootstrap_expect"] = 2
	}
	if s.opts.LeastTTL > 0 {
		c["session_ttl_min"] = s.opts.LeastTTL.String()
	}
	if s.opts.Connections > 0 {
		c["limits"] = map[string]any{"http_max_conns_per_client": s.opts.Connections}
	}
	if s.opts.ACL {
		c["acl"] = map[string]any{"enabled": true, "default_policy": "deny", "down_policy": "deny",
			"tokens": map[string]string{"master": s.Token, "agent": s.Token}}
	}
	if s.opts.TLS {
		c["ca_file"], c["cert_file"], c["key_file"] = s.CA, s.files[0], s.files[1]
		c["verify_incoming_https"] = s.opts.Clients
	}
	data, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	file := filepath.Join(s.dir, "consul.json")
	return file, os.WriteFile(file, data, 0o600)
}

func (s *Server) start() error {
	file, err := s.config()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(context.Background(), s.binary, "agent", "-config-file="+file)
	cmd.Env = []string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH")}
	cmd.Dir = s.dir
	if err := s.Process.Start(cmd); err != nil {
		return err
	}
	if err := errors.Join(moreFiles(s.Pid()), s.ready()); err != nil {
		s.Stop()
		return err
	}
	return nil
}

// moreFiles lets a process open as many files as it may: each query that waits is one, and
// what was built with a Go before 1.19 does not ask for them.
func moreFiles(pid int) error {
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil)
}

// ready waits until the server has a leader that knows its node: sessions need one.
func (s *Server) ready() error {
	path, word := "/v1/health/node/"+s.Node+"?consistent", "serfHealth"
	if s.opts.NoLeader {
		path, word = "/v1/agent/self", s.Node
	}
	return s.Until(func(ctx context.Context) error {
		status, body, err := s.ask(ctx, http.MethodGet, path, "")
		if err == nil && (status != http.StatusOK || !strings.Contains(string(body), word)) {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	})
}

// Ask calls the API as the administrator and returns the body of the answer, which must be
// a good one.
func (s *Server) Ask(method, path, body string) []byte {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	status, answer, err := s.ask(ctx, method, path, body)
	if err != nil || status != http.StatusOK {
		s.t.Fatalf("%s %s: %d %s: %v", method, path, status, answer, err)
	}
	return answer
}

func (s *Server) ask(ctx context.Context, method, path, body string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.Address+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("X-Consul-Token", s.Token)
	resp, err := s.transport.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// NewToken makes a token with these rules, in Consul's language.
func (s *Server) NewToken(name, rules string) string {
	s.t.Helper()
	policy, err := json.Marshal(map[string]any{"Name": name, "Rules": rules})
	if err != nil {
		s.t.Fatal(err)
	}
	s.Ask(http.MethodPut, "/v1/acl/policy", string(policy))
	var token struct{ SecretID string }
	answer := s.Ask(http.MethodPut, "/v1/acl/token", fmt.Sprintf(`{"Policies": [{"Name": %q}]}`, name))
	if err := json.Unmarshal(answer, &token); err != nil {
		s.t.Fatal(err)
	}
	return token.SecretID
}

// Stop ends the server: its port refuses connections. Stopping twice is fine.
func (s *Server) Stop() {
	s.Process.Stop()
	s.transport.CloseIdleConnections()
}

// Wipe loses all that a stopped server knows.
func (s *Server) Wipe() {
	s.t.Helper()
	if err := os.RemoveAll(filepath.Join(s.dir, "data")); err != nil {
		s.t.Fatal(err)
	}
}

// StartAgain starts a stopped server at the same address, with what it knows.
func (s *Server) StartAgain() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatalf("start consul again: %v\n%s", err, s.Output())
	}
}
