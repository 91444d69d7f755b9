package volume

import (
	"context"
	"errors"
	"fmt"

	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/volume/protocol"
)

// Prune removes what no snapshot object needs. Our lock becomes an exclusive one,
// and every pack that is to go is condemned in the head before anything is
// removed: should this process sleep in the middle and wake after somebody else
// has claimed, its late deletions meet nothing that a newer snapshot counts on.
func (s *Session) Prune(ctx context.Context, opt repo.PruneOptions) (repo.PruneReport, error) {
	lock, err := s.lockExclusively(ctx)
	if err != nil {
		return repo.PruneReport{}, err
	}
	seen, err := s.v.ReadHead(ctx)
	if err != nil {
		return repo.PruneReport{}, err
	}
	if err := s.v.setCondemned(seen.Head); err != nil {
		return repo.PruneReport{}, err
	}
	if !opt.DryRun {
		if err := s.removeStillborn(ctx, seen.Head); err != nil {
			return repo.PruneReport{}, err
		}
	}
	opt.Condemn = func(ctx context.Context, packs []format.ID) error {
		var condemned []string
		for _, p := range packs {
			condemned = append(condemned, p.String())
		}
		return s.Condemn(ctx, seen.Head, condemned)
	}
	report, err := s.v.Repo.Prune(ctx, lock, opt)
	if err != nil {
		return report, fmt.Errorf("prune: %w", err)
	}
	gone, err := s.goneCondemned(ctx)
	if err != nil || len(gone) == 0 {
		return report, err
	}
	if err := s.Forgive(ctx, gone); err != nil {
		return report, fmt.Errorf("take pruned packs off the head's list: %w", err)
	}
	return report, nil
}

// removeStillborn removes the snapshot objects of commits that died after storing it
// and before its index (both are stored at once), or that stored both when their packs
// had been removed already: nothing can be restored from them, and of an earlier epoch
// none can be committed any more. One whose trees are there is kept, committed or not.
func (s *Session) removeStillborn(ctx context.Context, h protocol.Head) error {
	all, err := s.v.History(ctx, h)
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	if err := s.v.Repo.LoadIndex(ctx); err != nil {
		return err
	}
	damaged := map[format.ID]bool{}
	if len(s.v.Repo.MissingPacks()) > 0 {
		if damaged, err = s.damaged(ctx); err != nil {
			return err
		}
	}
	for _, e := range all {
		if e.Committed || e.Diverged || e.Epoch == 0 || e.Epoch >= h.Epoch || e.Tree == nil {
			continue
		}
		if _, ok := s.v.Repo.Lookup(format.Handle{Type: format.TreeBlob, ID: *e.Tree}); ok && !damaged[e.ID] {
			continue
		}
		s.opt.Log.Warn("removing the snapshot object of a commit that died before its data was indexed, or after it was removed", "snapshot", e.ID.String(), "epoch", e.Epoch)
		if err := s.v.Repo.RemoveSnapshot(ctx, e.ID); err != nil {
			return fmt.Errorf("remove stillborn snapshot: %w", err)
		}
	}
	return nil
}

// damaged finds the snapshots of which a tree is lost.
func (s *Session) damaged(ctx context.Context) (map[format.ID]bool, error) {
	_, err := s.v.Repo.Survey(ctx, repo.SurveyOptions{})
	var damage *repo.DamageError
	if err != nil && !errors.As(err, &damage) {
		return nil, err
	}
	found := map[format.ID]bool{}
	if damage != nil {
		for _, d := range damage.Snapshots {
			found[d.Snapshot] = errors.Is(d.Err, objstore.ErrNotFound)
		}
	}
	return found, nil
}

// lockExclusively replaces the session's shared lock. Errors: repo.ErrLocked.
func (s *Session) lockExclusively(ctx context.Context) (*repo.Lock, error) {
	if shared := s.stopLock(); shared != nil {
		if err := shared.Unlock(ctx); err != nil {
			return nil, fmt.Errorf("give back shared lock: %w", err)
		}
	}
	return s.holdLock(ctx, true)
}

// goneCondemned lists the condemned packs of the head that are in neither
// index/ nor data/ any more, of this prune and of those that died before.
func (s *Session) goneCondemned(ctx context.Context) ([]string, error) {
	seen, err := s.v.ReadHead(ctx)
	if err != nil || len(seen.Head.Condemned) == 0 {
		return nil, err
	}
	known, err := s.v.Repo.KnownPacks(ctx)
	if err != nil {
		return nil, fmt.Errorf("list packs: %w", err)
	}
	var gone []string
	for _, p := range seen.Head.Condemned {
		id, err := format.ParseID(p)
		if err != nil {
			return nil, fmt.Errorf("read head's condemned packs: %w", err)
		}
		if _, ok := known[id]; !ok {
			gone = append(gone, p)
		}
	}
	return gone, nil
}
