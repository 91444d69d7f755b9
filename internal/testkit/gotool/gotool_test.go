package gotool

import (
	"context"
	"debug/buildinfo"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

func TestResticIsThePinnedVersion(t *testing.T) {
	t.Setenv("DROVER_RESTIC", "")
	out, err := exec.CommandContext(t.Context(), Path(t, "restic"), "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "restic 0.18.0 ") {
		t.Fatalf("%v: %s", err, out)
	}
}

// kopia does not know its own version; what is in the binary does.
func TestKopiaIsThePinnedVersion(t *testing.T) {
	t.Setenv("DROVER_KOPIA", "")
	path := Path(t, "kopia")
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(append(info.Deps, &info.Main), func(m *debug.Module) bool {
		return m.Path == "github.com/kopia/kopia" && m.Version == "v0.21.1"
	}) {
		t.Errorf("it is another one: %s", info)
	}
	out, err := exec.CommandContext(t.Context(), path, "--help").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "snapshot") {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestVersitygwRuns(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), Path(t, "versitygw"), "--help").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "posix") {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestVaultIsThePinnedVersion(t *testing.T) {
	t.Setenv("DROVER_VAULT", "")
	out, err := exec.CommandContext(t.Context(), Path(t, "vault"), "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "Vault v1.4.3") {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestVariableNamesAnotherProgram(t *testing.T) {
	own := filepath.Join(t.TempDir(), "restic")
	t.Setenv("DROVER_RESTIC", own)
	if _, err := Ensure(t.Context(), "restic"); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a path that is not there: %v", err)
	}
	if err := os.WriteFile(own, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := Path(t, "restic"); got != own {
		t.Fatalf("got %s", got)
	}
}

func TestUnknownProgram(t *testing.T) {
	if _, err := Ensure(t.Context(), "nonesuch"); err == nil {
		t.Fatal("no error")
	}
}

func TestLockExcludes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	release, err := Lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Lock(ended, path); !errors.Is(err, context.Canceled) {
		t.Fatalf("second lock: %v", err)
	}
	release()
	again, err := Lock(ended, path)
	if err != nil {
		t.Fatal(err)
	}
	again()
}
