package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"drover/internal/objstore"
	"drover/internal/repo/format"
	"drover/internal/repo/pack"
)

// SurveyOptions of Survey. The zero value is good.
type SurveyOptions struct {
	Roots []format.ID                    // trees that are needed beside those of snapshots
	Trees func(format.ID) ([]byte, bool) // verified local copies of tree blobs; nil: none
	// Listed is called when the packs are listed and before anything else is looked
	// at: a lock that is not there any more then is of a writer whose snapshot will be seen.
	Listed func(context.Context) error
	// Read is called after each tree, from any goroutine; nil: nobody wants to know.
	Read func()
}

// PackUse says what there is of a pack and who needs it.
type PackUse struct {
	Size    int64 // bytes stored; -1: the store does not have it
	Indexed bool
	// Used is how many bytes of it snapshots reach, counting one copy of each blob: not
	// a condemned one if there is another. Unused is the rest that an index knows of.
	Used, Unused uint64
	InUse        bool // by a Writer at work
}

// Survey is what is stored, and what all snapshots reach in it.
type Survey struct {
	Packs     map[format.ID]PackUse
	Snapshots map[format.ID]struct{} // all snapshot objects
	// Rootless are snapshot objects whose tree is in no index: of a commit that is
	// being made (both are stored at once), or that died there. They reach nothing.
	Rootless []format.ID

	survey *survey
}

// Survey finds out what of each pack is needed. Condemned packs that are in no index any
// more count, too: what they hold is read from their headers, and this handle finds it
// until the next LoadIndex. It loads the index anew.
//
// What others are storing at this moment looks unused: their locks say whether there is
// any. Nothing is found if anything that a snapshot reaches cannot be read. Errors:
// DamageError, which names all such snapshots.
func (r *Repository) Survey(ctx context.Context, opt SurveyOptions) (*Survey, error) {
	s, err := r.survey(ctx, opt, true)
	if err != nil {
		return nil, fmt.Errorf("find what snapshots reach: %w", err)
	}
	out := &Survey{Packs: make(map[format.ID]PackUse, len(s.stored)), Snapshots: s.snapshots, Rootless: s.rootless, survey: s}
	for id, size := range s.stored {
		out.Packs[id] = PackUse{Size: size, InUse: contains(s.inUse, id)}
	}
	s.reached.each(func(b PackedBlob, reached bool) {
		u, ok := out.Packs[b.Pack]
		if !ok {
			u.Size, u.InUse = -1, contains(s.inUse, b.Pack)
		}
		u.Indexed = !contains(s.recalled, b.Pack)
		if reached {
			u.Used += uint64(b.Length)
		} else {
			u.Unused += uint64(b.Length)
		}
		out.Packs[b.Pack] = u
	})
	return out, nil
}

// survey is what the collector of garbage knows: all packs, and what every
// snapshot reaches.
type survey struct {
	stored    map[format.ID]int64 // sizes of stored packs
	inUse     map[format.ID]struct{}
	snapshots map[format.ID]struct{}
	rootless  []format.ID
	reached   *reached
	recalled  map[format.ID]struct{} // condemned packs that are in no index
	damaged   []Damage               // snapshot objects that cannot be read
}

// root is a tree, and the snapshot whose it is.
type root struct {
	snapshot, tree format.ID
	time           time.Time
}

