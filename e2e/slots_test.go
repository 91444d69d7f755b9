//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"testing"
	"time"

	"drover/client"
	"drover/internal/testkit/dockertest"
)

// slots is how many examples/slots has.
const slots = 3

// newShards makes a world of the members of examples/slots. No file is backed up but
// by a PUT.
func newShards(t *testing.T) *world {
	t.Helper()
	w := newWorldOf(t, shardsImage(t), short, map[string]string{"DROVER_ON_CHANGE": "0s"})
	w.job, w.options = "/usr/bin/shard", []string{"--network-alias", "shard"}
	return w
}

// TestSlots: three members serve a shard each, and there is a spare. One is killed: the
// spare serves its shard. One is paused for longer than its lease: it has lost its
// slot. Then there are only two slots: the third member leaves.
func TestSlots(t *testing.T) {
	w := newShards(t)
	members := []*server{w.server("a"), w.server("b"), w.server("c"), w.server("d")}
	holders, spares := w.members(members...)
	kept := map[string]string{}
	put := func(when string) {
		t.Helper()
		for shard := range slots {
			key := keyOf(shard, when)
			kept[key] = when + "-" + strconv.Itoa(shard)
			w.client.MustExec("shards", "put", key, kept[key])
		}
	}
	get := func() {
		t.Helper()
		for key, want := range kept {
			if got := strings.TrimSpace(w.client.MustExec("shards", "get", key)); got != want {
				t.Errorf("%s is %q, want %q", key, got, want)
			}
		}
	}
	put("first")

	spare, lost := spares[0], holders[1]
	lost.Kill()
	began := time.Now()
	lost.Remove()
	spare.awaitSlot(1, takeover)
	t.Logf("slot 1 is another's %.1f s after its member was killed (TTL %v)", time.Since(began).Seconds(), short)
	holders[1] = spare
	get()
	put("without b")

	next := w.server("e")
	next.awaitRole("spare", soon)
	paused := holders[0]
	paused.leave("late", "of slot 0")
	paused.Pause()
	began = time.Now()
	took := next.awaitSlot(0, takeover)
	t.Logf("slot 0 is another's %.1f s after its member was paused (TTL %v)", time.Since(began).Seconds(), short)
	put("while paused")
	paused.Unpause()
	paused.awaitKilled(soon)
	paused.awaitRole("spare", soon)
	if out, err := paused.Exec(t.Context(), "drover", "backup", "--timeout", "5s"); err == nil {
		t.Errorf("a member that lost its slot backs up: %s", out)
	}
	if st := next.status(); st.Role != "holder" || st.Epoch != took.Epoch {
		t.Errorf("slot 0: %s in epoch %d, taken in %d", st.Role, st.Epoch, took.Epoch)
	}
	paused.keepsOf(0, "late", "of slot 0")
	holders[0] = next
	get()

	// The spare first, or it takes the slot that the third one leaves.
	third := holders[2]
	third.leave("late", "of slot 2")
	ofTwo := func(st client.Status) bool {
		return st.Role == "spare" && strings.Contains(st.Message, "2 of 2 are held")
	}
	two := func(m *server) {
		sh(m.Container, `sed -i "s/^slots: 3/slots: 2/" /etc/drover/drover.yaml`)
		m.Kill() // a stop would back up what is left there
		m.AwaitExit(soon)
		m.StartAgain()
	}
	for _, m := range []*server{paused, third} {
		two(m)
		m.awaitStatus(takeover, "a spare of two slots", ofTwo)
		m.Pause() // it would take the slot of who restarts
	}
	for shard, m := range holders[:2] {
		two(m)
		m.awaitSlot(shard, takeover)
	}
	for _, m := range []*server{paused, third} {
		m.Unpause()
		m.awaitStatus(soon, "a spare of two slots", ofTwo)
	}
	third.keepsOf(2, "late", "of slot 2")
	for shard := range slots { // what is not served any more is in the bucket still
		key := keyOf(shard, "first")
		third.holdsOf(shard, "latest", key, kept[key])
	}
}

