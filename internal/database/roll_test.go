package database

import (
	"slices"
	"strings"
	"testing"
	"time"

	"drover/internal/failover"
)

// newRolling is a cluster whose primary restarts servers by itself.
func newRolling(t *testing.T, patience time.Duration, names ...string) *cluster {
	t.Helper()
	c := newSteady(t, failover.On)
	c.roll = patience
	for _, name := range names {
		c.add(name, failover.Tags{})
	}
	return c
}

// reconfigured has members wait for a restart, with these settings; it returns how many starts there were before.
func (c *cluster) reconfigured(settings string, names ...string) (before int) {
	c.engine.change(func() {
		for _, name := range names {
			n := c.members[name].node
			n.settings, n.pending = settings, []string{"buffers"}
		}
		before = len(c.engine.starts)
	})
	return before
}

// started are the servers that were started since.
func (c *cluster) started(since int) []string {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	return slices.Clone(c.engine.starts[since:])
}

// settled waits until no server needs a restart and the cluster is whole.
func (c *cluster) settled() *instance {
	c.Helper()
	c.until("nobody needs a restart", func() bool {
		for _, i := range c.members {
			if v := i.View(); v.Restart || v.Settings != i.node.settings || v.State != "running" {
				return false
			}
		}
		return true
	})
	return c.formed()
}

func TestRoll(t *testing.T) {
	t.Parallel()
	c := newRolling(t, patience, "a", "b", "c")
	first := c.formed()
	word := c.writes()
	since := c.reconfigured("new", "a", "b", "c")
	c.kept(c.settled(), word)
	starts := slices.Compact(c.started(since))
	if len(starts) != 3 || starts[2] != first.name() {
		t.Errorf("%s led, and these were restarted: %v", first.name(), starts)
	}
	if first.kills != 0 {
		t.Error("the former primary was killed, not stopped")
	}
}

// TestRollOnlyIfAsked: without it nobody is restarted, and those that need it are by an order.
func TestRollOnlyIfAsked(t *testing.T) {
	t.Parallel()
	c := newSteady(t, failover.On, "a", "b", "c")
	first := c.formed()
	other := c.other(first).name()
	since := c.reconfigured("new", other, first.name())
	c.until("it is known", func() bool {
		s, ok := first.Named(first.View(), other)
		return ok && s.Restart && first.View().Restart
	})
	if starts := c.started(since); len(starts) > 0 {
		t.Errorf("restarted unasked: %v", starts)
	}
	out, err := first.RestartAll(c.ctx(), true)
	if want := []string{other, first.name()}; err != nil || !slices.Equal(out.Restarted, want) {
		t.Errorf("restarted %v, want %v: %v", out.Restarted, want, err)
	}
	c.settled()
	if out, err := first.RestartAll(c.ctx(), true); err != nil || len(out.Restarted) > 0 {
		t.Errorf("restarted again: %v, %v", out.Restarted, err)
	}
}

// TestRollStops when a server does not come back: the others keep what they have, until there are other parameters.
func TestRollStops(t *testing.T) {
	t.Parallel()
	c := newRolling(t, 2*time.Second, "a", "b", "c")
	first := c.formed()
	bad := c.other(first)
	c.engine.change(func() { bad.broken = true })
	since := c.reconfigured("bad", "a", "b", "c")
	c.until("it stops", func() bool {
		v := first.View()
		return v.Stopped && strings.Contains(v.Roll, bad.name()+" is not back") && strings.Contains(v.Roll, "not healthy after 2s")
	})
	others := func() []string {
		return slices.DeleteFunc(c.started(since), func(name string) bool { return name == bad.name() })
	}
	before := others() // those whose need was known earlier may have had their turn
	c.engine.change(func() { bad.broken = false })
	c.formed()
	c.until("all is well but for that", func() bool { return first.unfit(first.View()) == "" })
	if v := first.View(); !v.Stopped || v.Role != RolePrimary {
		t.Errorf("it goes on: %+v", v)
	}
	if after := others(); !slices.Equal(after, before) {
		t.Errorf("restarted before it stopped: %v, and after it, too: %v", before, after)
	}
	c.roll = patience
	c.reconfigured("good", "a", "b", "c")
	c.until("the others are restarted", func() bool {
		names := c.started(since)
		return slices.Contains(names, first.name()) && !slices.ContainsFunc([]string{"a", "b", "c"}, func(n string) bool { return !slices.Contains(names, n) })
	})
	c.settled()
}

