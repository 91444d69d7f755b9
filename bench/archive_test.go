//go:build bench

package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/internal/testkit/etcdserver"
	"drover/internal/testkit/s3server"
)

// archived is a server whose log goes somewhere.
type archived struct {
	name string
	db   *database
	tps  []float64
	runs []archiving
}

// archiving is what became of the log of one run.
type archiving struct {
	log     float64       // that was written, in MB
	waiting int           // segments, at most
	drained time.Duration // from the last write until all of it was stored
	whole   time.Duration // and from the first
}

// TestArchive measures what it costs to archive the log while it is written, and how many segments wait: Drover beside
// pgBackRest (asynchronous, two processes) on the same S3 server by https, both encrypted and compressed with zstd at its
// fastest level, and beside nothing at all (/bin/true). Two loads: rows that are inserted as fast as it goes, and pgbench's own.
func TestArchive(t *testing.T) {
	s3 := s3server.Start(t, s3server.Options{TLS: true})
	etcd := strings.TrimPrefix(etcdserver.Start(t, etcdserver.Options{}).Endpoints[0], "http://")
	rows := filepath.Join(t.TempDir(), "rows.sql")
	put(t, rows, "INSERT INTO written SELECT n, md5(random()::text) || md5(random()::text) FROM generate_series(1, 1000) AS n;\n", 0o644)
	for _, load := range []struct {
		name string
		args []string
	}{{"rows inserted", []string{"-f", rows}}, {"pgbench", nil}} {
		all := []*archived{droverArchives(t, s3, etcd, load.name), restArchives(t, s3), nobodyArchives(t)}
		for _, a := range all {
			a.db.fill(*scale)
			a.db.sql("CREATE TABLE written (n int, text text)")
			a.drain()
		}
		for round := range *rounds {
			for k := range all {
				flush(t)
				all[(k+round)%len(all)].measure(load.args)
			}
		}
		for _, a := range all {
			t.Logf("RESULT %s: %s", load.name, a)
			a.db.sql("DROP TABLE written, pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history")
		}
	}
}

// measure lets eight clients write, and waits until their log is stored.
func (a *archived) measure(args []string) {
	a.db.t.Helper()
	a.db.sql("TRUNCATE written")
	a.db.sql("CHECKPOINT")
	a.drain()
	from := a.db.sql("SELECT pg_current_wal_lsn()")
	began := time.Now()
	stop := a.watch()
	a.tps = append(a.tps, a.db.tps(8, args...))
	ended := time.Now()
	a.drain()
	r := archiving{waiting: stop(), drained: time.Since(ended), whole: time.Since(began)}
	if _, err := fmt.Sscan(a.db.sql("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '"+from+"') / 1e6"), &r.log); err != nil {
		a.db.t.Fatal(err)
	}
	a.runs = append(a.runs, r)
}

// drain ends the segment, and waits until it is stored.
func (a *archived) drain() {
	a.db.t.Helper()
	file := a.db.sql("SELECT pg_walfile_name(pg_switch_wal())")
	a.db.until("the log to be archived", 10*time.Minute, func(ctx context.Context) bool {
		last, err := a.db.query(ctx, "SELECT last_archived_wal FROM pg_stat_archiver")
		return err == nil && last >= file
	})
}

// watch counts the segments that wait; what it returns ends that, and says how many there were at most.
func (a *archived) watch() (stop func() int) {
	most, quit := 0, make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				ready, _ := filepath.Glob(filepath.Join(a.db.data, "pg_wal", "archive_status", "*.ready"))
				most = max(most, len(ready))
			}
		}
	})
	return func() int {
		close(quit)
		done.Wait()
		return most
	}
}

func (a *archived) String() string {
	var rate, waiting, drained []float64
	for _, r := range a.runs {
		rate = append(rate, r.log/r.whole.Seconds())
		waiting = append(waiting, float64(r.waiting))
		drained = append(drained, r.drained.Seconds())
	}
	for _, f := range [][]float64{a.tps, rate, waiting, drained} {
		slices.Sort(f)
	}
	return fmt.Sprintf("%-10s %s transactions/s; %s MB/s of log stored; at most %s segments waited; stored %s s after the last write",
		a.name, spread(a.tps, 0), spread(rate, 1), spread(waiting, 0), spread(drained, 1))
}

// spread is the median, and the least and the most.
func spread(sorted []float64, digits int) string {
	return fmt.Sprintf("%.*f (%.*f to %.*f)", digits, median(sorted), digits, sorted[0], digits, sorted[len(sorted)-1])
}

func droverArchives(t *testing.T, s3 *s3server.Server, etcd, load string) *archived {
	t.Helper()
	cluster := strings.ReplaceAll(load, " ", "-")
	m := newMember(t, "archived", cluster, etcd)
	m.backsUp(s3, cluster, "24h")
	m.start()
	m.await("/primary")
	m.awaitBackups(1)
	return &archived{name: "drover", db: &m.database}
}

func restArchives(t *testing.T, s3 *s3server.Server) *archived {
	t.Helper()
	p := newPgBackRest(t, s3)
	p.configure(filepath.Base(p.dir))
	p.create()
	p.rest("stanza-create")
	return &archived{name: "pgbackrest", db: &p.database}
}

func nobodyArchives(t *testing.T) *archived {
	t.Helper()
	p := newPlain(t, "nowhere", "archive_mode=on", "archive_command=/bin/true")
	p.create()
	return &archived{name: "/bin/true", db: &p.database}
}
