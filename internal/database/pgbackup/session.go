package pgbackup

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"

	"drover/internal/database/wal"
)

type timeline = wal.Timeline

// prepare looks whether this server, with its files in dir, can be backed up.
func (s session) prepare(ctx context.Context, dir string, system uint64) (facts, error) {
	for _, set := range []string{
		"SET search_path = pg_catalog", "SET statement_timeout = 0", "SET idle_session_timeout = 0",
		"SET lock_timeout = 0", "SET client_min_messages = error", "SET DateStyle = ISO",
	} {
		if _, err := s.Exec(ctx, set); err != nil {
			return facts{}, fmt.Errorf("prepare session: %w", err)
		}
	}
	var archive, where string
	var spaces int
	err := s.QueryRow(ctx, `SELECT current_setting('archive_mode'), current_setting('data_directory'),
		(SELECT count(*) FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global'))`).Scan(&archive, &where, &spaces)
	if err != nil {
		return facts{}, fmt.Errorf("look at the server: %w", err)
	}
	if spaces > 0 {
		return facts{}, fmt.Errorf("%w: it has %d tablespaces of its own, and only the data directory is backed up: move what is in them to pg_default (ALTER … SET TABLESPACE), and drop them", ErrRefused, spaces)
	}
	if archive == "off" {
		return facts{}, fmt.Errorf("%w: %w", ErrRefused, errNoLog)
	}
	if err := sameDirectory(dir, where); err != nil {
		return facts{}, err
	}
	f, err := s.facts(ctx)
	if err == nil && f.system != system {
		err = fmt.Errorf("%w: its system identifier is %d, and the archive is of %d", ErrRefused, f.system, system)
	}
	return f, err
}

func sameDirectory(dir, where string) error {
	mine, err := os.Stat(dir)
	if err != nil {
		return err
	}
	its, err := os.Stat(where)
	if err != nil {
		return fmt.Errorf("%w: its data directory is %s, which is not here: %w", ErrRefused, where, err)
	}
	if !os.SameFile(mine, its) {
		return fmt.Errorf("%w: its data directory is %s, not %s", ErrRefused, where, dir)
	}
	return nil
}

// facts asks what the server is now. Of a primary the timeline is that of what it writes, of a
// replica that of what it has replayed.
func (s session) facts(ctx context.Context) (f facts, err error) {
	var system, line string
	err = s.QueryRow(ctx, `SELECT (SELECT system_identifier::text FROM pg_control_system()),
		pg_is_in_recovery(), pg_size_bytes(current_setting('wal_segment_size')), current_setting('server_version_num')::int,
		pg_postmaster_start_time(), clock_timestamp(),
		CASE WHEN pg_is_in_recovery() THEN
			to_hex(greatest((SELECT timeline_id FROM pg_control_checkpoint()), (SELECT min_recovery_end_timeline FROM pg_control_recovery())))
		ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END`).
		Scan(&system, &f.replica, &f.segment, &f.version, &f.started, &f.now, &line)
	if err != nil {
		return f, fmt.Errorf("look at the server: %w", err)
	}
	t, err := strconv.ParseUint(line, 16, 32)
	if err != nil {
		return f, fmt.Errorf("look at the server: timeline %q: %w", line, err)
	}
	f.timeline = timeline(t)
	if f.system, err = strconv.ParseUint(system, 10, 64); err != nil {
		// It is shown as a signed number.
		signed, err := strconv.ParseInt(system, 10, 64)
		if err != nil {
			return f, fmt.Errorf("look at the server: system identifier %q: %w", system, err)
		}
		f.system = uint64(signed)
	}
	return f, nil
}

func (s session) start(ctx context.Context, label string) error {
	var at string
	if err := s.QueryRow(ctx, "SELECT pg_backup_start($1, fast => true)::text", label).Scan(&at); err != nil {
		return fmt.Errorf("begin backup: %w", err)
	}
	return nil
}

// stop ends the backup and notes what the server says of it.
func (s session) stop(ctx context.Context, r *Record) error {
	var stop string
	err := s.QueryRow(ctx, "SELECT lsn::text, labelfile, coalesce(spcmapfile, '') FROM pg_backup_stop(wait_for_archive => false)").
		Scan(&stop, &r.Label, &r.Spaces)
	if err != nil {
		return fmt.Errorf("%w: end backup: %w", ErrInterrupted, err)
	}
	if r.Stop, err = wal.ParseLSN(stop); err != nil {
		return fmt.Errorf("end backup: %w", err)
	}
	start, line, err := readLabel(r.Label)
	if err != nil {
		return fmt.Errorf("end backup: %w", err)
	}
	if line != r.Timeline {
		return fmt.Errorf("%w: it began on timeline %s, not %s", ErrInterrupted, line, r.Timeline)
	}
	r.Start = start
	if r.Stop < r.Start {
		return fmt.Errorf("end backup: it ends at %s, before it began at %s", r.Stop, r.Start)
	}
	return nil
}

var (
	labelStart = regexp.MustCompile(`(?m)^START WAL LOCATION: ([0-9A-F]+/[0-9A-F]+) \(file ([0-9A-F]{24})\)$`)
	labelLine  = regexp.MustCompile(`(?m)^START TIMELINE: ([0-9]+)$`)
)

// readLabel finds in a backup_label where recovery begins.
func readLabel(text string) (wal.LSN, wal.Timeline, error) {
	at, line := labelStart.FindStringSubmatch(text), labelLine.FindStringSubmatch(text)
	if at == nil || line == nil {
		return 0, 0, fmt.Errorf("backup_label says nothing of its start: %.300q", text)
	}
	start, err := wal.ParseLSN(at[1])
	if err != nil {
		return 0, 0, err
	}
	t, err := strconv.ParseUint(line[1], 10, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("backup_label: %w", err)
	}
	return start, wal.Timeline(t), nil
}
