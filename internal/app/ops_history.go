package app

import (
	"context"
	"fmt"
	"time"

	"drover/client"
	"drover/internal/repo"
	"drover/internal/repo/treediff"
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

// Change is one path in which two snapshots differ.
type Change = treediff.Change

// DiffResult says what was compared, and counts the differences.
type DiffResult struct {
	From    client.Snapshot `json:"from"`
	To      client.Snapshot `json:"to"`
	Added   int64           `json:"added"`
	Removed int64           `json:"removed"`
	Changed int64           `json:"changed"`
}

// Diff calls fn for each path in which the snapshot to differs from the snapshot
// from; to may be "" for the head's, and from for the one committed before it.
func (o *Ops) Diff(ctx context.Context, from, to string, fn func(Change) error) (DiffResult, error) {
	v, err := o.open(ctx)
	if err != nil {
		return DiffResult{}, err
	}
	var res DiffResult
	ends, err := o.ends(ctx, v, from, to)
	if err != nil {
		return res, err
	}
	res.From, res.To = snapshotOf(ends[0]), snapshotOf(ends[1])
	if err := v.Repo.LoadIndex(ctx); err != nil {
		return res, fmt.Errorf("load index: %w", err)
	}
	err = treediff.Run(ctx, v.Repo, *ends[0].Tree, *ends[1].Tree, func(c Change) error {
		switch c.Kind {
		case treediff.Added:
			res.Added++
		case treediff.Removed:
			res.Removed++
		case treediff.Changed:
			res.Changed++
		}
		return fn(c)
	})
	if err != nil {
		return res, fmt.Errorf("compare snapshots: %w", err)
	}
	return res, nil
}

// ends finds the two snapshots of a comparison.
func (o *Ops) ends(ctx context.Context, v *volume.Volume, from, to string) (ends [2]volume.Entry, err error) {
	for i, name := range []string{from, to} {
		if name == "" && i == 0 {
			ends[i], err = beforeHead(ctx, v)
		} else {
			ends[i].ID, ends[i].Snapshot, err = o.find(ctx, v, name)
		}
		if err != nil {
			return ends, err
		}
	}
	return ends, nil
}

// beforeHead is the snapshot that was committed before the head's.
func beforeHead(ctx context.Context, v *volume.Volume) (volume.Entry, error) {
	line, err := committed(ctx, v)
	if err != nil {
		return volume.Entry{}, err
	}
	var best *volume.Entry
	for i := range line {
		if e := &line[i]; !e.Head && (best == nil || e.Seq > best.Seq) {
			best = e
		}
	}
	if best == nil {
		return volume.Entry{}, fmt.Errorf("find what was committed before the newest: %w", repo.ErrSnapshotNotFound)
	}
	return *best, nil
}
