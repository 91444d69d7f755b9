package pgbackup

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/internal/objstore"
	"drover/internal/objstore/retry"
	"drover/internal/objstore/storeurl"
	"drover/internal/testkit/s3server"
	"drover/internal/volume"
)

// openStore is a store as an agent has it.
func openStore(t *testing.T, url string) objstore.Store {
	t.Helper()
	st, err := storeurl.Open(t.Context(), url, storeurl.Options{})
	must(t, err)
	t.Cleanup(func() { _ = st.Close() })
	return objstore.WithPrefix(retry.New(st, retry.Options{Attempts: 3}), "data")
}

// restored starts a server on a restore to the target, and waits until it writes.
func (p *place) restored(name string, target Target) *server {
	p.t.Helper()
	s := p.server(name)
	_, err := p.backups("restorer").Restore(p.t.Context(), RestoreOptions{Into: s.dir, Target: target})
	must(p.t, err)
	s.start(p.archive, false)
	s.await(func(ctx context.Context) bool {
		text, err := s.query(ctx, "SELECT pg_is_in_recovery()")
		return err == nil && text == "f"
	})
	return s
}

// sound ends a server, after a look at all of its pages and rows.
func (s *server) sound() {
	s.p.t.Helper()
	s.exec("CREATE EXTENSION IF NOT EXISTS amcheck; SELECT bt_index_check('load_pkey', true)")
	if got := s.exec("SELECT count(*) FROM (SELECT w, n FROM load GROUP BY w, n HAVING count(*) <> 50) x"); got != "0" {
		s.p.t.Errorf("%s: %s transactions are there in parts", s.name, got)
	}
	s.stop()
	s.p.run("pg_checksums", "--check", "-D", s.dir)
}

const schema = `CREATE TABLE load(id bigserial PRIMARY KEY, w int, n int, fill text); CREATE TABLE marks(name text)`

func TestBackupAndRestore(t *testing.T) {
	stores := map[string]func(t *testing.T) objstore.Store{
		"file": func(t *testing.T) objstore.Store { return openStore(t, "file://"+t.TempDir()) },
		"s3": func(t *testing.T) objstore.Store {
			s := s3server.Start(t, s3server.Options{})
			s.Setenv()
			return openStore(t, s.URL("prefix"))
		},
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) { backupAndRestore(t, newPlace(t, open(t)), name == "file") })
	}
}

func backupAndRestore(t *testing.T, p *place, every bool) {
	s := p.create("one")
	s.start(p.archive, true)
	s.exec(schema)
	w := s.write()
	s.await(func(context.Context) bool { return w.wrote() > 20 })
	start := time.Now()
	first, err := p.backups("one").Backup(t.Context(), s.source())
	must(t, err)
	t.Logf("first backup: %d bytes, %d stored, %s to %s, in %v", first.Bytes, first.Added, first.Start, first.Stop, time.Since(start))
	if w.wrote() < 21 {
		t.Error("nothing was written meanwhile")
	}
	mark := func(name string) { s.exec("INSERT INTO marks VALUES ('" + name + "')") }
	mark("A")
	moment, err := time.Parse("2006-01-02 15:04:05.999999", s.exec("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::text"))
	must(t, err)
	mark("B")
	s.exec("SELECT pg_create_restore_point('here''s one')")
	mark("C")
	lsn := s.exec("SELECT pg_current_wal_insert_lsn()")
	mark("D")
	xid := s.exec("WITH x AS (INSERT INTO marks VALUES ('E') RETURNING 1) SELECT pg_current_xact_id() FROM x")
	mark("F")
	w.stop()
	start = time.Now()
	second, err := p.backups("one").Backup(t.Context(), s.source())
	must(t, err)
	t.Logf("second backup: %d bytes, %d stored, in %v", second.Bytes, second.Added, time.Since(start))
	mark("G")
	s.flush()
	s.kill()

	checkSnapshot(t, p, first)
	for name, c := range map[string]struct {
		target Target
		marks  string
		from   Record
	}{
		"latest":    {Target{}, "A B C D E F G", second},
		"time":      {Target{Time: moment}, "A", first},
		"name":      {Target{Name: "here's one", Backup: first.Name}, "A B", first},
		"lsn":       {Target{LSN: lsn}, "A B C", first},
		"xid":       {Target{XID: xid, Backup: first.Name, Exclusive: true}, "A B C D", first},
		"immediate": {Target{Consistent: true}, "A B C D E F", second},
	} {
		if !every && name != "latest" && name != "time" {
			continue
		}
		chosen, err := p.backups("x").Choose(t.Context(), c.target)
		if err != nil || chosen.Name != c.from.Name {
			t.Errorf("%s: begins with %s (%v), want %s", name, chosen.Name, err, c.from.Name)
		}
		r := p.restored(name, c.target)
		if got := r.exec("SELECT name FROM marks ORDER BY name"); got != c.marks {
			t.Errorf("%s: it has %q, want %q", name, got, c.marks)
		}
		must(t, Settle(r.dir))
		if conf, _ := os.ReadFile(filepath.Join(r.dir, autoConf)); strings.Contains(string(conf), "recovery_target") {
			t.Errorf("%s: settings are left:\n%s", name, conf)
		}
		if name == "latest" || name == "time" {
			r.sound()
		}
		r.kill()
	}
	if _, err := p.backups("x").Choose(t.Context(), Target{Time: first.End.Add(-time.Hour)}); err == nil {
		t.Error("a time before the first backup was chosen for")
	}
	if every {
		paused(t, p, first, lsn)
	}
}

// checkSnapshot looks that nothing is in a snapshot on which a server would start by itself.
func checkSnapshot(t *testing.T, p *place, r Record) {
	t.Helper()
	dir := filepath.Join(p.dir, "files")
	must(t, p.backups("x").Volume.RestorePath(t.Context(), volumePath(r, dir)))
	for _, name := range []string{"backup_label", controlFile, "postmaster.pid", "recovery.signal"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("the snapshot has %s", name)
		}
	}
	for _, name := range excluded {
		folder, ok := strings.CutSuffix(name, "/*")
		if !ok || strings.Contains(folder, "*") {
			continue
		}
		entries, err := os.ReadDir(filepath.Join(dir, folder))
		if err != nil || len(entries) > 0 {
			t.Errorf("%s has %d files in the snapshot (%v)", folder, len(entries), err)
		}
	}
	must(t, os.RemoveAll(dir))
}

// paused stops for a look, and goes on.
func paused(t *testing.T, p *place, from Record, lsn string) {
	t.Helper()
	s := p.server("paused")
	_, err := p.backups("x").Restore(t.Context(), RestoreOptions{Into: s.dir, Target: Target{LSN: lsn, Pause: true, Backup: from.Name}})
	must(t, err)
	s.start(p.archive, false)
	s.await(func(ctx context.Context) bool {
		text, err := s.query(ctx, "SELECT pg_get_wal_replay_pause_state()")
		return err == nil && text == "paused"
	})
	if got := s.exec("SELECT name FROM marks ORDER BY name"); got != "A B C" {
		t.Errorf("paused with %q", got)
	}
	s.exec("SELECT pg_wal_replay_resume()")
	s.await(func(ctx context.Context) bool {
		text, err := s.query(ctx, "SELECT pg_is_in_recovery()")
		return err == nil && text == "f"
	})
	s.kill()
}

func volumePath(r Record, into string) volume.PathRestore {
	return volume.PathRestore{Snapshot: r.Snapshot, Path: r.Path, Into: into, Instance: "x"}
}
