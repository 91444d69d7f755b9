package database

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/internal/failover"
)

func TestVersions(t *testing.T) {
	for _, order := range [][2]string{{"", "15.4"}, {"15.4", "15.14"}, {"15.14", "17.0"}, {"v1.9.0", "v1.10.0"}, {"dev", "v0.1"}, {"1.0-rc1", "1.0-rc2"}, {"17beta1", "17beta2"}} {
		if compareVersions(order[0], order[1]) >= 0 || compareVersions(order[1], order[0]) <= 0 || compareVersions(order[1], order[1]) != 0 {
			t.Errorf("%q is older than %q", order[0], order[1])
		}
	}
	if old, new := (Release{"15.4", "2.0"}), (Release{"15.14", "1.0"}); old.compare(new) >= 0 {
		t.Error("the server's version comes first")
	}
}

// TestUpgrade: as soon as there are enough members of the new release one of them leads, and the others may leave.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	c := newSteady(t, failover.On, "a", "b", "c")
	first := c.formed()
	word := c.writes()
	if out, err := first.Upgrade(c.ctx(), "", 0); err != nil || out.Primary != first.name() || out.Former != "" || len(out.Leave) > 0 {
		t.Errorf("nothing is to be done: %+v, %v", out, err)
	}
	_, err := first.Upgrade(c.ctx(), "9", 0)
	c.refused(err, RefusedUnsafe, "no member has version 9: there are a (server 1, agent test), ")
	_, err = first.Upgrade(c.ctx(), "", 1)
	c.refused(err, RefusedUnsafe, "1 members are too few")

	c.version = "test 2"
	c.add("d", failover.Tags{NoFailover: true})
	c.add("e", failover.Tags{Priority: -1})
	c.formed()
	soon, cancel := context.WithTimeout(c.ctx(), 500*time.Millisecond)
	defer cancel()
	_, err = first.Upgrade(soon, "", 0)
	if err == nil || !strings.Contains(err.Error(), "nothing was done: 1 of 2 members of the release (server 1, agent test 2) are ready: d has the tag nofailover") {
		t.Errorf("one is too few: %v", err)
	}
	if v := first.View(); v.Record.Switchover != nil || v.Role != RolePrimary {
		t.Error("something was done")
	}

	done := make(chan Outcome, 1)
	go func() {
		out, err := first.Upgrade(c.ctx(), "test 2", 0)
		if err != nil {
			t.Error(err)
		}
		done <- out
	}()
	c.add("f", failover.Tags{})
	out := <-done
	if out.Primary != "f" || out.Former != first.name() || !slices.Equal(out.Leave, []string{"a", "b", "c"}) || out.Release.Agent != "test 2" {
		t.Errorf("the upgrade came to %+v", out)
	}
	for _, name := range out.Leave {
		c.members[name].Member.Stop()
		<-c.members[name].ended
		delete(c.members, name)
	}
	c.kept(c.formed(), word)
}

// TestUpgradeOfTheServer: another version of the server is another release, too; a member whose server does not run yet is waited for.
func TestUpgradeOfTheServer(t *testing.T) {
	t.Parallel()
	c := newSteady(t, failover.Off, "a", "b")
	first := c.formed()
	_, err := first.Pause(c.ctx(), true)
	if err != nil {
		t.Fatal(err)
	}
	_, err = first.Upgrade(c.ctx(), "", 0)
	c.refused(err, RefusedUnsafe, "paused")
	if _, err := first.Pause(c.ctx(), false); err != nil {
		t.Fatal(err)
	}
	c.until("that is known", func() bool { return !first.View().Record.Paused })
	slow := c.engine.node("n")
	c.engine.change(func() { slow.version, slow.broken = "1.1", true })
	n := c.add("n", failover.Tags{})
	c.until("it is a member", func() bool { s, ok := first.Named(first.View(), "n"); return ok && s.Runs > 0 })
	soon, cancel := context.WithTimeout(c.ctx(), 300*time.Millisecond)
	defer cancel()
	if _, err := first.Upgrade(soon, "", 0); err == nil || !strings.Contains(err.Error(), "nothing was done: the server of n does not run") {
		t.Errorf("it is not known what n is: %v", err)
	}
	c.engine.change(func() { n.broken = false })
	if out, err := first.Upgrade(c.ctx(), "", 0); err != nil || out.Primary != "n" || !slices.Equal(out.Leave, []string{"a", "b"}) {
		t.Errorf("the upgrade came to %+v, %v", out, err)
	}
}
