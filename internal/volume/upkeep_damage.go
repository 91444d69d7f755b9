package volume

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/volume/protocol"
)

// aside is a handle with one request at a time, which reads each snapshot object once.
func (u *Upkeep) aside() *repo.Repository {
	if u.shelf == nil {
		return u.r.v.Repo.Aside(1, nil)
	}
	return u.r.v.Repo.Aside(1, u.shelf.through)
}

// account compares the snapshots that are there with those of the run before.
func (u *Upkeep) account(now []kept) error {
	gone := missing(u.known, now)
	there := make(map[format.ID]bool, len(now))
	u.known = make(map[format.ID]time.Time, len(now))
	for _, k := range now {
		there[k.ID] = true
		delete(u.missing, k.ID)
		if k.ours {
			u.known[k.ID] = k.Time
		}
	}
	if len(gone) > 0 {
		first := slices.MaxFunc(slices.Collect(maps.Keys(gone)), func(a, b format.ID) int { return gone[a].Compare(gone[b]) })
		u.opt.Log.Error("upkeep: somebody else removed snapshots", "snapshots", len(gone), "newest", first.String(), "time", gone[first])
		maps.Copy(u.missing, gone)
		u.surveyed = false // what only they needed is garbage, and the newest one is committed anew
	}
	u.tellDamage()
	if u.shelf == nil {
		return nil
	}
	return u.shelf.tidy(func(id format.ID) bool { return there[id] })
}

// noteDamage keeps what a survey found; an error that is none of damage says nothing.
func (u *Upkeep) noteDamage(err error, h protocol.Head) {
	var damage *repo.DamageError
	if !errors.As(err, &damage) {
		if err == nil {
			u.damaged = nil
			u.tellDamage()
		}
		return
	}
	u.damaged = nil
	named := map[string]bool{}
	for _, d := range damage.Snapshots {
		name := d.Snapshot.String()
		if d.Snapshot.IsZero() { // the head's tree
			name = h.Snapshot
		}
		if !named[name] {
			named[name] = true
			u.damaged = append(u.damaged, Damaged{Snapshot: name, Why: d.Err.Error()})
		}
	}
	u.tellDamage()
}

// mostDamaged bounds the list in the status.
const mostDamaged = 20

// tellDamage puts both kinds into the figures.
func (u *Upkeep) tellDamage() {
	all := slices.Clone(u.damaged)
	named := make(map[string]bool, len(all))
	for _, d := range all {
		named[d.Snapshot] = true
	}
	gone := slices.SortedFunc(maps.Keys(u.missing), func(a, b format.ID) int {
		return cmp.Or(u.missing[b].Compare(u.missing[a]), slices.Compare(a[:], b[:]))
	})
	for _, id := range gone {
		if name := id.String(); !named[name] {
			all = append(all, Damaged{Snapshot: name, Why: "somebody else removed its object"})
		}
	}
	u.update(func(s *UpkeepStats) {
		s.Damaged, s.DamagedCount = slices.Clone(all[:min(mostDamaged, len(all))]), len(all)
	})
}
