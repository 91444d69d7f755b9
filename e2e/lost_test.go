//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"drover/internal/testkit/dockertest"
)

// TestServerIsLost: a server is killed while somebody pushes to it, and removed
// with its disk. A new one, which has nothing, serves every push that returned.
func TestServerIsLost(t *testing.T) {
	w := newWorld(t, short, nil)
	first := w.holder("first")
	w.clone(first, "/work-copy")
	pusher := w.client.Go("sh", "-c", `
cd /work-copy
while :; do
  n=$((n + 1)); echo $n >file; git add file; git commit --quiet -m $n || exit 1
  timeout 60 git push --quiet "$1" main || exit 0
  git rev-parse HEAD >>/returned
done`, "sh", first.url())
	var returned []string
	dockertest.Await(t, time.Minute, "five pushes to return", func(ctx context.Context) error {
		out, err := w.client.Exec(ctx, "cat", "/returned")
		if err != nil {
			return err
		}
		if returned = strings.Fields(out); len(returned) < 5 {
			return fmt.Errorf("%d have", len(returned))
		}
		return nil
	})
	first.Kill()
	first.Remove()
	lost := time.Now()
	second := w.server("second")
	second.awaitServing(takeover)
	t.Logf("lost server replaced, by one with an empty disk, after %.1f s (TTL %v)", time.Since(lost).Seconds(), short)

	if err := pusher.Wait(70 * time.Second); err != nil {
		t.Fatalf("the pushing client: %v", err)
	}
	returned = strings.Fields(w.client.MustExec("cat", "/returned"))
	w.serves(second, returned...)
	t.Logf("%d pushes had returned before the server was lost", len(returned))
	w.clone(second, "/again")
	w.push(second, "/again", "goes-on")
}
