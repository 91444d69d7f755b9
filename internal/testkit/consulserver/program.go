package consulserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/internal/testkit/gotool"
)

// version of Consul and suite of Debian that has it: the last one with a free licence that
// a distribution still offers, and old enough that nothing new is leant on.
const (
	version = "1.8.7"
	suite   = "bullseye"
)

// fetchLimit is for package lists of 8 MB and a package of 15 MB, and for waiting until another
// process has them.
const fetchLimit = 10 * time.Minute

// Program returns the path of Consul, and fails the test if it cannot be had.
// DROVER_CONSUL names another one.
func Program(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("DROVER_CONSUL"); path != "" {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("consulserver: DROVER_CONSUL: %v", err)
		}
		return path
	}
	ctx, cancel := context.WithTimeout(t.Context(), fetchLimit)
	defer cancel()
	path, err := ensure(ctx)
	if err != nil {
		t.Fatalf("consulserver: %v", err)
	}
	return path
}

func ensure(ctx context.Context) (string, error) {
	cache, err := gotool.CacheDir()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(cache, "tools", "consul-"+version)
	target := filepath.Join(folder, "usr", "bin", "consul")
	if _, err := os.Stat(target); err == nil {
		return target, nil
	}
	if err := os.MkdirAll(filepath.Dir(folder), 0o755); err != nil {
		return "", err
	}
	release, err := gotool.Lock(ctx, folder+".lock")
	if err != nil {
		return "", fmt.Errorf("wait for the package of consul: %w", err)
	}
	defer release()
	if _, err := os.Stat(target); err == nil {
		return target, nil // fetched while this process waited
	}
	dir, err := os.MkdirTemp(filepath.Dir(folder), "consul-fetch-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := fetch(ctx, dir); err != nil {
		return "", fmt.Errorf("fetch the package of consul %s: %w", version, err)
	}
	return target, os.Rename(filepath.Join(dir, "root"), folder)
}

// fetch lays the package's files below dir/root. The package is of an older suite than
// the machine's own, so it is asked for with lists of its own, at the mirrors that the
// machine is set up with; apt checks the signature.
func fetch(ctx context.Context, dir string) error {
	// Without the lists of the machine itself, which a new one has not fetched yet.
	uris, err := run(ctx, dir, "apt-get", "update", "--print-uris")
	if err != nil {
		return err
	}
	var tried []error
	for _, mirror := range mirrors(uris) {
		err := fetchFrom(ctx, dir, mirror)
		if err == nil {
			return nil
		}
		tried = append(tried, err)
	}
	if len(tried) == 0 {
		return errors.New("apt is set up with no mirror (DROVER_CONSUL names a program to use instead)")
	}
	return errors.Join(tried...)
}

// mirrors are the beginnings of what apt would fetch, which it prints as 'URI' file size.
func mirrors(uris string) (all []string) {
	for line := range strings.Lines(uris) {
		mirror, _, found := strings.Cut(strings.TrimPrefix(line, "'"), "dists/")
		if found && !slices.Contains(all, mirror) {
			all = append(all, mirror)
		}
	}
	return all
}

func fetchFrom(ctx context.Context, dir, mirror string) error {
	config, sources := filepath.Join(dir, "apt.conf"), filepath.Join(dir, "sources.list")
	for _, folder := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			return err
		}
	}
	// The machine's own hooks, lists and caches stay out of it.
	text := fmt.Sprintf(`#clear APT::Update;
Dir::Etc::sourcelist "%s";
Dir::Etc::sourceparts "-";
Dir::State::lists "%s";
Dir::Cache "%s";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
`, sources, filepath.Join(dir, "lists"), filepath.Join(dir, "cache"))
	entry := "deb " + mirror + " " + suite + " main\n"
	if _, err := os.Stat(keyring); err == nil {
		entry = "deb [signed-by=" + keyring + "] " + mirror + " " + suite + " main\n"
	}
	for file, content := range map[string]string{config: text, sources: entry} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"apt-get", "-c", config, "-q", "update"},
		{"apt-get", "-c", config, "-q", "download", "consul=" + version + "*"},
	} {
		if _, err := run(ctx, dir, args...); err != nil {
			return err
		}
	}
	packages, err := filepath.Glob(filepath.Join(dir, "consul_*.deb"))
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("%d packages came: %w", len(packages), err)
	}
	_, err = run(ctx, dir, "dpkg-deb", "-x", packages[0], filepath.Join(dir, "root"))
	return err
}

// keyring has the keys of Debian's older suites, too.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

func run(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, all bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &all
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", strings.Join(args, " "), err, out.String(), all.String())
	}
	return out.String(), nil
}
