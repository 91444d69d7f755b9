package repo

import (
	"context"
	"fmt"
	"slices"

	"drover/internal/objstore"
	"drover/internal/repo/format"
)

// smallIndex is the size below which CompactIndex merges index objects, in bytes.
const smallIndex = 1 << 20

// UnusedPacks returns the packs, among all that are stored or indexed, that hold
// nothing any snapshot object reaches, and that neither pinned nor a Writer of
// this Repository counts on. A condemned pack is unused as well when all that is
// reached in it has a copy elsewhere. It loads the index anew.
//
// What others are storing at this moment looks unused: their locks say whether
// there is any.
func (r *Repository) UnusedPacks(ctx context.Context, pinned map[format.ID]struct{}) ([]format.ID, error) {
	s, err := r.survey(ctx, false)
	if err != nil {
		return nil, fmt.Errorf("find unused packs: %w", err)
	}
	candidates := make(map[format.ID]struct{}, len(s.stored))
	for id := range s.stored {
		candidates[id] = struct{}{}
	}
	used := make(map[format.ID]struct{})
	s.reached.each(func(b PackedBlob, reached bool) {
		candidates[b.Pack] = struct{}{}
		if reached {
			used[b.Pack] = struct{}{}
		}
	})
	var unused []format.ID
	for id := range candidates {
		if !contains(used, id) && !contains(pinned, id) && !contains(s.inUse, id) {
			unused = append(unused, id)
		}
	}
	slices.SortFunc(unused, compareIDs)
	return unused, nil
}

func contains(set map[format.ID]struct{}, id format.ID) bool {
	_, ok := set[id]
	return ok
}

// DropFromIndex rewrites the index objects that name any of the packs: new ones
// are stored before old ones are deleted, so that at each moment all other packs
// are in some index. It may be repeated.
func (r *Repository) DropFromIndex(ctx context.Context, packs map[format.ID]struct{}) error {
	if len(packs) == 0 {
		return nil
	}
	ids, err := listIDs(ctx, r.st, format.IndexFile)
	if err == nil {
		err = r.rewriteIndex(ctx, ids, packs, false)
	}
	if err != nil {
		return fmt.Errorf("drop %d packs from the index: %w", len(packs), err)
	}
	r.idx().drop(packs)
	return nil
}

// CompactIndex merges the small index objects into large ones if there are more
// than limit of them.
func (r *Repository) CompactIndex(ctx context.Context, limit int) error {
	var small []format.ID
	err := listFiles(ctx, r.st, format.IndexFile, func(id format.ID, info objstore.Info) error {
		if info.Size < smallIndex {
			small = append(small, id)
		}
		return nil
	})
	if err == nil && len(small) > max(limit, 1) {
		err = r.rewriteIndex(ctx, small, nil, true)
	}
	if err != nil {
		return fmt.Errorf("compact index: %w", err)
	}
	return nil
}

// rewriteIndex replaces index objects by ones without the packs in drop: those
// that name any such pack, or all of ids.
func (r *Repository) rewriteIndex(ctx context.Context, ids []format.ID, drop map[format.ID]struct{}, all bool) error {
	if err := r.writable(); err != nil {
		return err
	}
	var replaced []format.ID
	kept := make(map[format.ID]indexPack)
	err := r.loadFiles(ctx, format.IndexFile, ids, func(id format.ID, plain []byte, err error) error {
		if err != nil {
			return err
		}
		file, err := decodeIndex(plain)
		if err != nil {
			return fmt.Errorf("%s: %w: %w", format.IndexFile.Key(id), ErrDamaged, err)
		}
		dropped := func(p indexPack) bool { return contains(drop, p.ID) }
		if !all && !slices.ContainsFunc(file.Packs, dropped) {
			return nil
		}
		replaced = append(replaced, id)
		for _, p := range file.Packs {
			if !dropped(p) {
				kept[p.ID] = mergePack(kept[p.ID], p)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := r.saveIndexes(ctx, kept); err != nil {
		return err
	}
	return forEach(ctx, r.opt.Connections, replaced, func(ctx context.Context, id format.ID) error {
		return r.removeFile(ctx, format.IndexFile, id)
	})
}

// mergePack is one pack as two index objects list it: restic of old split packs
// between them.
func mergePack(a, b indexPack) indexPack {
	for _, blob := range b.Blobs {
		if !slices.Contains(a.Blobs, blob) {
			a.Blobs = append(a.Blobs, blob)
		}
	}
	return indexPack{b.ID, a.Blobs}
}

// saveIndexes stores index objects of packs, each of a sensible size.
func (r *Repository) saveIndexes(ctx context.Context, packs map[format.ID]indexPack) error {
	var batch []indexPack
	blobs := 0
	save := func() error {
		if len(batch) == 0 {
			return nil
		}
		_, err := r.saveFile(ctx, format.IndexFile, encodeIndex(batch))
		batch, blobs = nil, 0
		return err
	}
	for _, p := range packs {
		batch = append(batch, p)
		if blobs += len(p.Blobs); blobs >= indexBlobs {
			if err := save(); err != nil {
				return err
			}
		}
	}
	return save()
}

// DeletePacks deletes packs that are in no index any more. It refuses if the
// index in memory has one of them.
func (r *Repository) DeletePacks(ctx context.Context, packs []format.ID) error {
	idx := r.idx()
	for _, id := range packs {
		if idx.hasPack(id) {
			return fmt.Errorf("delete pack %s: it is in the index still", id.Short())
		}
	}
	err := forEach(ctx, r.opt.Connections, packs, func(ctx context.Context, id format.ID) error {
		return r.removeFile(ctx, format.DataFile, id)
	})
	if err != nil {
		return fmt.Errorf("delete packs: %w", err)
	}
	return nil
}
