package pgbackup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"drover/internal/database/wal"
)

// Window is what has to stay possible to restore.
type Window struct {
	// Keep is how far back each moment can be restored.
	Keep time.Duration
	// Least is how many backups of the present history stay, however old; at least 1 does.
	Least int
	Prune bool // remove the data, too, that no snapshot needs any more
}

// slack is more than clocks of servers and stores differ.
const slack = time.Hour

// history is what the archive says of one timeline.
type history struct {
	line wal.Line
	// left is when the last of it was stored, if another timeline left it; zero: it goes on.
	left time.Time
}

// Retained is what a window keeps.
type Retained struct {
	Keep, Drop []Record
	// From is the first position of the log, of whatever timeline, that a kept backup needs; 0: all of it.
	From wal.LSN
}

// retain decides which backups go. A moment in the window is restored from a backup that was whole before it,
// on the line of timelines that leads there: so of each line that anything was written on in the window, the
// newest backup before the window stays, and all after it. A line without such a backup keeps all that it has.
func retain(all []Record, lines map[wal.Timeline]history, now time.Time, w Window) Retained {
	begin := now.Add(-w.Keep - slack)
	kept := map[string]bool{}
	var newest wal.Timeline
	for t, h := range lines {
		newest = max(newest, t)
		if !h.left.IsZero() && h.left.Before(begin) {
			continue
		}
		on := onLine(all, h.line)
		anchor := 0
		for i, r := range on {
			if !r.End.After(begin) {
				anchor = i
			}
		}
		for _, r := range on[anchor:] {
			kept[r.Name] = true
		}
	}
	present := onLine(all, lines[newest].line)
	for _, r := range present[max(0, len(present)-max(1, w.Least)):] {
		kept[r.Name] = true
	}
	var d Retained
	for _, r := range all {
		if !kept[r.Name] && len(kept) > 0 {
			d.Drop = append(d.Drop, r)
			continue
		}
		if len(d.Keep) == 0 || r.Start < d.From {
			d.From = r.Start
		}
		d.Keep = append(d.Keep, r)
	}
	for _, r := range d.Keep {
		if r.Segment != d.Keep[0].Segment {
			d.From = 0 // numbers of segments of two sizes do not compare
		}
	}
	return d
}

// onLine is what of the backups a line leads through, oldest first.
func onLine(all []Record, line wal.Line) []Record {
	var on []Record
	for _, r := range all {
		if line.Has(r.Timeline, r.Stop) {
			on = append(on, r)
		}
	}
	return on
}

// Plan says what Expire would do.
func (s *Store) Plan(ctx context.Context, now time.Time, w Window) (Retained, error) {
	all, err := s.List(ctx)
	if err != nil {
		return Retained{}, err
	}
	stored, err := s.Archive.List(ctx)
	if err != nil {
		return Retained{}, err
	}
	lines, err := s.lines(ctx, all, stored)
	if err != nil {
		return Retained{}, err
	}
	return retain(all, lines, now, w), nil
}

// lines reads the histories of all timelines of which anything is stored.
func (s *Store) lines(ctx context.Context, all []Record, stored []wal.Stored) (map[wal.Timeline]history, error) {
	last := map[wal.Timeline]time.Time{}
	for _, f := range stored {
		if f.Time.After(last[f.Timeline]) || last[f.Timeline].IsZero() {
			last[f.Timeline] = f.Time
		}
	}
	for _, r := range all {
		if _, ok := last[r.Timeline]; !ok { // known by a backup alone
			last[r.Timeline] = time.Time{}
		}
	}
	lines := map[wal.Timeline]history{}
	parents := map[wal.Timeline]bool{}
	for t := range last {
		line, err := s.Archive.Line(ctx, t)
		if errors.Is(err, wal.ErrNotFound) {
			line, err = wal.Line{{Timeline: t}}, nil // where a copy's own history begins
		}
		if err != nil {
			return nil, fmt.Errorf("read the history of timeline %s, without which nothing is removed: %w", t, err)
		}
		lines[t] = history{line: line}
		for _, p := range line[1:] {
			parents[p.Timeline] = true
		}
	}
	for t := range parents {
		if h, ok := lines[t]; ok {
			h.left = last[t]
			lines[t] = h
		}
	}
	return lines, nil
}

// Expire removes the backups, and the log, that the window does not need: first what makes them
// count, then their snapshots, then the log. Interrupted, it is called again.
// Errors: volume.ErrHeld, repo.ErrLocked (of a prune); the store's.
func (s *Store) Expire(ctx context.Context, now time.Time, w Window) (Retained, error) {
	d, err := s.Plan(ctx, now, w)
	if err == nil {
		err = s.expire(ctx, d, now, w.Prune)
	}
	if err != nil {
		return d, fmt.Errorf("expire backups: %w", err)
	}
	return d, nil
}

func (s *Store) expire(ctx context.Context, d Retained, now time.Time, prune bool) error {
	for _, r := range d.Drop {
		if err := s.Archive.RemoveNote(ctx, r.Name); err != nil {
			return err
		}
	}
	gone, err := s.orphans(ctx, d, now)
	if err != nil {
		return err
	}
	opt := s.Claim
	opt.Log = s.log()
	if err := s.Volume.RemoveSnapshots(ctx, opt, gone, prune); err != nil {
		return err
	}
	if d.From == 0 {
		return nil
	}
	n, err := s.Archive.Remove(ctx, d.From, d.Keep[0].Segment)
	if err != nil {
		return err
	}
	s.log().Info("backups expired", "kept", len(d.Keep), "removed", len(d.Drop), "files of the log", n)
	return nil
}

// patientTime is how long a snapshot may wait for its log to be archived before it counts as given up.
const patientTime = 7 * 24 * time.Hour

// orphans are the snapshots of this database that are no backup's any more: of those dropped, and
// of attempts that died long ago.
func (s *Store) orphans(ctx context.Context, d Retained, now time.Time) ([]string, error) {
	named, dropped := map[string]bool{}, map[string]bool{}
	for _, r := range d.Keep {
		named[r.Snapshot] = true
	}
	for _, r := range d.Drop {
		dropped[r.Snapshot] = true
	}
	tagged, err := s.Volume.Tagged(ctx, Tag+s.Archive.Stream())
	if err != nil {
		return nil, err
	}
	var gone []string
	for _, sn := range tagged {
		if !named[sn.Snapshot] && (dropped[sn.Snapshot] || sn.Time.Before(now.Add(-patientTime))) {
			gone = append(gone, sn.Snapshot)
		}
	}
	slices.Sort(gone)
	return gone, nil
}
