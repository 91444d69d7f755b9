package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/internal/repo/fstest"
	freeport "drover/internal/testkit/process"

	"github.com/jackc/pgx/v5"
)

// clusterOptions of newCluster.
type clusterOptions struct {
	binary      string   // empty: built
	coordinator string   // URL; empty: the store, which is a directory; else there is no store
	ttl         string   // empty: 4s
	synchronous string   // on, off, strict; empty: on
	backups     bool     // the store has a password, and so gets backups
	boxed       bool     // each agent is PID 1 of a namespace: all in it die with it
	parameters  string   // of the server, after a comma
	more        string   // lines of the configuration, under database:
	tags        []string // of m1, m2, …, in YAML
	top         string   // lines of the configuration, at its top
}

// dbCluster is a PostgreSQL cluster of real agents on the loopback interface, m1 to mn.
type dbCluster struct {
	t       *testing.T
	opt     clusterOptions
	dir     string // with the store and the secret
	members []*dbMember
}

// dbPatience is how long anything may take on a busy machine: copies, elections, a start.
const dbPatience = 4 * time.Minute

const dbSecret = "open sesame"

// dbMember is one of them. Its machine's commands ask its agent.
type dbMember struct {
	*node
	c    *dbCluster
	name string
	port string // of PostgreSQL
	api  string // host:port
}

// newCluster starts n members and waits until one leads, and n-1 receive from it.
func newCluster(t *testing.T, n int, opt clusterOptions) *dbCluster {
	t.Helper()
	c := beginCluster(t, n, opt)
	c.formed(n)
	return c
}

// beginCluster starts n members.
func beginCluster(t *testing.T, n int, opt clusterOptions) *dbCluster {
	t.Helper()
	if opt.binary == "" {
		opt.binary = buildBinary(t)
	}
	dir, err := os.MkdirTemp("", "db") //nolint:usetesting // open to the server's user
	fstest.Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	fstest.Must(t, os.Chmod(dir, 0o755))
	fstest.Must(t, os.WriteFile(dir+"/secret", []byte(dbSecret+"\n"), 0o600))
	c := &dbCluster{t: t, opt: opt, dir: dir}
	for range n {
		c.add()
	}
	for _, m := range c.members {
		m.begin()
	}
	return c
}

// add makes another member; begin starts its agent.
func (c *dbCluster) add() *dbMember {
	c.t.Helper()
	at := freeport.FreeAddresses(c.t, 2)
	m := newMachine(c.t, c.opt.binary)
	fstest.Must(c.t, os.Chmod(m.dir, 0o755))
	m.box = c.opt.boxed
	name := fmt.Sprintf("m%d", len(c.members)+1)
	_, port, err := net.SplitHostPort(at[0])
	fstest.Must(c.t, err)
	or := func(given, preset string) string {
		if given == "" {
			return preset
		}
		return given
	}
	store := fmt.Sprintf(`store: {url: "file://%s/store"}`, c.dir)
	if c.opt.backups {
		store = fmt.Sprintf(`store: {url: "file://%s/store", password: "sesame and more"}`, c.dir)
	} else if c.opt.coordinator != "" {
		store = "" // it would have a password, for backups
	}
	tags := ""
	if i := len(c.members); i < len(c.opt.tags) {
		tags = c.opt.tags[i]
	}
	config := fmt.Sprintf(`service: app
id: %s
%s
coordinator: %s
data_dir: %s/data
socket: %s/s
log: {level: info}
%s
database:
  engine: postgres
  data: %s/pg/data
  listen: %s
  api: %s
  address: "static:127.0.0.1"
  password_file: %s/secret
  ttl: %s
  synchronous: %q
  parameters: {fsync: "off", shared_buffers: 16MB, max_connections: "40"%s}
  tags: {%s}
%s
`, name, store, or(c.opt.coordinator, "store"), m.dir, m.dir, c.opt.top, m.dir, at[0], at[1], c.dir, or(c.opt.ttl, "4s"), or(c.opt.synchronous, "on"), c.opt.parameters, tags, c.opt.more)
	env := slices.DeleteFunc(slices.Clone(m.env), func(v string) bool {
		return strings.HasPrefix(v, "DROVER_") && !strings.HasPrefix(v, "DROVER_SOCKET=")
	})
	m.env = append(env, "DROVER_CONFIG="+m.write("c.yaml", config))
	member := &dbMember{node: &node{machine: m, id: name, log: m.dir + "/log"}, c: c, name: name, port: port, api: at[1]}
	c.members = append(c.members, member)
	return member
}

