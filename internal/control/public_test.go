package control

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// freeAddress is one on which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestPublic: over TCP there is what monitoring needs, by GET, and nothing else.
func TestPublic(t *testing.T) {
	a, address := newAgent(), freeAddress(t)
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, "up 1\n")
	})
	start(t, a, Options{Listen: address, Metrics: metrics})
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	ask := func(method, path string) (int, string) {
		return request(t, &http.Client{Transport: transport}, method, "http://"+address+path, "")
	}
	paths := map[string]bool{"/nothing": true, "/": true, "/v1": true, "/metrics/": true}
	for pattern := range operations() {
		_, path, _ := strings.Cut(pattern, " ")
		paths[strings.ReplaceAll(path, "{name}", "db")] = true
	}
	open := map[string]bool{"/metrics": true, "/v1/ping": true, "/v1/health": true}
	for path := range paths {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"} {
			want := http.StatusNotFound
			if open[path] && method == "GET" {
				want = http.StatusOK
			}
			if got, text := ask(method, path); got != want {
				t.Errorf("%s %s: got %d %s, want %d", method, path, got, text, want)
			}
		}
	}
	if made := a.called(); len(made) > 0 {
		t.Errorf("the agent was asked for %v", made)
	}
	a.unhealth = []string{"db: check web: GET http://u:secret@h: refused"}
	if got, text := ask("GET", "/v1/health?level=alive"); got != 503 || strings.TrimSpace(text) != `{"level":"alive","healthy":false}` {
		t.Errorf("unhealthy: %d %s", got, text)
	}
	if got, _ := ask("GET", "/v1/health?level=x"); got != 400 {
		t.Errorf("no level: %d", got)
	}
}

// TestPublicBounds: many who say nothing are cut off, and others get their turn.
func TestPublicBounds(t *testing.T) {
	address := freeAddress(t)
	start(t, newAgent(), Options{Listen: address, readTimeout: 200 * time.Millisecond})
	for range publicConns + 10 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	within(t, "a call among the silent", func() {
		if got, text := request(t, &http.Client{Transport: transport}, "GET", "http://"+address+"/v1/ping", ""); got != 200 {
			t.Errorf("got %d %s", got, text)
		}
	})
}

// TestAddressTaken: an agent that cannot answer where it should does not start, and
// leaves its socket to others.
func TestAddressTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	path := filepath.Join(t.TempDir(), "s")
	err = New(newAgent(), Options{Path: path, Listen: l.Addr().String()}).Serve(context.Background())
	if err == nil || !strings.Contains(err.Error(), "listen for metrics and health") || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v", err)
	}
	s, err := takeSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	s.release()
}
