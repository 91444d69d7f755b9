package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/repo/format"
)

// ReferredTag begins the tags of snapshots that something beside the history refers to, the rest of a database's backup say.
// Who made them removes them when it is time; retention passes them over.
const ReferredTag = "database:"

// Referred reports whether a snapshot is one of those.
func Referred(sn *format.Snapshot) bool {
	return slices.ContainsFunc(sn.Tags, func(tag string) bool { return strings.HasPrefix(tag, ReferredTag) })
}

// TaggedSnapshot is a snapshot object that has a tag.
type TaggedSnapshot struct {
	Snapshot string
	Time     time.Time
}

// Tagged lists the snapshot objects with a tag, oldest first.
func (v *Volume) Tagged(ctx context.Context, tag string) ([]TaggedSnapshot, error) {
	var all []TaggedSnapshot
	err := v.Repo.Snapshots(ctx, func(id format.ID, sn *format.Snapshot) error {
		if slices.Contains(sn.Tags, tag) {
			all = append(all, TaggedSnapshot{id.String(), sn.Time})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b TaggedSnapshot) int { return a.Time.Compare(b.Time) })
	return all, nil
}

// RemoveSnapshots removes snapshot objects that are not the head's, under a claim of the
// volume, and with prune what no snapshot needs any more. Those that are gone already are no error.
func (v *Volume) RemoveSnapshots(ctx context.Context, opt Options, ids []string, prune bool) error {
	if len(ids) == 0 && !prune {
		return nil
	}
	return v.Claim(ctx, opt, func(ctx context.Context, s *Session) error {
		status, _ := s.Status()
		for _, text := range ids {
			id, err := format.ParseID(text)
			if err != nil {
				return fmt.Errorf("remove snapshot %.80q: %w", text, err)
			}
			if text == status.Head.Snapshot {
				continue
			}
			if err := v.Repo.RemoveSnapshot(ctx, id); err != nil && !errors.Is(err, objstore.ErrNotFound) {
				return err
			}
		}
		if !prune {
			return nil
		}
		_, err := s.Prune(ctx, repo.PruneOptions{})
		return err
	})
}
