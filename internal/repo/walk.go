package repo

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"drover/internal/repo/format"
)

// loadTrees reads tree blobs, those of one pack together, and calls fn, one at a
// time, with each one's nodes or its error. An error of fn, or of a store that
// does not answer, ends it.
func (r *Repository) loadTrees(ctx context.Context, trees []format.ID, fn func(tree format.ID, nodes []format.Node, err error) error) error {
	var mu sync.Mutex
	visit := func(h format.Handle, data []byte, err error) error {
		var nodes []format.Node
		if err == nil {
			if nodes, err = format.DecodeTree(data); err != nil {
				err = fmt.Errorf("tree blob %s: %w: %w", h.ID, ErrDamaged, err)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		return fn(h.ID, nodes, err)
	}
	byPack := make(map[format.ID][]PackedBlob)
	for _, id := range trees {
		h := format.Handle{Type: format.TreeBlob, ID: id}
		locations, ok := r.Lookup(h)
		if !ok {
			if err := visit(h, nil, fmt.Errorf("tree blob %s: %w", id, ErrBlobNotFound)); err != nil {
				return err
			}
			continue
		}
		byPack[locations[0].Pack] = append(byPack[locations[0].Pack], PackedBlob{h, locations[0]})
	}
	packs := make([]format.ID, 0, len(byPack))
	for id := range byPack {
		packs = append(packs, id)
	}
	return forEach(ctx, r.opt.Connections, packs, func(ctx context.Context, id format.ID) error {
		return r.LoadPackBlobs(ctx, id, byPack[id], visit)
	})
}

// reached is the set of blobs that snapshots reach, as one bit for each entry of
// the index.
type reached struct {
	idx  *memIndex
	bits []uint64
	read func() // called after each tree
}

func newReached(idx *memIndex) *reached {
	return &reached{idx: idx, bits: make([]uint64, (idx.len()+63)/64), read: func() {}}
}

// mark adds the blob, and reports whether it was new. One copy is marked, so that the
// others are surplus: a condemned one only if there is no better one, one whose pack
// is missing only if there is no other.
func (s *reached) mark(h format.Handle) (isNew bool, err error) {
	x := s.idx
	x.mu.RLock()
	defer x.mu.RUnlock()
	var numbers [3][]uint32 // of entries: good, condemned, missing
	for i := x.buckets[bucketOf(h.ID, len(x.buckets))]; i != 0; {
		number := i - 1
		e := x.entry(number)
		i = e.next
		p := &x.packs[e.packAndType>>1]
		if e.id != h.ID || e.handle().Type != h.Type || p.dropped || int(number/64) >= len(s.bits) {
			continue
		}
		numbers[p.rank()] = append(numbers[p.rank()], number)
	}
	for _, copies := range numbers {
		if len(copies) == 0 {
			continue
		}
		// Always the same one, in whatever order the index was read.
		byPack := func(a, b uint32) int { return compareIDs(x.location(x.entry(a)).Pack, x.location(x.entry(b)).Pack) }
		n := slices.MinFunc(copies, byPack)
		isNew = s.bits[n/64]&(1<<(n%64)) == 0
		s.bits[n/64] |= 1 << (n % 64)
		return isNew, nil
	}
	return false, fmt.Errorf("%s blob %s: %w", h.Type, h.ID, ErrBlobNotFound)
}

// each calls fn for every entry that was in the index when the marking began.
func (s *reached) each(fn func(b PackedBlob, reached bool)) {
	s.idx.mu.RLock()
	defer s.idx.mu.RUnlock()
	for i := range min(s.idx.count, uint32(len(s.bits)*64)) {
		e := s.idx.entry(i)
		if !s.idx.packs[e.packAndType>>1].dropped {
			fn(PackedBlob{e.handle(), s.idx.location(e)}, s.bits[i/64]&(1<<(i%64)) != 0)
		}
	}
}

// markAll marks everything below the trees. Any blob that is missing or damaged
// is an error: the set would not be whole. cached has copies of trees; nil: none.
func (s *reached) markAll(ctx context.Context, r *Repository, roots []format.ID, cached func(format.ID) ([]byte, bool)) error {
	var next []format.ID
	add := func(id format.ID) error {
		isNew, err := s.mark(format.Handle{Type: format.TreeBlob, ID: id})
		if isNew {
			next = append(next, id)
		}
		return err
	}
	for _, id := range roots {
		if err := add(id); err != nil {
			return err
		}
	}
	visit := func(_ format.ID, nodes []format.Node, err error) error {
		if err != nil {
			return err
		}
		s.read()
		return eachReference(nodes, add, func(id format.ID) error {
			_, err := s.mark(format.Handle{Type: format.DataBlob, ID: id})
			return err
		})
	}
	for len(next) > 0 {
		level := next
		next = nil
		level, err := visitCached(ctx, level, cached, visit)
		if err == nil {
			err = r.loadTrees(ctx, level, visit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// visitCached calls fn with the trees of which there is a copy, and returns the others.
func visitCached(ctx context.Context, trees []format.ID, cached func(format.ID) ([]byte, bool), fn func(format.ID, []format.Node, error) error) (rest []format.ID, err error) {
	if cached == nil {
		return trees, nil
	}
	for _, id := range trees {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		data, ok := cached(id)
		if !ok {
			rest = append(rest, id)
			continue
		}
		nodes, err := format.DecodeTree(data)
		if err != nil {
			rest = append(rest, id)
			continue
		}
		if err := fn(id, nodes, nil); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

func eachReference(nodes []format.Node, tree, data func(format.ID) error) error {
	for i := range nodes {
		if sub := nodes[i].Subtree; sub != nil {
			if err := tree(*sub); err != nil {
				return err
			}
		}
		for _, id := range nodes[i].Content {
			if err := data(id); err != nil {
				return err
			}
		}
	}
	return nil
}

func compareIDs(a, b format.ID) int { return slices.Compare(a[:], b[:]) }
