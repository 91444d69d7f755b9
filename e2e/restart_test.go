//go:build e2e

package e2e

import (
	"testing"
	"time"
)

// TestHolderIsRestartedInPlace: a container that is restarted, even by force,
// serves at once, with its own files, even those that no backup has seen, and a
// standby does not come between.
func TestHolderIsRestartedInPlace(t *testing.T) {
	w := newWorld(t, long, map[string]string{"DROVER_ON_CHANGE": "0s"})
	first := w.holder("first")
	w.clone(first, "/work-copy")
	pushed := w.push(first, "/work-copy", "pushed")

	restart := func(how string, grace time.Duration) {
		note := "written before a restart " + how
		first.describe(note)
		epoch := first.status().Epoch
		began := time.Now()
		first.Restart(grace)
		st := first.awaitServing(soon)
		t.Logf("restarted %s, serves after %.1f s (TTL %v)", how, time.Since(began).Seconds(), long)
		if st.Epoch <= epoch {
			t.Errorf("restarted %s: epoch %d, was %d: it did not claim", how, st.Epoch, epoch)
		}
		first.described(note)
		w.serves(first, pushed)
	}
	restart("gently", 20*time.Second)
	standby := w.standby("standby")
	restart("by force", 0)
	if standby.jobRuns() {
		t.Fatal("restarted by force: the standby runs the application too")
	}
}

// TestHolderIsRestartedGentlyBesideAStandby: a gentle restart begins with a
// release, and whoever is there takes the volume; the restarted one stands by,
// and has nothing to keep.
func TestHolderIsRestartedGentlyBesideAStandby(t *testing.T) {
	w := newWorld(t, long, map[string]string{"DROVER_ON_CHANGE": "0s"})
	first := w.holder("first")
	w.clone(first, "/work-copy")
	pushed := w.push(first, "/work-copy", "pushed")
	second := w.standby("second")
	const note = "written before a restart"
	first.describe(note)

	began := time.Now()
	first.Restart(20 * time.Second)
	serving, _ := w.settled(first, second)
	t.Logf("%s serves after %.1f s (TTL %v)", serving.Name, time.Since(began).Seconds(), long)
	serving.described(note)
	w.serves(serving, pushed)
	for _, sn := range serving.snapshots() {
		if sn.Diverged {
			t.Errorf("snapshot %s is diverged: nothing had been left uncommitted", sn.ID)
		}
	}
}
