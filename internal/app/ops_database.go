package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync/atomic"
	"time"

	"drover/internal/database/pgbackup"
	"drover/internal/database/postgres"
	"drover/internal/database/wal"
	"drover/internal/supervise"
)

// DatabaseTarget is a moment of a database's history. At most one is set; none: the end of the log.
type DatabaseTarget = pgbackup.Target

// What a text names that is no time.
var (
	positionForm    = regexp.MustCompile(`^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$`)
	transactionForm = regexp.MustCompile(`^[0-9]+$`)
)

// ParseDatabaseTarget tells a log position (16/B374D848), a transaction's number and the name of a restore point
// apart. Times are the caller's.
func ParseDatabaseTarget(text string) DatabaseTarget {
	switch {
	case text == "":
		return DatabaseTarget{}
	case positionForm.MatchString(text):
		return DatabaseTarget{LSN: text}
	case transactionForm.MatchString(text):
		return DatabaseTarget{XID: text}
	}
	return DatabaseTarget{Name: text}
}

// RestoreDatabaseOptions of RestoreDatabase.
type RestoreDatabaseOptions struct {
	Target   string // the new data directory, which is missing or empty
	At       DatabaseTarget
	Progress func(Progress)
}

// RestoreDatabaseResult is what was restored.
type RestoreDatabaseResult struct {
	Target   string    `json:"target"`
	Backup   time.Time `json:"backup"` // the base backup's end
	System   string    `json:"system"`
	Segments int       `json:"segments"` // of the log that were brought
	Seconds  float64   `json:"seconds"`
}

// RestoreDatabase makes a data directory of the newest database in the volume, as it was at a moment, and recovers it:
// what is there then is a primary that was stopped in order.
// Errors: pgbackup's, ErrIncomplete.
func (o *Ops) RestoreDatabase(ctx context.Context, opt RestoreDatabaseOptions) (RestoreDatabaseResult, error) {
	began := time.Now()
	dir, err := filepath.Abs(opt.Target)
	if err != nil {
		return RestoreDatabaseResult{}, err
	}
	v, err := o.open(ctx)
	if err != nil {
		return RestoreDatabaseResult{}, err
	}
	s, _, err := newestDatabase(ctx, v, o.sessionOptions(o.treeOptions()), o.log)
	if err == nil && s == nil {
		err = fmt.Errorf("volume %s: %w: no database was backed up into it", o.cfg.Volume, pgbackup.ErrNoBackup)
	}
	if err != nil {
		return RestoreDatabaseResult{}, err
	}
	at := &databaseAt{store: s, at: opt.At, dir: dir, spool: dir + ".log", progress: opt.Progress}
	if at.user, err = databaseUser(o.cfg); err != nil {
		return RestoreDatabaseResult{}, err
	}
	err = o.held(ctx, v, func(ctx context.Context) error { return at.restore(ctx, o.cfg.Database.Bin) })
	return RestoreDatabaseResult{
		Target: dir, Backup: at.record.End, System: fmt.Sprint(at.record.System), Segments: at.segments, Seconds: time.Since(began).Seconds(),
	}, err
}

// databaseAt is one restore beside the database.
type databaseAt struct {
	store    *pgbackup.Store
	at       DatabaseTarget
	dir      string // of the database
	spool    string // of its log; it is made
	user     *supervise.User
	few      bool // one file at a time
	progress func(Progress)

	record   pgbackup.Record
	segments int
}

func (d *databaseAt) restore(ctx context.Context, bin string) (err error) {
	run, err := os.MkdirTemp("", "drover") // a socket's path is short
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(run), os.RemoveAll(d.spool)) }()
	if err := errors.Join(os.MkdirAll(filepath.Dir(d.dir), 0o755), d.own(run)); err != nil {
		return err
	}
	driver, err := postgres.New(d.options(run, bin))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, driver.Close()) }()
	return driver.Restore(ctx, d.backup())
}

// options are of a driver of the database that is made. Nobody connects to it by a password.
func (d *databaseAt) options(run, bin string) postgres.Options {
	role := func(name string) postgres.Role {
		return postgres.Role{Name: name, Password: func() string { return "" }}
	}
	o := postgres.Options{Data: d.dir, Run: run, Bin: bin, Superuser: role("postgres"), Replication: role("replication_none"), Rewind: role("rewind_none")}
	if d.user != nil {
		o.User = d.user.Credential()
	}
	return o
}

// backup is what is restored.
func (d *databaseAt) backup() postgres.Backup {
	return postgres.Backup{Anew: true, Settle: pgbackup.Settle, Fetch: func(ctx context.Context, dir string) error {
		opt := pgbackup.RestoreOptions{
			Into: dir, Target: d.at, Command: fmt.Sprintf("test -f '%s/%%f' && cp '%s/%%f' %%p", d.spool, d.spool), Progress: d.told(),
		}
		if d.few {
			opt.Concurrency = 1
		}
		var err error
		if d.record, err = d.store.Restore(ctx, opt); err != nil {
			return err
		}
		return d.bring(ctx)
	}}
}

func (d *databaseAt) told() func(string, uint64) {
	if d.progress == nil {
		return nil
	}
	var done atomic.Int64
	return func(_ string, bytes uint64) {
		d.progress(Progress{Phase: "restore", Bytes: done.Add(int64(bytes))})
	}
}

// bring copies the log from where recovery begins, of all timelines: which of them it follows PostgreSQL decides.
func (d *databaseAt) bring(ctx context.Context) error {
	if err := errors.Join(os.MkdirAll(d.spool, 0o700), d.own(d.spool)); err != nil {
		return err
	}
	all, err := d.store.Archive.List(ctx)
	if err != nil {
		return err
	}
	for _, s := range all {
		if !d.needs(s) {
			continue
		}
		content, err := d.store.Archive.Fetch(ctx, s.Name)
		if err != nil {
			return err
		}
		file := filepath.Join(d.spool, s.Name.String())
		if err := errors.Join(os.WriteFile(file, content, 0o600), d.own(file)); err != nil {
			return err
		}
		d.segments++
	}
	return nil
}

// needs reports whether recovery from the backup may ask for a file of the log.
func (d *databaseAt) needs(s wal.Stored) bool {
	return s.Kind == wal.History || s.Kind == wal.Segment && s.Name.Begin(d.record.Segment)+wal.LSN(d.record.Segment) > d.record.Start
}

// own gives a file to whom the server runs as.
func (d *databaseAt) own(path string) error {
	if d.user == nil {
		return nil
	}
	return os.Chown(path, int(d.user.UID), int(d.user.GID))
}
