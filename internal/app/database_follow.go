package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"drover/internal/config"
	"drover/internal/database"
	"drover/internal/database/pgbackup"
	"drover/internal/database/postgres"
	"drover/internal/database/wal"
	"drover/internal/failover"
	"drover/internal/objstore"
	"drover/internal/objstore/readonly"
	"drover/internal/repo"
	"drover/internal/volume"
)

// followed is the cluster that a standby cluster follows: its volume, which is only read.
type followed struct {
	cfg    *config.Config // of that volume
	log    *slog.Logger
	st     objstore.Store
	driver *postgres.Driver
	carry  func(walArchive) // tells who carries the log from now on

	opening sync.Mutex // one opens the volume
	v       *volume.Volume
	mu      sync.Mutex
	courier *wal.Courier // nil: it is not known which database is followed
	system  uint64       // that it brings the log of
	trouble string       // why the last file that was asked for is not known to be there or not; empty: it is
	// run's own:
	ignored bool      // it was told that nobody is followed any more
	problem string    // what was last told to have gone wrong
	rests   string    // the position that this member was last seen at
	since   time.Time // and since when
}

// openFollowed opens the store of the cluster that is followed; nil: none is.
func openFollowed(ctx context.Context, cfg *config.Config, driver *postgres.Driver, carry func(walArchive), log *slog.Logger) (*followed, error) {
	source := cfg.SourceConfig()
	if source == nil {
		return nil, nil
	}
	st, err := openStore(ctx, source, nil, commandAttempts, log)
	if err != nil {
		return nil, err
	}
	return &followed{cfg: source, log: log, st: readonly.New(st), driver: driver, carry: carry}, nil
}

func (f *followed) close() {
	f.leave()
	if c, ok := f.st.(objstore.Closer); ok {
		_ = c.Close()
	}
}

// leave ends the courier, which nobody asks any more.
func (f *followed) leave() {
	f.mu.Lock()
	c := f.courier
	f.courier, f.system, f.trouble = nil, 0, ""
	f.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
}

func (f *followed) volume(ctx context.Context) (*volume.Volume, error) {
	f.opening.Lock()
	defer f.opening.Unlock()
	if f.v != nil {
		return f.v, nil
	}
	v, _, err := openVolume(ctx, f.st, f.cfg, false, f.log)
	if errors.Is(err, repo.ErrNoRepository) {
		return nil, fmt.Errorf("the cluster that is followed has no volume %q in %s yet", f.cfg.Volume, describe(f.st))
	}
	if err == nil {
		f.v = v
	}
	return v, err
}

// follow has the log of that database be brought from here on.
func (f *followed) follow(v *volume.Volume, system uint64) (*pgbackup.Store, error) {
	at, err := pgbackup.Open(v, wal.Stream{System: system}, volume.Options{}, f.log)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.system == system {
		return at, nil
	}
	if f.courier != nil {
		_ = f.courier.Close()
	}
	f.courier, f.system = wal.NewCourier(at.Archive, wal.CourierOptions{Directory: f.cfg.Database.Data, Log: f.log}), system
	f.carry(bringer{f.courier, f})
	return at, nil
}

// bringer brings the log of another cluster, and stores none.
type bringer struct {
	*wal.Courier
	f *followed
}

// Bring implements walArchive, and remembers what went wrong.
func (b bringer) Bring(ctx context.Context, name, file string) error {
	err := b.Courier.Bring(ctx, name, file)
	trouble := ""
	if err != nil && !errors.Is(err, wal.ErrNotFound) {
		trouble = err.Error()
	}
	b.f.mu.Lock()
	former := b.f.trouble
	b.f.trouble = trouble
	b.f.mu.Unlock()
	if trouble != "" && former == "" {
		b.f.log.Warn("fetch the log of the cluster that is followed", "err", err)
	}
	return err
}

