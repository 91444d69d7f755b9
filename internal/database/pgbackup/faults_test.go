package pgbackup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/internal/database/wal"
	"drover/internal/objstore"
	"drover/internal/objstore/faulty"
	"drover/internal/objstore/mem"
	"drover/internal/objstore/retry"
)

// newFaulty is a place whose store fails as the test says.
func newFaulty(t *testing.T) (*place, *faulty.Store) {
	t.Helper()
	st := faulty.New(mem.New(), nil)
	return newPlace(t, retry.New(st, retry.Options{Attempts: 2})), st
}

// busy makes a database with a load on it.
func (p *place) busy() (*server, *writer) {
	p.t.Helper()
	s := p.create("one")
	s.start(p.archive, true)
	s.exec(schema)
	w := s.write()
	s.await(func(context.Context) bool { return w.wrote() > 5 })
	return s, w
}

// A server that was restarted in the middle of a backup has none.
func TestBackupOfAServerThatRestarts(t *testing.T) {
	p, _ := newFaulty(t)
	s, w := p.busy()
	var once sync.Once
	b := p.backups("one")
	b.Claim.Tree.Progress = func(string, uint64) {
		once.Do(func() {
			s.kill()
			s.start(p.archive, true)
		})
	}
	_, err := b.Backup(t.Context(), s.source())
	if !errors.Is(err, ErrInterrupted) {
		t.Errorf("%v, want ErrInterrupted", err)
	}
	w.stop()
	if all, err := b.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("there are backups: %v (%v)", all, err)
	}
	if _, err := b.Restore(t.Context(), RestoreOptions{Into: filepath.Join(p.dir, "x")}); !errors.Is(err, ErrNoBackup) {
		t.Errorf("restore: %v, want ErrNoBackup", err)
	}
	// The next one is one.
	if _, err := p.backups("two").Backup(t.Context(), s.source()); err != nil {
		t.Error(err)
	}
}

// A backup whose log is not archived is none, however long it takes.
func TestBackupWaitsForItsLog(t *testing.T) {
	p, st := newFaulty(t)
	s, w := p.busy()
	w.stop()
	s.flush()
	st.Set(func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.PutIf && strings.Contains(c.Key, "/log/") && !strings.Contains(c.Key, "backups") {
			return faulty.Fault{Before: errors.New("no space in the bucket")}
		}
		return faulty.Fault{}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	b := p.backups("one")
	if _, err := b.Backup(ctx, s.source()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want that it waited", err)
	}
	if all, err := b.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("there are backups: %v (%v)", all, err)
	}
	st.Set(nil)
	if _, err := b.Backup(t.Context(), s.source()); err != nil {
		t.Error(err)
	}
}

// What is told of a server that cannot be backed up.
func TestBackupRefused(t *testing.T) {
	p, _ := newFaulty(t)
	s := p.create("one")
	s.start(p.archive, false)
	b := p.backups("one")
	if _, err := b.Backup(t.Context(), s.source()); !errors.Is(err, ErrRefused) || !errors.Is(err, errNoLog) {
		t.Errorf("a log that is not archived: %v", err)
	}
	s.stop()
	s.start(p.archive, true)
	src := s.source()
	src.Directory = t.TempDir()
	if _, err := b.Backup(t.Context(), src); !errors.Is(err, ErrRefused) {
		t.Errorf("the files of another: %v", err)
	}
	other, err := wal.New(p.volume.Store(), wal.Options{Secret: make([]byte, 32), System: 1})
	must(t, err)
	b.Archive = other
	if _, err := b.Backup(t.Context(), s.source()); !errors.Is(err, ErrRefused) {
		t.Errorf("another database's archive: %v", err)
	}
	space := filepath.Join(p.dir, "space")
	must(t, os.Mkdir(space, 0o700))
	if p.who != nil {
		must(t, os.Chown(space, int(p.who.Uid), int(p.who.Gid)))
	}
	s.exec("CREATE TABLESPACE away LOCATION '" + space + "'")
	if _, err := p.backups("one").Backup(t.Context(), s.source()); !errors.Is(err, ErrRefused) {
		t.Errorf("a tablespace elsewhere: %v", err)
	}
}

// replica makes a replica of s out of the store, which then follows it.
func (p *place) replica(name string, s *server) *server {
	p.t.Helper()
	r := p.server(name)
	_, err := p.backups(name).Restore(p.t.Context(), RestoreOptions{Into: r.dir})
	must(p.t, err)
	must(p.t, Settle(r.dir))
	must(p.t, os.Rename(filepath.Join(r.dir, signalFile), filepath.Join(r.dir, "standby.signal")))
	r.start(p.archive, true, "-c", "primary_conninfo=host="+s.socketDir()+" user=super application_name="+name)
	s.await(func(ctx context.Context) bool {
		state, err := s.query(ctx, "SELECT state FROM pg_stat_replication WHERE application_name = '"+name+"'")
		return err == nil && state == "streaming"
	})
	return r
}

