package vault_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/internal/secret"
	"drover/internal/secret/vault"
	"drover/internal/testkit/postgresserver"
	"drover/internal/testkit/vaultserver"
)

var creds = secret.Request{Path: "database/creds/app"}

// user is an application: it goes to the database with what it was given last, all the
// time.
type user struct {
	t     *testing.T
	pg    *postgresserver.Server
	w     *watched
	tries int
}

// log in with what is in hand; an error counts only if nothing newer came meanwhile.
func (u *user) try(ctx context.Context) error {
	for {
		held := u.w.last()
		_, err := u.pg.Query(ctx, text(held, "username"), text(held, "password"), "SELECT 1")
		u.tries++
		if err == nil || u.w.last() == held {
			return err
		}
	}
}

// work tries for a while, and no try may fail.
func (u *user) work(what string, during time.Duration) {
	u.t.Helper()
	end := time.NewTimer(during)
	defer end.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := u.try(u.t.Context()); err != nil {
			u.t.Errorf("%s: an expired or revoked credential is in hand: %v", what, err)
			return
		}
		select {
		case <-end.C:
			return
		case <-tick.C:
		}
	}
}

// wait lets time pass while nothing is asked of the credentials.
func wait(d time.Duration) { <-time.After(d) }

func database(t *testing.T, o vaultserver.Options, ttl, maxTTL time.Duration) (*postgresserver.Server, *vaultserver.Server) {
	t.Helper()
	pg := postgresserver.Start(t)
	s := serve(t, o)
	s.Postgres(pg, "app", ttl, maxTTL)
	s.Policy("app", "secret/*", "database/*")
	return pg, s
}

// back is how soon all is well after Vault is: the longest pause, and the calls.
const back = 20 * time.Second

func TestOutages(t *testing.T) {
	t.Parallel()
	pg, s := database(t, vaultserver.Options{}, 8*time.Second, 20*time.Second)
	role := approle(t, s, 12*time.Second, 30*time.Second)
	dir, err := os.MkdirTemp("/dev/shm", "drover-test-") //nolint:usetesting // in memory
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	kept := filepath.Join(dir, "token")
	src := open(t, vault.Options{Address: s.Address, Login: role, Poll: 2 * time.Second, TokenCache: kept})
	u := &user{t: t, pg: pg, w: src.watch(t, creds)}
	kv := src.watch(t, app)
	expect(t, kv)
	u.w.state(1)
	secrets := map[string]bool{canary: true, strings.TrimSpace(read(t, role.SecretIDFile)): true}
	u.work("at first", time.Second) // the first outage is over before the first renewal is due

	rounds := 1
	if os.Getenv("DROVER_SOAK") != "" {
		rounds = 10
	}
	for range rounds {
		for _, outage := range []struct {
			what        string
			begin, end  func()
			lasts       time.Duration
			unavailable bool // a failure can be told while it lasts
		}{
			{"sealed for a moment", s.Seal, s.Unseal, 2 * time.Second, false},
			{"sealed for longer than a lease", s.Seal, s.Unseal, 16 * time.Second, true},
			{"stopped and restarted", s.Stop, s.StartAgain, 10 * time.Second, true},
			{"hanging", s.Pause, s.Resume, 3 * time.Second, false},
			{"the token is revoked", func() {
				s.Do(http.MethodPut, "sys/leases/revoke-prefix/auth/approle", nil)
			}, func() {}, 0, false},
			{"the lease is revoked", func() {
				s.Do(http.MethodPut, "sys/leases/revoke-prefix/database/creds", nil)
			}, func() {}, 0, false},
		} {
			before := u.w.last()
			outage.begin()
			wait(outage.lasts)
			if outage.unavailable {
				if err := src.Health().Err; !errors.Is(err, secret.ErrUnavailable) {
					t.Errorf("%s: health is %v", outage.what, err)
				}
				if u.w.last() == nil || kv.last() == nil || outage.lasts < 5*time.Second && u.w.last() != before {
					t.Errorf("%s: what was given does not stay", outage.what)
				}
			}
			outage.end()
			eventually(t, back, "good credentials after: "+outage.what, func() bool { return u.try(t.Context()) == nil })
			u.work("after: "+outage.what, 4*time.Second)
			secrets[strings.TrimSpace(read(t, kept))] = true
		}
	}
	if err := src.Health().Err; err != nil {
		t.Errorf("in the end the health is %v", err)
	}
	if n := strings.Count(src.log.String(), "Vault serves"); n < 2 {
		t.Errorf("the log tells %d times that Vault is back", n)
	}
	search(t, src, secrets, u.w, kv)
}

