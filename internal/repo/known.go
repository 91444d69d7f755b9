package repo

import (
	"context"

	"drover/internal/repo/format"
)

// KnownPacks returns every pack that is stored, or that an index object names.
func (r *Repository) KnownPacks(ctx context.Context) (map[format.ID]struct{}, error) {
	idx, err := r.readIndex(ctx)
	if err != nil {
		return nil, err
	}
	known := make(map[format.ID]struct{})
	for _, id := range idx.missing() {
		known[id] = struct{}{}
	}
	stored, err := r.listPacks(ctx)
	if err != nil {
		return nil, err
	}
	for id := range stored {
		known[id] = struct{}{}
	}
	return known, nil
}
