package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"drover/client"
	"drover/internal/config"
	"drover/internal/database"
	"drover/internal/database/pgbackup"
	"drover/internal/database/postgres"
	"drover/internal/database/wal"
	"drover/internal/failover"
	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/volume"
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
	at      *pgbackup.Store
	problem string // what was last told to have gone wrong; empty: nothing has since
	known   client.DatabaseBackups
	due     time.Time // when the next base backup is, by the own clock; look's own
	tries   int       // how often one has failed in a row; look's own

	tests  *restoreTests                   // nil: none
	mirror *mirror                         // nil: none
	said   atomic.Pointer[json.RawMessage] // what the other members are told
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
	b := &backups{cfg: cfg, log: log, st: st, driver: driver, carry: carry}
	b.mirror = newDatabaseMirror(b)
	return b, nil
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

// open is where the base backups of one database are; its log is carried from here on.
func (b *backups) open(v *volume.Volume, system uint64) (*pgbackup.Store, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.at != nil && b.at.Archive.System() == system {
		return b.at, nil
	}
	at, err := pgbackup.Open(v, wal.Stream{System: system}, b.claim(), b.log)
	if err != nil {
		return nil, err
	}
	former := b.courier
	b.at = at
	b.courier = wal.NewCourier(at.Archive, wal.CourierOptions{Directory: b.cfg.Database.Data, Log: b.log})
	b.carry(b.courier)
	if former != nil {
		_ = former.Close()
	}
	return at, nil
}

// taken are the timelines after one that is known whose histories are in the archive, and these; none, if it is not open yet.
func (m *member) taken(ctx context.Context, known uint32) (map[uint32]string, error) {
	if m.store == nil {
		return nil, nil
	}
	m.store.mu.Lock()
	at := m.store.at
	m.store.mu.Unlock()
	if at == nil {
		return nil, nil
	}
	all := map[uint32]string{}
	for {
		known++
		text, err := at.Archive.Fetch(ctx, wal.Name{Kind: wal.History, Timeline: wal.Timeline(known)})
		if errors.Is(err, wal.ErrNotFound) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all[known] = string(text)
	}
}

// claim is how the volume is held while a base backup commits.
func (b *backups) claim() volume.Options { return claimOf(b.cfg) }

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
	return b.driver.Restore(ctx, fetched(s, pgbackup.Target{}, b.cfg.Socket, nil))
}

// fetched is a base backup as the driver begins with it; progress is told of each file, from any goroutine. nil: nobody is.
func fetched(s *pgbackup.Store, target pgbackup.Target, socket string, progress func(string, uint64)) postgres.Backup {
	return postgres.Backup{
		Env: []string{"DROVER_SOCKET=" + socket}, Settle: pgbackup.Settle,
		Fetch: func(ctx context.Context, dir string) error {
			opt := pgbackup.RestoreOptions{Into: dir, Target: target, Command: restoreCommand(), Progress: progress}
			_, err := s.Restore(ctx, opt)
			if errors.Is(err, pgbackup.ErrNotEmpty) { // what was there before, or a restore that ended unseen
				if err = removeContents(dir); err == nil {
					_, err = s.Restore(ctx, opt)
				}
			}
			return err
		},
	}
}