// search looks for secrets wherever somebody else could see them.
func search(t *testing.T, src *source, secrets map[string]bool, watches ...*watched) {
	t.Helper()
	places := map[string]string{"the log": src.log.String()}
	for _, w := range watches {
		w.mu.Lock()
		for _, s := range w.states {
			if p := text(s, "password"); p != "" {
				secrets[p] = true
			}
		}
		for _, err := range w.errs {
			places["an error"] += err.Error() + "\n"
		}
		w.mu.Unlock()
	}
	for path, err := range src.Health().Failing {
		places["the health"] += path + err.Error()
	}
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		content, err := os.ReadFile(f)
		if err == nil { // else the process has ended
			places[f] = string(content)
		}
	}
	if len(secrets) < 4 || len(places["the log"]) < 100 {
		t.Fatalf("the search would find nothing: %d secrets", len(secrets))
	}
	for s := range secrets {
		for where, content := range places {
			if strings.Contains(content, s) {
				t.Errorf("%s has a secret in it", where)
			}
		}
	}
}

// A token that has met its maximum is replaced, and what depends on it, before it ends.
func TestTokenAtItsMaximum(t *testing.T) {
	t.Parallel()
	pg, s := database(t, vaultserver.Options{}, time.Hour, 2*time.Hour)
	src := open(t, vault.Options{Address: s.Address, Login: approle(t, s, 6*time.Second, 14*time.Second)})
	u := &user{t: t, pg: pg, w: src.watch(t, creds)}
	u.w.state(1)
	u.work("around the token's maximum", 35*time.Second)
	if n := strings.Count(src.log.String(), "logged in"); n < 3 || n > 5 {
		t.Errorf("%d logins", n)
	}
	u.w.mu.Lock()
	defer u.w.mu.Unlock()
	if n := len(u.w.states); n < 3 || n > 5 {
		t.Errorf("%d credentials", n)
	}
}

// A token that is given cannot be replaced by us: health says so before it ends, and
// what was given stays, until somebody replaces it.
func TestGivenTokenAtItsMaximum(t *testing.T) {
	t.Parallel()
	s := serve(t, vaultserver.Options{})
	short := s.Token(map[string]any{"policies": []string{"app"}, "ttl": "4s", "explicit_max_ttl": "8s"})
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, short)
	src := open(t, vault.Options{Address: s.Address, Login: &vault.TokenFile{Path: file}, Poll: time.Second})
	w := src.watch(t, app)
	expect(t, w)
	eventually(t, 20*time.Second, "a health that says that the token ends", func() bool {
		err := src.Health().Err
		return err != nil && errors.Is(err, secret.ErrUnauthorized)
	})
	status, _, err := s.Request(t.Context(), http.MethodGet, "auth/token/lookup-self", short, nil)
	if err != nil || status != http.StatusOK {
		t.Errorf("the token has ended before: %d, %v", status, err)
	}
	write(t, file, s.Token(map[string]any{"policies": []string{"app"}, "ttl": "1h"}))
	eventually(t, 40*time.Second, "health with the new token", func() bool { return src.Health().Err == nil })
	put(s, "secret/data/app", "a", "after")
	if got := text(w.state(2), "data", "a"); got != "after" {
		t.Errorf("got %q", got)
	}
}

