//go:build bench

package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/storeurl"
	"drover/internal/testkit/etcdserver"
	"drover/internal/testkit/s3server"
)

// writes is how many transactions change the database between the first and the second backup, and after it.
const writes = 20_000

// keptBackup is one of the programs that back a database up, with a database of its own. Each round has a repository of its own.
type keptBackup struct {
	name    string
	db      *database
	begin   func(round int) took                            // a first backup
	again   func(round int) took                            // a second one
	restore func(round int, point string, into *plain) took // recovered there, promoted and stopped
	prefix  func(round int) string                          // of the bucket, where all of it is; the log too
}

// TestBackup measures Drover's base backups and restores beside pgBackRest's: the same database, the same S3 server by
// https, both encrypted, both compressed with zstd at its fastest level, pgBackRest with two processes and bundles of small files.
// A restore is to a named point of the log, and ends when the server has been promoted there and stopped in order.
func TestBackup(t *testing.T) {
	s3 := s3server.Start(t, s3server.Options{TLS: true})
	etcd := strings.TrimPrefix(etcdserver.Start(t, etcdserver.Options{}).Endpoints[0], "http://")
	theirs := newPgBackRest(t, s3)
	theirs.create()
	theirs.fill(*scale)
	all := []*keptBackup{droverBackup(t, s3, etcd, theirs), theirs.kept()}
	var full, second, restored [2]measured
	for round := range *rounds {
		for k := range all {
			i := (k + round) % len(all)
			b := all[i]
			full[i].name, second[i].name, restored[i].name = b.name, b.name, b.name
			flush(t)
			full[i].add(b.begin(round))
			first := stored(t, s3, b.prefix(round))
			b.write(1)
			second[i].add(b.again(round))
			t.Logf("RESULT   round %d, %s: %.1f MB stored after the first backup, %.1f MB after the second, log included", round, b.name, first, stored(t, s3, b.prefix(round)))
			b.write(2)
			point := fmt.Sprintf("point%d", round)
			there := b.mark(point)
			into := newPlain(t, "restored")
			flush(t)
			restored[i].add(b.restore(round, point, into))
			b.check(into, there)
		}
	}
	size := fmt.Sprintf("database of pgbench's scale %d", *scale)
	compared(full[:]).report(t, "first backup, "+size, "not behind pgBackRest")
	compared(second[:]).report(t, fmt.Sprintf("second backup, after %d transactions", writes), "faster than pgBackRest")
	compared(restored[:]).report(t, "restore to a named point, "+size, "not behind pgBackRest")
}

// write changes the database in the same way for each of them.
func (b *keptBackup) write(seed int) {
	b.db.t.Helper()
	const clients = 4
	b.db.bench("-c", strconv.Itoa(clients), "-t", strconv.Itoa(writes/clients), "--random-seed", strconv.Itoa(seed))
}

// mark makes a restore point, has the log archived up to it, and returns what has to be there then.
func (b *keptBackup) mark(name string) string {
	b.db.t.Helper()
	there := b.db.sql(history)
	b.db.sql("SELECT pg_create_restore_point('" + name + "')")
	file := b.db.sql("SELECT pg_walfile_name(pg_switch_wal())")
	b.db.sql("DELETE FROM pgbench_history")
	b.db.until("the log to be archived", 10*time.Minute, func(ctx context.Context) bool {
		last, err := b.db.query(ctx, "SELECT last_archived_wal FROM pg_stat_archiver")
		return err == nil && last >= file
	})
	return there
}

const history = "SELECT count(*) || '/' || sum(delta) FROM pgbench_history"

// check starts what was restored, looks whether all of it is there, and removes it.
func (b *keptBackup) check(restored *plain, want string) {
	restored.t.Helper()
	restored.start()
	if got := restored.sql(history); got != want {
		restored.t.Errorf("%s restored %s, want %s", b.name, got, want)
	}
	restored.Stop()
	remove(restored.t, restored.data)
}

