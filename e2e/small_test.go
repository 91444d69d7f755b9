//go:build e2e

package e2e

import (
	"context"
	"maps"
	"testing"
	"time"

	"drover/internal/testkit/dockertest"
)

// TestStateInASmallContainer: not root, nothing writable but two tmpfs, no capability: the
// state is committed, the container is lost, and the next one has it.
func TestStateInASmallContainer(t *testing.T) {
	w := newWorld(t, short, map[string]string{
		"DROVER_STATE": "/state/app", "DROVER_DATA_DIR": "/tmp/drover", "DROVER_SOCKET": "/tmp/drover.sock",
	})
	start := func(name, script string) *dockertest.Container {
		c := w.run.Start(dockertest.Spec{
			Name: name, Image: supervisorImage(t), Networks: []*dockertest.Network{w.back}, Env: maps.Clone(w.env),
			Options: []string{
				"--user=12345:0", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges",
				"--tmpfs=/tmp", "--tmpfs=/state:uid=12345,mode=700",
			},
			Args: []string{"--", "sh", "-c", script},
		})
		c.NoVolumes(t)
		return c
	}
	first := start("first", `echo kept >/state/app/file && drover backup && echo safe; sleep infinity`)
	awaitLog(t, first, "\nsafe")
	first.Kill()
	first.Remove()
	began := time.Now()
	second := start("second", `echo "file says $(cat /state/app/file)"; exit 3`)
	if code := second.AwaitExit(takeover); code != 3 {
		t.Errorf("exit status %d, want the job's, 3", code)
	}
	t.Logf("started elsewhere, and ended, after %.1f s", time.Since(began).Seconds())
	dockertest.Await(t, soon, "the file", func(context.Context) error { return contains(second.Logs(), "file says kept") })
}
