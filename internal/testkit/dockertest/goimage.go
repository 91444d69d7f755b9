package dockertest

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// GoImage makes an image that has the Go distribution of this machine and the
// modules that the Go module in folder module needs, so that a Dockerfile which
// builds it from source does so without a network, and returns the image's name.
func GoImage(t testing.TB, module string) string {
	t.Helper()
	base := BaseImage(t)
	sums, err := os.ReadFile(filepath.Join(module, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(sums)
	name := "drover-test/golang:" + strings.TrimPrefix(goOutput(t, module, "env", "GOVERSION"), "go") + "-" + hex.EncodeToString(hash[:6])
	if have(t, name) {
		return name
	}
	dir := t.TempDir()
	packDistribution(t, goOutput(t, module, "env", "GOROOT"), filepath.Join(dir, "go.tar"))
	collectModules(t, module, filepath.Join(dir, "modules"))
	copyFile(t, "/etc/ssl/certs/ca-certificates.crt", filepath.Join(dir, "ca-certificates.crt"))
	return Build{
		Tag:     name,
		Context: dir,
		Dockerfile: "FROM " + base + `
ADD go.tar /usr/local/go
COPY ca-certificates.crt /etc/ssl/certs/
COPY modules /usr/local/modules
ENV PATH=/usr/local/go/bin:$PATH GOTOOLCHAIN=local GOPROXY=file:///usr/local/modules
`,
	}.Build(t)
}

// packDistribution writes what a build needs of a Go distribution to a tar archive.
func packDistribution(t testing.TB, root, archive string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "tar", "-C", root, "--sort=name", "--owner=0", "--group=0",
		"--exclude=./test", "--exclude=./api", "--exclude=./doc", "--exclude=testdata", "--exclude=*_test.go",
		"-cf", archive, ".")
	if _, err := run(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
}

// collectModules lays out, as a module proxy does, all modules that module
// needs. A download into an empty cache finds out which those are; what this
// machine has already is taken from its own cache.
func collectModules(t testing.TB, module, dir string) {
	t.Helper()
	scratch := t.TempDir()
	own := filepath.Join(goOutput(t, module, "env", "GOMODCACHE"), "cache", "download")
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download")
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "GOMODCACHE="+scratch, "GOFLAGS=-modcacherw", "GOSUMDB=off",
		"GOPROXY=file://"+own+","+goOutput(t, module, "env", "GOPROXY"))
	if _, err := run(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(scratch, "cache", "download"), dir); err != nil {
		t.Fatal(err)
	}
}

// goOutput returns what a go command run in dir prints.
func goOutput(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	out, err := run(t.Context(), cmd)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// copyFile copies a file into a folder that is made if need be.
func copyFile(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
