package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"drover/client"
	"drover/internal/repo/fstest"
)

// buildRelease builds the binary as another release.
func buildRelease(t *testing.T, version string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bin") //nolint:usetesting // open to other users
	fstest.Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	fstest.Must(t, os.Chmod(dir, 0o755))
	binary := filepath.Join(dir, "drover")
	build := exec.Command("go", "build", "-ldflags", "-X drover/internal/app.Version="+version, "-o", binary, "drover/cmd/drover")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}

// TestDatabaseUpgrade: new members of a newer release take a cluster over, the old ones end, and nothing is lost.
func TestDatabaseUpgrade(t *testing.T) {
	t.Parallel()
	newer := buildRelease(t, "2.0.0")
	c := newCluster(t, 2, clusterOptions{binary: buildRelease(t, "1.0.0")})
	c.exec("CREATE TABLE t (n int)")
	c.row(1)
	first := c.whole()
	if got := first.do("upgrade"); got.code != 0 || !strings.Contains(got.out, "all members have the release (server 1") || !strings.Contains(got.out, ", agent 1.0.0); "+first.name+" leads") {
		t.Errorf("nothing is to be done: %+v", got)
	}
	if got := first.do("upgrade", "--to", "2.0.0"); got.code != 11 || !strings.Contains(got.err, "no member has version 2.0.0") {
		t.Errorf("nobody has it: %+v", got)
	}
	old := slices.Clone(c.members)
	c.opt.binary = newer
	c.add().begin()
	c.whole()
	if got := first.do("upgrade", "--timeout", "1s"); got.code == 0 || !strings.Contains(got.err, "1 of 2 members of the release") {
		t.Errorf("there are too few: %+v", got)
	}
	c.add().begin() // it is copied while the order waits
	out := answer[client.DatabaseOutcome](first, "upgrade", "--to", "2.0.0", "--timeout", "3m")
	if !slices.Equal(out.Leave, []string{"m1", "m2"}) || out.Former != first.name || out.Agent != "2.0.0" || out.Server == "" {
		t.Errorf("the upgrade came to %+v", out)
	}
	c.row(2)
	for _, m := range old {
		fstest.Must(t, m.cmd.Process.Signal(unix.SIGTERM))
		<-m.ended
	}
	c.members = c.members[2:]
	if primary := c.whole(); primary.name != out.Primary {
		t.Errorf("%s leads, not %s", primary.name, out.Primary)
	}
	c.row(3)
	for _, m := range c.members {
		m.has("3", "SELECT count(*) FROM t")
	}
	if got := c.members[0].do("members"); !strings.Contains(got.out, "2.0.0") || strings.Contains(got.out, "1.0.0") {
		t.Errorf("members: %+v", got)
	}
}
