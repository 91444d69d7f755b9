package vault_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"drover/internal/secret"
	"drover/internal/secret/vault"
	"drover/internal/testkit/postgresserver"
	"drover/internal/testkit/vaultserver"
)

func put(s *vaultserver.Server, path, key, value string) {
	s.Do(http.MethodPost, path, map[string]any{"data": map[string]any{key: value}})
}

func TestKV(t *testing.T) {
	t.Parallel()
	s := vaultserver.Start(t, vaultserver.Options{})
	s.KV("secret", "2")
	s.KV("old", "1")
	s.Policy("app", "secret/*", "old/*")
	put(s, "secret/data/app/db", "a", "one")
	s.Do(http.MethodPost, "old/app", map[string]any{"a": "old"})
	src := open(t, vault.Options{Address: s.Address, Login: approle(t, s, time.Hour, time.Hour), Poll: time.Second})

	full, short := src.watch(t, secret.Request{Path: "secret/data/app/db"}), src.watch(t, secret.Request{Path: "secret/app/db"})
	first := src.watch(t, secret.Request{Path: "secret/app/db?version=1"})
	old, list := src.watch(t, secret.Request{Path: "old/app"}), src.watch(t, secret.Request{Path: "secret/app", List: true})
	for _, w := range []*watched{full, short, first} {
		if got := text(w.state(1), "data", "a"); got != "one" {
			t.Errorf("got %q", got)
		}
	}
	if got := text(old.state(1), "a"); got != "old" {
		t.Errorf("version 1: got %q", got)
	}
	if keys := list.state(1).Data["keys"].([]any); len(keys) != 1 || keys[0] != "db" {
		t.Errorf("list: %v", keys)
	}

	put(s, "secret/data/app/db", "a", "two")
	put(s, "secret/data/app/more", "a", "x")
	s.Do(http.MethodPost, "old/app", map[string]any{"a": "new"})
	for _, w := range []*watched{full, short} {
		if got := text(w.state(2), "data", "a"); got != "two" {
			t.Errorf("got %q", got)
		}
	}
	if got := text(old.state(2), "a"); got != "new" {
		t.Errorf("version 1: got %q", got)
	}
	if keys := list.state(2).Data["keys"].([]any); len(keys) != 2 {
		t.Errorf("list: %v", keys)
	}
	if got := text(first.last(), "data", "a"); got != "one" {
		t.Errorf("a version that was asked for: %q", got)
	}

	s.Do(http.MethodDelete, "secret/data/app/db", nil)
	if err := full.failure(1); !errors.Is(err, secret.ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
	put(s, "secret/data/app/db", "a", "three")
	if got := text(full.state(3), "data", "a"); got != "three" {
		t.Errorf("got %q", got)
	}
	nowhere := src.watch(t, secret.Request{Path: "elsewhere/x"})
	if err := nowhere.failure(1); !errors.Is(err, secret.ErrUnauthorized) {
		t.Errorf("no right: %v", err)
	}
}

func TestDatabaseCredentials(t *testing.T) {
	t.Parallel()
	pg := postgresserver.Start(t)
	s := vaultserver.Start(t, vaultserver.Options{})
	s.Postgres(pg, "app", 6*time.Second, 15*time.Second)
	s.Policy("app", "database/*")
	src := open(t, vault.Options{Address: s.Address, Login: approle(t, s, time.Hour, time.Hour)})
	a, b := src.watch(t, secret.Request{Path: "database/creds/app"}), src.watch(t, secret.Request{Path: "database/creds/app"})
	one := a.state(1)
	if one.LeaseID == "" || b.state(1).LeaseID != one.LeaseID {
		t.Fatalf("equal requests: leases %q and %q", one.LeaseID, b.state(1).LeaseID)
	}
	good := func(c *secret.Secret) error {
		_, err := pg.Query(t.Context(), text(c, "username"), text(c, "password"), "SELECT 1")
		return err
	}
	if err := good(one); err != nil {
		t.Fatal(err)
	}
	two := a.state(2)
	if lasted := two.Expires.Sub(one.Expires); lasted < 5*time.Second || lasted > 16*time.Second {
		t.Errorf("replaced after %v: not renewed up to its end, or past it", lasted)
	}
	if err := errors.Join(good(one), good(two)); err != nil {
		t.Errorf("around the change: %v", err)
	}
}

// However long a lease is: that somebody has revoked it is found out soon.
func TestLongLeaseIsRevoked(t *testing.T) {
	t.Parallel()
	pg := postgresserver.Start(t)
	s := vaultserver.Start(t, vaultserver.Options{})
	s.Postgres(pg, "app", time.Hour, time.Hour)
	s.Policy("app", "database/*")
	src := open(t, vault.Options{Address: s.Address, Login: approle(t, s, time.Hour, time.Hour), Poll: time.Second})
	w := src.watch(t, secret.Request{Path: "database/creds/app"})
	w.state(1)
	s.Do(http.MethodPut, "sys/leases/revoke-prefix/database", nil)
	if _, err := pg.Query(t.Context(), text(w.state(2), "username"), text(w.state(2), "password"), "SELECT 1"); err != nil {
		t.Error(err)
	}
	s.Do(http.MethodPut, "sys/leases/revoke-prefix/auth/approle", nil) // the token, and its leases
	if _, err := pg.Query(t.Context(), text(w.state(3), "username"), text(w.state(3), "password"), "SELECT 1"); err != nil {
		t.Error(err)
	}
	if n := strings.Count(src.log.String(), "logged in"); n != 2 {
		t.Errorf("%d logins", n)
	}
}

// A password that Vault rotates is asked for when it has rotated.
func TestRotatedPassword(t *testing.T) {
	t.Parallel()
	pg := postgresserver.Start(t)
	pg.Exec("CREATE ROLE fixed LOGIN PASSWORD 'old'")
	s := vaultserver.Start(t, vaultserver.Options{})
	s.Postgres(pg, "app", time.Hour, time.Hour)
	s.Do(http.MethodPost, "database/static-roles/fixed", map[string]any{"db_name": "pg", "username": "fixed", "rotation_period": "6s",
		"rotation_statements": []string{`ALTER ROLE "{{name}}" PASSWORD '{{password}}'`}})
	s.Policy("app", "database/*")
	src := open(t, vault.Options{Address: s.Address, Login: approle(t, s, time.Hour, time.Hour), Poll: time.Hour})
	w := src.watch(t, secret.Request{Path: "database/static-creds/fixed"})
	var last string
	for n := range 3 {
		got := w.state(n + 1)
		if text(got, "password") == last {
			t.Error("the same password is told again")
		}
		last = text(got, "password")
		if _, err := pg.Query(t.Context(), "fixed", last, "SELECT 1"); err != nil {
			t.Error(err)
		}
	}
}
