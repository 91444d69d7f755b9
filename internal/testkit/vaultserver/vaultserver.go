// Package vaultserver runs a real Vault for a test: on a free port of the loopback
// interface, with its storage in a folder that outlives restarts, unsealed.
//
// The server ends with the test. A test of an outage stops, starts, pauses and seals it.
// What is in it is set up by the test, with Do and the helpers of this package, as an
// operator would; what the tests do with it is theirs.
package vaultserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
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
	TLS bool // https, with a certificate of its own authority (Server.CA)
	// MaxTTL bounds every lease and token; 0: a day.
	MaxTTL time.Duration
}

// Server is a running, stopped or paused Vault. Its methods fail the test if they cannot
// do what they say, except where they return an error.
type Server struct {
	*process.Process

	Address string // http://127.0.0.1:port
	Root    string // the token that may do everything
	CA      string // file of the authority's certificate; empty without TLS
	Audit   string // file with a line of JSON for each request and each answer

	t      testing.TB
	binary string
	dir    string
	key    string // of the certificate
	unseal string // the one key that unseals
	maxTTL time.Duration
	addr   string
	client *http.Client
}

// Start builds the program if need be, starts the server, and makes it ready for use.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	s := &Server{t: t, binary: gotool.Path(t, "vault"), dir: t.TempDir(), maxTTL: opts.MaxTTL, client: &http.Client{}}
	if s.maxTTL == 0 {
		s.maxTTL = 24 * time.Hour
	}
	s.Audit = filepath.Join(s.dir, "audit")
	transport := &http.Transport{DisableKeepAlives: true}
	if opts.TLS {
		s.CA, s.key = certificate.SelfSigned(t, s.dir, "server", pkix.Name{CommonName: "server"})
		transport.TLSClientConfig = &tls.Config{RootCAs: pool(t, s.CA), MinVersion: tls.VersionTLS12}
	}
	s.client.Transport = transport
	s.Process = process.New(t, "Vault", syscall.SIGTERM, 5*time.Second)
	var err error
	for range 5 { // another process may take the free port before the server does
		s.addr = process.FreeAddresses(t, 1)[0]
		if err = s.start(); err == nil {
			s.setUp()
			return s
		}
	}
	t.Fatalf("start Vault: %v\n%s", err, s.Output())
	return nil
}

func pool(t testing.TB, file string) *x509.CertPool {
	t.Helper()
	pem, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return pool
}

// configure writes the server's configuration and returns its file.
func (s *Server) configure() (string, error) {
	listener := map[string]any{"address": s.addr, "tls_disable": true}
	s.Address = "http://" + s.addr
	if s.CA != "" {
		listener = map[string]any{"address": s.addr, "tls_cert_file": s.CA, "tls_key_file": s.key}
		s.Address = "https://" + s.addr
	}
	text, err := json.Marshal(map[string]any{
		"storage":       map[string]any{"file": map[string]any{"path": filepath.Join(s.dir, "storage")}},
		"listener":      map[string]any{"tcp": listener},
		"api_addr":      s.Address,
		"disable_mlock": true, "disable_clustering": true,
		"max_lease_ttl": s.maxTTL.String(), "default_lease_ttl": min(s.maxTTL, time.Hour).String(),
		"log_level": "info",
	})
	if err != nil {
		return "", err
	}
	file := filepath.Join(s.dir, "config.json")
	return file, os.WriteFile(file, text, 0o600)
}

func (s *Server) start() error {
	config, err := s.configure()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(context.Background(), s.binary, "server", "-config", config)
	cmd.Env = []string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH")}
	cmd.Dir = s.dir
	if err := s.Process.Start(cmd); err != nil {
		return err
	}
	if err := s.wait(func(int) bool { return true }); err != nil {
		s.Stop()
		return err
	}
	return nil
}

// wait returns when the health check answers with a status that fits.
func (s *Server) wait(fits func(status int) bool) error {
	return s.Until(func(ctx context.Context) error {
		status, _, err := s.Request(ctx, http.MethodGet, "sys/health", "", nil)
		if err == nil && !fits(status) {
			err = fmt.Errorf("its health is %d", status)
		}
		return err
	})
}

func (s *Server) setUp() {
	s.t.Helper()
	var answer struct {
		Keys []string `json:"keys_base64"`
		Root string   `json:"root_token"`
	}
	status, body, err := s.Request(s.t.Context(), http.MethodPut, "sys/init", "",
		map[string]any{"secret_shares": 1, "secret_threshold": 1})
	if err != nil || status != http.StatusOK {
		s.t.Fatalf("set up Vault: %d, %v\n%s", status, err, body)
	}
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Keys) != 1 {
		s.t.Fatalf("set up Vault: %v", err)
	}
	s.unseal, s.Root = answer.Keys[0], answer.Root
	s.Unseal()
	s.Do(http.MethodPut, "sys/audit/file", map[string]any{"type": "file", "options": map[string]any{"file_path": s.Audit}})
}

// Seal makes the server forget its keys: it answers, and serves nothing.
func (s *Server) Seal() {
	s.t.Helper()
	s.Do(http.MethodPut, "sys/seal", nil)
}

// Unseal ends that, and waits until it serves.
func (s *Server) Unseal() {
	s.t.Helper()
	status, body, err := s.Request(s.t.Context(), http.MethodPut, "sys/unseal", "", map[string]any{"key": s.unseal})
	if err == nil && status == http.StatusOK {
		err = s.wait(func(status int) bool { return status == http.StatusOK })
	}
	if err != nil || status != http.StatusOK {
		s.t.Fatalf("unseal Vault: %d, %v\n%s", status, err, body)
	}
}

// StartSealed starts a stopped server at the same address with its storage. It is sealed, as
// after any start.
func (s *Server) StartSealed() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatalf("start Vault again: %v\n%s", err, s.Output())
	}
}

// StartAgain is that and Unseal.
func (s *Server) StartAgain() {
	s.t.Helper()
	s.StartSealed()
	s.Unseal()
}

// Request makes a request as whoever has token, and returns the answer's status and body.
func (s *Server) Request(ctx context.Context, method, path, token string, body any) (int, []byte, error) {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.Address+"/v1/"+path, reader)
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, text, err
}

// Do makes a request with the root token and returns what was answered.
func (s *Server) Do(method, path string, body any) map[string]any {
	s.t.Helper()
	status, text, err := s.Request(s.t.Context(), method, path, s.Root, body)
	if err != nil || status >= 300 {
		s.t.Fatalf("%s %s: %d, %v\n%s", method, path, status, err, text)
	}
	answer := map[string]any{}
	if strings.TrimSpace(string(text)) == "" {
		return answer
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		s.t.Fatalf("%s %s: %v\n%s", method, path, err, text)
	}
	return answer
}
