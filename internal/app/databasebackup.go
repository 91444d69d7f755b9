package app

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"drover/internal/config"
	"drover/internal/database"
	"drover/internal/database/pgbackup"
	"drover/internal/database/postgres"
	"drover/internal/database/wal"
	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/volume"
	"drover/internal/volume/protocol"
)

// backups are where a member's base backups and log go, and come from.
type backups struct {
	cfg    *config.Config
	log    *slog.Logger
	st     objstore.Store
	driver *postgres.Driver
	carry  func(walArchive) // tells who carries the log from now on

	opening sync.Mutex // one opens the volume
	mu      sync.Mutex
	v       *volume.Volume // nil: not open yet
	courier *wal.Courier   // nil: the database is not known yet
	archive *wal.Archive
	system  uint64
	last    pgbackup.Record // the newest that is known
	problem string          // why the last base backup failed; empty: it did not
}

// openBackups opens the store; nil if the database is not backed up.
func openBackups(ctx context.Context, cfg *config.Config, driver *postgres.Driver, reg prometheus.Registerer, carry func(walArchive), log *slog.Logger) (*backups, error) {
	if !cfg.BacksUpDatabase() {
		return nil, nil
	}
	st, err := openStore(ctx, cfg, reg, 0, log)
	if err != nil {
		return nil, err
	}
	return &backups{cfg: cfg, log: log, st: st, driver: driver, carry: carry}, nil
}

func (b *backups) close() {
	b.mu.Lock()
	c := b.courier
	b.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
	if c, ok := b.st.(objstore.Closer); ok {
		_ = c.Close()
	}
}

// volume opens the volume, and makes it if it may.
func (b *backups) volume(ctx context.Context, create bool) (*volume.Volume, error) {
	b.opening.Lock()
	defer b.opening.Unlock()
	b.mu.Lock()
	v := b.v
	b.mu.Unlock()
	if v != nil {
		return v, nil
	}
	v, created, err := openVolume(ctx, b.st, b.cfg, create, b.log)
	if err != nil {
		return nil, err
	}
	if created {
		b.log.Warn("initialised a NEW volume for the database: there was nothing at this place in the store", "store", describe(b.st), "volume", b.cfg.Volume)
	}
	b.mu.Lock()
	b.v = v
	b.mu.Unlock()
	return v, nil
}

// below is the store below the volume's prefix.
func (b *backups) below() objstore.Store { return objstore.WithPrefix(b.st, b.cfg.Volume) }

// open has the log of that database carried from here on.
func (b *backups) open(v *volume.Volume, system uint64) (*wal.Archive, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.system == system {
		return b.archive, nil
	}
	archive, err := wal.New(b.below(), wal.Options{Secret: v.Repo.Secret(wal.Purpose), System: system})
	if err != nil {
		return nil, err
	}
	former := b.courier
	b.archive, b.system = archive, system
	b.courier = wal.NewCourier(archive, wal.CourierOptions{Directory: b.cfg.Database.Data, Log: b.log})
	b.carry(b.courier)
	if former != nil {
		_ = former.Close()
	}
	return archive, nil
}

// claim is how the volume is held while a base backup commits.
func (b *backups) claim() volume.Options {
	return volume.Options{
		Protocol: protocol.Config{
			Volume: b.cfg.Volume, TTL: b.cfg.Lease.TTL.Std(), Self: protocol.Holder{ID: b.cfg.ID, Address: hostname()},
		},
		Tree: treeOptions(b.cfg),
	}
}

// newest is the newest base backup of any database in the volume, and where it is; nil: there is none.
func (b *backups) newest(ctx context.Context) (*pgbackup.Store, pgbackup.Record, error) {
	v, err := b.volume(ctx, false)
	if errors.Is(err, repo.ErrNoRepository) {
		return nil, pgbackup.Record{}, nil
	}
	if err != nil {
		return nil, pgbackup.Record{}, err
	}
	return newestDatabase(ctx, v, b.claim(), b.log)
}

// newestDatabase is the newest base backup of a volume, and where it is; nil: there is none.
func newestDatabase(ctx context.Context, v *volume.Volume, claim volume.Options, log *slog.Logger) (at *pgbackup.Store, found pgbackup.Record, err error) {
	streams, err := pgbackup.Streams(ctx, v)
	if err != nil {
		return nil, found, err
	}
	for _, stream := range streams {
		s, err := pgbackup.Open(v, stream, claim, log)
		if err != nil {
			return nil, found, err
		}
		list, err := s.List(ctx)
		if err != nil {
			return nil, found, err
		}
		if n := len(list); n > 0 && list[n-1].End.After(found.End) {
			found, at = list[n-1], s
		}
	}
	return at, found, nil
}