// stored is how much a prefix of the bucket has, in MB.
func stored(t *testing.T, s3 *s3server.Server, prefix string) float64 {
	t.Helper()
	s3.Setenv()
	st, err := storeurl.Open(t.Context(), s3.URL(""), storeurl.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	var sum int64
	if err := st.List(t.Context(), prefix, func(i objstore.Info) error { sum += i.Size; return nil }); err != nil {
		t.Fatal(err)
	}
	return float64(sum) / 1e6
}

// droverBackup is a member that has a copy of the other's database.
func droverBackup(t *testing.T, s3 *s3server.Server, etcd string, of *pgBackRest) *keptBackup {
	t.Helper()
	m := newMember(t, "backups", "backups", etcd)
	of.Stop()
	remove(t, m.data)
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", of.data, m.data).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	of.start()
	volume := func(round int) string { return fmt.Sprintf("round%d", round) }
	// The agent begins a new life, in which a base backup is due so often.
	begin := func(round int, every string) {
		if m.Running() {
			m.Stop()
		}
		m.backsUp(s3, volume(round), every)
		m.top += "\nfirst_start: adopt"
		m.start()
	}
	backup := func(round int, every string) took {
		made, _ := m.baseBackups()
		begin(round, every)
		return m.awaitBackups(made + 1)
	}
	return &keptBackup{
		name: "drover", db: &m.database,
		begin: func(round int) took { return backup(round, "24h") },
		again: func(round int) took {
			t := backup(round, "1s")
			begin(round, "24h") // none disturbs what follows
			m.await("/primary")
			return t
		},
		prefix: func(round int) string { return "drover/" + volume(round) + "/" },
		restore: func(round int, point string, into *plain) took {
			cmd := exec.CommandContext(t.Context(), m.binary(), "restore", "--database", "--at", point, "--target", into.data,
				"--store", s3.URL("drover"), "--volume", volume(round), "--password-file", filepath.Join(m.dir, "store"))
			cmd.Env = s3.Env()
			began := time.Now()
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("drover restore: %v\n%s", err, out)
			}
			return took{wall: time.Since(began)}
		},
	}
}

// pgBackRest is a server whose log and backups it takes to the bucket.
type pgBackRest struct {
	*plain
	s3     *s3server.Server
	config string
}

func newPgBackRest(t *testing.T, s3 *s3server.Server) *pgBackRest {
	t.Helper()
	if _, err := exec.LookPath("pgbackrest"); err != nil {
		t.Fatalf("%v: install it (Debian: apt-get install pgbackrest)", err)
	}
	p := &pgBackRest{plain: newPlain(t, "pgbackrest"), s3: s3}
	p.config = filepath.Join(p.dir, "pgbackrest.conf")
	p.settings = []string{"archive_mode=on", "archive_timeout=60s", "archive_command=pgbackrest --config=" + p.config + " --stanza=bench archive-push %p"}
	p.configure("none")
	return p
}

// configure names the place in the bucket.
func (p *pgBackRest) configure(prefix string) {
	p.t.Helper()
	host, port, _ := net.SplitHostPort(strings.TrimPrefix(p.s3.Endpoint, "https://"))
	_, server, _ := net.SplitHostPort(p.host)
	put(p.t, p.config, fmt.Sprintf(`[global]
repo1-type=s3
repo1-path=/%s
repo1-s3-bucket=%s
repo1-s3-endpoint=%s
repo1-s3-region=%s
repo1-s3-key=%s
repo1-s3-key-secret=%s
repo1-s3-uri-style=path
repo1-storage-port=%s
repo1-storage-verify-tls=n
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=%s
repo1-bundle=y
repo1-retention-full=10
compress-type=zst
compress-level=1
process-max=2
start-fast=y
archive-async=y
spool-path=%[9]s/spool
lock-path=%[9]s/lock
log-path=%[9]s/log
log-level-console=warn
[bench]
pg1-path=%[10]s
pg1-port=%[11]s
pg1-socket-path=%[9]s
`, prefix, p.s3.Bucket, host, p.s3.Region, p.s3.AccessKey, p.s3.SecretKey, port, password, p.dir, p.data, server), 0o644)
	for _, dir := range []string{"spool", "lock", "log"} {
		mkdir(p.t, filepath.Join(p.dir, dir))
		if err := os.Chown(filepath.Join(p.dir, dir), int(p.who.Uid), int(p.who.Gid)); err != nil {
			p.t.Fatal(err)
		}
	}
}

// rest runs pgbackrest.
func (p *pgBackRest) rest(args ...string) took {
	p.t.Helper()
	return p.do("/usr/bin/pgbackrest", append([]string{"--config=" + p.config, "--stanza=bench"}, args...)...)
}

func (p *pgBackRest) kept() *keptBackup {
	prefix := func(round int) string { return fmt.Sprintf("pgbackrest%d", round) }
	return &keptBackup{
		name: "pgbackrest", db: &p.database, prefix: prefix,
		begin: func(round int) took {
			p.configure(prefix(round))
			p.rest("stanza-create")
			return p.rest("--type=full", "backup")
		},
		again: func(int) took { return p.rest("--type=incr", "backup") },
		restore: func(_ int, point string, into *plain) took {
			mkdir(p.t, into.data)
			if err := os.Chown(into.data, int(p.who.Uid), int(p.who.Gid)); err != nil {
				p.t.Fatal(err)
			}
			began := time.Now()
			t := p.rest("--pg1-path="+into.data, "--type=name", "--target="+point, "--target-action=promote", "restore")
			into.start()
			into.until("the promotion", 10*time.Minute, func(ctx context.Context) bool {
				in, err := into.query(ctx, "SELECT pg_is_in_recovery()")
				return err == nil && in == "f"
			})
			into.Stop()
			return took{time.Since(began), t.cpu}
		},
	}
}
