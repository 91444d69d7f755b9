//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"
)

// TestTwoStartAtOnce: of two instances that start together on an empty bucket
// one becomes the holder and runs the application; the other stands by.
func TestTwoStartAtOnce(t *testing.T) {
	w := newWorld(t, short, nil)
	servers := []*server{w.server("one"), w.server("two")}
	holder, standby := w.settled(servers...)
	if standby.jobRuns() {
		t.Errorf("%s stands by, and runs %q", standby.Name, standby.Processes())
	}
	if got := standby.status().Holder; got != holder.Name {
		t.Errorf("the standby says that %q is the holder, it is %q", got, holder.Name)
	}

	// It stays so for longer than two leases, while work goes on.
	epoch := holder.status().Epoch
	w.clone(holder, "/work-copy")
	var pushed []string
	for began := time.Now(); time.Since(began) < 2*short+short/2; {
		pushed = append(pushed, w.push(holder, "/work-copy", fmt.Sprint("n", len(pushed))))
		if standby.jobRuns() {
			t.Fatal("both instances run the application")
		}
	}
	if st := holder.status(); st.Role != "holder" || st.Epoch != epoch {
		t.Errorf("a healthy holder is %s in epoch %d, was in %d", st.Role, st.Epoch, epoch)
	}
	w.serves(holder, pushed...)
}
