package control

import (
	"context"
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

	"go.uber.org/goleak"

	"drover/client"
)

func TestMain(m *testing.M) {
	// A child of TestPeers: one backup as another user.
	if socket := os.Getenv("CONTROL_TEST_SOCKET"); socket != "" {
		c := client.New(socket)
		_, backupErr := c.Backup(context.Background(), true)
		answer, metricsErr := (&http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", socket)
		}}}).Get("http://drover/metrics")
		if metricsErr == nil {
			metricsErr = errors.New(answer.Status)
			_ = answer.Body.Close()
		}
		fmt.Println(backupErr, "|", metricsErr)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// agent is an Agent whose backups wait for done.
type agent struct {
	calls
	begun chan struct{}      // one for each waiting backup that began
	done  chan client.Backup // ends one
	gone  chan error         // the ends of waits whose caller left
}

func newAgent() *agent {
	return &agent{newCalls(), make(chan struct{}, 10), make(chan client.Backup), make(chan error, 10)}
}

func (a *agent) Status() client.Status {
	return client.Status{Role: "holder", Health: "ok", Seq: 7, Jobs: []client.Job{{Name: "db", State: "running"}}}
}

func (a *agent) Backup(ctx context.Context, queue bool) (client.Backup, error) {
	if queue {
		return client.Backup{Queued: true}, nil
	}
	a.begun <- struct{}{}
	select {
	case <-ctx.Done():
		a.gone <- ctx.Err()
		return client.Backup{}, ctx.Err()
	case b := <-a.done:
		if b.Kind != "" {
			return b, errors.New("agent says " + b.Kind)
		}
		return b, nil
	}
}

// start serves a on a fresh socket until the test ends.
func start(t *testing.T, a Agent, opt Options) string {
	t.Helper()
	// A short path: t.TempDir's may be longer than a socket's address.
	dir, err := os.MkdirTemp("", "ctl") //nolint:usetesting // short, for sockets, and open to other users
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	opt.Path = filepath.Join(dir, "run", "drover.sock")
	s := New(a, opt)
	s.http.Handler = checked(t, s.http.Handler)
	if s.tcp != nil {
		s.tcp.Handler = checkedPublic(t, s.tcp.Handler)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		if _, err := os.Lstat(opt.Path); err == nil {
			t.Error("socket is left behind")
		}
		_ = os.RemoveAll(dir)
	})
	return opt.Path
}

