package volume

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/volume/protocol"
)

// This file decides; upkeep_collect.go does it.

// Retention says which snapshot objects stay. The zero value keeps all of them.
type Retention struct {
	Committed repo.Policy // of the head's line of history; the head's own always stays
	// Diverged is for what was kept aside: diverged snapshots, and those whose commit died.
	Diverged repo.Policy
}

// kept is what the choice needs of a snapshot object.
type kept struct {
	Entry
	ours     bool // an instance of this volume made it
	referred bool // something beside the history refers to it
}

// keptOf leaves out what takes memory: there may be very many.
func keptOf(id format.ID, sn *format.Snapshot) kept {
	e := entryOf(id, sn)
	instance := slices.ContainsFunc(sn.Tags, func(tag string) bool { return strings.HasPrefix(tag, "instance:") })
	e.Snapshot = &format.Snapshot{Time: sn.Time, Tree: sn.Tree, Parent: sn.Parent, Original: sn.Original}
	return kept{Entry: e, referred: Referred(sn), ours: instance && (e.Diverged || e.Epoch > 0 && e.Seq > 0)}
}

// settled reports whether e can become the head's no more: what is made upon the
// present head, or upon a later one, may.
func (e *Entry) settled(h protocol.Head) bool {
	return e.Epoch < h.Epoch || e.Epoch == h.Epoch && e.Seq <= h.Seq
}

// aside reports whether e was kept beside the history, or left there by a dead commit.
// (What restic's rewrite made is somebody's own.)
func (k *kept) aside(h protocol.Head) bool {
	return k.ours && !k.Committed && !k.Head && k.Original == nil && (k.Diverged || k.settled(h))
}

// surplus lists the snapshots that retention removes under the head h: never the head's,
// one that may be committed yet, one that no instance of Drover made, or one that something else refers to.
func surplus(all []kept, h protocol.Head, r Retention, now time.Time) []kept {
	var line, aside []repo.SnapshotRef
	byID := make(map[format.ID]kept, len(all))
	for _, k := range all {
		byID[k.ID] = k
		switch {
		case k.referred:
		case k.Committed && k.ours && k.settled(h):
			line = append(line, k.SnapshotRef)
		case k.aside(h):
			aside = append(aside, k.SnapshotRef)
		}
	}
	_, remove := r.Committed.Choose(line, now)
	_, more := r.Diverged.Choose(aside, now)
	var out []kept
	for _, ref := range slices.Concat(remove, more) {
		if k := byID[ref.ID]; !k.Head && k.ID.String() != h.Snapshot {
			out = append(out, k)
		}
	}
	return out
}

// owner is who made a lock, whatever the object: refreshing makes a new one.
type owner struct {
	host, user string
	pid        int
	id         format.ID // of a lock that cannot be read
}

func ownerOf(l repo.LockInfo) owner {
	if l.Err != nil {
		return owner{id: l.ID}
	}
	return owner{host: l.Hostname, user: l.Username, pid: l.PID}
}

// owners are the locks of others, and one of each for people.
type owners map[owner]repo.LockInfo

// writers reports whether any of them may be storing something.
func (o owners) writers() bool {
	for who := range o {
		if !strings.HasPrefix(who.host, mirrorHost) && !strings.HasPrefix(who.host, testHost) { // those only read
			return true
		}
	}
	return false
}

// left are those of o that are there still.
func (o owners) left(now owners) owners {
	left := owners{}
	for who := range o {
		if l, ok := now[who]; ok {
			left[who] = l
		}
	}
	return left
}

