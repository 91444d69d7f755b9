package cli

import (
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"drover/client"
	"drover/internal/repo/fstest"
)

// TestDatabaseStandbyCluster: a cluster follows another one by that one's bucket alone, over a failover there, and becomes one of its
// own when somebody says so: with all that was archived, with backups of its own, and without a trace in that bucket.
func TestDatabaseStandbyCluster(t *testing.T) {
	t.Parallel()
	source := newCluster(t, 2, clusterOptions{backups: true, boxed: true})
	volume := filepath.Join(source.dir, "store", "data")
	source.backedUp(volume)
	source.exec("CREATE TABLE t AS SELECT 1 AS n")
	source.archived()

	c := beginCluster(t, 2, clusterOptions{
		binary: source.opt.binary, backups: true, parameters: ", wal_retrieve_retry_interval: 500ms",
		more: "  standby_of: {store: {url: \"file://" + source.dir + "/store\", password: \"sesame and more\"}}",
	})
	m1, m2 := c.members[0], c.members[1]
	c.until("both apply", func() bool { return m1.is200("/replica") && m2.is200("/replica") })
	c.count(1)
	c.shadows(t)

	former := source.leads()
	other := source.others(former)[0]
	answer[client.DatabaseOutcome](former, "switchover", "--to", other.name, "--timeout", "3m")
	source.exec("INSERT INTO t VALUES (2)")
	source.archived()
	c.count(2)
	for _, m := range source.members {
		m.kill()
	}
	before := files(t, volume)

	m1.is(11, "would be one of its own for good", "failover")
	m1.is(11, "drover failover makes it one of its own", "switchover")
	out := answer[client.DatabaseOutcome](m2, "failover", "--force", "--timeout", "3m")
	if out.Primary == "" || out.Former != "" {
		t.Errorf("failover: %+v", out)
	}
	c.formed(2)
	c.exec("INSERT INTO t VALUES (3)")
	c.count(3)
	c.backedUp(filepath.Join(c.dir, "store", "data"))
	m1.logs("database.standby_of is ignored", true)
	if after := files(t, volume); !slices.Equal(after, before) {
		t.Errorf("the volume of the cluster that was followed had %d files, and has %d:\n%s", len(before), len(after), strings.Join(after, "\n"))
	}
}

// count waits until each member has n rows.
func (c *dbCluster) count(n int) {
	c.t.Helper()
	for _, m := range c.members {
		m.has(string(rune('0'+n)), "SELECT count(*) FROM t")
	}
}

// shadows: all members are told to follow another cluster, and one of them answers for it.
func (c *dbCluster) shadows(t *testing.T) {
	t.Helper()
	m1, m2 := c.members[0], c.members[1]
	c.until("all are standbys", func() bool {
		d := answer[client.DatabaseCluster](m2, "members")
		apply := func(m client.DatabaseMember) bool {
			return m.Role == "standby" && m.Position != "" && m.LastCommit != nil
		}
		return d.Standby && d.Primary == "" && len(d.Members) == 2 && apply(d.Members[0]) && apply(d.Members[1])
	})
	for path, want := range map[string][2]int{
		"/standby-leader": {http.StatusOK, http.StatusServiceUnavailable}, "/leader": {http.StatusOK, http.StatusServiceUnavailable},
		"/primary": {http.StatusServiceUnavailable, http.StatusServiceUnavailable}, "/read-only": {http.StatusOK, http.StatusOK},
		"/readiness": {http.StatusOK, http.StatusOK}, "/replica?lag=1MB": {http.StatusServiceUnavailable, http.StatusServiceUnavailable},
	} {
		first, _ := m1.answers(path)
		second, _ := m2.answers(path)
		if got := [2]int{first, second}; got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	if s := answer[client.Status](m1, "status"); s.Role != "standby" || s.Health != "ok" {
		t.Errorf("status: %+v, %+v", s, s.Database)
	}
	if got := m1.do("members"); got.code != 0 || !strings.Contains(got.out, "● applying") || !strings.Contains(got.out, "it follows another cluster") {
		t.Errorf("members: %+v", got)
	}
}

// files are the names of all files below a directory.
func files(t *testing.T, dir string) (all []string) {
	t.Helper()
	fstest.Must(t, fs.WalkDir(os.DirFS(dir), ".", func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all = append(all, path)
		}
		return err
	}))
	return all
}