// Backups of a replica, and what becomes of one that is promoted meanwhile; and of the log that the
// primary had not archived when it was lost: with archive_mode = always the replica has it stored. (With on
// it is gone with the first checkpoint after the promotion, and nothing restores from before it to after it.)
func TestReplica(t *testing.T) {
	p, st := newFaulty(t)
	s, w := p.busy()
	must2(p.backups("one").Backup(t.Context(), s.source()))(t)
	r := p.replica("two", s)
	s.exec("CHECKPOINT")
	w.stop() // nothing fills a segment any more
	src := r.source()
	src.Switch = func(ctx context.Context) error { _, err := s.query(ctx, "SELECT pg_switch_wal()"); return err }
	rec := must2(p.backups("two").Backup(t.Context(), src))(t)
	w = s.write()
	if !rec.Replica {
		t.Error("it is not known as a replica's")
	}
	s.exec("INSERT INTO marks VALUES ('after')")
	s.flush()
	x := p.restored("x", Target{Backup: rec.Name})
	if got := x.exec("SELECT name FROM marks"); got != "after" {
		t.Errorf("restored from a replica's backup: %q", got)
	}
	x.sound()

	// From here on nothing is archived, and the primary is lost.
	st.Set(func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.PutIf && strings.Contains(c.Key, "/log/") {
			return faulty.Fault{Before: objstore.ErrUnavailable}
		}
		return faulty.Fault{}
	})
	before := w.wrote()
	s.await(func(context.Context) bool { return w.wrote() > before+40 })
	s.exec("INSERT INTO marks VALUES ('late')")
	s.await(func(ctx context.Context) bool {
		got, err := r.query(ctx, "SELECT count(*) FROM marks")
		return err == nil && got == "2"
	})
	w.stop()
	s.kill()
	var once sync.Once
	b := p.backups("two")
	b.Claim.Tree.Progress = func(string, uint64) {
		once.Do(func() { r.exec("SELECT pg_promote()") })
	}
	if _, err := b.Backup(t.Context(), r.source()); !errors.Is(err, ErrInterrupted) {
		t.Errorf("promoted meanwhile: %v, want ErrInterrupted", err)
	}
	st.Set(nil)
	r.exec("INSERT INTO marks VALUES ('new')")
	r.flush()
	y := p.restored("y", Target{})
	stored := must2(p.archive.Timeline(t.Context(), 1))(t)
	if runs := wal.Ranges(stored, 1<<20); len(runs) != 1 || runs[0].Last < rec.Last().Number(1<<20)+2 {
		t.Errorf("the lost primary's log has gaps, or is short: %+v", runs)
	}
	for _, b := range must2(p.backups("x").Statuses(t.Context()))(t) {
		if b.Cover.Gap || !b.Whole || b.Cover.Timeline != 2 {
			t.Errorf("backup %s: %+v", b.Name, b.Cover)
		}
	}
	if got := y.exec("SELECT name FROM marks ORDER BY name"); got != "after late new" {
		t.Errorf("restored across the failover: %q", got)
	}
	y.sound()
}

func must2[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T { t.Helper(); must(t, err); return v }
}

// Two servers write one timeline: the archive tells the second one.
func TestTwoPrimariesOnOneTimeline(t *testing.T) {
	p, _ := newFaulty(t)
	s := p.create("one")
	s.start(p.archive, true)
	s.exec(schema)
	s.flush()
	s.stop()
	twin := p.server("two")
	must(t, exec.Command("cp", "-a", s.dir, twin.dir).Run())
	s.start(p.archive, true)
	s.exec("INSERT INTO marks VALUES ('one')")
	s.flush()
	twin.start(p.archive, true)
	twin.exec("INSERT INTO marks VALUES ('two')")
	last := twin.exec("SELECT pg_walfile_name(pg_switch_wal() - 1)")
	twin.await(func(ctx context.Context) bool {
		failed, err := twin.query(ctx, "SELECT count(*) FROM pg_stat_archiver WHERE failed_count > 0 AND last_failed_wal = '"+last+"'")
		return err == nil && failed == "1"
	})
	if !twin.met(wal.ErrConflict) || s.met(wal.ErrConflict) {
		t.Errorf("the second was told %v, the first %v", twin.errs, s.errs)
	}
	s.flush()
}

