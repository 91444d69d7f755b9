package app

import (
	"context"
	"log/slog"

	"drover/internal/config"
	"drover/internal/coord"
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