// answers is what one of a member's health paths answers; 0: nothing does.
func (m *dbMember) answers(path string) (status int, body map[string]any) {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + m.api + path)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(resp.Body)
	_ = json.Unmarshal(text, &body)
	return resp.StatusCode, body
}

// is200 says whether the member is what the path asks for.
func (m *dbMember) is200(path string) bool {
	status, _ := m.answers(path)
	return status == http.StatusOK
}

// eventually waits for a condition.
func eventually(t *testing.T, what func() string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(dbPatience); !holds(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(what())
		}
	}
}

// until waits for a condition, and tells how all members are if it does not come.
func (c *dbCluster) until(what string, holds func() bool) {
	c.t.Helper()
	eventually(c.t, func() string {
		var all []string
		for _, m := range c.members {
			status, body := m.answers("/patroni")
			all = append(all, fmt.Sprintf("%s: %d %v", m.name, status, body))
		}
		return "it does not come to pass that " + what + "\n" + strings.Join(all, "\n")
	}, holds)
}

// primary is who leads; nil: nobody does.
func (c *dbCluster) primary() *dbMember {
	for _, m := range c.members {
		if m.is200("/primary") {
			return m
		}
	}
	return nil
}

// leads waits until a member leads, one of these if any are given.
func (c *dbCluster) leads(any ...*dbMember) (primary *dbMember) {
	c.t.Helper()
	c.until("a member leads", func() bool {
		primary = c.primary()
		return primary != nil && (len(any) == 0 || slices.Contains(any, primary))
	})
	return primary
}

// formed waits until one of n members leads and the others receive from it; those that live are asked.
func (c *dbCluster) formed(n int) (primary *dbMember) {
	c.t.Helper()
	c.until(fmt.Sprintf("%d members form a cluster", n), func() bool {
		primary = c.primary()
		replicas := 0
		for _, m := range c.members {
			if m != primary && m.is200("/replica") {
				replicas++
			}
		}
		return primary != nil && replicas == n-1
	})
	return primary
}

// others are all but one.
func (c *dbCluster) others(m *dbMember) []*dbMember {
	return slices.DeleteFunc(slices.Clone(c.members), func(o *dbMember) bool { return o == m })
}

// session is a client's, of these members the one that accepts writes.
func (c *dbCluster) session(ctx context.Context, members ...*dbMember) (*pgx.Conn, error) {
	if len(members) == 0 {
		members = c.members
	}
	var hosts, ports []string
	for _, m := range members {
		hosts, ports = append(hosts, "127.0.0.1"), append(ports, m.port)
	}
	target := "read-write"
	if len(members) == 1 {
		target = "any"
	}
	config, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%s user=postgres password='%s' dbname=postgres sslmode=disable target_session_attrs=%s connect_timeout=5",
		strings.Join(hosts, ","), strings.Join(ports, ","), dbSecret, target))
	if err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, config)
}

// exec has the primary do something, as soon as one admits clients. It is done again if it failed.
func (c *dbCluster) exec(sql string) {
	c.t.Helper()
	var last error
	eventually(c.t, func() string { return fmt.Sprintf("%s: %v", sql, last) }, func() bool {
		ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
		defer cancel()
		conn, err := c.session(ctx)
		if err == nil {
			_, err = conn.Exec(ctx, sql)
			_ = conn.Close(ctx)
		}
		last = err
		return err == nil
	})
}

// has waits until a query of one member's gives this.
func (m *dbMember) has(want, sql string) {
	m.t.Helper()
	var last string
	eventually(m.t, func() string { return fmt.Sprintf("%s: %s gives %s, want %s", m.name, sql, last, want) }, func() bool {
		ctx, cancel := context.WithTimeout(m.t.Context(), 10*time.Second)
		defer cancel()
		conn, err := m.c.session(ctx, m)
		if err != nil {
			last = err.Error()
			return false
		}
		defer func() { _ = conn.Close(ctx) }()
		if err := conn.QueryRow(ctx, "SELECT ("+sql+")::text").Scan(&last); err != nil {
			last = err.Error()
		}
		return last == want
	})
}

// kill ends the agent at once; boxed, all that it started besides. begin starts it again.
func (m *dbMember) kill() {
	m.t.Helper()
	_ = m.cmd.Process.Kill()
	<-m.ended
}

// TestDatabase: three agents with one configuration form a cluster, and what one of them commits all have.
func TestDatabase(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, clusterOptions{})
	c.exec("CREATE TABLE t AS SELECT 1 AS n")
	for _, m := range c.members {
		m.has("1", "SELECT count(*) FROM t")
	}
}