func removeContents(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
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

// sourceCommand is restore_command of a member of a standby cluster: there is nobody else to ask. That what is to come is
// not there yet is no news; what goes wrong the agent says.
func sourceCommand() string { return ownCommand("drover wal fetch %f %p") + " 2>/dev/null || exit 1" }

// backupLook is how often it is looked whether there is something to do, which asks the store for nothing; and backupAgain
// is after how long at most a base backup that failed is tried again: at first sooner.
const (
	backupLook  = 5 * time.Second
	backupAgain = time.Minute
)

// run carries the log, makes base backups and, until testing ends, tests them while it is this member's turn, until ctx ends.
func (b *backups) run(ctx, testing context.Context, m *database.Member) {
	var parts sync.WaitGroup
	defer parts.Wait()
	if err := clearScratch(b.cfg); err != nil {
		b.log.Warn("remove what a restore test has left", "err", err)
	}
	parts.Go(func() { repeat(ctx, backupLook, func() { b.note() }) })
	if b.tests != nil {
		parts.Go(func() { b.tests.run(testing) })
	}
	if b.mirror != nil {
		parts.Go(func() { b.mirrored(ctx, m) })
	}
	repeat(ctx, backupLook, func() {
		if err := b.look(ctx, m); err != nil && ctx.Err() == nil {
			b.tell(err)
		}
	})
}

// repeat calls f at once and then again and again, until ctx ends.
func repeat(ctx context.Context, every time.Duration, f func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		f()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tell warns of a failure, once as long as it is the same.
func (b *backups) tell(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if said := err.Error(); said != b.problem {
		b.problem = said
		b.log.Error("back up the database", "err", err)
	}
}

// worker is the member that does what one of the cluster has to do, as this one sees it: the first replica by name that
// receives, or else the primary. Two may see it differently for a moment: both look first whether it is done.
func worker(m *database.Member, from config.From) string {
	v := m.View()
	if from != config.FromPrimary {
		for _, name := range v.Names() {
			if s, ok := m.Named(v, name); ok && s.Role == database.RoleReplica && s.Receiving && s.Tags.Delayed == 0 {
				return name
			}
		}
	}
	if from == config.FromReplica {
		return ""
	}
	return v.Primary
}

// look opens what can be opened by now, and makes a base backup if one is due.
func (b *backups) look(ctx context.Context, m *database.Member) error {
	view := m.View()
	system, err := strconv.ParseUint(view.System, 10, 64)
	if err != nil {
		return nil //nolint:nilerr // there is no database yet
	}
	if r := view.Record; r != nil && r.Phase == failover.Standby || r == nil && b.cfg.SourceConfig() != nil {
		return nil // what there is has been backed up: by the cluster that is followed
	}
	leads := view.Role == database.RolePrimary
	v, err := b.volume(ctx, b.cfg.Init == config.InitAuto && leads)
	if errors.Is(err, repo.ErrNoRepository) && !leads {
		return nil // the primary makes it
	}
	if err != nil {
		return err
	}
	at, err := b.open(v, system)
	if err != nil {
		return err
	}
	if worker(m, b.cfg.Database.Backup.From) != b.cfg.ID {
		b.due, b.tries = time.Time{}, 0 // what others did meanwhile is to be seen first
		b.attempted(nil)
		return nil
	}
	if time.Now().Before(b.due) {
		return nil
	}
	if err = b.backUp(ctx, at, m); err == nil {
		b.tries = 0
	} else {
		b.due = time.Now().Add(min(backupLook<<b.tries, backupAgain))
		b.tries = min(b.tries+1, 10)
	}
	if ctx.Err() == nil {
		b.attempted(err)
	}
	return err
}

// attempted notes what the last attempt came to.
func (b *backups) attempted(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known.Error = ""; err != nil {
		b.known.Error = brief(err)
		b.known.Failures++
	}
}

// made notes the newest base backup, and that nothing is wrong.
func (b *backups) made(r pgbackup.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problem = ""
	b.known.Last, b.known.By = &r.End, r.Instance
}

// backUp makes a base backup, if the newest one is old, and says when the next one is due.
func (b *backups) backUp(ctx context.Context, at *pgbackup.Store, m *database.Member) error {
	list, err := at.List(ctx)
	if err != nil {
		return err
	}
	every := b.cfg.Database.Backup.Every.Std()
	if n := len(list); n > 0 {
		b.made(list[n-1])
		// Its end is by the clock of the server that made it: one that is in the future says nothing.
		if age := time.Since(list[n-1].End); age >= 0 && age < every {
			b.due = time.Now().Add(every - age)
			return nil
		}
	}
	staying, end := stays(ctx, m)
	defer end()
	record, err := at.Backup(staying, pgbackup.Source{Directory: b.cfg.Database.Data, Connect: b.driver.Session, Switch: m.EndSegment})
	if err != nil {
		if ctx.Err() == nil && staying.Err() != nil {
			err = context.Cause(staying)
		}
		return err
	}
	b.due = time.Now().Add(every)
	b.made(record)
	b.log.Info("made a base backup", "bytes", record.Bytes, "stored", record.Added, "took", record.End.Sub(record.Begin).Round(time.Millisecond),
		"from", record.Start, "to", record.Stop, "replica", record.Replica)
	b.expire(ctx, at)
	return nil
}

// stays is a context that ends when the server's history or role becomes another one: what a base backup waits for may never
// come then.
func stays(ctx context.Context, m *database.Member) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	begin := m.View()
	var part sync.WaitGroup
	part.Go(func() {
		repeat(ctx, time.Second, func() {
			switch v := m.View(); {
			case v.Timeline != "" && v.Timeline != begin.Timeline:
				cancel(fmt.Errorf("%w: it went from timeline %s to %s", pgbackup.ErrInterrupted, begin.Timeline, v.Timeline))
			case v.Role != database.RoleNone && v.Role != begin.Role:
				cancel(fmt.Errorf("%w: the %s became the %s", pgbackup.ErrInterrupted, begin.Role, v.Role))
			}
		})
	})
	return ctx, func() { cancel(nil); part.Wait() }
}

// expire removes what no moment of the window needs. What cannot be removed now is tried again after the next backup.
func (b *backups) expire(ctx context.Context, s *pgbackup.Store) {
	keep := b.cfg.Database.Backup.Keep.Std()
	if keep == 0 {
		return
	}
	gone, err := s.Expire(ctx, time.Now(), pgbackup.Window{Keep: keep, Least: leastBackups, Prune: true})
	if err != nil {
		if ctx.Err() == nil {
			b.log.Warn("remove old backups of the database", "err", err)
		}
		return
	}
	b.log.Info("removed what no moment of the window needs", "window", keep, "removed", len(gone.Drop))
}

// leastBackups is how many base backups stay, however old.
const leastBackups = 2
