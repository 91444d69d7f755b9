package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"drover/internal/config"
	"drover/internal/database/pgbackup"
	"drover/internal/objstore"
	"drover/internal/objstore/probe"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/volume"
)

// CopyOptions of Copy.
type CopyOptions struct {
	Snapshots []string       // ids or prefixes of committed snapshots; none: all
	To        *config.Config // store, name and password of the volume that is copied to
	Progress  func(Progress)
}

// CopyResult is what a copy did.
type CopyResult struct {
	Store    string   `json:"store"`
	Volume   string   `json:"volume"`
	Copied   int      `json:"copied"`            // snapshots
	Stored   int64    `json:"stored"`            // bytes that were not there yet
	Seq      uint64   `json:"seq"`               // of the source, up to which the copy is
	Skipped  []string `json:"skipped,omitempty"` // snapshots that have lost data
	Snapshot string   `json:"snapshot"`          // the newest one of the copy
	// Of databases: files of the log, and base backups that count.
	Log     int     `json:"log_files,omitempty"`
	Backups int     `json:"base_backups,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Copy copies the committed history into another volume, as far as it is not there yet.
// Errors: ErrForked, ErrHeld, ErrIncomplete.
func (o *Ops) Copy(ctx context.Context, opt CopyOptions) (res CopyResult, err error) {
	start := time.Now()
	v, err := o.open(ctx)
	if err != nil {
		return CopyResult{}, err
	}
	var only []format.ID
	for _, name := range opt.Snapshots {
		id, _, err := o.find(ctx, v, name)
		if err != nil {
			return CopyResult{}, err
		}
		only = append(only, id)
	}
	st, err := openStore(ctx, opt.To, nil, commandAttempts, o.log)
	if err != nil {
		return CopyResult{}, err
	}
	if c, ok := st.(objstore.Closer); ok {
		defer func() { err = errors.Join(err, c.Close()) }()
	}
	to, err := openCopy(ctx, st, v, opt.To, o.log)
	if err != nil {
		return CopyResult{}, err
	}
	m := volume.NewMirror(v, to, volume.MirrorOptions{
		Instance: o.cfg.ID, Version: Version, TTL: opt.To.Lease.TTL.Std(), Log: o.log,
		Progress: counted("copy", opt.Progress, nil),
	})
	res = CopyResult{Store: opt.To.Store.URL, Volume: opt.To.Volume}
	for again := true; again; { // a snapshot that lost data is passed over the second time
		var r volume.MirrorResult
		r, err = m.Sync(ctx, only)
		again = errors.Is(err, ErrIncomplete) && r.Copied > 0
		res.Copied += r.Copied
		res.Stored += r.Stored
		res.Seq, res.Skipped, res.Snapshot = r.Seq, r.Skipped, r.Head.Snapshot
	}
	if err == nil {
		var db pgbackup.Copied
		db, err = pgbackup.Copy(ctx, v, to, o.log)
		res.Log, res.Backups = db.Files, db.Backups
		res.Stored += db.Bytes
	}
	res.Seconds = time.Since(start).Seconds()
	if err == nil && len(only) > res.Copied {
		err = fmt.Errorf("%w: %d of %d snapshots were not copied: they are not committed, or not newer than what is there, and a history only goes forward",
			ErrIncomplete, len(only)-res.Copied, len(only))
	}
	return res, err
}

// openCopy opens the volume that v's history is copied to, and makes it where there is
// nothing. Its files are cut as v's, so that whoever goes on there stores little anew.
func openCopy(ctx context.Context, st objstore.Store, v *volume.Volume, cfg *config.Config, log *slog.Logger) (*volume.Volume, error) {
	if _, err := probe.Check(ctx, st, probe.Start); err != nil {
		return nil, err
	}
	password, err := cfg.ReadPassword(ctx)
	if err != nil {
		return nil, err
	}
	to, _, err := volume.Open(ctx, objstore.WithPrefix(st, cfg.Volume), volume.OpenOptions{
		Name: cfg.Volume, Password: password.Reveal(), Create: true, Like: v.Repo,
		Repo: repo.Options{Log: log, Connections: cfg.Limits.Connections},
	})
	return to, err
}
