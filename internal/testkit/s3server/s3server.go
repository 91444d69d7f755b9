// Package s3server runs a real S3 server (versitygw over a temporary folder)
// for a test: on a free port of the loopback interface, with an empty bucket.
//
// The server ends with the test. A test of an outage stops, starts, pauses and
// resumes it; its objects stay. It honours conditional writes. What the tests do
// with it is theirs; URL gives what `--store` takes, Env what a process needs.
package s3server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509/pkix"
	"errors"
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
	"drover/internal/testkit/gotool"
	"drover/internal/testkit/process"
)

// Options are what Start may be told.
type Options struct {
	TLS bool // https, with a certificate of its own authority (Server.CA)
}

// Server is a running, stopped or paused S3 server. Its methods fail the test
// if they cannot do what they say.
type Server struct {
	*process.Process

	Endpoint  string // http://127.0.0.1:port
	AccessKey string
	SecretKey string
	Bucket    string
	Region    string
	CA        string // file of the authority's certificate; empty without TLS

	t       testing.TB
	binary  string
	dir     string
	sidecar bool // the folder keeps no extended attributes
	key     string
	addr    string
}

// Start builds the server if need be, starts it and waits until it answers.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	s := &Server{
		AccessKey: "drover-test", SecretKey: rand.Text(), Bucket: "bucket", Region: "us-east-1",
		t: t, binary: gotool.Path(t, "versitygw"), dir: t.TempDir(),
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "root", s.Bucket), 0o755); err != nil {
		t.Fatal(err)
	}
	err := unix.Setxattr(filepath.Join(s.dir, "root"), "user.drover-test", []byte("x"), 0)
	s.sidecar = err != nil
	if opts.TLS {
		s.CA, s.key = certificate.SelfSigned(t, s.dir, "server", pkix.Name{CommonName: "drover test"})
	}
	s.Process = process.New(t, "the S3 server", syscall.SIGTERM, 3*time.Second)
	for range 5 { // another process may take the free port before the server does
		s.addr = process.FreeAddresses(t, 1)[0]
		if err = s.start(); err == nil {
			return s
		}
	}
	t.Fatalf("start the S3 server: %v\n%s", err, s.Output())
	return nil
}

func (s *Server) start() error {
	args := []string{"--port", s.addr, "--access", s.AccessKey, "--secret", s.SecretKey, "--region", s.Region,
		"--quiet", "--keep-alive", "--health", "/health"}
	s.Endpoint = "http://" + s.addr
	if s.CA != "" {
		args = append(args, "--cert", s.CA, "--key", s.key)
		s.Endpoint = "https://" + s.addr
	}
	args = append(args, "posix")
	if s.sidecar {
		side := filepath.Join(s.dir, "sidecar")
		if err := os.MkdirAll(side, 0o755); err != nil {
			return err
		}
		args = append(args, "--sidecar", side)
	}
	cmd := exec.CommandContext(context.Background(), s.binary, append(args, filepath.Join(s.dir, "root"))...)
	cmd.Env = []string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH")}
	cmd.Dir = s.dir
	if err := s.Process.Start(cmd); err != nil {
		return err
	}
	if err := s.ready(); err != nil {
		s.Stop()
		return err
	}
	return nil
}

// ready waits until the server answers its health check.
func (s *Server) ready() error {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	return s.Until(func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+"/health", nil)
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

// StartAgain starts a stopped server at the same address with its objects.
func (s *Server) StartAgain() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatalf("start the S3 server again: %v\n%s", err, s.Output())
	}
}

// URL is the store's URL for a prefix of the bucket.
func (s *Server) URL(prefix string) string {
	u := "s3://" + s.Bucket + "/" + prefix + "?endpoint=" + s.Endpoint + "&region=" + s.Region
	if s.CA != "" {
		u += "&ca=" + s.CA
	}
	return u
}

// ResticRepository is what stock restic calls a prefix of the bucket.
func (s *Server) ResticRepository(prefix string) string {
	return "s3:" + s.Endpoint + "/" + s.Bucket + "/" + prefix
}

// Env is this process's environment with the server's credentials and nothing
// else of Amazon's.
func (s *Server) Env() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "AWS_") {
			env = append(env, v)
		}
	}
	return append(env, "AWS_ACCESS_KEY_ID="+s.AccessKey, "AWS_SECRET_ACCESS_KEY="+s.SecretKey)
}

// Setenv gives the test itself the environment that Env describes.
func (s *Server) Setenv() {
	s.t.Helper()
	ClearEnv(s.t)
	s.t.Setenv("AWS_ACCESS_KEY_ID", s.AccessKey)
	s.t.Setenv("AWS_SECRET_ACCESS_KEY", s.SecretKey)
}

// ClearEnv takes Amazon's variables away from a test, whatever the machine has
// set: credentials, profiles and certificates of somebody else.
func ClearEnv(t testing.TB) {
	t.Helper()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "") // so that it is restored
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	none := filepath.Join(t.TempDir(), "none")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", none)
	t.Setenv("AWS_CONFIG_FILE", none)
}
