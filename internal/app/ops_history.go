package app

import (
	"context"
	"fmt"
	"time"

	"drover/client"
	"drover/internal/repo"
	"drover/internal/volume"
)

// momentLayout is how a moment is shown to people.
const momentLayout = "2006-01-02 15:04:05"

// SnapshotAt finds the newest committed snapshot that is not newer than at.
// Errors: repo.ErrSnapshotNotFound, with the oldest one that there is.
func (o *Ops) SnapshotAt(ctx context.Context, at time.Time) (client.Snapshot, error) {
	v, err := o.open(ctx)
	if err != nil {
		return client.Snapshot{}, err
	}
	line, err := committed(ctx, v)
	if err != nil {
		return client.Snapshot{}, err
	}
	if e := newestUntil(line, at); e != nil {
		return snapshotOf(*e), nil
	}
	what := "find the snapshot at " + at.Local().Format(momentLayout)
	if len(line) == 0 {
		return client.Snapshot{}, fmt.Errorf("%s: %w", what, volume.ErrNoSnapshot)
	}
	return client.Snapshot{}, fmt.Errorf("%s: %w: the oldest that there is, %s, is of %s",
		what, repo.ErrSnapshotNotFound, line[0].ID.Short(), line[0].Time.Local().Format(momentLayout))
}

// committed lists the snapshots of the head's line of history, oldest first.
func committed(ctx context.Context, v *volume.Volume) ([]volume.Entry, error) {
	seen, err := v.ReadHead(ctx)
	if err != nil {
		return nil, err
	}
	all, err := v.History(ctx, seen.Head)
	if err != nil {
		return nil, err
	}
	var line []volume.Entry
	for _, e := range all {
		if e.Committed {
			line = append(line, e)
		}
	}
	return line, nil
}

// newestUntil chooses from a line that is ordered by time; of two of one moment
// the later commit counts.
func newestUntil(line []volume.Entry, at time.Time) *volume.Entry {
	var best *volume.Entry
	for i := range line {
		e := &line[i]
		if e.Time.After(at) {
			break
		}
		if best == nil || e.Time.After(best.Time) || e.Seq > best.Seq {
			best = e
		}
	}
	return best
}
