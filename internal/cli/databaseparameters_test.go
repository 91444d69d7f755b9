package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"drover/client"
	"drover/internal/repo/fstest"
)

// configure changes a member's configuration file.
func (m *dbMember) configure(from, to string) {
	m.t.Helper()
	text, err := os.ReadFile(m.dir + "/c.yaml")
	fstest.Must(m.t, err)
	if !strings.Contains(string(text), from) {
		m.t.Fatalf("there is no %q in %s", from, text)
	}
	fstest.Must(m.t, os.WriteFile(m.dir+"/c.yaml", []byte(strings.Replace(string(text), from, to, 1)), 0o600))
}

// reconfigure changes all members' configuration, and has their agents read it.
func (c *dbCluster) reconfigure(from, to string, parameters ...string) {
	c.t.Helper()
	for _, m := range c.members {
		m.configure(from, to)
		if got := answer[client.Reload](m, "reload"); !slices.Equal(got.Parameters, parameters) {
			c.t.Errorf("%s: changed %v, want %v", m.name, got.Parameters, parameters)
		}
	}
}

// show waits until all members have a parameter.
func (c *dbCluster) show(name, value string) {
	c.t.Helper()
	for _, m := range c.members {
		m.has(value, fmt.Sprintf("SELECT current_setting('%s')", name))
	}
}

// TestDatabaseParameters: changed parameters take effect by a reload, or by restarts of one member after another; bad ones are refused.
func TestDatabaseParameters(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, clusterOptions{more: "  restart: roll\n  hba: [\"host all all all scram-sha-256\"]"})
	c.exec("CREATE TABLE t (n int)")
	first := c.whole()
	other := c.others(first)[0]
	const limits = `shared_buffers: 16MB, max_connections: "40"}`
	c.reconfigure(limits, `work_mem: 5MB, `+limits, "work_mem")
	c.show("work_mem", "5MB")

	for _, bad := range []struct{ from, to, says string }{
		{"work_mem: 5MB", "work_mem: much", `invalid value for parameter "work_mem": "much"`},
		{"work_mem: 5MB", "work_memory: 6MB", `configuration parameter "work_memory"`},
		{"host all all all scram", "host all all nowhere/99 scram", `"host all all nowhere/99 scram-sha-256" is no line of pg_hba.conf: `},
		{`"40"`, `"4"`, "max_connections is 4, and 5 connections are reserved"},
	} {
		for _, m := range []*dbMember{first, other} {
			m.configure(bad.from, bad.to)
			got := m.do("reload")
			if got.code != 2 && got.code != 1 || !strings.Contains(got.err, "c.yaml:") || !strings.Contains(got.err, bad.says) || strings.Count(got.err, "\n") != 1 {
				t.Errorf("%s: %+v", bad.to, got)
			}
			m.configure(bad.to, bad.from)
			m.has("5MB", "SELECT current_setting('work_mem')")
		}
	}

	c.reconfigure(limits, `shared_buffers: 20MB, max_connections: "50"}`, "max_connections", "shared_buffers")
	c.show("max_connections", "50")
	c.show("shared_buffers", "20MB")
	second := c.whole()
	if second == first {
		t.Errorf("%s leads still: it was not restarted as a replica", first.name)
	}
	c.row(1)
	for _, m := range c.members {
		if status, body := m.answers("/patroni"); status == 0 || body["pending_restart"] != nil {
			t.Errorf("%s: %d, %v", m.name, status, body)
		}
	}

	c.reconfigure(`max_connections: "50"`, `max_connections: "30"`, "max_connections")
	second.status("it says how", func(s client.Status) bool {
		return slices.Equal(s.Database.Pending, []string{"max_connections"}) && strings.Contains(s.Database.Roll, "drover restart postgres --pending")
	})
	if got := second.do("members"); !strings.Contains(got.out, "restart needed: max_connections") {
		t.Errorf("members: %+v", got)
	}
	if _, body := second.answers("/patroni"); body["pending_restart"] != true {
		t.Errorf("patroni: %v", body)
	}
	if out := answer[client.DatabaseOutcome](other, "restart", "postgres", "--pending", "--timeout", "3m"); len(out.Restarted) == 0 || out.Restarted[0] != second.name {
		t.Errorf("restarted: %+v", out)
	}
	c.show("max_connections", "30")
	if now := c.whole(); now != second {
		t.Errorf("%s leads, and %s did", now.name, second.name)
	}
	c.row(2)
}
