// Package gitserver runs a real Git server for a test: git's own HTTP backend behind a web
// server, or git-upload-pack behind an SSH server, on a free port of the loopback interface. What is
// pushed is pushed by the real git.
//
// The server ends with the test. It can be told to refuse, to be slow, to want a password, and to speak
// TLS. It also sends web hooks, signed as GitHub, GitLab, Bitbucket and Gitea sign theirs. What
// the tests do with it is theirs.
package gitserver

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Options of Start.
type Options struct {
	TLS            bool
	User, Password string // wanted of everyone if set
	Filter         bool   // let clients ask for less than all (uploadpack.allowFilter)
}

// Server is a running server.
type Server struct {
	CAFile       string // of its certificate, with TLS
	PasswordFile string // has Password, if one is set

	o      Options
	root   string // of the bare repositories
	home   string
	server *httptest.Server
	down   atomic.Bool
	lists  atomic.Int64
	packs  atomic.Int64
}

// Start starts a server without a repository.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{o: o, root: t.TempDir(), home: t.TempDir()}
	backend := filepath.Join(output(t, s, "", "--exec-path"), "git-http-backend")
	handler := &cgi.Handler{
		Path: backend, Root: "/",
		Env: append(s.env(), "GIT_PROJECT_ROOT="+s.root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=test"),
	}
	s.server = httptest.NewUnstartedServer(s.front(handler))
	if o.TLS {
		s.server.StartTLS()
		s.CAFile = filepath.Join(s.home, "ca.pem")
		block := &pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw}
		write(t, s.CAFile, pem.EncodeToMemory(block))
	} else {
		s.server.Start()
	}
	t.Cleanup(s.server.Close)
	if o.Password != "" {
		s.PasswordFile = filepath.Join(s.home, "password")
		write(t, s.PasswordFile, []byte(o.Password+"\n"))
	}
	return s
}

// front is what is asked before git is.
func (s *Server) front(git http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.down.Load() {
			http.Error(w, "down for a test", http.StatusServiceUnavailable)
			return
		}
		user, password, _ := r.BasicAuth()
		if s.o.Password != "" && (user != s.o.User || password != s.o.Password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "who is there?", http.StatusUnauthorized)
			return
		}
		switch {
		case strings.HasSuffix(r.URL.RawQuery, "service=git-upload-pack"):
			s.lists.Add(1)
		case strings.HasSuffix(r.URL.Path, "/git-upload-pack"):
			s.packs.Add(1)
		}
		git.ServeHTTP(w, r)
	})
}

// Down has the server answer nothing but 503, or end that.
func (s *Server) Down(down bool) { s.down.Store(down) }

// Lists is how often somebody asked which branches there are.
func (s *Server) Lists() int64 { return s.lists.Load() }

// Packs is how often somebody fetched.
func (s *Server) Packs() int64 { return s.packs.Load() }

func (s *Server) env() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.home, "LC_ALL=C",
		"GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@example.com",
		"GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@example.com",
	}
}

// output runs git and returns what it says.
func output(t testing.TB, s *Server, dir string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Env = dir, s.env()
	if s.o.Password != "" {
		basic := base64.StdEncoding.EncodeToString([]byte(s.o.User + ":" + s.o.Password))
		cmd.Env = append(cmd.Env, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.extraHeader", "GIT_CONFIG_VALUE_0=Authorization: Basic "+basic)
	}
	if s.CAFile != "" {
		cmd.Env = append(cmd.Env, "GIT_SSL_CAINFO="+s.CAFile)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// loopback listens on a free port.
func loopback(t testing.TB) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