// Available is database.Restorer's.
func (b *backups) Available(ctx context.Context) (bool, error) {
	s, _, err := b.newest(ctx)
	return s != nil, err
}

// Restore is database.Restorer's: the newest base backup, and all of the log.
func (b *backups) Restore(ctx context.Context) error {
	s, record, err := b.newest(ctx)
	if err != nil {
		return err
	}
	if s == nil {
		return errors.New("there is no base backup")
	}
	if _, err := b.open(s.Volume, record.System); err != nil {
		return err
	}
	b.log.Warn("restoring the database from its newest base backup", "of", record.End, "system", record.System)
	err = b.driver.Restore(ctx, []string{"DROVER_SOCKET=" + b.cfg.Socket}, func(ctx context.Context, dir string) error {
		_, err := s.Restore(ctx, pgbackup.RestoreOptions{Into: dir, Command: restoreCommand()})
		return err
	})
	if err != nil {
		return err
	}
	return pgbackup.Settle(b.cfg.Database.Data)
}

// ownCommand is how PostgreSQL calls this very binary.
func ownCommand(text string) string {
	exe, err := os.Executable()
	if err != nil || strings.ContainsAny(exe, " '\"%$`\\") {
		return text
	}
	return strings.Replace(text, "drover ", exe+" ", 1)
}

func archiveCommand() string { return ownCommand(pgbackup.ArchiveCommand) }
func restoreCommand() string { return ownCommand(pgbackup.RestoreCommand) }

// replicaCommand is a replica's restore_command. To it an end of the log is nothing final, and a store that
// is away must not end its server: it asks its primary then.
func replicaCommand() string { return ownCommand("drover wal fetch --timeout 5s %f %p") + " || exit 1" }

// backupLook is how often it is looked whether there is something to do.
const backupLook = 5 * time.Second

// run carries the log, and makes base backups while this member leads, until ctx ends.
func (b *backups) run(ctx context.Context, view func() database.View) {
	tick := time.NewTicker(backupLook)
	defer tick.Stop()
	for {
		if err := b.look(ctx, view()); err != nil && ctx.Err() == nil {
			b.tell(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (b *backups) tell(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if said := err.Error(); said != b.problem {
		b.problem = said
		b.log.Error("back up the database", "err", err)
	}
}

// look opens what can be opened by now, and makes a base backup if one is due.
func (b *backups) look(ctx context.Context, view database.View) error {
	system, err := strconv.ParseUint(view.System, 10, 64)
	if err != nil {
		return nil // there is no database yet
	}
	v, err := b.volume(ctx, b.cfg.Init == config.InitAuto && view.Role == database.RolePrimary)
	if err != nil {
		return err
	}
	archive, err := b.open(v, system)
	if err != nil {
		return err
	}
	every := b.cfg.Database.Backup.Every.Std()
	if view.Role != database.RolePrimary || every == 0 {
		return nil
	}
	s := &pgbackup.Store{Volume: v, Archive: archive, Log: b.log, Claim: b.claim()}
	list, err := s.List(ctx)
	if err != nil {
		return err
	}
	b.note(list)
	if len(list) > 0 && time.Since(list[len(list)-1].End) < every {
		return nil
	}
	record, err := s.Backup(ctx, pgbackup.Source{Directory: b.cfg.Database.Data, Connect: b.driver.Session})
	if err != nil {
		return err
	}
	b.note(append(slices.Clip(list), record))
	b.expire(ctx, s)
	b.log.Info("made a base backup", "bytes", record.Bytes, "stored", record.Added, "took", record.End.Sub(record.Begin).Round(time.Millisecond),
		"from", record.Start, "to", record.Stop)
	return nil
}

// expire removes what no moment of the window needs. What cannot be removed now is tried again after the next backup.
func (b *backups) expire(ctx context.Context, s *pgbackup.Store) {
	keep := b.cfg.Database.Backup.Keep.Std()
	if keep == 0 {
		return
	}
	gone, err := s.Expire(ctx, time.Now(), pgbackup.Window{Keep: keep, Least: leastBackups, Prune: true})
	if err != nil && ctx.Err() == nil {
		b.log.Warn("remove old backups of the database", "err", err)
		return
	}
	b.log.Info("removed what no moment of the window needs", "window", keep, "removed", len(gone.Drop))
}

// leastBackups is how many base backups stay, however old.
const leastBackups = 2

func (b *backups) note(list []pgbackup.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problem = ""
	if len(list) > 0 {
		b.last = list[len(list)-1]
	}
}

// newestBackup is when the newest known base backup ended, and why the last try failed.
func (b *backups) newestBackup() (end time.Time, problem string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last.End, b.problem
}
