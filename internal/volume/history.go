package volume

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/volume/protocol"
)

// Entry is a snapshot object and its place in the volume's history.
type Entry struct {
	repo.SnapshotRef
	Epoch, Seq uint64 // as its tags say; 0 without
	Committed  bool   // in the head's ancestry
	Head       bool   // the newest committed one
	Diverged   bool   // kept aside: never part of the history
}

// History lists all snapshot objects, oldest first, and which of them the head's
// line of history runs through.
func (v *Volume) History(ctx context.Context, h protocol.Head) ([]Entry, error) {
	var all []Entry
	err := v.Repo.Snapshots(ctx, func(id format.ID, sn *format.Snapshot) error {
		all = append(all, entryOf(id, sn))
		return nil
	})
	if err != nil {
		return nil, err
	}
	sortByTime(all)
	markLine(all, h)
	return all, nil
}

func sortByTime(all []Entry) {
	slices.SortStableFunc(all, func(a, b Entry) int { return a.Time.Compare(b.Time) })
}

func entryOf(id format.ID, sn *format.Snapshot) Entry {
	e := Entry{SnapshotRef: repo.SnapshotRef{ID: id, Snapshot: sn}}
	for _, tag := range sn.Tags {
		key, value, _ := strings.Cut(tag, ":")
		switch key {
		case "epoch":
			e.Epoch, _ = strconv.ParseUint(value, 10, 64)
		case "seq":
			e.Seq, _ = strconv.ParseUint(value, 10, 64)
		case "diverged":
			e.Diverged = true
		}
	}
	return e
}

// markLine follows the parents from the head. Where retention removed a parent,
// the line goes on at the newest one left of an earlier seq and no later epoch:
// of one seq, only the parent named could have been another's.
func markLine(all []Entry, h protocol.Head) {
	byID := map[string]*Entry{}
	for i := range all {
		e := &all[i]
		byID[e.ID.String()] = e
		if e.Original != nil && byID[e.Original.String()] == nil && !e.Diverged {
			byID[e.Original.String()] = e // restic's tag or rewrite made a new object of it
		}
	}
	next := byID[h.Snapshot]
	if next != nil {
		next.Head = true
	}
	seq, epoch := h.Seq, h.Epoch
	for {
		if next == nil {
			next = below(all, seq, epoch)
			if next == nil {
				return
			}
		}
		if next.Committed || next.Diverged {
			return
		}
		next.Committed = true
		if next.Seq == 0 || next.Parent == nil {
			return
		}
		seq, epoch = next.Seq-1, next.Epoch
		next = byID[next.Parent.String()]
	}
}

// below finds the newest entry with a seq under seq (whose own object is gone).
func below(all []Entry, seq, epoch uint64) *Entry {
	var best *Entry
	for i := range all {
		e := &all[i]
		if e.Diverged || e.Seq == 0 || e.Seq >= seq || e.Epoch > epoch {
			continue
		}
		if best == nil || e.Seq > best.Seq || e.Seq == best.Seq && e.Epoch > best.Epoch {
			best = e
		}
	}
	return best
}
