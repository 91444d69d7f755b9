package database

import (
	"strings"
	"testing"

	"drover/internal/failover"
)

// TestNamesake: who comes later with the same name waits until the other has gone, and takes nothing from it.
func TestNamesake(t *testing.T) {
	t.Parallel()
	c := newSteady(t, failover.On, "a", "b", "c")
	first := c.formed()
	twin := c.other(first)
	id := twin.View().ID
	later := c.addAs("later", twin.View().Name, failover.Tags{})
	waits := "another instance is called " + twin.View().Name + ", too, and lives at " + twin.opt.Failover.Self.API
	c.until("it waits", func() bool { return strings.Contains(later.View().Why, waits) })
	word := c.writes()
	if v := first.View(); v.Record.Members[twin.View().Name].ID != id || later.View().Role != RoleNone || later.View().Runs > 0 {
		t.Errorf("it has begun: %+v", later.View())
	}
	twin.kill()
	delete(c.members, twin.node.name)
	c.until("it takes the place", func() bool { v := later.View(); return v.Role == RoleReplica && v.Sync })
	c.kept(c.formed(), word)
}

// TestNamesakes: of two that come at once one takes the place, and the other one waits or ends.
func TestNamesakes(t *testing.T) {
	t.Parallel()
	c := newSteady(t, failover.On, "a", "b")
	c.formed()
	twins := []*instance{c.addAs("x", "x", failover.Tags{}), c.addAs("y", "x", failover.Tags{})}
	out := func(i *instance) bool {
		select {
		case <-i.ended:
			return i.err != nil && strings.Contains(i.err.Error(), "another instance is called x, too")
		default:
			return strings.Contains(i.View().Why, "another instance is called x, too")
		}
	}
	c.until("one is in and one is out", func() bool {
		return twins[0].View().Sync && out(twins[1]) || twins[1].View().Sync && out(twins[0])
	})
}

// TestStands: if neither of two has waited, the one stays that leads, or has the smaller ID.
func TestStands(t *testing.T) {
	entry := failover.Member{ID: "x-1", API: "there"}
	o := failover.Observation{
		Record:  &failover.Record{Primary: "y-1", Members: map[string]failover.Member{"x": entry}},
		Answers: map[string]failover.Answer{"x-1": {ID: "x-1"}},
	}
	m := &Member{opt: Options{Failover: failover.Config{Name: "x", TTL: 1, Self: failover.Member{API: "here"}}}}
	stands := func(id string, want bool) {
		t.Helper()
		if m.state.ID = id; (m.stands(o) == nil) != want {
			t.Errorf("%s stands: %t", id, !want)
		}
	}
	stands("x-0", true)
	stands("x-1", true)
	stands("x-2", false)
	o.Record.Primary = "x-2"
	stands("x-2", true)
	o.Record.Primary = "x-1"
	stands("x-0", false)
	o.Now = 2
	stands("x-0", true) // the other has not answered lately
	o.Now, m.opt.Failover.Self.API = 0, "there"
	stands("x-0", true) // it is its own former copy
}
