package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// build makes the real binary.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "drover")
	cmd := exec.Command("go", "build", "-o", binary, "drover/cmd/drover")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}

// perform runs the demo in a directory of the test's own and returns its narration.
func perform(t *testing.T, binary string) (Summary, string, error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "demo") //nolint:usetesting // short, for sockets, and open to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	var out strings.Builder
	summary, err := Run(context.Background(), Options{Binary: binary, Out: &out, Pushes: 2, TTL: 2 * time.Second})
	left, readErr := os.ReadDir(dir)
	if readErr != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, readErr)
	}
	if pids, err := processesWith(marker + dir); err != nil || len(pids) > 0 {
		t.Errorf("processes left behind: %v, %v", pids, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
	return summary, out.String(), err
}

func TestDemo(t *testing.T) {
	binary := build(t)
	t.Run("as it is", func(t *testing.T) {
		s, out, err := perform(t, binary)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if !s.OK || len(s.Pushed) != 2 || len(s.Found) != 2 || len(s.PushSeconds) != 2 || s.Killed < 3 || s.OutageSeconds < s.TTLSeconds {
			t.Errorf("got %+v", s)
		}
		if strings.Contains(out, "\x1b") {
			t.Error("colours where there is no terminal")
		}
	})
	t.Run("a hook that does not wait is found out", func(t *testing.T) {
		wrapper := script(t, `[ "$1" = backup ] && exit 0; exec "`+binary+`" "$@"`)
		s, _, err := perform(t, wrapper)
		if err == nil || !strings.Contains(err.Error(), "push 1 returned: but no backup was made for it") || s.OK {
			t.Errorf("got %+v, %v", s, err)
		}
	})
	t.Run("a server that does not start", func(t *testing.T) {
		_, out, err := perform(t, script(t, "echo no such luck; exit 5"))
		if err == nil || !strings.Contains(err.Error(), "server-a ended by itself: exit status 5") || !strings.Contains(out, "no such luck") {
			t.Errorf("got %v\n%s", err, out)
		}
	})
}

func script(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "drover")
	if err := os.WriteFile(name, fmt.Appendf(nil, "#!/bin/sh\n%s\n", text), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}
