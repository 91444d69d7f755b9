package check

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// app is an application's HTTP server, as probes meet them.
func app() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, `{"status": "up"}`) })
	mux.HandleFunc("/down", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "down", http.StatusServiceUnavailable) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/post", func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if r.Method != http.MethodPost || r.Host != "example.org" || r.Header.Get("X-Probe") != "yes" || user != "u" || password != "p" || !strings.HasPrefix(r.UserAgent(), "drover") {
			http.Error(w, fmt.Sprint(r.Method, r.Host, r.Header), http.StatusTeapot)
		}
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		line := []byte(strings.Repeat("x", 1<<16))
		for r.Context().Err() == nil {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/silent", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/drips", func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	return mux
}

func serve(t testing.TB, secure bool) (server *httptest.Server, open *atomic.Int64) {
	open = new(atomic.Int64)
	server = httptest.NewUnstartedServer(app())
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are to fail
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed, http.StateHijacked:
			open.Add(-1)
		}
	}
	if secure {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return server, open
}

func TestHTTP(t *testing.T) {
	server, open := serve(t, false)
	for _, c := range []struct {
		http HTTP
		want string // "": well; else a part of the error
	}{
		{HTTP{URL: "/ok"}, ""},
		{HTTP{URL: "/ok", Method: "HEAD"}, ""},
		{HTTP{URL: "/down"}, "the answer is 503 Service Unavailable"},
		{HTTP{URL: "/nothing"}, "404"},
		{HTTP{URL: "/nothing", Status: []Status{{204, 204}, {400, 499}}}, ""},
		{HTTP{URL: "/ok", Status: []Status{{204, 204}}}, "the answer is 200 OK"},
		{HTTP{URL: "/moved"}, "302"},
		{HTTP{URL: "/moved", Status: []Status{{302, 302}}, Body: regexp.MustCompile("Found")}, ""},
		{HTTP{URL: "/ok", Body: regexp.MustCompile(`"status":\s*"up"`)}, ""},
		{HTTP{URL: "/ok", Body: regexp.MustCompile(`green`)}, `the answer has no "green"`},
		{HTTP{URL: "/endless", Body: regexp.MustCompile(`green`)}, `the answer has no "green"`},
		{HTTP{URL: "/endless"}, ""},
		{HTTP{URL: "u:p@/post", Method: "POST", Headers: map[string]string{"x-probe": "yes", "host": "example.org"}}, ""},
		{HTTP{URL: "u:secret@/down"}, "503"},
	} {
		login, path, found := strings.Cut(c.http.URL, "@")
		if found {
			login += "@"
		} else {
			login, path = "", c.http.URL
		}
		c.http.URL = "http://" + login + server.Listener.Addr().String() + path
		err := c.http.Probe(t.Context())
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", path, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("a password in an error: %v", err)
		}
	}
	eventually(t, "no connection is left open", func() bool { return open.Load() == 0 })
	for _, path := range []string{"/silent", "/drips"} {
		h := HTTP{URL: server.URL + path, Body: regexp.MustCompile("x")}
		if err := h.Probe(within(t, 50*time.Millisecond)); err == nil || !strings.Contains(err.Error(), "its time is over") {
			t.Errorf("%s: %v", path, err)
		}
	}
	eventually(t, "no connection is left open", func() bool { return open.Load() == 0 })
	server.Close()
	if err := (&HTTP{URL: server.URL + "/ok"}).Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listens: %v", err)
	}
}

func certificateFile(t testing.TB, server *httptest.Server) string {
	name := filepath.Join(t.TempDir(), "ca.pem")
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestTLSVerificationOffByDefault(t *testing.T) {
	server, _ := serve(t, true)
	ca := certificateFile(t, server)
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	otherName := strings.Replace(server.URL, "127.0.0.1", "localhost", 1) // the certificate is for 127.0.0.1 and example.com
	for _, c := range []struct {
		http HTTP
		want string
	}{
		{HTTP{URL: server.URL + "/ok"}, "certificate signed by unknown authority"},
		{HTTP{URL: server.URL + "/ok", CA: ca}, ""},
		{HTTP{URL: otherName + "/ok", CA: ca}, "not localhost"},
		{HTTP{URL: otherName + "/ok", Insecure: true}, ""},
		{HTTP{URL: server.URL + "/ok", CA: empty}, "none in PEM form"},
		{HTTP{URL: server.URL + "/ok", CA: empty + "x"}, "read certificates"},
	} {
		err := c.http.Probe(t.Context())
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.http, err, c.want)
		}
	}
}

func TestHTTPOverAUnixSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: app()}}
	server.Start()
	defer server.Close()
	if err := (&HTTP{URL: "unix:" + socket + ":/ok"}).Probe(t.Context()); err != nil {
		t.Error(err)
	}
	if err := (&HTTP{URL: "unix:" + socket + ":/down"}).Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("%v", err)
	}
	if err := (&HTTP{URL: "unix:" + socket + "x:/ok"}).Probe(t.Context()); err == nil || !strings.Contains(err.Error(), socket+"x") {
		t.Errorf("%v", err)
	}
}

func TestHTTPValid(t *testing.T) {
	for _, c := range []struct {
		http  HTTP
		valid bool
	}{
		{HTTP{URL: "http://localhost:80/x?y"}, true},
		{HTTP{URL: "https://[::1]:8443"}, true},
		{HTTP{URL: "unix:/run/app.sock:/health"}, true},
		{HTTP{URL: "unix:/run/app.sock"}, true},
		{HTTP{URL: "unix:app.sock:/health"}, false},
		{HTTP{URL: "unix:/run/app.sock:health"}, false},
		{HTTP{URL: "ftp://localhost/"}, false},
		{HTTP{URL: "localhost:80"}, false},
		{HTTP{URL: "http:///x"}, false},
		{HTTP{URL: ""}, false},
		{HTTP{URL: "http://localhost", Method: "GET IT"}, false},
	} {
		if err := c.http.Valid(); (err == nil) != c.valid {
			t.Errorf("%+v: %v", c.http, err)
		}
	}
}

func TestParseStatus(t *testing.T) {
	for text, want := range map[string]Status{
		"200": {200, 200}, "204": {204, 204}, "2xx": {200, 299}, "5XX": {500, 599}, "100": {100, 100},
		"": {}, "20": {}, "2x": {}, "xx": {}, "xxx": {}, "0xx": {}, "6xx": {}, "600": {}, "099": {}, "+20": {}, "-2xx": {}, "2000": {}, "22xx": {}, "2xxx": {},
	} {
		got, err := ParseStatus(text)
		if got != want || (err == nil) != (want != Status{}) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add("2xx")
	f.Add("404")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := ParseStatus(text); err == nil && (s.From < 100 || s.To > 599 || s.From > s.To) {
			t.Errorf("%q: %v", text, s)
		}
	})
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	probe := &TCP{Address: l.Addr().String()}
	if err := probe.Probe(t.Context()); err != nil {
		t.Error(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the probe does not hang up: %v", err)
	}
	conn.Close()
	l.Close()
	if err := probe.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listens: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := probe.Probe(ctx); err == nil {
		t.Error("a probe that was cancelled")
	}
}