// A copy, made as of an earlier moment beside the database, which lives on, has a stream of its own: neither meets
// the other's log, though both are on timeline 2 in the end.
func TestCopyGoesItsOwnWay(t *testing.T) {
	p, _ := newFaulty(t)
	s, w := p.busy()
	must2(p.backups("one").Backup(t.Context(), s.source()))(t)
	w.stop()
	s.exec("INSERT INTO marks VALUES ('A')")
	s.exec("SELECT pg_create_restore_point('here')")
	s.exec("INSERT INTO marks VALUES ('B')")
	s.flush()
	leads := func(s *server) {
		s.await(func(ctx context.Context) bool {
			text, err := s.query(ctx, "SELECT pg_is_in_recovery()")
			return err == nil && text == "f"
		})
	}
	twin := p.server("copy")
	must2(p.backups("copy").Restore(t.Context(), RestoreOptions{Into: twin.dir, Target: Target{Name: "here"}}))(t)
	own, err := wal.New(p.volume.Store(), wal.Options{Secret: p.volume.Repo.Secret(wal.Purpose), System: p.archive.System(), Stream: "copy"})
	must(t, err)
	twin.from = p.archive
	twin.start(own, true)
	leads(twin)
	must(t, Settle(twin.dir))
	twin.exec("INSERT INTO marks VALUES ('C')")

	// The database itself comes to timeline 2, too: restored in place, all lost.
	s.kill()
	s.dir += "-again"
	must2(p.backups("one").Restore(t.Context(), RestoreOptions{Into: s.dir}))(t)
	s.start(p.archive, true)
	leads(s)
	s.exec("INSERT INTO marks VALUES ('D')")
	s.flush()

	copies := p.backups("copy")
	copies.Archive = own
	rec := must2(copies.Backup(t.Context(), twin.source()))(t)
	if rec.Timeline != 2 || s.met(wal.ErrConflict) || twin.met(wal.ErrConflict) {
		t.Errorf("backup of the copy on timeline %s; errors %v, %v", rec.Timeline, s.errs, twin.errs)
	}
	twin.kill()
	s.kill()
	if got := p.restored("x", Target{}).exec("SELECT name FROM marks ORDER BY name"); got != "A B D" {
		t.Errorf("the database has %q", got)
	}
	y := p.server("y")
	must2(copies.Restore(t.Context(), RestoreOptions{Into: y.dir}))(t)
	y.start(own, false)
	leads(y)
	if got := y.exec("SELECT name FROM marks ORDER BY name"); got != "A C" {
		t.Errorf("the copy has %q", got)
	}
}

// What a recovery does that cannot read the archive, or reads what was changed: it ends, and starts nothing.
func TestRecoveryWithoutTheArchive(t *testing.T) {
	p, st := newFaulty(t)
	s, w := p.busy()
	rec := must2(p.backups("one").Backup(t.Context(), s.source()))(t)
	s.exec("INSERT INTO marks VALUES ('A')")
	before := w.wrote()
	s.await(func(context.Context) bool { return w.wrote() > before+30 })
	w.stop()
	s.flush()
	s.exec("INSERT INTO marks VALUES ('B')")
	s.flush()
	s.kill()
	stored, err := p.archive.List(t.Context())
	must(t, err)
	late := 0 // a segment in the middle of what comes after the backup
	for i, f := range stored {
		if f.Kind == wal.Segment && f.Number(1<<20) > rec.Last().Number(1<<20) {
			late = i
			break
		}
	}
	key := fmt.Sprintf("drover/log/%s/00000001/%s", p.archive.Stream(), stored[late].Name)
	about := func(f faulty.Fault) faulty.Script {
		return func(c faulty.Call) faulty.Fault {
			if c.Op == faulty.Get && c.Key == key {
				return f
			}
			return faulty.Fault{}
		}
	}
	sealed, _, err := st.Get(t.Context(), key, 0, -1)
	must(t, err)
	bad := append([]byte(nil), sealed...)
	bad[len(bad)/2] ^= 1
	r := p.server("r")
	must2(p.backups("x").Restore(t.Context(), RestoreOptions{Into: r.dir}))(t)
	for _, c := range []struct {
		what   string
		script faulty.Script
		bytes  []byte
	}{
		{"refuses", about(faulty.Fault{Before: objstore.ErrUnauthorised}), sealed},
		{"is away", about(faulty.Fault{Before: objstore.ErrUnavailable}), sealed},
		{"hangs", about(faulty.Fault{Hang: true}), sealed},
		{"has a flipped bit", nil, bad},
	} {
		must(t, st.Put(t.Context(), key, c.bytes))
		st.Set(c.script)
		r.limit = 2 * time.Second
		r.launch(p.archive, false)
		r.ended()
		if r.met(wal.ErrNotFound) && !strings.Contains(fmt.Sprint(r.errs), "history") {
			t.Errorf("the store %s: something was called not found: %v", c.what, r.errs)
		}
		if got, err := os.Stat(filepath.Join(r.dir, signalFile)); err != nil || got == nil {
			t.Errorf("the store %s: the recovery ended as if all had been read", c.what)
		}
		st.Set(nil)
	}
	if !r.met(wal.ErrDamaged) {
		t.Errorf("the damage was not told: %v", r.errs)
	}
	must(t, st.Put(t.Context(), key, sealed))
	r.limit = patience
	r.start(p.archive, false)
	r.await(func(ctx context.Context) bool {
		text, err := r.query(ctx, "SELECT pg_is_in_recovery()")
		return err == nil && text == "f"
	})
	if got := r.exec("SELECT name FROM marks ORDER BY name"); got != "A B" {
		t.Errorf("in the end it has %q", got)
	}
	r.sound()
}

