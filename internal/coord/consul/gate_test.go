package consul_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/internal/coord"
)

// gate stands before a server and sees each request.
type gate struct {
	server *httptest.Server
	next   http.Handler

	mu   sync.Mutex
	seen []visit
	rule func(r *http.Request) verdict // nil: pass
}

type visit struct {
	at   time.Time
	what string // like GET /v1/kv/a?index=7
}

type verdict int

const (
	pass verdict = iota
	drop         // no answer: the connection is closed
	lose         // done by the server, whose answer is dropped
)

func startGate(t *testing.T, server string) *gate {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 1000}
	back := httputil.NewSingleHostReverseProxy(u)
	back.Transport = transport
	back.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) }
	g := &gate{next: back}
	g.server = httptest.NewServer(g)
	t.Cleanup(func() {
		g.server.CloseClientConnections()
		g.server.Close()
		transport.CloseIdleConnections()
	})
	return g
}

// ServeHTTP implements http.Handler.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	g.seen = append(g.seen, visit{time.Now(), r.Method + " " + r.URL.String()})
	v := pass
	if g.rule != nil {
		v = g.rule(r)
	}
	g.mu.Unlock()
	switch v {
	case drop:
		panic(http.ErrAbortHandler)
	case lose:
		g.next.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	default:
		g.next.ServeHTTP(w, r)
	}
}

// obey sets the rule from now on.
func (g *gate) obey(rule func(r *http.Request) verdict) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rule = rule
}

// visits returns what came since.
func (g *gate) visits(since time.Time) (all []visit) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, v := range g.seen {
		if v.at.After(since) {
			all = append(all, v)
		}
	}
	return all
}

// await waits for a request with that in it, and until the server has it.
func (g *gate) await(t *testing.T, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		for _, v := range g.visits(time.Time{}) {
			if strings.Contains(v.what, what) && time.Since(v.at) > 100*time.Millisecond {
				return
			}
		}
		if !coord.Wait(ctx, 10*time.Millisecond) {
			t.Fatalf("no request with %s", what)
		}
	}
}