func dial(t *testing.T, socket string) *client.Client {
	t.Helper()
	c, err := client.Dial(context.Background(), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestCalls(t *testing.T) {
	a := newAgent()
	c := dial(t, start(t, a, Options{}))
	ctx := context.Background()
	status, err := c.Status(ctx)
	if err != nil || status.Seq != 7 || status.Role != "holder" {
		t.Errorf("status: %+v, %v", status, err)
	}
	if b, err := c.Backup(ctx, true); err != nil || !b.Queued {
		t.Errorf("queued: %+v, %v", b, err)
	}
	for _, end := range []client.Backup{{Snapshot: "abc"}, {Kind: client.KindHeld}, {Kind: client.KindIncomplete, Skipped: []string{"/a"}}} {
		go func() { <-a.begun; a.done <- end }()
		b, err := c.Backup(ctx, false)
		if end.Kind == "" {
			if err != nil || b.Snapshot != "abc" {
				t.Errorf("backup: %+v, %v", b, err)
			}
			continue
		}
		var refusal *client.Error
		if !errors.As(err, &refusal) || refusal.Kind != end.Kind || refusal.Message != "agent says "+end.Kind || len(b.Skipped) != len(end.Skipped) {
			t.Errorf("refused: %+v, %v", b, err)
		}
	}
}

// TestCallerLeaves: the agent learns that a wait is over; others are answered.
func TestCallerLeaves(t *testing.T) {
	a := newAgent()
	c := dial(t, start(t, a, Options{}))
	ctx, leave := context.WithCancelCause(context.Background())
	mine := errors.New("interrupted")
	result := make(chan error, 1)
	go func() { _, err := c.Backup(ctx, false); result <- err }()
	<-a.begun
	leave(mine)
	if err := <-result; !errors.Is(err, mine) {
		t.Errorf("got %v, want the cause", err)
	}
	if err := <-a.gone; !errors.Is(err, context.Canceled) {
		t.Errorf("agent saw %v", err)
	}
	if err := c.Ping(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestStopEndsWaits: a server that stops cuts who still waits, and says so.
func TestStopEndsWaits(t *testing.T) {
	a := newAgent()
	result := make(chan error, 1)
	t.Run("serve", func(t *testing.T) {
		c := dial(t, start(t, a, Options{}))
		go func() { _, err := c.Backup(context.Background(), false); result <- err }()
		<-a.begun
	})
	if err := <-result; err == nil || !strings.Contains(err.Error(), "ended before it answered") {
		t.Errorf("got %v", err)
	}
}

// TestWaitOutlastsReadTimeout: the time to send a request does not limit the answer.
func TestWaitOutlastsReadTimeout(t *testing.T) {
	const short = 100 * time.Millisecond
	a := newAgent()
	c := dial(t, start(t, a, Options{readTimeout: short}))
	go func() {
		<-a.begun
		<-time.After(5 * short) // the time itself is what is tested
		a.done <- client.Backup{Snapshot: "late"}
	}()
	if b, err := c.Backup(context.Background(), false); err != nil || b.Snapshot != "late" {
		t.Errorf("got %+v, %v", b, err)
	}
}

// TestSlowRequest: who does not send its body is cut off.
func TestSlowRequest(t *testing.T) {
	socket := start(t, newAgent(), Options{readTimeout: 100 * time.Millisecond})
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /v1/backup HTTP/1.1\r\nHost: drover\r\nContent-Length: 100\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
		t.Errorf("got %q, %v", answer, err)
	}
}

func TestNobodyThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if _, err := client.Dial(context.Background(), path); !errors.Is(err, client.ErrNoAgent) || strings.Contains(err.Error(), "\n") {
		t.Errorf("no socket: %v", err)
	}
	stale(t, path)
	if _, err := client.Dial(context.Background(), path); !errors.Is(err, client.ErrNoAgent) {
		t.Errorf("stale socket: %v", err)
	}
}

// stale leaves a socket that nobody listens on.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestTakeSocket(t *testing.T) {
	t.Run("stale is replaced", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		stale(t, path)
		s, err := takeSocket(path)
		if err != nil {
			t.Fatal(err)
		}
		defer s.release()
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o666 {
			t.Errorf("got %v, %v", info, err)
		}
	})
	t.Run("living agent", func(t *testing.T) {
		path := start(t, newAgent(), Options{})
		if _, err := takeSocket(path); err == nil || !strings.Contains(err.Error(), "another agent has it") {
			t.Errorf("got %v", err)
		}
		dial(t, path)
	})
	t.Run("living stranger without our lock", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, err := takeSocket(path); err == nil || !strings.Contains(err.Error(), "another agent has it") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("not a socket", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := takeSocket(path); err == nil || !strings.Contains(err.Error(), "no socket") {
			t.Errorf("got %v", err)
		}
		if text, _ := os.ReadFile(path); string(text) != "precious" {
			t.Error("it is gone")
		}
	})
}

// TestPeers: by the kernel's word, a job's user may back up but not more, another
// user nothing at all. Needs root to become them.
func TestPeers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: cannot become another user; only the agent's own user was tested")
		return
	}
	const jobUser, stranger = 12345, 12346
	socket := start(t, newAgent(), Options{JobUIDs: func() []uint32 { return []uint32{jobUser} }})
	// The test's binary lies where other users may not look.
	self := filepath.Join(filepath.Dir(filepath.Dir(socket)), "self")
	copyFile(t, self, os.Args[0])
	for uid, want := range map[uint32]string{
		jobUser:  "<nil> | 403 Forbidden",
		stranger: "this user may not ask the agent for that | 403 Forbidden",
		0:        "<nil> | 404 Not Found",
	} {
		cmd := exec.Command(self)
		cmd.Dir = "/"
		cmd.Env = []string{"CONTROL_TEST_SOCKET=" + socket}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("user %d: got %q (%v), want %q", uid, got, err, want)
		}
	}
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, text, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestBadRequests(t *testing.T) {
	socket := start(t, newAgent(), Options{})
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }}
	defer transport.CloseIdleConnections()
	raw := &http.Client{Transport: transport}
	for _, test := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/v1/backup", "{", http.StatusBadRequest},
		{"POST", "/v1/backup", `{"queue":` + strings.Repeat(" ", maxBody) + "true}", http.StatusBadRequest},
		{"POST", "/v1/backup", `{"queue":true}`, http.StatusAccepted},
		{"GET", "/v1/backup", "", http.StatusMethodNotAllowed},
		{"GET", "/v1/nothing", "", http.StatusNotFound},
	} {
		req, err := http.NewRequest(test.method, "http://drover"+test.path, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := raw.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
		if answer.StatusCode != test.want {
			t.Errorf("%s %s: got %s, want %d", test.method, test.path, answer.Status, test.want)
		}
	}
}