// A restore that dies is called again; until it has ended no server starts.
func TestRestoreThatDies(t *testing.T) {
	p, _ := newFaulty(t)
	s, w := p.busy()
	must2(p.backups("one").Backup(t.Context(), s.source()))(t)
	w.stop()
	s.flush()
	into := filepath.Join(p.dir, "r")
	for _, at := range []int{1, 300, 900} {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		var mu sync.Mutex
		_, err := p.backups("x").Restore(ctx, RestoreOptions{Into: into, Progress: func(string, uint64) {
			mu.Lock()
			defer mu.Unlock()
			if n++; n == at {
				cancel()
			}
		}})
		cancel()
		if err == nil {
			t.Fatalf("died at file %d of %d, and succeeded", at, n)
		}
		if !Interrupted(into) {
			t.Error("it is not known as interrupted")
		}
		if out, err := p.command("postgres", "-D", into, "-k", p.dir).CombinedOutput(); err == nil {
			t.Errorf("a server started on a part: %s", out)
		}
	}
	r := p.restored("r", Target{})
	if Interrupted(into) {
		t.Error("it is still called interrupted")
	}
	r.sound()
	if _, err := p.backups("x").Restore(t.Context(), RestoreOptions{Into: into}); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("over a database: %v, want ErrNotEmpty", err)
	}
}

// What expires, and that the rest restores, pruned.
func TestExpire(t *testing.T) {
	p, _ := newFaulty(t)
	s, w := p.busy()
	b := p.backups("one")
	var all []Record
	for i := range 3 {
		s.exec(fmt.Sprintf("INSERT INTO marks VALUES ('%d')", i))
		all = append(all, must2(b.Backup(t.Context(), s.source()))(t))
	}
	w.stop()
	s.flush()
	streams := must2(Streams(t.Context(), p.volume))(t)
	if len(streams) != 1 || streams[0].String() != p.archive.Stream() {
		t.Errorf("the volume has the streams %v", streams)
	}
	before := must2(p.archive.List(t.Context()))(t)
	d := must2(b.Expire(t.Context(), time.Now(), Window{Keep: 24 * time.Hour}))(t)
	if len(d.Drop) != 0 || len(must2(p.archive.List(t.Context()))(t)) < len(before)-int(all[0].First().Number(1<<20)) {
		t.Errorf("within the window %d backups went", len(d.Drop))
	}
	d = must2(b.Expire(t.Context(), time.Now().Add(2*time.Hour), Window{Least: 2, Prune: true}))(t)
	if names(d.Drop) != all[0].Name || d.From != all[1].Start {
		t.Errorf("dropped %q, log from %s", names(d.Drop), d.From)
	}
	tagged := must2(p.volume.Tagged(t.Context(), Tag+p.archive.Stream()))(t)
	if len(tagged) != 2 {
		t.Errorf("%d snapshots are left, want 2", len(tagged))
	}
	stored := must2(p.archive.List(t.Context()))(t)
	runs := wal.Ranges(stored, 1<<20)
	if len(runs) != 1 || runs[0].First != all[1].First().Number(1<<20) {
		t.Errorf("the log that is left: %+v", runs)
	}
	s.kill()
	if _, err := b.Choose(t.Context(), Target{Backup: all[0].Name}); !errors.Is(err, ErrNoBackup) {
		t.Errorf("the dropped one: %v", err)
	}
	r := p.restored("r", Target{Backup: all[1].Name})
	if got := r.exec("SELECT name FROM marks ORDER BY name"); got != "0 1 2" {
		t.Errorf("it has %q", got)
	}
	r.sound()
}
