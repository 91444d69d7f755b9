//go:build bench

package bench

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/internal/testkit/etcdserver"
	"drover/internal/testkit/s3server"
)

var commitScale = flag.Int("commit-scale", 20, "pgbench's scale where transactions are counted (TestCommit)")

// contender is a primary with one replica.
type contender struct {
	name    string
	db      *database
	prepare func()    // how commits wait, if the same pair is several contenders
	agents  []*member // nobody: nil
	tps     []float64
	cpu     []float64 // of the agents, in per cent of a core
}

// TestCommit counts the transactions of eight clients with one replica that nothing or everything waits for, by hand and under
// Drover: what synchronous replication costs, and what the agents do. Then the same with the log archived on one S3
// server, by pgBackRest and by Drover. All servers are there all the time; those that are not measured are idle.
func TestCommit(t *testing.T) {
	etcd := strings.TrimPrefix(etcdserver.Start(t, etcdserver.Options{}).Endpoints[0], "http://")
	t.Run("not archived", func(t *testing.T) { commits(t, etcd, nil) })
	t.Run("archived", func(t *testing.T) { commits(t, etcd, s3server.Start(t, s3server.Options{TLS: true})) })
}

func commits(t *testing.T, etcd string, s3 *s3server.Server) {
	all := handContenders(t, s3)
	for _, mode := range []string{"off", "on"} {
		all = append(all, droverContender(t, etcd, mode, s3))
	}
	for round := range *rounds {
		for k := range all {
			flush(t)
			all[(k+round)%len(all)].measure()
		}
	}
	for _, c := range all {
		slices.Sort(c.tps)
		slices.Sort(c.cpu)
	}
	for _, c := range all {
		agents := ""
		if c.agents != nil {
			agents = "; the two agents " + spread(c.cpu, 1) + " % of a core"
		}
		t.Logf("RESULT %-18s %s transactions/s, %.2f× that of the first%s", c.name, spread(c.tps, 0), median(c.tps)/median(all[0].tps), agents)
	}
}

func (c *contender) measure() {
	c.db.t.Helper()
	if c.prepare != nil {
		c.prepare()
	}
	c.db.sql("CHECKPOINT")
	var pids []int
	for _, m := range c.agents {
		pids = append(pids, tree(m.Pid())...)
	}
	before, began := cpu(pids), time.Now()
	c.tps = append(c.tps, c.db.tps(8))
	c.cpu = append(c.cpu, percent(cpu(pids)-before, time.Since(began)))
}

// handContenders are one pair, in two ways.
func handContenders(t *testing.T, s3 *s3server.Server) []*contender {
	t.Helper()
	primary := newPlain(t, "hand0")
	if s3 != nil {
		p := newPgBackRest(t, s3)
		p.configure("commits")
		p.create()
		p.rest("stanza-create")
		primary = p.plain
	} else {
		primary.create()
	}
	replica := newPlain(t, "hand1")
	primary.fill(*commitScale)
	replica.copyOf(primary)
	replica.start()
	wait := func(names string) func() {
		return func() {
			primary.sql("ALTER SYSTEM SET synchronous_standby_names = '" + names + "'")
			primary.sql("SELECT pg_reload_conf()")
			primary.until("the replica", time.Minute, func(ctx context.Context) bool {
				state, err := primary.query(ctx, "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'")
				return err == nil && (state == "async") == (names == "")
			})
		}
	}
	return []*contender{
		{name: "by hand, async", db: &primary.database, prepare: wait("")},
		{name: "by hand, ANY 1", db: &primary.database, prepare: wait("ANY 1 (*)")},
	}
}

func droverContender(t *testing.T, etcd, mode string, s3 *s3server.Server) *contender {
	t.Helper()
	cluster := filepath.Base(t.Name()) + "-" + mode
	members := []*member{newMember(t, mode+"0", cluster, etcd), newMember(t, mode+"1", cluster, etcd)}
	for i, m := range members {
		m.env = os.Environ()
		if s3 != nil {
			m.backsUp(s3, cluster, "24h")
		}
		m.more += "\n  synchronous: \"" + mode + "\""
		m.start()
		if i == 0 {
			m.await("/primary")
			m.fill(*commitScale)
			if s3 != nil {
				m.awaitBackups(1) // before there is a replica, which would make it
			}
			continue
		}
		m.await("/replica")
		if mode == "on" {
			m.await("/sync")
		}
	}
	return &contender{name: "drover, " + mode, db: &members[0].database, agents: members}
}
