package cli

import (
	"fmt"
	"path/filepath"
	"testing"
)

// TestDatabaseAtAMoment: a database is restored as it was at a named point, while the original goes on,
// and is the first member of another cluster then; and so it is from the mirror of its volume.
func TestDatabaseAtAMoment(t *testing.T) {
	away := t.TempDir()
	c := newCluster(t, 1, clusterOptions{backups: true, top: `mirror: {every: 1s, store: {url: "file://` + away + `", password: another}}`})

	c.backedUp(filepath.Join(c.dir, "store", "data"))
	c.exec("CREATE TABLE kept AS SELECT 1 AS value")
	c.exec("SELECT pg_create_restore_point('before the accident')")
	c.exec("DELETE FROM kept")
	c.archived()

	then := &dbCluster{t: t, dir: c.dir, opt: clusterOptions{binary: c.members[0].binary, backups: true, top: "first_start: adopt\nvolume: then", more: "  cluster: then"}}
	m := then.add()
	data := m.dir + "/pg/data"
	asked := c.members[0]
	asked.is(10, "no repository", "restore", "--database", "--volume", "nothing", "--target", data)
	asked.is(1, "recovery ended before", "restore", "--database", "--at", "no such point", "--target", data+".other")
	asked.is(0, "restored the database", "restore", "--database", "--at", "before the accident", "--target", data)
	var last result
	eventually(t, func() string { return fmt.Sprintf("the mirror does not have it: %+v", last) }, func() bool {
		last = m.do("restore", "--database", "--store", "file://"+away, "--volume", "data", "--password-command", "echo another", "--at", "before the accident", "--target", data+".away")
		return last.code == 0
	})
	m.begin()
	then.formed(1)
	then.exec("DO $$ BEGIN ASSERT (SELECT count(*) FROM kept) = 1; END $$")
	c.exec("DO $$ BEGIN ASSERT (SELECT count(*) FROM kept) = 0; END $$")
}

// archived waits until the log is archived as far as it goes now.
func (c *dbCluster) archived() {
	c.t.Helper()
	c.exec("CREATE TABLE IF NOT EXISTS marks (segment text)")
	c.exec("INSERT INTO marks SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
	c.exec("SELECT pg_switch_wal()")
	c.exec("DO $$ BEGIN ASSERT (SELECT last_archived_wal FROM pg_stat_archiver) >= (SELECT max(segment) FROM marks); END $$")
}
