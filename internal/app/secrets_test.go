package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"drover/internal/config"
	"drover/internal/repo/fstest"
	"drover/internal/secret"
)

// Each path finds its source, and what none has is said.
func TestSourcesOfSecrets(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CANARY", "from env")
	fstest.Write(t, dir+"/db", "from file\n")
	fstest.Write(t, dir+"/c.yaml", "secrets: {dir: "+dir+", commands: {one: echo from command, many: {command: [echo, '{\"a\": \"b\"}'], json: true}}}\n")
	cfg, err := LoadConfig(config.Sources{File: dir + "/c.yaml"})
	fstest.Must(t, err)
	s, err := openSecrets(cfg, slog.New(slog.DiscardHandler))
	fstest.Must(t, err)
	for _, c := range []struct {
		r    secret.Request
		want string
	}{
		{secret.Request{Path: "env:CANARY"}, "from env"},
		{secret.Request{Path: "file:db"}, "from file"},
		{secret.Request{Path: "command:one"}, "from command"},
		{secret.Request{Path: "command:many"}, "b"},
		{secret.Request{Path: "command:none"}, "no such command"},
		{secret.Request{Path: "command:one", List: true}, "more than what it prints"},
		{secret.Request{Path: "secret/data/db"}, "secrets.vault is not configured"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		got := ""
		s.Watch(ctx, c.r, func(found *secret.Secret, err error) {
			if err != nil {
				if got = err.Error(); !errors.Is(err, secret.ErrNotFound) {
					t.Errorf("%s: %v", c.r.Path, err)
				}
			} else {
				for _, v := range found.Data {
					got, _ = v.(string)
				}
			}
			cancel()
		})
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.r.Path, got, c.want)
		}
	}
	if s.state() != nil {
		t.Error("Vault has a state")
	}
	fstest.Must(t, s.Close(t.Context()))
}
