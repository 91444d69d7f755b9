package app

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"drover/internal/config"
	"drover/internal/database"
	"drover/internal/database/pgbackup"
	"drover/internal/database/postgres"
	"drover/internal/database/wal"
)

// How long a store may take until it is known whether a backup is of use, and after how long without another whole file
// the primary is asked instead: calls to a store that is away are repeated until their context ends.
const (
	seedAsk   = 30 * time.Second
	seedStall = 5 * time.Minute
)

// Seed is database.Restorer's: a replica is made of the newest base backup that leads to what the primary has.
func (b *backups) Seed(ctx context.Context, source database.Peer) error {
	if b.cfg.Database.CopyFrom == config.CopyFromPeer {
		return errors.New("database.copy_from is peer")
	}
	at, target, err := b.seed(ctx, source)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(seedStall, func() { cancel(fmt.Errorf("the store has brought no file for %s", seedStall)) })
	defer stalled.Stop()
	backup := fetched(at, target, b.cfg.Socket, func(string, uint64) { stalled.Reset(seedStall) })
	if err := b.driver.Seed(ctx, backup); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return nil
}

// seed is the base backup to begin with.
func (b *backups) seed(ctx context.Context, source database.Peer) (at *pgbackup.Store, target pgbackup.Target, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, seedAsk, fmt.Errorf("the store has not answered for %s", seedAsk))
	defer cancel()
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
	}()
	lead, err := b.driver.Lead(ctx, source)
	if err != nil {
		return nil, target, err
	}
	auto := b.cfg.Database.CopyFrom == config.CopyFromAuto
	if auto && lead.Size < smallDatabase {
		return nil, target, errors.New("the database is small")
	}
	system, err := strconv.ParseUint(lead.System, 10, 64)
	if err != nil {
		return nil, target, err
	}
	v, err := b.volume(ctx, false)
	if err != nil {
		return nil, target, err
	}
	if at, err = b.open(v, system); err != nil {
		return nil, target, err
	}
	record, err := leadingTo(ctx, at, lead)
	if err != nil {
		return nil, target, err
	}
	since := int64(lead.End) - int64(record.Start)
	if auto && since > record.Bytes/2 { // it is applied by one process, after the same bytes were brought
		return nil, target, errors.New("there is much log since the newest base backup")
	}
	b.log.Info("making a replica of a base backup", "of", record.End, "bytes", record.Bytes, "log", since)
	return at, pgbackup.Target{Backup: record.Name, Timeline: wal.Timeline(lead.Timeline)}, nil
}

// smallDatabase is up to how many bytes a copy from the primary hardly costs it anything.
const smallDatabase = 1 << 30

// leadingTo is the newest base backup from which the archived log leads to where the primary has it itself.
func leadingTo(ctx context.Context, at *pgbackup.Store, lead postgres.Lead) (pgbackup.Record, error) {
	var none pgbackup.Record
	line, err := wal.ParseHistory(wal.Timeline(lead.Timeline), []byte(lead.History))
	if err != nil {
		return none, err
	}
	newest, err := at.Archive.Newest(ctx, line[0].Timeline)
	switch {
	case err != nil:
		return none, err
	case newest != line[0].Timeline:
		return none, fmt.Errorf("the archive has timeline %s, of which the primary knows nothing", newest)
	}
	all, err := at.List(ctx)
	if err != nil {
		return none, err
	}
	record, ok := newestOn(all, line)
	switch {
	case len(all) == 0:
		return none, errors.New("there is no base backup yet")
	case !ok:
		return none, fmt.Errorf("no base backup is of the primary's history (timeline %s)", line[0].Timeline)
	}
	stored, err := at.Archive.List(ctx)
	if err != nil {
		return none, err
	}
	if c := wal.CoverOf(stored, line, record.First(), record.Segment); uint64(c.End) < lead.Kept {
		return none, fmt.Errorf("the archived log ends at %s, and the primary has none before %s", c.End, wal.LSN(lead.Kept))
	}
	return record, nil
}

// newestOn is the newest of base backups, oldest first, that is on a line of timelines.
func newestOn(all []pgbackup.Record, line wal.Line) (found pgbackup.Record, ok bool) {
	for _, r := range all {
		if line.Has(r.Timeline, r.Stop) {
			found, ok = r, true
		}
	}
	return found, ok
}
