package app

import (
	"context"
	"errors"
	"time"

	"drover/internal/config"
	"drover/internal/objstore"
	"drover/internal/objstore/probe"
	"drover/internal/repo"
	"drover/internal/volume"
)

// CloneOptions of Clone.
type CloneOptions struct {
	Snapshot string         // id, prefix of one, or "latest": the head's
	To       *config.Config // store, name and password of the new volume
	Progress func(Progress)
}

// CloneResult is what a clone made.
type CloneResult struct {
	Of       string  `json:"of"` // the snapshot that was cloned
	Store    string  `json:"store"`
	Volume   string  `json:"volume"`
	Snapshot string  `json:"snapshot"` // the new volume's first one
	Stored   int64   `json:"stored"`   // bytes that were not there yet
	Seconds  float64 `json:"seconds"`
}

// Clone makes a new volume that begins with a snapshot of this one.
// Errors: ErrIncomplete, ErrWrongPassword of a clone that was begun with another one.
func (o *Ops) Clone(ctx context.Context, opt CloneOptions) (res CloneResult, err error) {
	start := time.Now()
	v, err := o.open(ctx)
	if err != nil {
		return CloneResult{}, err
	}
	password, err := opt.To.ReadPassword(ctx)
	if err != nil {
		return CloneResult{}, err
	}
	st, err := openStore(ctx, opt.To, nil, commandAttempts, o.log)
	if err != nil {
		return CloneResult{}, err
	}
	if c, ok := st.(objstore.Closer); ok {
		defer func() { err = errors.Join(err, c.Close()) }()
	}
	if _, err := probe.Check(ctx, st, probe.Start); err != nil {
		return CloneResult{}, err
	}
	res = CloneResult{Store: opt.To.Store.URL, Volume: opt.To.Volume}
	err = o.held(ctx, v, func(ctx context.Context) error {
		id, sn, err := o.find(ctx, v, opt.Snapshot)
		if err != nil {
			return err
		}
		stats, err := v.Clone(ctx, id, objstore.WithPrefix(st, opt.To.Volume), volume.CloneOptions{
			Name: opt.To.Volume, Password: password.Reveal(), TTL: opt.To.Lease.TTL.Std(), Instance: o.cfg.ID, Version: Version,
			Repo: repo.Options{Log: o.log, Connections: opt.To.Limits.Connections}, Log: o.log,
			Progress: counted("clone", opt.Progress, sn),
		})
		res.Of, res.Snapshot, res.Stored = id.String(), stats.Snapshot, stats.Stored
		return err
	})
	res.Seconds = time.Since(start).Seconds()
	return res, err
}