// describe is for the person who has to do something about them.
func (o owners) describe(now time.Time) string {
	var lines []string
	for _, l := range o {
		line := l.String()
		if l.Err == nil {
			line += ", " + now.Sub(l.Time).Round(time.Second).String() + " ago"
		}
		switch {
		case ofDrover(l) && l.Stale:
			line += " (stale: it is removed when nobody has refreshed it for " + silence.String() + ")"
		case l.Stale:
			line += " (stale: `restic unlock` removes it)"
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "; ")
}

// ofDrover reports whether an instance made the lock, whatever for: it refreshes it, and
// looks for it before it counts on anything.
func ofDrover(l repo.LockInfo) bool {
	return l.Err == nil && !l.Exclusive && strings.HasPrefix(l.Hostname, lockHost(""))
}

// silence is how long a lock of an instance stays as it is before that instance is dead
// to us: twelve refreshes, and twice what restic gives it.
const silence = time.Hour

// sighting is a lock object of another, and since when we see it. A refresh makes a new
// object, so one that stays was not refreshed. Nobody's clock but ours takes part.
type sighting struct {
	lock  repo.LockInfo
	since time.Duration
}

func (s sighting) dead(now time.Duration) bool { return ofDrover(s.lock) && now-s.since >= silence }

// sightings are those of before that are there still, and the new ones.
func sightings(before map[format.ID]sighting, locks []repo.LockInfo, now time.Duration) map[format.ID]sighting {
	seen := make(map[format.ID]sighting, len(locks))
	for _, l := range locks {
		s, ok := before[l.ID]
		if !ok {
			s = sighting{l, now}
		}
		seen[l.ID] = s
	}
	return seen
}

// missing are those of the known snapshots that are not there, unless restic's tag or
// rewrite made another object of one.
func missing(known map[format.ID]time.Time, now []kept) map[format.ID]time.Time {
	gone := maps.Clone(known)
	for _, k := range now {
		delete(gone, k.ID)
		if k.Original != nil {
			delete(gone, *k.Original)
		}
	}
	return gone
}

// sentence is what this life of the agent knows of a condemned pack.
type sentence struct {
	since time.Duration // when the condemnation was known to have landed
	locks owners        // of others, at that moment
	out   owners        // of others, when it had left the index, or after it was found so; nil: not known
}

// Of one run.
const (
	// mostCondemned bounds the list in the head, which is written each third of a TTL:
	// about 67 bytes each.
	mostCondemned = 2000
	// mostRepacked is how many bytes are moved out of packs that are mostly unused.
	mostRepacked = 256 << 20
	// wasteful packs are rewritten: more of them than this part is unused.
	wasteful = 0.5
)

// plan is what a run does about packs.
type plan struct {
	condemn []format.ID // unused
	rescue  []format.ID // condemned, and something in them is needed after all: it moves
	repack  []format.ID // mostly unused: the rest moves, then they are condemned
	drop    []format.ID // condemned for long enough: they leave the index
	found   []format.ID // out of the index, by somebody else's doing: the locks of now must go first
	remove  []format.ID // out of the index, and nobody counts on them: they are deleted
	forgive []format.ID // gone
	missing []format.ID // named by an index, and not stored
	bytes   int64       // of remove
	waits   owners      // what keeps drop and remove waiting
	due     time.Duration
}

// planUpkeep decides about each pack. condemned are those of the head, locks those that
// others had before the survey's snapshots were listed; now and grace are on one clock.
// due is when the next one is due, 0 if none waits for time alone.
func planUpkeep(s *repo.Survey, condemned map[format.ID]sentence, locks owners, now, grace time.Duration) plan {
	p := plan{waits: owners{}}
	for id, use := range s.Packs {
		if _, ok := condemned[id]; !ok {
			p.free(id, use, locks)
		}
	}
	for id, c := range condemned {
		use, known := s.Packs[id]
		stored := known && use.Size >= 0
		switch over := now - c.since; {
		case !stored && !use.Indexed:
			p.forgive = append(p.forgive, id)
		case !stored:
			p.missing = append(p.missing, id)
		case use.Used > 0:
			p.rescue = append(p.rescue, id)
		case over < grace:
			if p.due == 0 || c.since+grace < p.due {
				p.due = c.since + grace
			}
		case use.Indexed:
			// Those who lock now may count on it, and would wait for nothing but to have it
			// back in the index. So it leaves at a quiet moment, if one comes in time.
			wait := locks
			if over >= 2*grace {
				wait = c.locks.left(locks)
			}
			p.unless(wait, &p.drop, id)
		case c.out == nil: // another took it out, just now perhaps, and who has read the index before is not known
			p.found = append(p.found, id)
		default:
			p.unless(c.out.left(locks), &p.remove, id)
		}
	}
	p.bound(s, len(condemned))
	for _, id := range p.remove {
		p.bytes += s.Packs[id].Size
	}
	return p
}

func (p *plan) unless(wait owners, list *[]format.ID, id format.ID) {
	if len(wait) == 0 {
		*list = append(*list, id)
	}
	maps.Copy(p.waits, wait)
}

// free decides about a pack that is not condemned. While others may be storing
// something, theirs looks unused.
func (p *plan) free(id format.ID, use repo.PackUse, locks owners) {
	switch {
	case use.Size < 0:
		p.missing = append(p.missing, id)
	case use.InUse:
	case locks.writers():
		if use.Used == 0 {
			maps.Copy(p.waits, locks)
		}
	case use.Used == 0:
		p.condemn = append(p.condemn, id)
	case float64(use.Unused) > wasteful*float64(use.Used+use.Unused):
		p.repack = append(p.repack, id)
	}
}

// bound orders the lists, the packs first with which most is won, and cuts them.
func (p *plan) bound(s *repo.Survey, condemned int) {
	for _, list := range []*[]format.ID{&p.condemn, &p.rescue, &p.repack, &p.drop, &p.found, &p.remove, &p.forgive, &p.missing} {
		slices.SortFunc(*list, func(a, b format.ID) int {
			return cmp.Or(cmp.Compare(won(s.Packs[b]), won(s.Packs[a])), slices.Compare(a[:], b[:]))
		})
	}
	room := max(0, mostCondemned-condemned)
	p.condemn = p.condemn[:min(room, len(p.condemn))]
	p.repack = p.repack[:min(room-len(p.condemn), len(p.repack))]
	var moved uint64
	for i, id := range p.repack {
		if moved += s.Packs[id].Used; moved > mostRepacked {
			p.repack = p.repack[:i]
			break
		}
	}
}

// won is how many bytes the end of a pack frees.
func won(u repo.PackUse) int64 { return u.Size - int64(u.Used) }
