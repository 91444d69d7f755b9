package database

import (
	"strings"
	"testing"
	"time"

	"drover/internal/failover"
)

// TestStandbyCluster: members that follow another cluster's archive are operated as others, but have no primary to hand over;
// somebody's word makes the cluster one of its own, and who has applied most leads.
func TestStandbyCluster(t *testing.T) {
	c := newCluster(t, failover.On)
	c.standby = true
	c.engine.archive = []string{"t1", "a"}
	m1, m2 := c.add("m1", failover.Tags{}), c.add("m2", failover.Tags{})
	apply := func() bool {
		return m1.View().Role == RoleStandby && m2.View().Role == RoleStandby && m1.View().Foremost && !m2.View().Foremost
	}
	c.until("both apply", apply)
	c.engine.change(func() { c.engine.archive = append(c.engine.archive, "b") })
	c.until("both have all", func() bool { return m1.View().Applied == "/t1/a/b" && m2.View().Applied == "/t1/a/b" })
	if v := m2.View(); v.Vacant != 0 || v.Primary != "" || v.Lag != nil {
		t.Errorf("m2 is %+v", v)
	}
	_, now := m1.Switchover(c.ctx(), "", time.Time{})
	_, later := m1.Switchover(c.ctx(), "m2", time.Now().Add(time.Hour))
	_, unforced := m1.Failover(c.ctx(), "", false)
	for _, err := range []error{now, later, unforced} {
		if err == nil || !strings.Contains(err.Error(), "this cluster follows another one") {
			t.Errorf("it is done, or refused for another reason: %v", err)
		}
	}
	copies := m2.View().Copies
	if _, err := m1.Reinit(c.ctx(), "m2"); err != nil || m2.View().Copies != copies+1 {
		t.Errorf("reinit: %v; %d copies", err, m2.View().Copies)
	}
	if _, err := m2.RestartAll(c.ctx(), false); err != nil {
		t.Errorf("restart: %v", err)
	}
	c.until("both apply again", apply)

	c.engine.change(func() { m1.slow, c.engine.archive = true, append(c.engine.archive, "c") })
	out, err := m1.Failover(c.ctx(), "", true)
	if err != nil || out.Primary != "m2" {
		t.Fatalf("%+v, %v", out, err)
	}
	c.engine.change(func() { m1.slow = false })
	c.until("m1 follows it", func() bool { return m1.View().Role == RoleReplica && m1.View().Sync })
	if v := m1.View(); !strings.HasPrefix(v.Received, "/t1/a/b/c/t2") {
		t.Errorf("m1 has %s", v.Received)
	}
	if r := m1.View().Record; r.Phase != failover.Running || r.System != "theirs" || r.History[0].Reason != "promotion" {
		t.Errorf("the record is %+v", r)
	}
}
