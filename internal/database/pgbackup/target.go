package pgbackup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"drover/internal/database/wal"
)

// Target is up to where a restored database goes. At most one of Time, LSN, XID and Name, and
// Consistent, is set; none: as far as the log goes.
type Target struct {
	Backup     string    // name of a base backup; empty: the newest that fits
	Time       time.Time // the last commit not after it
	LSN        string
	XID        string // of a transaction that is committed
	Name       string // of pg_create_restore_point
	Consistent bool   // no farther than the backup itself
	Exclusive  bool   // without what Time, LSN or XID names
	// Timeline to follow: a number, or empty for the newest that there is.
	Timeline wal.Timeline
	Pause    bool // there, read-only, for a look; pg_wal_replay_resume() ends it. Else it becomes a primary
}

// check says whether it can be meant.
func (t Target) check() error {
	n := 0
	for _, set := range []bool{!t.Time.IsZero(), t.LSN != "", t.XID != "", t.Name != "", t.Consistent} {
		if set {
			n++
		}
	}
	switch {
	case n > 1:
		return fmt.Errorf("%w: time, LSN, transaction, name: only one can be it", ErrTarget)
	case n == 0 && (t.Pause || t.Exclusive):
		return fmt.Errorf("%w: there is none to pause at, or to leave out", ErrTarget)
	case len(t.Name) > 63 || strings.ContainsAny(t.Name, "\x00\n"):
		return fmt.Errorf("%w: no restore point has the name %.80q", ErrTarget, t.Name)
	}
	if t.LSN != "" {
		if _, err := wal.ParseLSN(t.LSN); err != nil {
			return fmt.Errorf("%w: %w", ErrTarget, err)
		}
	}
	if t.XID != "" {
		if _, err := strconv.ParseUint(t.XID, 10, 64); err != nil {
			return fmt.Errorf("%w: transaction %.40q is no number", ErrTarget, t.XID)
		}
	}
	return nil
}

// settings are PostgreSQL's, all of them, so that none of an earlier recovery is left. The target
// is the last: an empty one after it counts as a second one.
func (t Target) settings(command string) []setting {
	s := []setting{
		{"restore_command", command}, {"recovery_end_command", ""}, {"recovery_min_apply_delay", "0"},
		{"recovery_target_timeline", "latest"}, {"recovery_target_inclusive", "on"}, {"recovery_target_action", "promote"},
	}
	if t.Timeline != 0 {
		s[3].value = strconv.FormatUint(uint64(t.Timeline), 10)
	}
	if t.Exclusive {
		s[4].value = "off"
	}
	if t.Pause {
		s[5].value = "pause"
	}
	targets := []setting{
		{"recovery_target", ""}, {"recovery_target_time", ""}, {"recovery_target_lsn", t.LSN},
		{"recovery_target_xid", t.XID}, {"recovery_target_name", t.Name},
	}
	if t.Consistent {
		targets[0].value = "immediate"
	}
	if !t.Time.IsZero() {
		targets[1].value = t.Time.UTC().Format("2006-01-02 15:04:05.000000") + "+00"
	}
	slices.SortStableFunc(targets, func(a, b setting) int { return cmp.Compare(a.value, b.value) })
	return append(s, targets...)
}

type setting struct{ name, value string }

// Choose picks the backup to begin with: the newest that was whole before the target, on the
// line that leads there. Whether a transaction or a named point comes after it nobody
// knows before: PostgreSQL says so at the end, and an older Backup can be named then.
// Errors: ErrNoBackup, ErrTarget; the store's.
func (s *Store) Choose(ctx context.Context, t Target) (Record, error) {
	if err := t.check(); err != nil {
		return Record{}, err
	}
	all, err := s.List(ctx)
	if err != nil {
		return Record{}, err
	}
	line, err := s.line(ctx, all, t)
	if err != nil {
		return Record{}, err
	}
	return choose(all, line, t)
}

// line is the history that the target is on.
func (s *Store) line(ctx context.Context, all []Record, t Target) (wal.Line, error) {
	newest := t.Timeline
	if newest == 0 {
		var known wal.Timeline
		for _, r := range all {
			known = max(known, r.Timeline)
		}
		var err error
		if newest, err = s.Archive.Newest(ctx, known); err != nil {
			return nil, err
		}
	}
	line, err := s.Archive.Line(ctx, newest)
	if errors.Is(err, wal.ErrNotFound) {
		// A copy that goes its own way has no history before its own begin here.
		return wal.Line{{Timeline: newest}}, nil
	}
	return line, err
}

// choose is Choose of backups that are known, oldest first.
func choose(all []Record, line wal.Line, t Target) (Record, error) {
	var limit wal.LSN
	if t.LSN != "" {
		var err error
		if limit, err = wal.ParseLSN(t.LSN); err != nil {
			return Record{}, fmt.Errorf("%w: %w", ErrTarget, err)
		}
	}
	var best *Record
	why := "there is none"
	for i := range all {
		r := &all[i]
		switch {
		case t.Backup != "" && r.Name != t.Backup:
			continue
		case !line.Has(r.Timeline, r.Stop):
			why = fmt.Sprintf("backup %s is of timeline %s at %s, from where nothing leads to timeline %s", r.Name, r.Timeline, r.Stop, line[0].Timeline)
		case !t.Time.IsZero() && r.End.After(t.Time):
			why = fmt.Sprintf("backup %s ended at %s only", r.Name, r.End.UTC().Format(time.RFC3339))
		case limit != 0 && r.Stop > limit:
			why = fmt.Sprintf("backup %s goes to %s already", r.Name, r.Stop)
		default:
			best = r
			continue
		}
		if best != nil { // of an older one it does not matter
			continue
		}
	}
	if best == nil {
		return Record{}, fmt.Errorf("%w: %s", ErrNoBackup, why)
	}
	return *best, nil
}
