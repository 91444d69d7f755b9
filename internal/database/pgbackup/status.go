package pgbackup

import (
	"context"

	"drover/internal/database/wal"
)

// Status is a backup and up to where it can be restored.
type Status struct {
	Record
	Cover wal.Cover // of the newest line, or of the backup's own if that leads elsewhere
	// Whole: the log that the backup itself needs is there.
	Whole bool
}

// Statuses lists the backups, oldest first, with what the archive has of the log after them.
func (s *Store) Statuses(ctx context.Context) ([]Status, error) {
	all, err := s.List(ctx)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	stored, err := s.Archive.List(ctx)
	if err != nil {
		return nil, err
	}
	newest, err := s.line(ctx, all, Target{})
	if err != nil {
		return nil, err
	}
	list := make([]Status, 0, len(all))
	for _, r := range all {
		line := newest
		if !line.Has(r.Timeline, r.Stop) {
			if line, err = s.line(ctx, all, Target{Timeline: r.Timeline}); err != nil {
				return nil, err
			}
		}
		c := wal.CoverOf(stored, line, r.First(), r.Segment)
		list = append(list, Status{Record: r, Cover: c, Whole: c.End >= r.Stop})
	}
	return list, nil
}
