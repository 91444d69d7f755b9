// Package gotool gives tests the real Go programs that they compare with or
// run against (restic, an S3 server, Vault), at pinned versions.
//
// A program is built from the module proxy the first time that it is asked for
// and kept in a cache folder ($DROVER_TEST_CACHE, else drover-testkit in the
// user's cache folder), so a fresh machine needs nothing but Go. Test packages
// that run at once build each program only once. A variable such as
// DROVER_RESTIC names another program to use instead. What a program does, and
// stopping it, is left to the caller.
package gotool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// buildLimit is how long a build, or waiting for another process's, may take:
// about a minute on an idle machine, many on a busy one with a cold cache.
const buildLimit = 20 * time.Minute

type tool struct {
	pkg     string
	version string
	env     string // names a program to use instead
	// with are modules that the program builds with only at these versions.
	with []string
}

// pinned is the one table of versions.
func pinned() map[string]tool {
	return map[string]tool{
		"consul-template": {"github.com/hashicorp/consul-template", "v0.41.1", "DROVER_CONSUL_TEMPLATE", nil},
		"etcd":            {"go.etcd.io/etcd/server/v3", "v3.6.16", "DROVER_ETCD", nil},
		"kopia":           {"github.com/kopia/kopia", "v0.21.1", "DROVER_KOPIA", nil},
		"restic":          {"github.com/restic/restic/cmd/restic", "v0.18.0", "DROVER_RESTIC", nil},
		// The last version whose module can be built by itself: it asks for a state of
		// its API between two versions, and v1.1.0 is the one that has what it uses.
		"vault":     {"github.com/hashicorp/vault", "v1.4.3", "DROVER_VAULT", []string{"github.com/hashicorp/vault/api@v1.1.0"}},
		"versitygw": {"github.com/versity/versitygw/cmd/versitygw", "v1.8.0", "DROVER_VERSITYGW", nil},
	}
}

// Path returns the path of the program called name, and fails the test if it
// cannot be had.
func Path(t testing.TB, name string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildLimit)
	defer cancel()
	path, err := Ensure(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Ensure is Path for callers without a test, such as benchmarks' set-up.
func Ensure(ctx context.Context, name string) (string, error) {
	tl, ok := pinned()[name]
	if !ok {
		return "", fmt.Errorf("gotool: no program %q in the table", name)
	}
	if path := os.Getenv(tl.env); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("gotool: %s: %w", tl.env, err)
		}
		return path, nil
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	target := filepath.Join(cache, "tools", name+"-"+tl.version, name)
	if _, err := os.Stat(target); err == nil {
		return target, nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return "", fmt.Errorf("gotool: %w", err)
	}
	release, err := Lock(ctx, target+".lock")
	if err != nil {
		return "", fmt.Errorf("gotool: wait for the build of %s: %w", name, err)
	}
	defer release()
	if _, err := os.Stat(target); err == nil {
		return target, nil // built while this process waited
	}
	if err := build(ctx, tl, target); err != nil {
		return "", fmt.Errorf("gotool: build %s@%s: %w", tl.pkg, tl.version, err)
	}
	return target, nil
}

// CacheDir returns the folder that outlives test runs.
func CacheDir() (string, error) {
	if dir := os.Getenv("DROVER_TEST_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("gotool: set DROVER_TEST_CACHE: %w", err)
	}
	return filepath.Join(dir, "drover-testkit"), nil
}

// Lock takes an exclusive lock on path, and waits for it until ctx ends. It ends with this
// process at the latest.
func Lock(ctx context.Context, path string) (release func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(err, f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-tick.C:
		}
	}
}

// build makes target appear whole. It uses a scratch module because that pins
// the versions of all that the program depends on, and leaves our go.mod alone.
func build(ctx context.Context, tl tool, target string) error {
	dir, err := os.MkdirTemp("", "gotool-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	part := target + ".part"
	for _, args := range [][]string{
		{"mod", "init", "scratch"},
		append([]string{"get", "-tool", tl.pkg + "@" + tl.version}, tl.with...),
		{"build", "-trimpath", "-o", part, tl.pkg},
	} {
		if err := goCommand(ctx, dir, args...); err != nil {
			return err
		}
	}
	return os.Rename(part, target)
}

func goCommand(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=mod -buildvcs=false")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out.String())
	}
	return nil
}
