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
	var replaced []format.ID
	ids, err := listIDs(ctx, r.st, format.IndexFile)
	if err == nil {
		replaced, err = r.rewriteIndex(ctx, ids, packs, false)
	}
	if err == nil {
		err = r.RemoveIndex(ctx, replaced)
	}
	if err != nil {
		return fmt.Errorf("drop %d packs from the index: %w", len(packs), err)
	}
	r.idx().drop(packs)
	return nil
}

// maxMerge is how many index objects CompactIndex merges at once, which bounds its memory.
const maxMerge = 20_000

// CompactIndex merges the small index objects, but those of leave, into large ones if
// there are more than limit of them. It returns the objects whose content is now in
// others: RemoveIndex deletes them, at once or when nobody reads them any more (a
// restic that starts fails if an index object goes that it has just listed).
func (r *Repository) CompactIndex(ctx context.Context, limit int, leave []format.ID) (superseded []format.ID, err error) {
	left := make(map[format.ID]struct{}, len(leave))
	for _, id := range leave {
		left[id] = struct{}{}
	}
	var small []format.ID
	err = listFiles(ctx, r.st, format.IndexFile, func(id format.ID, info objstore.Info) error {
		if info.Size < smallIndex && !contains(left, id) && len(small) < maxMerge {
			small = append(small, id)
		}
		return nil
	})
	if err == nil && len(small) > max(limit, 1) {
		superseded, err = r.rewriteIndex(ctx, small, nil, true)
	}
	if err != nil {
		return nil, fmt.Errorf("compact index: %w", err)
	}
	return superseded, nil
}

// RemoveIndex deletes index objects whose content is in others.
func (r *Repository) RemoveIndex(ctx context.Context, ids []format.ID) error {
	err := forEach(ctx, r.opt.Connections, ids, func(ctx context.Context, id format.ID) error {
		return r.removeFile(ctx, format.IndexFile, id)
	})
	if err != nil {
		return fmt.Errorf("remove superseded index objects: %w", err)
	}
	return nil
}

// rewriteIndex stores the content of index objects anew, without the packs in drop: of
// those that name any such pack, or of all of ids. It returns which ones these are.
func (r *Repository) rewriteIndex(ctx context.Context, ids []format.ID, drop map[format.ID]struct{}, all bool) (replaced []format.ID, err error) {
	if err := r.writable(); err != nil {
		return nil, err
	}
	kept := make(map[format.ID]indexPack)
	err = r.loadFiles(ctx, format.IndexFile, ids, func(id format.ID, plain []byte, err error) error {
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
		return nil, err
	}
	return replaced, r.saveIndexes(ctx, kept)
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
// index in memory has one of them, but for what a Survey recalled.
func (r *Repository) DeletePacks(ctx context.Context, packs []format.ID) error {
	return r.deletePacks(ctx, packs, func() {})
}

func (r *Repository) deletePacks(ctx context.Context, packs []format.ID, done func()) error {
	idx := r.idx()
	for _, id := range packs {
		if idx.hasPack(id) {
			return fmt.Errorf("delete pack %s: it is in the index still", id.Short())
		}
	}
	err := forEach(ctx, r.opt.Connections, packs, func(ctx context.Context, id format.ID) error {
		defer done()
		return r.removeFile(ctx, format.DataFile, id)
	})
	if err != nil {
		return fmt.Errorf("delete packs: %w", err)
	}
	return nil
}
