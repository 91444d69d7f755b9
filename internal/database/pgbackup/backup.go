package pgbackup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"drover/internal/volume"
)

// Tag begins the tag of a backup's snapshot; the rest is the archive's stream.
const Tag = volume.ReferredTag

// excluded are restic's patterns, below the data directory, of what a backup does without, as
// pg_basebackup does. Directories stay, empty. global/pg_control is in the record: of a
// replica it has to be read last (it says there up to where recovery has to go), and without it nothing starts.
var excluded = []string{
	"/pg_wal/*", "/pg_replslot/*", "/pg_dynshmem/*", "/pg_notify/*", "/pg_serial/*", "/pg_snapshots/*",
	"/pg_stat_tmp/*", "/pg_subtrans/*", "/**/pgsql_tmp*", "/**/pg_internal.init*",
	"/postmaster.pid", "/postmaster.opts", "/postgresql.auto.conf.tmp", "/current_logfiles*",
	"/backup_label*", "/tablespace_map*", "/backup_manifest*", "/recovery.signal", "/standby.signal",
	"/" + marker, "/global/pg_control",
}

// patterns are those of one directory, whose own name is none.
func patterns(dir string) []string {
	escaped := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
	var all []string
	for _, p := range excluded {
		all = append(all, escaped+p)
	}
	return all
}

// Backup makes one base backup. The volume's head is held while the files are read and
// committed; then it waits until the log that they need is archived, for as long as ctx lasts.
//
// Errors: ErrRefused, ErrInterrupted, volume.ErrHeld; those of the store.
func (s *Store) Backup(ctx context.Context, src Source) (Record, error) {
	r, err := s.backup(ctx, src)
	if err != nil {
		return Record{}, fmt.Errorf("base backup: %w", err)
	}
	return r, nil
}

func (s *Store) backup(ctx context.Context, src Source) (Record, error) {
	dir, err := filepath.EvalSymlinks(src.Directory)
	if err != nil {
		return Record{}, err
	}
	conn, err := src.Connect(ctx)
	if err != nil {
		return Record{}, fmt.Errorf("connect: %w", err)
	}
	defer func() { // it ends a backup that was not stopped
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	ses := session{conn}
	before, err := ses.prepare(ctx, dir, s.Archive.System())
	if err != nil {
		return Record{}, err
	}
	r := Record{
		Format: recordFormat, System: before.system, Path: src.Directory, Timeline: before.timeline, Segment: before.segment,
		Version: before.version, Replica: before.replica, Begin: before.now, Instance: s.Claim.Protocol.Self.ID,
	}
	if err := s.capture(ctx, ses, dir, src, &r); err != nil {
		return Record{}, err
	}
	after, err := ses.facts(ctx)
	if err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrInterrupted, err)
	}
	if err := before.same(after); err != nil {
		return Record{}, err
	}
	r.End = after.now
	if r.Replica && src.Switch != nil {
		if err := src.Switch(ctx); err != nil {
			s.log().Warn("base backup of a replica: the primary did not end its segment; it is waited for", "err", err)
		}
	}
	s.log().Info("base backup: the files are committed; waiting for their log to be archived", "first", r.First().String(), "last", r.Last().String())
	if err := s.Archive.Await(ctx, r.First(), r.Last(), r.Segment); err != nil {
		return Record{}, err
	}
	return r, s.record(ctx, &r)
}

// record makes the backup count.
func (s *Store) record(ctx context.Context, r *Record) error {
	if _, _, err := s.Volume.Repo.FindSnapshot(ctx, r.Snapshot); err != nil {
		return err // somebody removed it meanwhile
	}
	content, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode backup: %w", err)
	}
	r.Name = r.name()
	return s.Archive.AddNote(ctx, r.Name, content)
}

// capture begins the backup on the server, commits its files and ends it.
func (s *Store) capture(ctx context.Context, ses session, dir string, src Source, r *Record) error {
	opt := s.Claim
	opt.Log = s.log()
	opt.Tree.Paths, opt.Tree.Exclude = []string{src.Directory}, patterns(src.Directory)
	opt.Tree.Torn, opt.Tree.AllowShrink, opt.Tree.SkipUnreadable = true, true, false
	var err error
	if opt.Tree.ReplacePaths, err = s.databases(ctx); err != nil {
		return err
	}
	opt.Tree.Tags = append(opt.Tree.Tags[:len(opt.Tree.Tags):len(opt.Tree.Tags)], Tag+s.Archive.Stream())
	return s.Volume.Claim(ctx, opt, func(ctx context.Context, v *volume.Session) error {
		label := src.Label
		if label == "" {
			label = "drover"
		}
		if err := ses.start(ctx, label); err != nil {
			return err
		}
		out, err := v.Backup(ctx)
		if err != nil {
			return err
		}
		r.Snapshot, r.Bytes, r.Added = out.Head.Snapshot, out.Capture.Bytes, out.Capture.Added
		if r.Control, err = readControl(ctx, dir, r.System); err != nil {
			return err
		}
		return ses.stop(ctx, r)
	})
}

// databases reports whether the volume holds nothing but backups of databases, of which the next one may
// have another path. The state of an application must not leave the volume by a backup of a database.
func (s *Store) databases(ctx context.Context) (bool, error) {
	_, sn, err := s.Volume.Latest(ctx)
	if errors.Is(err, volume.ErrNoSnapshot) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return volume.Referred(sn), nil
}

// closeTimeout bounds the end of a session that nobody waits for.
const closeTimeout = 5 * time.Second

// session is the one in which a backup begins and ends.
type session struct{ *pgx.Conn }

// facts are what has to stay as it is during a backup, and some more.
type facts struct {
	system   uint64
	timeline timeline
	segment  int64
	version  int
	replica  bool
	started  time.Time // the server
	now      time.Time
}

// same fails if what was a backup's begin is not of the same life of the server.
func (f facts) same(o facts) error {
	switch {
	case f.system != o.system:
		return fmt.Errorf("%w: it is another database", ErrInterrupted)
	case f.timeline != o.timeline:
		return fmt.Errorf("%w: it went from timeline %s to %s", ErrInterrupted, f.timeline, o.timeline)
	case f.replica != o.replica:
		return fmt.Errorf("%w: it was promoted", ErrInterrupted)
	case !f.started.Equal(o.started):
		return fmt.Errorf("%w: it was restarted", ErrInterrupted)
	}
	return nil
}

var errNoLog = errors.New("the log is not archived (archive_mode), and a backup is nothing without it")
