// Package postgresserver runs a real PostgreSQL (Debian's package) for a test: on a free
// port of the loopback interface, as a user without rights, with an empty cluster.
//
// The server ends with the test. What is in it, and what happens to it meanwhile, is the
// test's; passwords are asked for and checked as in production, durability is not.
package postgresserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/internal/testkit/process"
)

// Server is a running or stopped PostgreSQL. Its methods fail the test if they cannot do
// what they say, except where they return an error.
type Server struct {
	*process.Process

	Host     string
	Port     string
	User     string // the superuser
	Password string

	t   testing.TB
	bin string
	dir string // its files; the user owns them
	who *syscall.Credential
}

// Start makes a cluster, starts the server and waits until it answers.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{Host: "127.0.0.1", User: "super", Password: rand.Text(), t: t, bin: binaries(t)}
	dir, err := os.MkdirTemp("", "postgres-") //nolint:usetesting // not the test's folder, which only we may enter
	if err != nil {
		t.Fatal(err)
	}
	s.dir = dir
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the cluster: %v", err)
		}
	})
	s.Process = process.New(t, "PostgreSQL", syscall.SIGINT, 10*time.Second) // a fast shutdown
	s.become()
	s.makeCluster()
	for range 5 { // another process may take the free port before the server does
		if _, s.Port, err = net.SplitHostPort(process.FreeAddresses(t, 1)[0]); err != nil {
			t.Fatal(err)
		}
		if err = s.start(); err == nil {
			return s
		}
	}
	t.Fatalf("start PostgreSQL: %v\n%s", err, s.Output())
	return nil
}

// binaries is the folder of the server's programs. Debian keeps them out of PATH.
func binaries(t testing.TB) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		t.Fatalf("PostgreSQL is not installed: apt-get install postgresql (%v)", err)
	}
	return filepath.Dir(slices.Max(found))
}

// become picks whom the server runs as: it refuses to be root.
func (s *Server) become() {
	s.t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			s.t.Fatal(err)
		}
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2, os.Chown(s.dir, int(uid), int(gid))); err != nil {
		s.t.Fatal(err)
	}
	s.who = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.who, Pdeathsig: syscall.SIGKILL} // should the test be killed
	return cmd
}

func (s *Server) makeCluster() {
	s.t.Helper()
	secret := filepath.Join(s.dir, "password")
	err := os.WriteFile(secret, []byte(s.Password), 0o600)
	if s.who != nil {
		err = errors.Join(err, os.Chown(secret, int(s.who.Uid), int(s.who.Gid)))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	init := s.command(s.t.Context(), "initdb", "-D", "data", "-U", s.User, "-A", "scram-sha-256", "--pwfile", "password", "-E", "UTF8", "--no-sync")
	if said, err := init.CombinedOutput(); err != nil {
		s.t.Fatalf("make a cluster: %v\n%s", err, said)
	}
}

func (s *Server) start() error {
	cmd := s.command(context.Background(), "postgres", "-D", "data", "-p", s.Port, "-c", "listen_addresses="+s.Host,
		"-c", "unix_socket_directories="+s.dir, "-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=50")
	if err := s.Process.Start(cmd); err != nil {
		return err
	}
	if err := s.ready(); err != nil {
		s.Stop()
		return err
	}
	return nil
}

// ready waits until a query is answered.
func (s *Server) ready() error {
	return s.Until(func(ctx context.Context) error {
		_, err := s.Query(ctx, s.User, s.Password, "SELECT 1")
		return err
	})
}

// StartAgain starts a stopped server at the same address with its data.
func (s *Server) StartAgain() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatalf("start PostgreSQL again: %v\n%s", err, s.Output())
	}
}

// Query runs one statement over a new connection as anyone, and returns the rows as
// psql prints them bare. An error has what PostgreSQL said.
func (s *Server) Query(ctx context.Context, user, password, statement string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
		"-h", s.Host, "-p", s.Port, "-U", user, "-d", "postgres", "-f", "-")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C", "PGPASSWORD=" + password, "PGCONNECT_TIMEOUT=10"}
	cmd.Stdin = strings.NewReader(statement)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("query as %s: %w: %s", user, err, strings.TrimSpace(problem.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// Exec runs statements as the superuser.
func (s *Server) Exec(statements string) string {
	s.t.Helper()
	out, err := s.Query(s.t.Context(), s.User, s.Password, statements)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}
