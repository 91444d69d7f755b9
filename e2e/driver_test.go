//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/internal/testkit/dockertest"
	"drover/internal/testkit/gotool"
)

// TestDriver runs the tests of PostgreSQL's driver, of its log's archive and of its backups, which this machine's
// version passes in the ordinary run, on other versions: on 18 in the soak only, since its image takes minutes to make.
func TestDriver(t *testing.T) {
	packages := []string{"postgres", "pgbackup", "wal"}
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", dir)
	for _, p := range packages {
		build.Args = append(build.Args, "drover/internal/database/"+p)
	}
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // the images have another C library
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tests: %v\n%s", err, out)
	}
	copyProgram(t, gotool.Path(t, "versitygw"), filepath.Join(dir, "versitygw"))
	versions := []string{"17"}
	if os.Getenv("DROVER_SOAK") != "" {
		versions = append(versions, "18")
	}
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			image := dockertest.Build{
				Tag: "drover-test/driver-" + version, Context: dir,
				Dockerfile: "FROM " + postgresImage(t, version) + "\nCOPY . /tests\nENV DROVER_VERSITYGW=/tests/versitygw\n",
			}.Build(t)
			for _, p := range packages {
				t.Run(p, func(t *testing.T) {
					t.Parallel() // most of it is waiting
					passes(t, image, "/tests/"+p+".test")
				})
			}
		})
	}
}

// passes runs all tests of a binary in a container: none may fail, and none may be skipped.
func passes(t *testing.T, image, binary string) {
	t.Helper()
	c := dockertest.New(t).Start(dockertest.Spec{
		Name: "driver", Image: image, Entrypoint: binary, Args: []string{"-test.v", "-test.timeout=10m"},
		Options: []string{"--init", "--shm-size=4g", "--tmpfs=/tmp:exec,size=4g"},
	})
	code := c.AwaitExit(11 * time.Minute)
	lines := strings.Split(strings.TrimSpace(c.Logs()), "\n")
	passed := 0
	for _, line := range lines {
		switch line := strings.TrimSpace(line); {
		case strings.HasPrefix(line, "--- PASS"):
			passed++
		case strings.HasPrefix(line, "--- SKIP"):
			t.Errorf("a test was skipped: %s", line)
		}
	}
	if code != 0 || passed == 0 || !slices.Contains(lines, "PASS") {
		t.Fatalf("%s ended with %d, %d tests passed:\n%s", binary, code, passed, strings.Join(lines, "\n"))
	}
	t.Logf("%d tests passed", passed)
}
