package app

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"drover/client"
	"drover/internal/coord"
	"drover/internal/coord/mem"
	"drover/internal/repo/fstest"
)

const rolling = `
id: one
coordinator: consul://127.0.0.1:1
templates:
  conf:
    content: "[[ key \"shop/conf\" ]]"
    destination: %[1]s/conf
    on_change: %[2]s
    roll: {limit: 1, settle: 200ms, timeout: 500ms}
jobs:
  app:
    command: "cp %[1]s/conf %[1]s/used; exec sleep 1000"
    checks: {up: {exec: "test $(cat %[1]s/used) != bad", every: 100ms, timeout: 1s, threshold: 1}}
`

// rolls starts an agent of that on a coordinator in memory, with the key at v1.
func rolls(t *testing.T, onChange string) (s *supervisor, other *mem.Client, dir string) {
	co, _, other := inMemory(t)
	dir = t.TempDir()
	put(t, other, "shop/conf", "v1")
	s = runsWith(t, fmt.Sprintf(rolling, dir, onChange), co)
	s.event("healthy", "app")
	return s, other, dir
}

func fileOf(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	fstest.Must(t, err)
	return string(text)
}

// What failed in its turn goes back: the job, too, and not the file alone.
func TestRollGoesBack(t *testing.T) {
	s, other, dir := rolls(t, "{restart: app}")
	put(t, other, "shop/conf", "bad")
	s.until("it is sick", func(st client.Status) bool {
		return st.Templates[0].Error != "" && s.job("app").Health == "unhealthy" && fileOf(t, dir+"/used") == "bad"
	})
	put(t, other, "shop/conf", "v1")
	s.until("it is well again", func(st client.Status) bool {
		return st.Health == "ok" && s.job("app").Health == "healthy" && fileOf(t, dir+"/used") == "v1"
	})
}

// What follows from a change and failed follows when the roll is resumed; and that is soon.
func TestRollIsResumed(t *testing.T) {
	dir := t.TempDir()
	s, other, _ := rolls(t, fmt.Sprintf(`{reload: "test -e %[1]s/mended && touch %[1]s/reloaded"}`, dir))
	put(t, other, "shop/conf", "v2")
	s.until("it is stopped", func(st client.Status) bool {
		return st.Rolls[0].State == "stopped" && strings.Contains(st.Message, "the roll is stopped: one: ")
	})
	fstest.Write(t, dir+"/mended", "")
	found, err := other.List(t.Context(), "drover/")
	fstest.Must(t, err)
	for _, pair := range found {
		if strings.HasSuffix(pair.Key, "/rolls/conf/stop") {
			fstest.Must(t, other.Delete(t.Context(), pair.Key, (*coord.Revision)(nil)))
		}
	}
	s.until("it is done", func(st client.Status) bool { return st.Health == "ok" && st.Rolls[0].State == "" })
	if fileOf(t, dir+"/reloaded") != "" {
		t.Error("it was not reloaded")
	}
}