// Leases are kept while jobs stop, and end with Close.
func TestCloseRevokes(t *testing.T) {
	t.Parallel()
	pg, s := database(t, vaultserver.Options{}, 15*time.Second, 5*time.Minute)
	own := approle(t, s, time.Hour, time.Hour)
	s.Do(http.MethodPut, "sys/policies/acl/revoke", map[string]any{"policy": `path "sys/leases/revoke" { capabilities = ["update"] }`})
	given := s.Token(map[string]any{"policies": []string{"app", "revoke"}, "ttl": "1h"})
	for what, login := range map[string]vault.Login{"own token": own, "given token": &vault.Token{Token: given}} {
		src := open(t, vault.Options{Address: s.Address, Login: login})
		w := src.watch(t, creds)
		u := &user{t: t, pg: pg, w: w}
		u.w.state(1)
		w.stop() // as when the agent ends; its jobs are stopping
		u.work(what+": after the watch has ended", 17*time.Second)
		if err := src.Close(t.Context()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		// At least a third of the lease is left: it has not ended by itself.
		eventually(t, 4*time.Second, what+": the end of the credentials", func() bool { return u.try(t.Context()) != nil })
		if out := pg.Exec("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'"); out != "0" {
			t.Errorf("%s: %s roles are left", what, out)
		}
	}
	status, _, err := s.Request(t.Context(), http.MethodGet, "auth/token/lookup-self", given, nil)
	if err != nil || status != http.StatusOK {
		t.Errorf("the token that was given is revoked: %d, %v", status, err)
	}
}

// A database that is away is no reason to let go of anything, nor to stop asking.
func TestDatabaseBehindVaultIsAway(t *testing.T) {
	t.Parallel()
	pg, s := database(t, vaultserver.Options{}, 16*time.Second, time.Minute)
	src := open(t, vault.Options{Address: s.Address, Login: approle(t, s, time.Hour, time.Hour), Poll: time.Second})
	u := &user{t: t, pg: pg, w: src.watch(t, creds)}
	kv := src.watch(t, app)
	u.w.state(1)
	expect(t, kv)
	pg.Stop()
	if err := u.w.failure(1); !errors.Is(err, secret.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	eventually(t, 5*time.Second, "a health that says what fails, and nothing else", func() bool { // it follows what the watch was told
		h := src.Health()
		return h.Err == nil && h.Failing[creds.Path] != nil
	})
	put(s, "secret/data/app", "a", "meanwhile")
	kv.state(2) // everything else goes on
	first := u.w.last()
	pg.StartAgain()
	eventually(t, 40*time.Second, "good credentials", func() bool { return u.try(t.Context()) == nil })
	if u.w.last() != first {
		t.Error("credentials were replaced that could be renewed as soon as the database was back")
	}
	u.work("afterwards", 5*time.Second)
	eventually(t, 10*time.Second, "a good health", func() bool { return len(src.Health().Failing) == 0 })
}

// Without the policy default a token may neither be looked up nor renewed, nor leases: both
// are replaced in time.
func TestWithoutThePolicyDefault(t *testing.T) {
	t.Parallel()
	pg, s := database(t, vaultserver.Options{}, 6*time.Second, time.Minute)
	s.Auth("approle", "approle")
	role := s.AppRole("app", map[string]any{"token_policies": "app", "token_ttl": "10s", "token_max_ttl": "20s", "token_no_default_policy": true})
	src := open(t, vault.Options{Address: s.Address, Login: &vault.AppRole{RoleIDFile: role, SecretIDFile: s.SecretID("app", false)}, Poll: 2 * time.Second})
	u := &user{t: t, pg: pg, w: src.watch(t, creds)}
	u.w.state(1)
	u.work("around the ends of leases and tokens", 30*time.Second)
	u.w.mu.Lock()
	states := len(u.w.states)
	u.w.mu.Unlock()
	if n := strings.Count(src.log.String(), "logged in"); n < 3 || n > 6 || states < 5 || states > 14 {
		t.Errorf("%d logins, %d credentials", n, states)
	}
	if err := src.Close(t.Context()); !errors.Is(err, secret.ErrUnauthorized) {
		t.Errorf("it cannot revoke itself either: %v", err)
	}
}

// pipe passes connections on. Those that were there when it was cut are dead from then on,
// and nobody is told: as when a firewall has forgotten them.
type pipe struct {
	listener net.Listener
	target   string
	group    sync.WaitGroup
	mu       sync.Mutex
	open     []net.Conn
	dead     chan struct{} // closed when what is open is cut
}

func newPipe(t *testing.T, target string) *pipe {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &pipe{listener: l, target: target, dead: make(chan struct{})}
	p.group.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		for _, c := range p.open {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.group.Wait()
	})
	return p
}

func (p *pipe) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, err := new(net.Dialer).Dial("tcp", p.target)
		if err != nil {
			_ = in.Close()
			continue
		}
		p.mu.Lock()
		p.open = append(p.open, in, out)
		dead := p.dead
		p.mu.Unlock()
		p.group.Go(func() { pass(in, out, dead) })
		p.group.Go(func() { pass(out, in, dead) })
	}
}

// pass copies until an end is closed; what comes when the connection is dead is lost.
func pass(from, to net.Conn, dead chan struct{}) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		select {
		case <-dead:
		default:
			_, _ = to.Write(buf[:n])
		}
		if err != nil {
			select {
			case <-dead:
			default:
				_ = to.Close()
			}
			return
		}
	}
}

func (p *pipe) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.dead)
	p.dead = make(chan struct{})
}

// Connections that are dead without anybody knowing are given up before a lease ends.
func TestDeadConnections(t *testing.T) {
	t.Parallel()
	pg, s := database(t, vaultserver.Options{TLS: true}, 24*time.Second, time.Hour)
	p := newPipe(t, strings.TrimPrefix(s.Address, "https://"))
	src := open(t, vault.Options{Address: "https://" + p.listener.Addr().String(), CAFile: s.CA, Login: approle(t, s, time.Hour, time.Hour), Poll: time.Second})
	u := &user{t: t, pg: pg, w: src.watch(t, creds)}
	u.w.state(1)
	for n := range 6 { // many connections
		src.watch(t, secret.Request{Path: fmt.Sprintf("secret/data/app?n=%d", n)}).state(1)
	}
	for range 3 {
		p.cut()
		u.work("after connections were cut", 15*time.Second)
	}
	if err := src.Health().Err; err != nil {
		t.Errorf("health: %v", err)
	}
}
