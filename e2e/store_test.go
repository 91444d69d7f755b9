//go:build e2e

package e2e

import (
	"testing"
	"time"
)

// TestStoreIsAway: the store is stopped for a minute, twenty leases long. Nobody is
// harmed: the application serves on, the standby stands by, pushes wait and then
// return, in the same epoch.
func TestStoreIsAway(t *testing.T) {
	const away = time.Minute
	w := newWorld(t, short, nil)
	first := w.holder("first")
	second := w.standby("second")
	w.clone(first, "/work-copy")
	before := w.push(first, "/work-copy", "before")
	epoch := first.status().Epoch
	job := first.jobPID()

	w.s3.Stop(10 * time.Second)
	gone := time.Now()
	late, push := w.pushing(first, "/work-copy", "late")
	first.awaitHas(late)
	for time.Since(gone) < away {
		w.client.MustExec("git", "ls-remote", first.url()) // it serves on
		if second.jobRuns() {
			t.Fatal("an outage of the store made the standby start the application")
		}
		if push.Ended() {
			t.Fatalf("the store is away, and a push has ended: %v", push.Wait(time.Second))
		}
	}
	if st := first.status(); st.Role != "holder" || st.Health == "ok" {
		t.Errorf("without its store the holder says it is %s, health %s", st.Role, st.Health)
	}

	w.s3.StartAgain()
	back := time.Now()
	if err := push.Wait(time.Minute); err != nil {
		t.Fatalf("the push that had waited: %v", err)
	}
	t.Logf("the waiting push returned %.1f s after the store came back", time.Since(back).Seconds())
	after := w.push(first, "/work-copy", "after")
	if st := first.status(); st.Role != "holder" || st.Epoch != epoch {
		t.Errorf("the holder is %s in epoch %d, was in %d", st.Role, st.Epoch, epoch)
	}
	if got := first.jobPID(); got != job {
		t.Errorf("the application was restarted: process %d, was %d", got, job)
	}
	second.awaitRole("standby", soon)

	// They are in the bucket, not just on the holder's disk.
	first.Kill()
	first.Remove()
	second.awaitServing(takeover)
	w.serves(second, before, late, after)
}
