package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"drover/client"
)

// answer decodes what a command prints as JSON, which has to succeed.
func answer[T any](m *dbMember, args ...string) (v T) {
	m.t.Helper()
	got := m.do(append(args, "--json")...)
	if got.code != 0 {
		m.t.Fatalf("%s: %v: %+v", m.name, args, got)
	}
	if err := json.Unmarshal([]byte(got.out), &v); err != nil {
		m.t.Fatalf("%s: %v: %v\n%s", m.name, args, err, got.out)
	}
	return v
}

// whole waits until all receive, and commits wait for as many as they should.
func (c *dbCluster) whole() (primary *dbMember) {
	c.t.Helper()
	primary = c.formed(len(c.members))
	primary.status("whole", func(s client.Status) bool {
		return s.Health == "ok" && s.Database != nil && len(s.Database.SyncMembers) == len(c.members)-1
	})
	for _, m := range c.members { // and all know how the others are
		c.until(m.name+" knows all", func() bool {
			seen := map[string]int{}
			cluster := answer[client.DatabaseCluster](m, "members")
			for _, o := range cluster.Members {
				seen[o.Role]++
				if o.Sync {
					seen["sync"]++
				}
			}
			return cluster.Acks == 1 && seen["primary"] == 1 && seen["replica"] == len(c.members)-1 && seen["sync"] == seen["replica"]
		})
	}
	return primary
}

// row writes one, and waits for it.
func (c *dbCluster) row(n int) { c.t.Helper(); c.exec(fmt.Sprintf("INSERT INTO t VALUES (%d)", n)) }

// TestDatabaseOperations: people have a cluster of PostgreSQL do things, from any of its members, and nothing is lost.
func TestDatabaseOperations(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, clusterOptions{})
	c.exec("CREATE TABLE t (n int)")
	first := c.whole()
	replica := c.others(first)[0]
	for _, word := range []string{"*" + replica.name, "● receiving", "primary", "yes"} {
		if got := replica.do("members"); got.code != 0 || !strings.Contains(got.out, word) {
			t.Errorf("members has no %q: %+v", word, got)
		}
	}
	if s := answer[client.Status](first, "status"); s.Role != "primary" || s.Health != "ok" || s.Database.Acks != 1 {
		t.Errorf("status of the primary: %+v, %+v", s, s.Database)
	}
	c.row(1)
	c.refusals(first, replica)

	out := answer[client.DatabaseOutcome](first, "switchover", "--to", replica.name, "--timeout", "3m")
	if out.Primary != replica.name || out.Former != first.name {
		t.Errorf("switchover: %+v", out)
	}
	c.row(2)
	if primary := c.whole(); primary != replica {
		t.Errorf("%s leads, not %s", primary.name, replica.name)
	}
	first.has("2", "SELECT count(*) FROM t")

	third := c.others(replica)[1]
	answer[client.DatabaseOutcome](replica, "reinit", third.name)
	third.has("2", "SELECT count(*) FROM t")
	c.whole()
	answer[client.DatabaseOutcome](third, "restart", "postgres", "--all", "--timeout", "4m")
	c.row(3)
	second := c.whole()
	second.has("3", "SELECT count(*) FROM t")

	if got := second.do("pause"); got.code != 0 {
		t.Error(got)
	}
	second.status("paused", func(s client.Status) bool { return s.Database.Paused && s.Message == "failover is paused" })
	answer[client.Job](second, "restart", "postgres")
	if primary := c.leads(); primary != second {
		t.Errorf("%s leads, although failover is paused", primary.name)
	}
	if got := first.do("resume"); got.code != 0 {
		t.Error(got)
	}
	c.row(4)
	c.reigned(c.whole())
}

// refusals: what is unsafe is refused, in one line that says why.
func (c *dbCluster) refusals(primary, replica *dbMember) {
	c.t.Helper()
	for args, want := range map[string]string{
		"switchover --to nobody":           `1 there is no member "nobody": there are m1, m2, m3`,
		"switchover --to " + primary.name:  "11 is the primary already",
		"failover":                         "11 drover switchover hands over from it without any loss",
		"reinit " + primary.name:           "11 is the primary: drover switchover first",
		"reinit nobody":                    "1 there is no member",
		"stop postgres":                    "11 which its cluster starts and stops; see drover restart postgres",
		"start postgres":                   "11 which its cluster starts and stops",
		"signal postgres TERM":             "11 which its cluster starts and stops",
		"restart postgres --member nobody": "1 there is no member",
	} {
		code, text, _ := strings.Cut(want, " ")
		got := replica.do(strings.Fields(args)...)
		if fmt.Sprint(got.code) != code || !strings.Contains(got.err, text) || strings.Count(got.err, "\n") != 1 {
			c.t.Errorf("%s: want %s, got %+v", args, want, got)
		}
	}
	if primary != c.leads() {
		c.t.Error("a refusal has had an effect")
	}
}

// reigned: the history says what happened.
func (c *dbCluster) reigned(m *dbMember) {
	c.t.Helper()
	reasons := map[string]int{}
	last := uint64(0)
	for _, r := range answer[client.DatabaseHistory](m, "history").Reigns {
		reasons[r.Reason]++
		if r.Epoch <= last || r.Timeline == "" {
			c.t.Errorf("reign %+v after epoch %d", r, last)
		}
		last = r.Epoch
	}
	if reasons["bootstrap"] != 1 || reasons["switchover"] < 2 {
		c.t.Errorf("the history has %v", reasons)
	}
}
