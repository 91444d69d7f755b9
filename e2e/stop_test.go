//go:build e2e

package e2e

import (
	"testing"
	"time"
)

// TestHolderIsStopped: docker stop makes the last backup and releases the
// volume: the standby serves at once, without waiting for a lease, with the last
// byte.
func TestHolderIsStopped(t *testing.T) {
	w := newWorld(t, long, map[string]string{"DROVER_ON_CHANGE": "0s"})
	first := w.holder("first")
	second := w.standby("second")
	w.clone(first, "/work-copy")
	pushed := w.push(first, "/work-copy", "pushed")
	const note = "the last byte"
	first.describe(note)

	began := time.Now()
	if code := first.Stop(20 * time.Second); code == 137 {
		t.Error("it did not stop within Docker's grace, and was killed")
	}
	stopped := time.Since(began)
	second.awaitServing(soon)
	t.Logf("stopped in %.1f s, the standby served after %.1f s (TTL %v)", stopped.Seconds(), time.Since(began).Seconds(), long)
	second.described(note)
	w.serves(second, pushed)
}
