package app

import (
	"context"
	"log/slog"
	"time"

	"drover/internal/config"
	"drover/internal/coord"
	"drover/internal/render"
	"drover/internal/secret"
)

// coordinator is what the backend that is configured can do; what it cannot is nil.
type coordinator struct {
	catalog  coord.Catalog
	kv       coord.KV
	leases   coord.Leases
	registry coord.Registry
	close    func()
}

// openCoordinator makes the backend. It reaches for nothing yet.
func openCoordinator(ctx context.Context, cfg *config.Config, log *slog.Logger) (*coordinator, error) {
	return &coordinator{close: func() {}}, nil
}

// sourcesOf is what templates read.
func sourcesOf(co *coordinator, secrets secret.Source) render.Sources {
	s := render.Sources{KV: co.kv, Catalog: co.catalog, Secrets: secrets}
	if nodes, ok := co.catalog.(render.Machines); ok {
		s.Nodes = nodes
	}
	return s
}

// openSecrets makes the source of secrets that is configured; nil: none. It waits for nothing.
func openSecrets(cfg *config.Config, log *slog.Logger) (secret.Source, error) {
	return nil, nil
}

// secretsLimit bounds the revoking of leases at the end.
const secretsLimit = 10 * time.Second

// closeSecrets revokes what was leased, when the jobs have ended.
func closeSecrets(ctx context.Context, secrets secret.Source, log *slog.Logger) {
	if secrets == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), secretsLimit)
	defer cancel()
	if err := secrets.Close(ctx); err != nil {
		log.Warn("leases of secrets end by themselves", "err", err)
	}
}
