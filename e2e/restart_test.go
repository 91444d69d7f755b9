//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"
)

// TestHolderIsRestartedInPlace: a container that is restarted, even by force,
// serves at once, with its own files, even those that no backup has seen.
func TestHolderIsRestartedInPlace(t *testing.T) {
	w := newWorld(t, long, map[string]string{"DROVER_ON_CHANGE": "0s"})
	first := w.holder("first")
	w.clone(first, "/work-copy")
	pushed := w.push(first, "/work-copy", "pushed")
	standby := w.standby("standby")

	for _, c := range []struct {
		how   string
		grace time.Duration
	}{{"by force", 0}, {"gently", 20 * time.Second}} {
		note := "written before a restart " + c.how
		sh(first.Container, `echo "$1" >`+repository+`/description`, note)
		epoch := first.status().Epoch
		began := time.Now()
		first.Restart(c.grace)
		st := first.awaitServing(soon)
		t.Logf("restarted %s, serves after %.1f s (TTL %v)", c.how, time.Since(began).Seconds(), long)
		if st.Epoch <= epoch {
			t.Errorf("restarted %s: epoch %d, was %d: it did not claim", c.how, st.Epoch, epoch)
		}
		if got := strings.TrimSpace(first.MustExec("cat", repository+"/description")); got != note {
			t.Errorf("restarted %s: the file says %q, want what stood there: %q", c.how, got, note)
		}
		w.serves(first, pushed)
		if standby.jobRuns() {
			t.Fatalf("restarted %s: the standby runs the application too", c.how)
		}
	}
}