// wrong says what is; empty: nothing, or nobody is followed.
func (f *followed) wrong() string {
	if f == nil {
		return ""
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trouble == "" {
		return ""
	}
	return "the log of the cluster that it follows cannot be fetched: " + f.trouble
}

func (bringer) Store(context.Context, string) error {
	return errors.New("the log of a cluster that is followed is not written")
}

// Seed is database.Source's.
func (f *followed) Seed(ctx context.Context, system string) error {
	v, err := f.volume(ctx)
	if err != nil {
		return err
	}
	id, err := f.database(ctx, v, system)
	if err != nil {
		return err
	}
	at, err := f.follow(v, id)
	if err != nil {
		return err
	}
	record, err := at.Choose(ctx, pgbackup.Target{})
	if err != nil {
		return fmt.Errorf("the cluster that is followed: %w", err)
	}
	f.log.Info("making a replica of another cluster's base backup", "store", describe(f.st), "volume", f.cfg.Volume, "of", record.End, "bytes", record.Bytes, "system", id)
	return f.driver.Seed(ctx, fetched(at, pgbackup.Target{Backup: record.Name}, f.cfg.Socket, nil))
}

// database is the one that is followed: that one, or if it is not said the one with the newest backup.
func (f *followed) database(ctx context.Context, v *volume.Volume, system string) (uint64, error) {
	if system != "" {
		return strconv.ParseUint(system, 10, 64)
	}
	at, record, err := newestDatabase(ctx, v, volume.Options{}, f.log)
	if err == nil && at == nil {
		err = fmt.Errorf("the cluster that is followed has no base backup in volume %q of %s yet", f.cfg.Volume, describe(f.st))
	}
	return record.System, err
}

// run brings the log as long as the cluster is a standby, until ctx ends.
func (f *followed) run(ctx context.Context, member *database.Member) {
	repeat(ctx, backupLook, func() {
		if err := f.look(ctx, member.View(), member.Reinit); err != nil && ctx.Err() == nil && err.Error() != f.problem {
			f.problem = err.Error()
			f.log.Error("follow another cluster", "err", err)
		}
	})
}

// look follows what there is to follow. reinit has a member's files made anew.
func (f *followed) look(ctx context.Context, view database.View, reinit func(context.Context, string) (database.Outcome, error)) error {
	r := view.Record
	if r == nil {
		return nil
	}
	if r.Phase != failover.Standby {
		if !f.ignored {
			f.log.Warn("database.standby_of is ignored: this cluster is one of its own", "epoch", r.Epoch)
		}
		f.ignored = true
		f.leave()
		return nil
	}
	if view.System == "" {
		return nil // there are no files yet
	}
	system, err := strconv.ParseUint(view.System, 10, 64)
	if err != nil {
		return err
	}
	v, err := f.volume(ctx)
	if err != nil {
		return err
	}
	at, err := f.follow(v, system)
	if err != nil || view.Role != database.RoleStandby || r.Switchover != nil {
		return err
	}
	if view.Applied != f.rests {
		f.rests, f.since = view.Applied, time.Now()
	}
	if time.Since(f.since) < lostAfter {
		return nil
	}
	f.rests = "" // what follows is not asked often, and a second time only if nothing came of the first
	why, err := lost(ctx, at, view.Applied)
	if err != nil || why == "" {
		return err
	}
	f.log.Warn("database: what is here leads nowhere: it is made anew from the newest base backup", "reason", why)
	_, err = reinit(ctx, view.Name)
	return err
}

// lostAfter is for how long a member has to have got nothing until it is asked whether anything can come.
const lostAfter = 5 * time.Minute

// lost says why what a member has applied leads nowhere, in what is archived by now, and a newer base backup does; empty: it may. It went
// farther on a timeline than those did who left it, as a primary can have archived what it lost; or it was away for so long that the log
// is not there any more.
func lost(ctx context.Context, at *pgbackup.Store, applied string) (why string, err error) {
	line, place, _ := strings.Cut(applied, "/")
	place, _, _ = strings.Cut(place, "<")
	timeline, err1 := strconv.ParseUint(line, 10, 32)
	end, err2 := wal.ParseLSN(place)
	if err := errors.Join(err1, err2); err != nil {
		return "", fmt.Errorf("position %q: %w", applied, err)
	}
	newest, err := at.Archive.Newest(ctx, wal.Timeline(timeline))
	if err != nil {
		return "", err
	}
	history, err := at.Archive.Line(ctx, newest)
	if errors.Is(err, wal.ErrNotFound) {
		return "", nil // it comes
	}
	if err != nil {
		return "", err
	}
	all, err := at.List(ctx)
	if err != nil {
		return "", err
	}
	record, ok := newestOn(all, history)
	switch {
	case !ok:
		return "", nil
	case !history.Has(wal.Timeline(timeline), end):
		return fmt.Sprintf("it has applied timeline %d up to %s, and was left before that", timeline, end), nil
	case record.Start <= end:
		return "", nil
	}
	stored, err := at.Archive.List(ctx)
	if err != nil {
		return "", err
	}
	if c := wal.CoverOf(stored, history, wal.SegmentAt(wal.Timeline(timeline), end, record.Segment), record.Segment); c.End <= end {
		return fmt.Sprintf("the log from %s on is not archived any more", end), nil
	}
	return "", nil
}
