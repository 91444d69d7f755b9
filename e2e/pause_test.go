//go:build e2e

package e2e

import (
	"testing"
	"time"
)

// TestHolderIsPaused: the holder is frozen for longer than its lease. Another
// instance takes over. The first, which wakes up believing that it is the
// holder, commits nothing, and its job is killed.
func TestHolderIsPaused(t *testing.T) {
	w := newWorld(t, short, nil)
	first := w.holder("first")
	second := w.standby("second")
	w.clone(first, "/work-copy")
	before := w.push(first, "/work-copy", "before")

	first.Pause()
	paused := time.Now()
	took := second.awaitServing(takeover)
	t.Logf("served again %.1f s after the pause began (TTL %v)", time.Since(paused).Seconds(), short)
	during := w.push(second, "/work-copy", "during")

	first.Unpause()
	first.awaitKilled(soon)
	first.awaitRole("standby", soon)
	if out, err := first.Exec(t.Context(), "drover", "backup", "--timeout", "5s"); err == nil {
		t.Errorf("a deposed instance backs up: %s", out)
	}
	after := w.push(second, "/work-copy", "after")
	if st := second.status(); st.Role != "holder" || st.Epoch != took.Epoch {
		t.Errorf("the new holder is %s in epoch %d, took over in %d", st.Role, st.Epoch, took.Epoch)
	}
	w.serves(second, before, during, after)
}
