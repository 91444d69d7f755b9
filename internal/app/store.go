package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"drover/internal/config"
	"drover/internal/objstore"
	"drover/internal/objstore/limited"
	"drover/internal/objstore/metered"
	"drover/internal/objstore/retry"
	"drover/internal/objstore/storeurl"
	"drover/internal/repo"
	"drover/internal/volume"
)

// openStore returns the store of cfg with its decorators, outermost the retry.
// attempts is how often one call is tried; 0: until its context ends.
func openStore(ctx context.Context, cfg *config.Config, reg prometheus.Registerer, attempts int, log *slog.Logger) (objstore.Store, error) {
	backend, err := storeurl.Open(ctx, cfg.Store.URL, storeurl.Options{Concurrency: cfg.Limits.Connections})
	if err != nil {
		return nil, err
	}
	var st objstore.Store = backend
	if l := cfg.Limits; l.Upload > 0 || l.Download > 0 || l.Connections > 0 {
		st = limited.New(st, limited.Options{Upload: int64(l.Upload), Download: int64(l.Download), Concurrency: int64(l.Connections)})
	}
	if reg != nil {
		if st, err = metered.New(st, reg); err != nil {
			return nil, fmt.Errorf("register store metrics: %w", err)
		}
	}
	if cfg.Lease.Head == config.HeadCoordinator {
		co, err := openCoordinator(ctx, cfg, log)
		if err != nil {
			return nil, err
		}
		st = &headStore{Store: st, kv: co.kv, prefix: cfg.CoordinatorPrefix() + "/volumes"}
	}
	return retry.New(st, retry.Options{
		Attempts: attempts,
		Failed: func(op, key string, err error, attempt int, pause time.Duration) {
			log.Log(ctx, failedLevel(attempt), "store: trying again", "op", op, "key", key, "err", err, "in", pause)
		},
	}), nil
}

// failedLevel keeps single failures, which are everyday, out of sight.
func failedLevel(attempt int) slog.Level {
	if attempt < 3 {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// openVolume opens the volume of cfg in st.
func openVolume(ctx context.Context, st objstore.Store, cfg *config.Config, create bool, log *slog.Logger) (*volume.Volume, bool, error) {
	password, err := cfg.ReadPassword(ctx)
	if err != nil {
		return nil, false, err
	}
	v, created, err := volume.Open(ctx, objstore.WithPrefix(st, cfg.Volume), volume.OpenOptions{
		Name: cfg.Volume, Password: password.Reveal(), Create: create,
		Repo: repo.Options{Log: log, Connections: cfg.Limits.Connections},
	})
	if errors.Is(err, repo.ErrNoRepository) {
		err = fmt.Errorf("%w: %s has no volume %q: `drover init` makes it", err, describe(st), cfg.Volume)
	}
	return v, created, err
}

// describe names the store for people, without credentials.
func describe(st objstore.Store) string {
	if d, ok := st.(objstore.Describer); ok {
		return d.Describe()
	}
	return "the store"
}

// storeWait is the longest pause between attempts to reach a store at start.
const storeWait = 15 * time.Second

// untilAvailable repeats f while the store does not answer.
func untilAvailable(ctx context.Context, log *slog.Logger, what string, f func() error) error {
	pause := 500 * time.Millisecond
	for {
		err := f()
		if !errors.Is(err, objstore.ErrUnavailable) {
			return err
		}
		log.Warn(what+": waiting for the store", "err", err, "again_in", pause)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
			pause = min(2*pause, storeWait)
		}
	}
}
