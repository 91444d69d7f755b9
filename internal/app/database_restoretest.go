package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/config"
	"drover/internal/database/pgbackup"
	"drover/internal/database/postgres"
	"drover/internal/database/wal"
	"drover/internal/objstore"
	"drover/internal/volume"
)

// testDatabase restores the newest database of a volume into scratch space, and looks at it. The outcome has no time if
// there is nothing to test.
func (o *Ops) testDatabase(ctx context.Context, v *volume.Volume, opt RestoreTestOptions) (volume.RestoreTest, error) {
	s, _, err := newestDatabase(ctx, v, o.sessionOptions(o.treeOptions()), o.log)
	if err == nil && s == nil {
		err = fmt.Errorf("volume %s: %w: no database was backed up into it", o.cfg.Volume, pgbackup.ErrNoBackup)
	}
	if err != nil {
		return volume.RestoreTest{}, err
	}
	return databaseTest{cfg: o.cfg, log: o.log, store: s, progress: opt.Progress}.run(ctx)
}

// databaseTest is one restore test of a database.
type databaseTest struct {
	cfg      *config.Config
	log      *slog.Logger
	store    *pgbackup.Store // whose volume nobody else uses
	progress func(Progress)
}

// nicest is the nice value of what runs beside the database.
const nicest = 19

// run makes the test. The error is the one in the outcome.
func (d databaseTest) run(ctx context.Context) (volume.RestoreTest, error) {
	t := volume.RestoreTest{Instance: d.cfg.ID, Time: time.Now()}
	limit := d.cfg.Database.RestoreTest.Timeout.Std()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %s (database.restore_test.timeout)", limit))
	defer cancel()
	at := &databaseAt{store: d.store, few: true, progress: d.progress}
	var err error
	if at.user, err = databaseUser(d.cfg); err == nil {
		err = d.inScratch(ctx, at, &t)
	}
	if t.Begun && saysNothing(err) {
		t.Begun = false
	}
	if err = t.End(ctx, err); err != nil {
		t.Error = brief(err)
	}
	return t, err
}

// saysNothing reports whether an error is none of the backup's.
func saysNothing(err error) bool {
	for _, kind := range []error{
		volume.ErrNoRoom, objstore.ErrUnavailable, objstore.ErrUnauthorised, unix.ENOSPC, unix.EDQUOT, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// scratchOf is where a database's restore tests are made.
func scratchOf(cfg *config.Config) string {
	if dir := cfg.Database.RestoreTest.Dir; dir != "" {
		return filepath.Join(dir, ".restore-test", cfg.Volume)
	}
	return cfg.Database.Data + ".restore-test"
}

func openScratch(cfg *config.Config, at *databaseAt) (*volume.Scratch, error) {
	var owner *volume.Owner
	if at.user != nil {
		owner = &volume.Owner{UID: at.user.UID, GID: at.user.GID}
	}
	return volume.OpenScratch(scratchOf(cfg), owner, "database.restore_test.dir")
}

// clearScratch removes what a test has left that was killed.
func clearScratch(cfg *config.Config) error {
	if _, err := os.Lstat(scratchOf(cfg)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	s, err := openScratch(cfg, &databaseAt{})
	if err != nil {
		return err
	}
	return s.Close()
}

func (d databaseTest) inScratch(ctx context.Context, at *databaseAt, t *volume.RestoreTest) (err error) {
	s, err := openScratch(d.cfg, at)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	at.dir, at.spool = filepath.Join(s.Dir, "data"), filepath.Join(s.Dir, "log")
	to, need, err := d.whole(ctx, at, t)
	if err != nil {
		return err
	}
	if err := s.Room(0, need); err != nil {
		return err
	}
	ctx, stop := s.Watch(ctx)
	defer stop()
	err = d.restore(ctx, s.Dir, at, to, t)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, volume.ErrNoRoom) {
		return cause
	}
	return err
}

// gapPatience is how long a gap in the archive may be, and gapLook between two looks at it: several files are stored at once.
const (
	gapPatience = time.Minute
	gapLook     = 2 * time.Second
)

// whole looks that everything is there which the newest base backup and the log need, and says up to where that leads,
// and how many bytes it takes.
func (d databaseTest) whole(ctx context.Context, at *databaseAt, t *volume.RestoreTest) (to wal.Cover, need uint64, err error) {
	var missing wal.Name
	var since time.Time // when it was first missed
	for ; ; err = sleep(ctx, gapLook) {
		if err != nil {
			return to, 0, err
		}
		list, err := d.store.Statuses(ctx)
		if err != nil {
			return to, 0, err
		}
		newest, err := d.store.Choose(ctx, pgbackup.Target{})
		if err != nil {
			return to, 0, err
		}
		i := slices.IndexFunc(list, func(s pgbackup.Status) bool { return s.Name == newest.Name })
		if i < 0 {
			continue // it was made just now
		}
		at.record, to = list[i].Record, list[i].Cover
		t.Snapshot, t.Backup, t.Bytes, t.Begun = at.record.Snapshot, &at.record.End, at.record.Bytes, true
		stored, err := d.store.Archive.List(ctx)
		if err != nil {
			return to, 0, err
		}
		if !to.Gap && to.End >= at.record.Stop {
			return to, at.size(stored), nil
		}
		if missing != to.Missing {
			missing, since = to.Missing, time.Now()
		}
		if overtaken(stored, missing, at.record.Segment) > gapPatience || time.Since(since) > gapPatience {
			return to, 0, fmt.Errorf("the log archive lacks %s: the database can be restored up to %s, and not to its end", to.Missing, to.End)
		}
	}
}

// overtaken is for how long something has been stored since a segment that comes after a missing one was, all by the store's clock.
func overtaken(stored []wal.Stored, missing wal.Name, size int64) time.Duration {
	var first, last time.Time
	for _, f := range stored {
		if f.Kind == wal.Segment && f.Number(size) > missing.Number(size) && (first.IsZero() || f.Time.Before(first)) {
			first = f.Time
		}
		if f.Time.After(last) {
			last = f.Time
		}
	}
	if first.IsZero() {
		return 0
	}
	return last.Sub(first)
}

// size is how many bytes a restore takes.
func (d *databaseAt) size(stored []wal.Stored) uint64 {
	log := uint64(0)
	for _, f := range stored {
		if d.needs(f) {
			log += uint64(d.record.Segment)
		}
	}
	return uint64(d.record.Bytes) + log + min(log, postgres.TrialLog)
}

// sleep waits, unless ctx ends.
func sleep(ctx context.Context, pause time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pause):
		return nil
	}
}

