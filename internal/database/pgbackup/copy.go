package pgbackup

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"drover/internal/database/wal"
	"drover/internal/volume"
)

// Copied is what a Copy brought.
type Copied struct {
	Files   int // of the log
	Bytes   int64
	Backups int
}

// Copy brings what a volume has of databases beside its snapshots into a copy of the volume (volume.Mirror), to which the
// snapshots have been copied: their log, sealed with the copy's own key, and what makes base backups count. One
// counts there when its snapshot and all the log that it needs are there. What the copy does not keep any more is not brought again.
// Nothing is removed. Interrupted, it is called again.
//
// Errors: wal.ErrConflict, if the copy has another history; the stores'.
func Copy(ctx context.Context, from, to *volume.Volume, log *slog.Logger) (Copied, error) {
	var all Copied
	streams, err := Streams(ctx, from)
	if err != nil {
		return all, err
	}
	for _, stream := range streams {
		source, err := Open(from, stream, volume.Options{}, log)
		if err != nil {
			return all, err
		}
		target, err := Open(to, stream, volume.Options{}, log)
		if err == nil {
			err = target.take(ctx, source, &all)
		}
		if err != nil {
			return all, fmt.Errorf("copy the database %s: %w", stream, err)
		}
	}
	return all, nil
}

// take brings one database's from another store.
func (s *Store) take(ctx context.Context, source *Store, done *Copied) error {
	there, err := source.List(ctx)
	if err != nil {
		return err
	}
	here, err := s.List(ctx)
	if err != nil {
		return err
	}
	wanted := lacking(there, here)
	if err := s.takeLog(ctx, source, oldest(append(here, wanted...)), done); err != nil {
		return err
	}
	if len(wanted) == 0 {
		return nil
	}
	copies, err := s.Volume.CopiesOf(ctx, source.Volume)
	if err != nil {
		return err
	}
	for _, r := range wanted {
		id, ok := copies[r.Snapshot]
		if !ok {
			continue // it is copied later, or has lost data
		}
		missing, err := s.Archive.Missing(ctx, r.First(), r.Last(), r.Segment)
		if err != nil {
			return err
		}
		if len(missing) > 0 {
			continue
		}
		r.Snapshot = id
		content, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("encode backup: %w", err)
		}
		if err := s.Archive.AddNote(ctx, r.name(), content); err != nil {
			return err
		}
		done.Backups++
	}
	return nil
}

// lacking are those of there, oldest first, that are not here, and not older than what is kept here.
func lacking(there, here []Record) []Record {
	type life struct {
		end   int64
		start wal.LSN
	}
	known := map[life]bool{}
	for _, r := range here {
		known[life{r.End.UnixNano(), r.Start}] = true
	}
	var all []Record
	for _, r := range there {
		if !known[life{r.End.UnixNano(), r.Start}] && (len(here) == 0 || r.End.After(here[0].End)) {
			all = append(all, r)
		}
	}
	return all
}

// oldest is the first position of the log that any of the backups needs, and the size of its segments; without any, size 0.
func oldest(all []Record) (first Record) {
	for i, r := range all {
		if i == 0 || r.Start < first.Start {
			first = r
		}
	}
	return first
}

// takeLog brings the files of the log that are not here, of those that the backups need.
func (s *Store) takeLog(ctx context.Context, source *Store, first Record, done *Copied) error {
	there, err := source.Archive.List(ctx)
	if err != nil {
		return err
	}
	have := map[wal.Name]bool{}
	here, err := s.Archive.List(ctx)
	if err != nil {
		return err
	}
	for _, f := range here {
		have[f.Name] = true
	}
	for _, f := range there {
		if have[f.Name] || f.Kind != wal.History && (first.Segment == 0 || f.Begin(first.Segment)+wal.LSN(first.Segment) <= first.Start) {
			continue
		}
		content, err := source.Archive.Fetch(ctx, f.Name)
		if err != nil {
			return err
		}
		if err := s.Archive.Push(ctx, f.Name, content); err != nil {
			return err
		}
		done.Files++
		done.Bytes += f.Size
	}
	return nil
}
