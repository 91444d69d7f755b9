package vaultserver_test

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"drover/internal/testkit/leak"
	"drover/internal/testkit/postgresserver"
	"drover/internal/testkit/vaultserver"
)

func TestMain(m *testing.M) { leak.Main(m) }

func status(t *testing.T, s *vaultserver.Server, path string) int {
	t.Helper()
	status, _, err := s.Request(t.Context(), http.MethodGet, path, s.Root, nil)
	if err != nil {
		return 0
	}
	return status
}

func TestStorageOutlivesRestartsAndSeals(t *testing.T) {
	s := vaultserver.Start(t, vaultserver.Options{})
	s.KV("secret", "2")
	s.Do(http.MethodPost, "secret/data/app", map[string]any{"data": map[string]any{"a": "b"}})
	for _, c := range []struct {
		what string
		do   func()
		want int
	}{
		{"seal", s.Seal, 503},
		{"unseal", s.Unseal, 200},
		{"stop", s.Stop, 0},
		{"start sealed", s.StartSealed, 503},
		{"unseal", s.Unseal, 200},
		{"pause and resume", func() { s.Pause(); s.Resume() }, 200},
	} {
		c.do()
		if got := status(t, s, "secret/data/app"); got != c.want {
			t.Errorf("%s: status %d, want %d", c.what, got, c.want)
		}
	}
	if audit, err := os.ReadFile(s.Audit); err != nil || !strings.Contains(string(audit), "secret/data/app") {
		t.Errorf("the audit file lacks the reads: %v", err)
	}
}

func TestDatabaseCredentials(t *testing.T) {
	pg := postgresserver.Start(t)
	s := vaultserver.Start(t, vaultserver.Options{TLS: true})
	s.Postgres(pg, "app", time.Minute, time.Hour)
	creds := s.Do(http.MethodGet, "database/creds/app", nil)["data"].(map[string]any)
	name, password := creds["username"].(string), creds["password"].(string)
	if got, err := pg.Query(t.Context(), name, password, "SELECT current_user"); err != nil || got != name {
		t.Errorf("%q, %v", got, err)
	}
	s.Do(http.MethodPut, "sys/leases/revoke-prefix/database", nil)
	if _, err := pg.Query(t.Context(), name, password, "SELECT 1"); err == nil {
		t.Error("revoked credentials are let in")
	}
}