// longestRun is how long the path of a directory with a server's socket may be, in bytes.
const longestRun = 80

func (d databaseTest) restore(ctx context.Context, dir string, at *databaseAt, to wal.Cover, t *volume.RestoreTest) (err error) {
	run := filepath.Join(dir, "run")
	if len(run) > longestRun {
		if run, err = os.MkdirTemp("", "drover"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(run)) }()
	}
	db := d.cfg.Database
	o := at.options(run, db.Bin)
	o.Nice, o.Superuser.Name = nicest, cmp.Or(db.Superuser, o.Superuser.Name)
	for name, value := range db.Parameters {
		if strings.EqualFold(name, "shared_preload_libraries") { // some have a log of their own
			o.Parameters = map[string]string{name: value}
		}
	}
	driver, err := postgres.New(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, driver.Close()) }()
	began := time.Now()
	b := at.backup()
	b.Look = func(ctx context.Context) error {
		t.Restore = time.Since(began).Seconds()
		return d.look(ctx, driver)
	}
	err = driver.Restore(ctx, b)
	t.Snapshot, t.Backup, t.Bytes = at.record.Snapshot, &at.record.End, at.record.Bytes
	if err != nil {
		return err
	}
	if err := reached(ctx, driver, at.record.Segment, to, t); err != nil {
		return err
	}
	sums, err := driver.Checksummed(ctx)
	if err != nil || !sums {
		return err
	}
	if err := driver.Sound(ctx); err != nil {
		return fmt.Errorf("the restored database is damaged: %w", err)
	}
	return nil
}

// look asks the restored database what is to be asked.
func (d databaseTest) look(ctx context.Context, driver *postgres.Driver) error {
	sums, err := driver.Checksummed(ctx)
	if err != nil {
		return err
	}
	if !sums {
		if err := driver.Consistent(ctx); err != nil {
			return fmt.Errorf("the restored database is damaged: %w", err)
		}
	}
	if q := d.cfg.Database.RestoreTest; q.Query != "" {
		return driver.Ask(ctx, q.Database, q.Query)
	}
	return nil
}

// reached notes how far the log led, and fails if that is not into the last segment that is archived.
func reached(ctx context.Context, driver *postgres.Driver, segment int64, to wal.Cover, t *volume.RestoreTest) error {
	timeline, text, err := driver.Left(ctx)
	if err != nil {
		return err
	}
	line, err := wal.ParseHistory(wal.Timeline(timeline), []byte(text))
	if err != nil {
		return err
	}
	end := line[0].Begin
	t.Reached = end.String()
	if end+wal.LSN(segment) < to.End {
		return fmt.Errorf("recovery ended at %s, and the archived log goes to %s", end, to.End)
	}
	return nil
}
