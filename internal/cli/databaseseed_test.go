package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover/internal/repo/fstest"
)

// TestDatabaseReplicaOfABackup: a new replica is made of the newest base backup and follows its primary; if there are none
// where it looks it is copied from the primary.
func TestDatabaseReplicaOfABackup(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, clusterOptions{backups: true, more: "  copy_from: store"})
	c.backedUp(filepath.Join(c.dir, "store", "data"))
	c.exec("CREATE TABLE t AS SELECT 1 AS n")
	c.exec("SELECT pg_switch_wal()")
	c.exec("INSERT INTO t VALUES (2)")

	m2 := c.add()
	m2.begin()
	c.formed(2)
	m2.has("2", "SELECT count(*) FROM t")
	c.exec("INSERT INTO t VALUES (3)")
	m2.has("3", "SELECT count(*) FROM t")
	m2.logs("making a replica of a base backup", true)
	m2.logs("copied from the primary", false)

	c.opt.top = "volume: nothing"
	m3 := c.add()
	m3.begin()
	c.formed(3)
	m3.has("3", "SELECT count(*) FROM t")
	m3.logs("not from a backup", true)
}

// backedUp waits until a volume has a base backup.
func (c *dbCluster) backedUp(volume string) {
	c.t.Helper()
	backups := filepath.Join(volume, "drover", "log", "*", "backups", "*")
	c.until("there is a base backup", func() bool { found, _ := filepath.Glob(backups); return len(found) > 0 })
}

// logs says whether a member has said something.
func (m *dbMember) logs(text string, want bool) {
	m.t.Helper()
	said, err := os.ReadFile(m.log)
	fstest.Must(m.t, err)
	if strings.Contains(string(said), text) != want {
		m.t.Errorf("%s has said %q: %v; want %v\n%s", m.name, text, !want, want, said)
	}
}
