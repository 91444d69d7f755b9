package vault_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/internal/secret"
	"drover/internal/secret/vault"
	"drover/internal/testkit/leak"
	"drover/internal/testkit/vaultserver"
)

func TestMain(m *testing.M) {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "VAULT_") {
			_ = os.Unsetenv(name)
		}
	}
	leak.Main(m)
}

// log collects all that a source says.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// source is a Source under test, with what it said.
type source struct {
	*vault.Source
	log *log
}

// open starts a source that is closed with the test.
func open(t *testing.T, o vault.Options) *source {
	t.Helper()
	s := &source{log: &log{}}
	o.Log = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	src, err := vault.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Source = src
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := src.Close(ctx); err != nil && !errors.Is(err, secret.ErrUnavailable) && !errors.Is(err, secret.ErrUnauthorized) {
			t.Errorf("close: %v", err)
		}
		if t.Failed() {
			t.Logf("the source said:\n%s", s.log.String())
		}
	})
	return s
}

// watched is one watch of a source.
type watched struct {
	t    *testing.T
	stop func()

	mu     sync.Mutex
	states []*secret.Secret
	errs   []error
	more   chan struct{} // closed and made anew with each call
}

// watch begins a watch that ends with the test.
func (s *source) watch(t *testing.T, r secret.Request) *watched {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watched{t: t, more: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, r, w.note)
	}()
	w.stop = func() { cancel(); <-done }
	t.Cleanup(w.stop)
	return w
}

func (w *watched) note(got *secret.Secret, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.errs = append(w.errs, err)
	} else {
		w.states = append(w.states, got)
	}
	close(w.more)
	w.more = make(chan struct{})
}

// until waits for what a watch has been told to fit.
func (w *watched) until(what string, fits func(states []*secret.Secret, errs []error) bool) {
	w.t.Helper()
	late := time.NewTimer(time.Minute)
	defer late.Stop()
	for {
		w.mu.Lock()
		ok, more := fits(w.states, w.errs), w.more
		w.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-more:
		case <-late.C:
			w.mu.Lock()
			defer w.mu.Unlock()
			w.t.Fatalf("%s: not in a minute: %d states, errors %v", what, len(w.states), w.errs)
		}
	}
}

// state waits for the nth state.
func (w *watched) state(n int) *secret.Secret {
	w.t.Helper()
	w.until(fmt.Sprintf("state %d", n), func(s []*secret.Secret, _ []error) bool { return len(s) >= n })
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.states[n-1]
}

// failure waits for the nth error.
func (w *watched) failure(n int) error {
	w.t.Helper()
	w.until(fmt.Sprintf("error %d", n), func(_ []*secret.Secret, e []error) bool { return len(e) >= n })
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.errs[n-1]
}

func (w *watched) last() *secret.Secret {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.states) == 0 {
		return nil
	}
	return w.states[len(w.states)-1]
}

// eventually waits for a condition.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	late := time.NewTimer(within)
	defer late.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("%s: not in %v", what, within)
		}
	}
}

// text is a text inside of a secret.
func text(s *secret.Secret, keys ...string) string {
	var v any = s.Data
	for _, k := range keys {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	found, _ := v.(string)
	return found
}

// approle is a server with an AppRole for the policy app, whose tokens last for ttl, and
// maxTTL if renewed.
func approle(t *testing.T, s *vaultserver.Server, ttl, maxTTL time.Duration) *vault.AppRole {
	t.Helper()
	s.Auth("approle", "approle")
	role := s.AppRole("app", map[string]any{"token_policies": "app", "token_ttl": ttl.String(), "token_max_ttl": maxTTL.String()})
	return &vault.AppRole{RoleIDFile: role, SecretIDFile: s.SecretID("app", false)}
}