// TestSlotsExample: the example's compose file, as its README has it.
func TestSlotsExample(t *testing.T) {
	p := project(t, "slots")
	p.Do("up", "--build", "--detach", "--scale", "shard="+strconv.Itoa(slots+1))
	run := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(p.Do(append([]string{"run", "-T", "--rm", "client"}, args...)...))
	}
	for shard := range slots {
		run("put", keyOf(shard, "k"), "value-"+strconv.Itoa(shard))
	}
	lost := awaitHolder(t, p.Containers("shard"))
	lost.Remove()
	for shard := range slots {
		if got, want := run("get", keyOf(shard, "k")), "value-"+strconv.Itoa(shard); got != want {
			t.Errorf("shard %d has %q, want %q", shard, got, want)
		}
	}
	if got := strings.Count(run("list"), "\n") + 1; got != slots {
		t.Errorf("%d shards are served", got)
	}
}

// keyOf finds a key of a shard.
func keyOf(shard int, name string) string {
	for i := 0; ; i++ {
		key := strings.ReplaceAll(name, " ", "-") + "-" + strconv.Itoa(i)
		if crc32.ChecksumIEEE([]byte(key))%slots == uint32(shard) {
			return key
		}
	}
}

// members waits until each slot is one's, and the others are spares.
func (w *world) members(all ...*server) (holders, spares []*server) {
	w.t.Helper()
	dockertest.Await(w.t, takeover+soon, "a member for each slot", func(ctx context.Context) error {
		holders, spares = make([]*server, slots), nil
		for _, m := range all {
			st, err := m.look(ctx)
			switch {
			case err != nil:
				return err
			case st.Role == "spare":
				spares = append(spares, m)
			case st.Role == "holder" && st.Slot != nil && holders[*st.Slot] == nil:
				holders[*st.Slot] = m
			default:
				return fmt.Errorf("%s is %s of %v", m.Name, st.Role, st.Slot)
			}
		}
		if len(spares) != len(all)-slots {
			return fmt.Errorf("%d spares", len(spares))
		}
		return nil
	})
	return holders, spares
}

// awaitSlot waits until the member holds a slot and serves its shard.
func (s *server) awaitSlot(slot int, within time.Duration) client.Status {
	s.w.t.Helper()
	st := s.awaitStatus(within, "holder of slot "+strconv.Itoa(slot), func(st client.Status) bool {
		return st.Role == "holder" && st.Slot != nil && *st.Slot == slot
	})
	dockertest.Await(s.w.t, soon, "the shard to be served", func(ctx context.Context) error {
		out, err := s.w.client.Exec(ctx, "shards", "list")
		if err != nil {
			return err
		}
		return contains("\n"+out, "\n"+strconv.Itoa(slot)+" ")
	})
	return st
}

// leave writes a file into the shard that nobody backs up.
func (s *server) leave(name, text string) {
	s.w.t.Helper()
	sh(s.Container, `echo "$2" >"/srv/shard/$1"`, name, text)
}

// keepsOf checks that what a member had not committed of a slot is a diverged snapshot
// of that slot.
func (s *server) keepsOf(slot int, name, text string) {
	s.w.t.Helper()
	s.holdsOf(slot, s.awaitDiverged(soon, "--slot", strconv.Itoa(slot)), name, text)
}

// holdsOf checks a file of a snapshot of a slot, by restoring it beside the state.
func (s *server) holdsOf(slot int, snapshot, name, text string) {
	s.w.t.Helper()
	dir := fmt.Sprintf("/restored-%d-%.8s", slot, snapshot)
	s.MustExec("drover", "restore", snapshot, "--slot", strconv.Itoa(slot), "--target", dir)
	if got := strings.TrimSpace(s.MustExec("cat", dir+"/srv/shard/"+name)); got != text {
		s.w.t.Errorf("snapshot %s of slot %d has %q, want %q", snapshot, slot, got, text)
	}
}
