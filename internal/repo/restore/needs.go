package restore

import (
	"fmt"

	"drover/internal/repo"
	"drover/internal/repo/format"
)

// needs is a set of blobs, by the packs to read them from, in the order of first use.
type needs struct {
	r     *repo.Repository
	seen  map[format.Handle]struct{}
	index map[format.ID]int
	packs []packNeed
}

type packNeed struct {
	id    format.ID
	blobs []repo.PackedBlob
}

func newNeeds(r *repo.Repository) *needs {
	return &needs{r: r, seen: make(map[format.Handle]struct{}), index: make(map[format.ID]int)}
}

func (n *needs) add(h format.Handle) error {
	if _, ok := n.seen[h]; ok {
		return nil
	}
	locations, ok := n.r.Lookup(h)
	if !ok || len(locations) == 0 {
		return fmt.Errorf("%s blob %s: %w", h.Type, h.ID, repo.ErrBlobNotFound)
	}
	at := locations[0]
	for _, l := range locations[1:] { // a pack that is read anyway is best
		if _, ok := n.index[l.Pack]; ok {
			at = l
			break
		}
	}
	n.seen[h] = struct{}{}
	i, ok := n.index[at.Pack]
	if !ok {
		i = len(n.packs)
		n.index[at.Pack] = i
		n.packs = append(n.packs, packNeed{id: at.Pack})
	}
	n.packs[i].blobs = append(n.packs[i].blobs, repo.PackedBlob{Handle: h, Location: at})
	return nil
}
