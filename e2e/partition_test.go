//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"
)

// TestHolderIsCutOff, fence history: the holder cannot reach the store. It
// serves on, and a push to it waits. Another instance takes over. When the first
// one reaches the store again, its job is killed and what it had received is kept
// as a diverged snapshot; the push never returns well.
func TestHolderIsCutOff(t *testing.T) {
	w := newWorld(t, short, map[string]string{"DROVER_FENCE": "history"})
	first := w.holder("first")
	second := w.standby("second")
	w.clone(first, "/first-copy")
	before := w.push(first, "/first-copy", "before")

	first.Disconnect(w.back)
	late, push := w.pushing(first, "/first-copy", "late")
	second.awaitServing(takeover)
	if !first.jobRuns() {
		t.Error("fence history, and the holder's job does not run on while the store is away")
	}
	first.awaitHas(late)
	if push.Ended() {
		t.Errorf("a push to an instance that cannot reach the store has ended: %v", push.Wait(time.Second))
	}
	w.clone(second, "/second-copy")
	during := w.push(second, "/second-copy", "during")

	first.Connect(w.back)
	first.awaitKilled(soon)
	first.awaitRole("standby", soon)
	if err := push.Wait(soon); err == nil {
		t.Error("a push that is not in the history was acknowledged")
	}
	first.keeps(first.awaitDiverged(soon), late)
	w.serves(second, before, during)
	if sh(w.client, `git -C /check cat-file -e "$1" && echo there || true`, late) != "" {
		t.Error("what the deposed instance received is in the history of the other")
	}
}

// TestHolderIsCutOffStrictly, fence strict: the holder that cannot reach the
// store kills its job before another instance may start its own.
func TestHolderIsCutOffStrictly(t *testing.T) {
	w := newWorld(t, short, map[string]string{"DROVER_FENCE": "strict", "DROVER_ON_CHANGE": "0s"})
	first := w.holder("first")
	second := w.standby("second")
	w.clone(first, "/first-copy")
	before := w.push(first, "/first-copy", "before")

	// A change that no backup has seen yet.
	late := strings.TrimSpace(sh(first.Container, `
cd `+repository+`; tree=$(git rev-parse main^{tree})
git -c user.name=e2e -c user.email=e2e@example.org commit-tree -m late -p main "$tree"`))
	first.Disconnect(w.back)
	cut := time.Now()
	first.awaitKilled(short + soon)
	t.Logf("killed %.1f s after the cut (TTL %v)", time.Since(cut).Seconds(), short)
	if st := second.status(); st.Role == "holder" && time.Since(cut) < short {
		t.Errorf("the standby took over %.1f s after the cut", time.Since(cut).Seconds())
	}
	second.awaitServing(takeover)
	if first.jobRuns() {
		t.Error("fence strict, and two instances run the application")
	}
	w.clone(second, "/second-copy")
	during := w.push(second, "/second-copy", "during")

	first.Connect(w.back)
	first.awaitRole("standby", soon)
	first.keeps(first.awaitDiverged(soon), late)
	w.serves(second, before, during)
}
