package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"drover/internal/database"
	"drover/internal/failover"

	"github.com/jackc/pgx/v5"
)

// archivesTo has a member's log go to a directory, and come from it.
func archivesTo(dir string) func(*Options) {
	return func(o *Options) {
		o.ArchiveCommand = fmt.Sprintf("test -f %[1]s/%%f || cp %%p %[1]s/%%f", dir)
		o.RestoreCommand = fmt.Sprintf("cp %s/%%f %%p 2>/dev/null || exit 1", dir)
	}
}

// backedUp is a base backup of a member: what the agent's are, without a store.
func (m *member) backedUp() Backup {
	m.t.Helper()
	dir := m.t.TempDir()
	m.must(m.with(m.ctx(), func(conn *pgx.Conn) error {
		if _, err := conn.Exec(m.ctx(), "SELECT pg_backup_start('test', true)"); err != nil {
			return err
		}
		if err := os.CopyFS(dir, os.DirFS(m.o.Data)); err != nil {
			return err
		}
		var label string
		if err := conn.QueryRow(m.ctx(), "SELECT labelfile FROM pg_backup_stop(false)").Scan(&label); err != nil {
			return err
		}
		return errors.Join(os.WriteFile(dir+"/backup_label", []byte(label), 0o600), os.RemoveAll(dir+"/pg_wal"),
			os.MkdirAll(dir+"/pg_wal/archive_status", 0o700), os.Remove(dir+"/postmaster.pid"))
	}))
	return Backup{
		Settle: func(dir string) error { return os.Remove(filepath.Join(dir, "settings")) },
		Fetch: func(_ context.Context, into string) error {
			entries, err := os.ReadDir(into)
			for _, e := range entries {
				err = errors.Join(err, os.RemoveAll(filepath.Join(into, e.Name())))
			}
			return errors.Join(err, os.CopyFS(into, os.DirFS(dir)), os.WriteFile(filepath.Join(into, recoverySignal), nil, 0o600),
				os.WriteFile(filepath.Join(into, "settings"), nil, 0o600))
		},
	}
}

// seeded: a replica that was made of a backup applies the archive, goes over to its primary, and follows it. Whatever happened
// meanwhile, the files count as none until they are whole, and the next Seed ends with a replica.
func seeded(t *testing.T, e *engine) {
	archive := filepath.Join(filepath.Dir(e.options[0].Run), "archive")
	a, b := newMember(t, e, 0, archivesTo(archive)), newMember(t, e, 1, archivesTo(archive))
	a.must(os.Mkdir(archive, 0o755))
	a.must(a.own(archive))
	a.found()
	a.sql("CREATE TABLE public.test (n int)", "INSERT INTO public.test VALUES (1)")
	backup := a.backedUp()
	a.sql("INSERT INTO public.test VALUES (2)", "SELECT pg_switch_wal()", "INSERT INTO public.test VALUES (3)", "CHECKPOINT")

	broken := errors.New("broken")
	half := backup
	half.Fetch = func(ctx context.Context, dir string) error {
		return errors.Join(backup.Fetch(ctx, dir), os.RemoveAll(filepath.Join(dir, "base")), broken)
	}
	unsettled := backup
	unsettled.Settle = func(string) error { return broken }
	for _, b1 := range []Backup{half, unsettled} {
		if err := b.Seed(b.ctx(), b1); !errors.Is(err, broken) {
			t.Fatal(err)
		}
		if disk, err := b.Disk(b.ctx()); err != nil || !disk.Empty {
			t.Errorf("before it has ended there is %+v, %v", disk, err)
		}
	}
	b.must(os.MkdirAll(b.o.Data+freshSuffix+"left", 0o700))
	b.must(b.Seed(b.ctx(), backup))
	if disk, err := b.Disk(b.ctx()); err != nil || disk.Empty || !disk.Replica {
		t.Errorf("there is %+v, %v", disk, err)
	}
	for _, gone := range []string{b.o.Data + freshSuffix + "left", filepath.Join(b.o.Data, recoverySignal), b.unfinished()} {
		if _, err := os.Lstat(gone); err == nil {
			t.Errorf("%s is still there", gone)
		}
	}
	a.must(a.Replicas(a.ctx(), []database.Peer{*b.peer()}))
	b.start(database.Configuration{Standby: true, Upstream: a.peer()})
	b.sees(func(s failover.Database) bool { return s.Receiving })
	a.sql("INSERT INTO public.test VALUES (4)")
	b.sees(func(failover.Database) bool { return b.sql("SELECT count(*) FROM public.test") == "4" })

	l, err := b.Lead(b.ctx(), *a.peer())
	if err != nil || l.System == "" || l.Timeline != 1 || l.History != "" || l.End == 0 || l.Kept == 0 || l.Kept > l.End || l.End-l.Kept > 1<<30 || l.Size < 1<<20 {
		t.Errorf("the primary says %+v, %v", l, err)
	}
	if _, err := a.Lead(a.ctx(), *b.peer()); err == nil {
		t.Error("a replica leads nowhere")
	}
	b.process.Kill()
	a.must(a.Replicas(a.ctx(), nil))
	a.process.Kill()
	b.start(database.Configuration{Standby: true})
	b.must(b.Promote(b.ctx()))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if l, err = a.Lead(ctx, *b.peer()); err != nil || l.Timeline != 2 || l.History == "" {
		t.Errorf("the new primary says %+v, %v", l, err)
	}
}