// survey looks at the store in the one order in which nothing that a Writer of
// this process stores meanwhile can be taken for garbage: packs first, then
// which packs the Writers count on, then the snapshots, then the index. A Writer
// enters its packs before it stores them, and leaves after its snapshot is stored.
func (r *Repository) survey(ctx context.Context, opt SurveyOptions, rootless bool) (*survey, error) {
	stored, err := r.listPacks(ctx)
	if err != nil {
		return nil, fmt.Errorf("list packs: %w", err)
	}
	if opt.Listed != nil {
		if err := opt.Listed(ctx); err != nil {
			return nil, err
		}
	}
	s := &survey{stored: stored, inUse: r.crew.packs(), snapshots: make(map[format.ID]struct{})}
	var roots []root
	err = r.eachSnapshot(ctx, func(id format.ID, sn *format.Snapshot, err error) error {
		s.snapshots[id] = struct{}{}
		switch {
		case errors.Is(err, ErrDamaged):
			s.damaged = append(s.damaged, Damage{Snapshot: id, Err: err})
		case err != nil:
			return err
		default:
			roots = append(roots, root{id, *sn.Tree, sn.Time})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := r.LoadIndex(ctx); err != nil {
		return nil, err
	}
	if err := s.recall(ctx, r); err != nil {
		return nil, err
	}
	s.reached = newReached(r.idx())
	if opt.Read != nil {
		s.reached.read = opt.Read
	}
	if rootless {
		roots = s.leaveRootless(r, roots)
	}
	for _, tree := range opt.Roots {
		roots = append(roots, root{tree: tree})
	}
	return s, s.mark(ctx, r, roots, opt.Trees)
}

// recall adds to the index in memory the condemned packs that are stored and in no
// index object. A header that cannot be read has nothing that anybody could use.
func (s *survey) recall(ctx context.Context, r *Repository) error {
	s.recalled = make(map[format.ID]struct{})
	idx := r.idx()
	for id := range r.condemnedNow() {
		size, ok := s.stored[id]
		if !ok || idx.hasPack(id) {
			continue
		}
		blobs, err := r.packHeader(ctx, id, size)
		if errors.Is(err, pack.ErrHeader) || errors.Is(err, objstore.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		idx.recall(id, blobs)
		s.recalled[id] = struct{}{}
	}
	return nil
}

// leaveRootless takes out the snapshots whose tree is in no index.
func (s *survey) leaveRootless(r *Repository, roots []root) []root {
	return slices.DeleteFunc(roots, func(t root) bool {
		_, ok := r.Lookup(format.Handle{Type: format.TreeBlob, ID: t.tree})
		if !ok {
			s.rootless = append(s.rootless, t.snapshot)
		}
		return !ok
	})
}

// mark marks what all roots reach. If anything is lost, the error is a DamageError that
// names all snapshots which need it.
func (s *survey) mark(ctx context.Context, r *Repository, roots []root, cached func(format.ID) ([]byte, bool)) error {
	trees := make([]format.ID, len(roots))
	for i, t := range roots {
		trees[i] = t.tree
	}
	slices.SortFunc(trees, compareIDs)
	err := s.reached.markAll(ctx, r, slices.Compact(trees), cached)
	if err != nil && !copyLost(err) && !errors.Is(err, ErrBlobNotFound) || err == nil && len(s.damaged) == 0 {
		return err
	}
	more, failed := r.damaged(ctx, roots, cached)
	if failed != nil {
		return failed
	}
	if all := append(s.damaged, more...); len(all) > 0 {
		return NewDamageError(all)
	}
	return err // it is there now
}

func (r *Repository) condemnedNow() map[format.ID]struct{} {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.unusable()
}

// headerGuess is how much of a pack's end is read at first: the header of a thousand blobs.
const headerGuess = 48 << 10

// packHeader reads what a pack holds from the pack itself. Errors: pack.ErrHeader.
func (r *Repository) packHeader(ctx context.Context, id format.ID, size int64) ([]pack.Blob, error) {
	n := min(size, headerGuess)
	for {
		tail, _, err := r.st.Get(ctx, format.DataFile.Key(id), size-n, n)
		if err != nil {
			return nil, fmt.Errorf("read header of pack %s: %w", id.Short(), err)
		}
		length, err := pack.HeaderLength(tail, size)
		if err != nil {
			return nil, fmt.Errorf("read header of pack %s: %w", id.Short(), err)
		}
		const word = 4 // the length of the header, after it
		if whole := int64(length + word); whole > n {
			n = whole
			continue
		}
		end := len(tail) - word
		blobs, err := pack.ParseHeader(r.key, tail[end-length:end], size)
		if err != nil {
			return nil, fmt.Errorf("read header of pack %s: %w", id.Short(), err)
		}
		return blobs, nil
	}
}

// Repack copies what is needed of packs into new ones, which are indexed when it returns;
// the old packs are condemned in this handle, and nothing in them is needed any more.
// Errors: as of LoadBlob for a blob that is lost.
func (r *Repository) Repack(ctx context.Context, s *Survey, packs []format.ID) error {
	uses := make(map[format.ID]*packUse, len(packs))
	for _, id := range packs {
		uses[id] = new(packUse)
	}
	s.survey.reached.each(func(b PackedBlob, reached bool) {
		if u := uses[b.Pack]; u != nil {
			u.add(b, reached)
		}
	})
	old := make(map[format.ID]struct{}, len(packs))
	for _, id := range packs {
		old[id] = struct{}{}
	}
	r.condemnAlso(old)
	return r.repack(ctx, packs, uses, func() {})
}
