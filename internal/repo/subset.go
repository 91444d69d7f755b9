package repo

import (
	"slices"

	"drover/internal/repo/format"
)

// StoredPack is a pack object as the store lists it; Size is in bytes.
type StoredPack struct {
	ID   format.ID
	Size int64
}

// CheckProgress is how far the reading of packs is.
type CheckProgress struct {
	Packs, TotalPacks int
	Bytes, TotalBytes int64
}

// sortedPacks lists the stored packs by id, so that a choice among them is the
// same each time.
func sortedPacks(stored map[format.ID]int64) []StoredPack {
	packs := make([]StoredPack, 0, len(stored))
	for id, size := range stored {
		packs = append(packs, StoredPack{id, size})
	}
	slices.SortFunc(packs, func(a, b StoredPack) int { return compareIDs(a.ID, b.ID) })
	return packs
}