// TestRollWaits while failover is paused, while a member has other parameters than the primary, and while one is missing.
func TestRollWaits(t *testing.T) {
	t.Parallel()
	c := newRolling(t, patience, "a", "b", "c")
	first := c.formed()
	other := c.other(first)
	says := func(what string) func() bool {
		return func() bool { v := first.View(); return strings.Contains(v.Roll, what) && !v.Stopped }
	}
	if _, err := first.Pause(c.ctx(), true); err != nil {
		t.Fatal(err)
	}
	c.until("all know", func() bool { return first.View().Record.Paused })
	since := c.reconfigured("new", first.name())
	c.until("it waits for the pause", says("failover is paused"))
	c.engine.change(func() { other.frozen = true })
	if _, err := first.Pause(c.ctx(), false); err != nil {
		t.Fatal(err)
	}
	c.until("it waits for all", says("wait: "))
	c.engine.change(func() { other.frozen = false })
	c.until("it waits for the others' parameters", says("has other parameters than the primary"))
	if starts := c.started(since); slices.Contains(starts, first.name()) {
		t.Errorf("restarted: %v", starts)
	}
	c.reconfigured("new", "a", "b", "c")
	c.settled()
}

// lowered has all wait for a restart that has less of what replicas may not have less of than the primary.
func (c *cluster) lowered() (since int) {
	c.engine.change(func() {
		for _, i := range c.members {
			i.settings, i.pending, i.lowers = "less", []string{"connections"}, true
		}
		since = len(c.engine.starts)
	})
	return since
}

// TestLowered: it goes down on the primary first, in its place.
func TestLowered(t *testing.T) {
	t.Parallel()
	c := newSteady(t, failover.On, "a", "b", "c")
	first := c.formed()
	asked := c.other(first)
	since := c.lowered()
	c.until("it is known", func() bool {
		v := asked.View()
		s, ok := asked.Named(v, first.name())
		return ok && s.Lowers && len(must(asked.inOrder(v, v.Record, true))) == 3
	})
	if _, err := asked.RestartAll(c.ctx(), true); err != nil {
		t.Fatal(err)
	}
	if now := c.settled(); now != first || now.View().Record.Paused {
		t.Errorf("%s leads, and %s did; paused: %t", now.name(), first.name(), now.View().Record.Paused)
	}
	if starts := c.started(since); len(starts) != 3 || starts[0] != first.name() {
		t.Errorf("restarted: %v", starts)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestLoweredUnasked: that is not done unasked.
func TestLoweredUnasked(t *testing.T) {
	t.Parallel()
	c := newRolling(t, patience, "a", "b", "c")
	first := c.formed()
	since := c.lowered()
	c.until("it says how", func() bool { return strings.Contains(first.View().Roll, "drover restart postgres --pending") })
	if starts := c.started(since); len(starts) > 0 {
		t.Errorf("restarted unasked: %v", starts)
	}
}

// TestOutgrown: a replica that applies nothing before a restart has it, one after another.
func TestOutgrown(t *testing.T) {
	t.Parallel()
	c := newSteady(t, failover.On, "a", "b", "c")
	first := c.formed()
	c.engine.change(func() {
		for _, i := range c.members {
			i.outgrown = i != first
		}
	})
	c.until("they are restarted", func() bool {
		c.engine.mu.Lock()
		defer c.engine.mu.Unlock()
		return !slices.ContainsFunc([]string{"a", "b", "c"}, func(name string) bool { return c.members[name].outgrown })
	})
	if now := c.formed(); now != first {
		t.Errorf("%s leads", now.name())
	}
}
