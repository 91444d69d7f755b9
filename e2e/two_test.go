//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"drover/internal/testkit/dockertest"
)

// TestTwoStartAtOnce: of two instances that start together on an empty bucket
// one becomes the holder and runs the application; the other stands by.
func TestTwoStartAtOnce(t *testing.T) {
	w := newWorld(t, short, nil)
	servers := []*server{w.server("one"), w.server("two")}
	roles := func(ctx context.Context) (holders, standbys []*server, err error) {
		for _, s := range servers {
			st, err := s.look(ctx)
			if err != nil {
				return nil, nil, err
			}
			switch st.Role {
			case "holder":
				holders = append(holders, s)
			case "standby":
				standbys = append(standbys, s)
			}
		}
		return holders, standbys, nil
	}
	var holder, standby *server
	dockertest.Await(t, takeover, "one holder and one standby", func(ctx context.Context) error {
		holders, standbys, err := roles(ctx)
		if err != nil {
			return err
		}
		if len(holders) != 1 || len(standbys) != 1 {
			return fmt.Errorf("%d holders, %d standbys", len(holders), len(standbys))
		}
		holder, standby = holders[0], standbys[0]
		return nil
	})
	holder.awaitServing(soon)
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
