package cli

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"drover/client"
)

// TestDatabaseTags: one member is there to be copied from, one takes the log from it, one is late on purpose and never leads. None of them is
// waited for, and the loss of the second one holds up nobody.
func TestDatabaseTags(t *testing.T) {
	t.Parallel()
	c := beginCluster(t, 1, clusterOptions{boxed: true, tags: []string{"", "clonefrom: true", "replicatefrom: m2", "delayed: 1h"}})
	m1 := c.formed(1)
	c.exec("CREATE TABLE t AS SELECT 1 AS n")
	join := func() *dbMember {
		m := c.add()
		m.begin()
		return m
	}
	m2 := join()
	c.formed(2)
	m3, m4 := join(), join()
	m4.has("true", "SELECT pg_is_in_recovery() AND current_setting('recovery_min_apply_delay') = '1h'")
	from := func(m, upstream *dbMember) {
		t.Helper()
		m.has(upstream.port, "SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'")
	}
	from(m2, m1)
	from(m3, m2)
	for _, m := range []*dbMember{m3, m4} {
		m.logs(`msg="database: the files are copied from a replica" member=m2`, true)
	}
	m1.status("only m2 counts", func(s client.Status) bool {
		return s.Health == "ok" && fmt.Sprint(s.Database.SyncMembers) == "[m2]"
	})

	c.exec("INSERT INTO t VALUES (2)")
	m3.has("2", "SELECT count(*) FROM t")
	m3.has("true", "SELECT bool_and(slot_name IS NULL OR slot_name = '') FROM pg_stat_wal_receiver")
	m1.has("0", "SELECT count(*) FROM pg_replication_slots WHERE starts_with(slot_name, 'drover_m3')")
	m1.has("true", "SELECT bool_and(flush_lsn = pg_current_wal_flush_lsn()) FROM pg_stat_replication")
	m4.has("1", "SELECT count(*) FROM t")
	if m4.is200("/replica") {
		t.Error("a member that is an hour late is a replica for load balancers")
	}
	m1.is(11, "m3 is not synchronous", "switchover", "--to", "m3")
	m1.is(11, "m4 has the tag nofailover", "switchover", "--to", "m4")

	m2.kill()
	from(m3, m1)
	c.exec("INSERT INTO t VALUES (3)")
	m3.has("3", "SELECT count(*) FROM t")
	m2.begin()
	from(m3, m2)
	m1.status("m2 counts again", func(s client.Status) bool { return s.Health == "ok" })
	if got := m1.do("switchover", "--timeout", "3m"); got.code != 0 {
		t.Fatal(got)
	}
	c.leads(m2)
	from(m3, m2)
	from(m1, m2)
	c.exec("INSERT INTO t VALUES (4)")
	m3.has("4", "SELECT count(*) FROM t")

	m4.kill() // it does not ask for more before it has applied what it has
	m4.begin()
	m4.has("1", "SELECT count(*) FROM t")
	c.until("all see that it is let alone", func() bool {
		return slices.ContainsFunc(answer[client.DatabaseCluster](m1, "members").Members, func(m client.DatabaseMember) bool {
			return m.Name == "m4" && m.Role == "replica" && strings.Contains(m.Why, "before it has applied what it has")
		})
	})
}
