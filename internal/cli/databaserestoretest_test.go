package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"drover/client"
	"drover/internal/repo/fstest"
)

// TestDatabaseRestoreTest: a replica makes base backups, and restores them on a schedule into scratch space; whatever is
// wrong with them, all members say so, and what a test that was killed has left goes.
func TestDatabaseRestoreTest(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, clusterOptions{backups: true, more: `  backup: {from: replica}
  restore_test: {every: 1s, database: shop, query: "SELECT count(*) > 0 FROM kept"}`})
	primary := c.formed(2)
	replica := c.others(primary)[0]
	c.tested("FAILED", `database "shop" does not exist`)
	for what, want := range map[string]string{"status": `database "shop" does not exist`, "members": "restore test FAILED"} {
		if got := primary.do(what); !strings.Contains(got.out, want) {
			t.Errorf("%s of the primary: %+v", what, got)
		}
	}
	c.exec("CREATE DATABASE shop")
	c.in("shop", "CREATE TABLE kept AS SELECT 1 AS value")
	c.archived()
	c.archived()
	c.tested("passed", "")
	b := answer[client.DatabaseCluster](primary, "members").Backups
	if b.RestoreTest.Instance != replica.name || b.RestoreTest.Reached == "" || b.Last == nil || b.By != replica.name || b.Archived == "" || b.Waiting != 0 {
		t.Errorf("of backups the primary says %+v, %+v", b, b.RestoreTest)
	}
	for _, e := range []string{`"test-failed"`, `"test-passed"`} {
		if got := replica.do("events", "--json", "--recent", "200"); !strings.Contains(got.out, e) {
			t.Errorf("no event %s: %.2000s", e, got.out)
		}
	}

	segments, _ := filepath.Glob(c.dir + "/store/data/drover/log/*/00000001/????????????????????????")
	slices.Sort(segments)
	gone := segments[len(segments)-2]
	long := time.Now().Add(-time.Hour)
	fstest.Must(t, os.Chtimes(segments[len(segments)-1], long, long))
	fstest.Must(t, os.Rename(gone, c.dir+"/segment"))
	c.tested("FAILED", "the log archive lacks "+filepath.Base(gone))
	fstest.Must(t, os.Rename(c.dir+"/segment", gone))

	whole, pack := c.flip()
	c.tested("FAILED", "/base/")
	fstest.Must(t, os.WriteFile(pack, whole, 0o600))

	scratch := replica.dir + "/pg/data.restore-test/files"
	there := func(name string) bool { _, err := os.Lstat(scratch + name); return err == nil }
	c.until("a server is on trial", func() bool { return there("/data/postmaster.pid") })
	replica.kill()
	c.until("nothing runs there", func() bool { return !runs(scratch) })
	fstest.Must(t, os.WriteFile(scratch+"/left", nil, 0o600))
	replica.begin()
	c.until("what was left has gone", func() bool { return !there("/left") })
}

// tested waits until all members say that of a restore test, made from now on.
func (c *dbCluster) tested(result, why string) {
	c.t.Helper()
	since := time.Now()
	for _, m := range c.members {
		c.until("a restore test "+result+": "+why, func() bool {
			r := answer[client.Status](m, "status").RestoreTest
			return r != nil && r.Time.After(since) && r.Passed == (result == "passed") && r.Begun && strings.Contains(r.Error, why)
		})
	}
}

// in has the primary do something in a database.
func (c *dbCluster) in(database, sql string) {
	c.t.Helper()
	ctx := c.t.Context()
	conn, err := c.session(ctx, c.leads())
	fstest.Must(c.t, err)
	config := conn.Config().Copy()
	config.Database = database
	fstest.Must(c.t, conn.Close(ctx))
	conn, err = pgx.ConnectConfig(ctx, config)
	fstest.Must(c.t, err)
	_, err = conn.Exec(ctx, sql)
	fstest.Must(c.t, errors.Join(err, conn.Close(ctx)))
}

// flip damages the largest pack, and returns what it was.
func (c *dbCluster) flip() (whole []byte, path string) {
	c.t.Helper()
	packs, _ := filepath.Glob(c.dir + "/store/data/data/??/*")
	for _, p := range packs {
		content, err := os.ReadFile(p)
		fstest.Must(c.t, err)
		if len(content) > len(whole) {
			whole, path = content, p
		}
	}
	bad := bytes.Clone(whole)
	bad[len(bad)/2] ^= 1
	fstest.Must(c.t, os.WriteFile(path, bad, 0o600))
	return whole, path
}

// runs reports whether any process has that in its command line.
func runs(text string) bool {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	return slices.ContainsFunc(all, func(file string) bool {
		line, _ := os.ReadFile(file)
		return bytes.Contains(line, []byte(text))
	})
}
