package repo

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"drover/internal/objstore"
	"drover/internal/repo/format"

	"golang.org/x/sync/errgroup"
)

// indexLoadAttempts bounds how often LoadIndex starts over because somebody
// rewrote index objects between the listing and the reading.
const indexLoadAttempts = 5

// LoadIndex reads all of index/ and lists data/, and replaces the index in
// memory. Only blobs of packs that are stored, and not condemned, are used for
// deduplication afterwards.
func (r *Repository) LoadIndex(ctx context.Context) error {
	var err error
	for range indexLoadAttempts {
		var idx *memIndex
		idx, err = r.readIndex(ctx)
		if err == nil {
			r.mu.Lock()
			idx.setCondemned(r.unusable())
			r.index = idx
			r.mu.Unlock()
			return nil
		}
		if !errors.Is(err, objstore.ErrNotFound) {
			break
		}
	}
	return fmt.Errorf("load index: %w", err)
}

// readIndex lists data/ only when the listing of index/ is complete: an index
// object is stored after its packs, so those of a commit that is being made are
// never taken for missing.
func (r *Repository) readIndex(ctx context.Context) (*memIndex, error) {
	ids, err := listIDs(ctx, r.st, format.IndexFile)
	if err != nil {
		return nil, err
	}
	idx := newMemIndex()
	var stored map[format.ID]int64
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		stored, err = r.listPacks(gctx)
		return err
	})
	g.Go(func() error {
		return forEach(gctx, r.opt.Connections, ids, func(ctx context.Context, id format.ID) error {
			file, err := r.loadIndexFile(ctx, id)
			if err != nil {
				return err
			}
			for _, p := range file.Packs {
				idx.add(p.ID, p.Blobs, false)
			}
			return nil
		})
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	idx.setPresent(stored)
	r.opt.Log.Debug("index loaded", "objects", len(ids), "packs", len(stored), "blobs", idx.len())
	return idx, nil
}

func (r *Repository) loadIndexFile(ctx context.Context, id format.ID) (indexFile, error) {
	plain, err := r.loadFile(ctx, format.IndexFile, id)
	if err != nil {
		return indexFile{}, err
	}
	file, err := decodeIndex(plain)
	if err != nil {
		return indexFile{}, fmt.Errorf("%s: %w: %w", format.IndexFile.Key(id), ErrDamaged, err)
	}
	return file, nil
}

// SetCondemned says which packs are about to be deleted: reading still finds
// them, no Writer counts on them from now on. The set replaces the former one.
func (r *Repository) SetCondemned(set map[format.ID]struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.condemned = maps.Clone(set)
	r.index.setCondemned(r.unusable())
}

// Bury condemns packs for the rest of this handle's life, whatever SetCondemned says
// afterwards: once a pack is deleted its id is on nobody's list any more, and it may
// stand in the index in memory still. No id of a pack ever comes back with other content.
func (r *Repository) Bury(packs []format.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range packs {
		r.buried[id] = struct{}{}
	}
	r.index.setCondemned(r.unusable())
}

// unusable is what nothing new may count on. r.mu is held.
func (r *Repository) unusable() map[format.ID]struct{} {
	all := maps.Clone(r.buried)
	maps.Copy(all, r.condemned)
	return all
}

// DropCaches forgets the index: nothing is known until the next LoadIndex.
func (r *Repository) DropCaches() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index = newMemIndex()
}

// MissingPacks returns the packs that index objects name and the store does not
// have, as of the last LoadIndex. DropFromIndex mends that.
func (r *Repository) MissingPacks() []format.ID { return r.idx().missing() }

// Has reports whether a Writer would use the stored blob instead of storing it.
func (r *Repository) Has(h format.Handle) bool {
	_, ok := r.idx().has(h)
	return ok
}

// Lookup returns where the blob's copies are, the best first.
func (r *Repository) Lookup(h format.Handle) ([]Location, bool) {
	locations := r.idx().lookup(h)
	return locations, len(locations) > 0
}
