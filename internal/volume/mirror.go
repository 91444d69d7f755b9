package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/volume/protocol"
)

// ErrForked: the volume that a history is copied to has one of its own, or is a copy of
// another one. Nothing is written there.
var ErrForked = errors.New("not a copy of this history")

// MirrorOptions of NewMirror.
type MirrorOptions struct {
	Instance string // who copies, for people
	Version  string // of drover
	TTL      time.Duration
	Log      *slog.Logger
	Progress func(path string, bytes uint64) // after each file; nil: nobody
	// Copied is called after each snapshot that was committed in the copy, by seq of the source.
	Copied func(seq uint64)
}

// Mirror copies the committed history of one volume into another one, which has a key, a
// repository and a head of its own. The source is only read.
//
// Each snapshot is committed there by one compare-and-swap of the head, which is claim,
// commit and release in one: it is made upon a head that nobody holds and whose newest
// snapshot is a copy of an older one of the source, and of that head only. So whoever
// copies, however many, after whatever pause: the copy goes forward only, and never upon
// what somebody else committed there.
type Mirror struct {
	from, to *Volume
	opt      MirrorOptions
	last     *sent                // a head whose fate is not known
	tidied   bool                 // what dead attempts left was removed
	lost     map[format.ID]int    // how often a snapshot of the source could not be read
	skipped  map[format.ID]string // those passed over, and why
	keep     keeping
}

// sent is a head that was put upon base.
type sent struct {
	base   protocol.Tag
	sealed []byte
}

// Position is how far a copy is.
type Position struct {
	Seq      uint64 // of the source's newest snapshot that is in the copy; 0: none
	Snapshot string // its id in the source
	Head     protocol.Head
}

// NewMirror prepares to copy from one volume to another. It opens repositories of its
// own, so that what holds the volumes is not disturbed.
func NewMirror(from, to *Volume, opt MirrorOptions) *Mirror {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &Mirror{
		from: from.Again(), to: to.Again(), opt: opt,
		lost: map[format.ID]int{}, skipped: map[format.ID]string{},
	}
}

// Again is the same volume with an index of its own.
func (v *Volume) Again() *Volume { return &Volume{Name: v.Name, Repo: v.Repo.Again(), st: v.st} }

// MirrorResult is what one Sync did.
type MirrorResult struct {
	Position
	Copied  int      // snapshots
	Stored  int64    // bytes that were not there yet
	Skipped []string // snapshots of the source that have lost data
	Behind  uint64   // commits of the source that are not in the copy
}

// Sync copies what is committed and not copied yet, oldest first; only those of only, if
// there are any. What it has copied stays, whatever ends it.
//
// Errors: ErrForked; ErrHeld while somebody holds the copy; ErrIncomplete if the source's
// newest snapshot has lost data (an older one is passed over at the second time);
// repo.ErrLocked; the stores'.
func (m *Mirror) Sync(ctx context.Context, only []format.ID) (res MirrorResult, err error) {
	if done, err := m.caughtUp(ctx, only, &res); done || err != nil {
		return res, err
	}
	err = m.locked(ctx, m.from, func(*repo.Lock) error {
		return m.locked(ctx, m.to, func(lock *repo.Lock) error { return m.copyAll(ctx, lock, only, &res) })
	})
	for id := range m.skipped {
		res.Skipped = append(res.Skipped, id.String())
	}
	slices.Sort(res.Skipped)
	return res, err
}

// caughtUp reports whether there is nothing to copy, without a lock.
func (m *Mirror) caughtUp(ctx context.Context, only []format.ID, res *MirrorResult) (bool, error) {
	source, err := m.from.ReadHead(ctx)
	if err != nil {
		return false, fmt.Errorf("source: %w", err)
	}
	_, at, err := m.free(ctx)
	res.Position = at
	if err != nil {
		return false, err
	}
	res.Behind = behind(source.Head, at)
	return source.Head.Seq == at.Seq && m.tidied && source.Head.Snapshot == at.Snapshot && len(only) == 0, nil
}

func behind(source protocol.Head, at Position) uint64 { return source.Seq - min(source.Seq, at.Seq) }

// mirrorHost begins the host name in the locks of mirrors.
const mirrorHost = "drover-mirror-"

// locked runs f while a lock of ours keeps a prune out. A store that lets us only read
// is read without.
func (m *Mirror) locked(ctx context.Context, v *Volume, f func(*repo.Lock) error) error {
	lock, err := v.Repo.Lock(ctx, repo.LockOptions{Hostname: mirrorHost + m.opt.Instance})
	if errors.Is(err, objstore.ErrUnauthorised) && v == m.from {
		return f(nil)
	}
	if err != nil {
		return err
	}
	stop := lock.KeepFresh(ctx)
	err = f(lock)
	stop()
	unlocking, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
	defer cancel()
	if unlockErr := lock.Unlock(unlocking); unlockErr != nil {
		m.opt.Log.Warn("remove our repository lock; restic calls it stale after 30 minutes", "err", unlockErr)
	}
	return err
}

// copyAll copies what is missing, under both locks.
func (m *Mirror) copyAll(ctx context.Context, lock *repo.Lock, only []format.ID, res *MirrorResult) error {
	base, at, err := m.position(ctx)
	if err != nil {
		return err
	}
	// The index after the head: what that condemns, or was condemned before, is not counted on.
	if err := m.to.setCondemned(base.Head); err != nil {
		return err
	}
	if err := loadIndexes(ctx, m.from, m.to); err != nil {
		return err
	}
	list, source, err := m.missing(ctx, at, only)
	if err != nil {
		return err
	}
	res.Position = at
	for i, e := range list {
		stored, next, err := m.copyOne(ctx, lock, base, e)
		if errors.Is(err, ErrIncomplete) && m.passOver(e, err, i == len(list)-1) {
			continue
		}
		if err != nil {
			return fmt.Errorf("copy snapshot %s: %w", e.ID.Short(), err)
		}
		m.wrote(base.Head, next.Head)
		base = next
		res.Position = Position{Seq: e.Seq, Snapshot: e.ID.String(), Head: base.Head}
		res.Copied++
		res.Stored += stored
		res.Behind = behind(source, res.Position)
		if m.opt.Copied != nil {
			m.opt.Copied(e.Seq)
		}
	}
	return m.tidy(ctx, base.Head)
}

// passOver reports whether the history goes on without a snapshot that has lost data: at
// its second failure, since somebody may have pruned it meanwhile, and if a newer one follows.
func (m *Mirror) passOver(e Entry, err error, newest bool) bool {
	m.lost[e.ID]++
	if newest || m.lost[e.ID] < 2 {
		return false
	}
	if _, told := m.skipped[e.ID]; !told {
		m.opt.Log.Error("a snapshot of the history has lost data: it is not copied", "snapshot", e.ID.String(), "seq", e.Seq, "err", err)
	}
	m.skipped[e.ID] = err.Error()
	return true
}

// position reads the copy's head, which the next snapshot may be committed upon.
// Errors: ErrForked, ErrHeld.
func (m *Mirror) position(ctx context.Context) (protocol.Seen, Position, error) {
	seen, err := m.to.ReadHead(ctx)
	if err != nil {
		return protocol.Seen{}, Position{}, fmt.Errorf("copy: %w", err)
	}
	at := Position{Head: seen.Head}
	if seen.Head.Snapshot != "" {
		sn, err := m.to.headSnapshot(ctx, seen.Head)
		if err != nil {
			return seen, at, fmt.Errorf("copy: %w", err)
		}
		if at.Seq, at.Snapshot, err = m.copyOf(sn); err != nil {
			return seen, at, err
		}
	}
	if seen.Head.State == protocol.Held {
		return seen, at, fmt.Errorf("copy: %w by instance %q (epoch %d): nothing is written there", ErrHeld, seen.Head.Holder.ID, seen.Head.Epoch)
	}
	return seen, at, nil
}

// mirrorTag begins the tag of a copied snapshot: its seq, id and repository in the source.
const mirrorTag = "mirror:"

// copyOf says which snapshot of the source sn is a copy of. Errors: ErrForked.
func (m *Mirror) copyOf(sn *format.Snapshot) (seq uint64, id string, err error) {
	for _, tag := range sn.Tags {
		text, ok := strings.CutPrefix(tag, mirrorTag)
		parts := strings.Split(text, ":")
		if !ok || len(parts) != 3 {
			continue
		}
		if parts[2] != m.from.Repo.ID() {
			return 0, "", fmt.Errorf("%w: volume %q is a copy of another repository (%.8s, not %.8s)", ErrForked, m.to.Name, parts[2], m.from.Repo.ID())
		}
		seq, err := strconv.ParseUint(parts[0], 10, 64)
		if err != nil {
			return 0, "", fmt.Errorf("%w: tag %q: %w", ErrForked, tag, err)
		}
		return seq, parts[1], nil
	}
	return 0, "", fmt.Errorf("%w: somebody else has committed in volume %q; it goes its own way, and nothing is written there", ErrForked, m.to.Name)
}

// CopiesOf maps the snapshots of another volume to those of this one that a Mirror has made of them.
func (v *Volume) CopiesOf(ctx context.Context, from *Volume) (map[string]string, error) {
	copies := map[string]string{}
	err := v.Repo.Snapshots(ctx, func(id format.ID, sn *format.Snapshot) error {
		for _, tag := range sn.Tags {
			text, ok := strings.CutPrefix(tag, mirrorTag)
			if parts := strings.Split(text, ":"); ok && len(parts) == 3 && parts[2] == from.Repo.ID() {
				copies[parts[1]] = id.String()
			}
		}
		return nil
	})
	return copies, err
}

// missing lists the committed snapshots of the source that come after at, oldest first.
// Errors: ErrForked if the source's history is not the one that was copied.
func (m *Mirror) missing(ctx context.Context, at Position, only []format.ID) ([]Entry, protocol.Head, error) {
	seen, err := m.from.ReadHead(ctx)
	if err != nil {
		return nil, protocol.Head{}, fmt.Errorf("source: %w", err)
	}
	if seen.Head.Seq < at.Seq {
		return nil, seen.Head, fmt.Errorf("%w: the source is at seq %d and its copy at %d: the source went back", ErrForked, seen.Head.Seq, at.Seq)
	}
	all, err := m.from.History(ctx, seen.Head)
	if err != nil {
		return nil, seen.Head, fmt.Errorf("source: %w", err)
	}
	var list []Entry
	for _, e := range all {
		wanted := len(only) == 0 || slices.Contains(only, e.ID)
		switch {
		case !e.Committed || e.Seq == 0:
		case e.Seq == at.Seq && !e.is(at.Snapshot):
			return nil, seen.Head, fmt.Errorf("%w: seq %d is snapshot %s in the source, and the copy has %.8s for it", ErrForked, e.Seq, e.ID.Short(), at.Snapshot)
		case e.Seq > at.Seq && wanted:
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return int(int64(a.Seq) - int64(b.Seq)) })
	return list, seen.Head, nil
}

// is reports whether e is the snapshot id, or what restic made of it.
func (e *Entry) is(id string) bool {
	return e.ID.String() == id || e.Original != nil && e.Original.String() == id
}

// copyOne commits a copy of e upon base, and returns the head that it made.
func (m *Mirror) copyOne(ctx context.Context, lock *repo.Lock, base protocol.Seen, e Entry) (stored int64, made protocol.Seen, err error) {
	if m.last != nil && m.last.base == base.Tag {
		// A head was sent upon this very one, and may land yet: the same again.
		h, err := m.to.decodeHead(m.last.sealed)
		if err != nil {
			return 0, protocol.Seen{}, err
		}
		made, err = m.putHead(ctx, base, h, m.last.sealed)
		return 0, made, errors.Join(err, m.same(ctx, h, e))
	}
	opt := copyOptions{tell: m.opt.Progress}
	doubt := m.keep.doubt()
	if id, err := format.ParseID(base.Head.Tree); err == nil && base.Head.Snapshot != "" && doubt == m.keep.mended {
		opt.base = &id
	}
	h := protocol.Head{
		Version: protocol.HeadVersion, Volume: m.to.Name, Epoch: base.Head.Epoch + 1, Claim: newID(), Write: newID(),
		Holder: protocol.Holder{ID: m.opt.Instance}, State: protocol.Released, TTL: protocol.Duration(m.opt.TTL),
		Seq: base.Head.Seq + 1, Tree: e.Tree.String(), Paths: e.Paths, Time: e.Time, Condemned: base.Head.Condemned,
	}
	stats, err := m.from.copyTo(ctx, m.to, e.Snapshot, m.mirrored(e, base.Head, h), opt)
	if err != nil {
		return 0, protocol.Seen{}, err
	}
	if err := lock.Check(ctx); err != nil {
		return 0, protocol.Seen{}, err // what we counted on may be pruned: the next time from the index on
	}
	h.Snapshot = stats.Snapshot
	sealed, err := m.to.encodeHead(h)
	if err != nil {
		return 0, protocol.Seen{}, err
	}
	m.last = &sent{base: base.Tag, sealed: sealed}
	if made, err = m.putHead(ctx, base, h, sealed); err == nil {
		m.keep.mended = doubt
	}
	return stats.Stored, made, err
}

// same fails if the head that was sent earlier is not of e: then the next Sync goes on
// from where that one ends.
func (m *Mirror) same(ctx context.Context, h protocol.Head, e Entry) error {
	sn, err := m.to.headSnapshot(ctx, h)
	if err != nil {
		return err
	}
	if _, id, err := m.copyOf(sn); err != nil || !e.is(id) {
		return errors.Join(err, fmt.Errorf("%w: an earlier copy landed late", objstore.ErrUnavailable))
	}
	return nil
}

// mirrored is the snapshot object of the copy.
func (m *Mirror) mirrored(e Entry, base, h protocol.Head) *format.Snapshot {
	sn := *e.Snapshot
	sn.Parent, sn.Original = nil, nil
	if id, err := format.ParseID(base.Snapshot); err == nil {
		sn.Parent = &id
	}
	sn.ProgramVersion = "drover " + m.opt.Version
	sn.Tags = []string{
		fmt.Sprintf("epoch:%d", h.Epoch), fmt.Sprintf("seq:%d", h.Seq), "instance:" + m.opt.Instance,
		fmt.Sprintf("%s%d:%s:%s", mirrorTag, e.Seq, e.ID, m.from.Repo.ID()),
	}
	for _, tag := range e.Tags {
		switch kind, _, _ := strings.Cut(tag, ":"); kind {
		case "epoch", "seq", "instance", "mirror":
		default:
			sn.Tags = append(sn.Tags, tag)
		}
	}
	return &sn
}

// putHead replaces base by sealed. The store's answer, or the bytes that are there
// then, decide; while it is open, the same bytes are all that is sent upon base.
func (m *Mirror) putHead(ctx context.Context, base protocol.Seen, h protocol.Head, sealed []byte) (protocol.Seen, error) {
	tag, putErr := m.to.st.PutIf(ctx, headKey, sealed, objstore.IfMatch(objstore.ETag(base.Tag)))
	if putErr == nil {
		m.last = nil
		return protocol.Seen{Head: h, Tag: protocol.Tag(tag)}, nil
	}
	have, info, err := m.to.st.Get(ctx, headKey, 0, -1)
	switch {
	case err != nil:
		return protocol.Seen{}, fmt.Errorf("replace head: %w", errors.Join(putErr, err))
	case string(have) == string(sealed):
		m.last = nil
		return protocol.Seen{Head: h, Tag: protocol.Tag(info.ETag)}, nil
	case protocol.Tag(info.ETag) != base.Tag:
		m.last, m.tidied = nil, false
		return protocol.Seen{}, fmt.Errorf("replace head: somebody else did meanwhile: %w", putErr)
	}
	return protocol.Seen{}, fmt.Errorf("replace head: %w", putErr)
}

// tidy removes the snapshot objects of attempts that died before their head: the head
// that they were to be committed upon is no more, so they never can be. Of an attempt
// upon h itself, by anybody, nothing is removed: it may land yet.
func (m *Mirror) tidy(ctx context.Context, h protocol.Head) error {
	if m.tidied {
		return nil
	}
	all, err := m.to.History(ctx, h)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	open := false
	for _, e := range all {
		if e.Committed || e.Epoch == 0 || !slices.ContainsFunc(e.Tags, func(tag string) bool { return strings.HasPrefix(tag, mirrorTag) }) {
			continue
		}
		if e.Epoch > h.Epoch {
			open = true
			continue
		}
		if err := m.to.Repo.RemoveSnapshot(ctx, e.ID); err != nil {
			return fmt.Errorf("copy: remove what an interrupted copy left: %w", err)
		}
		if u := m.keep.upkeep; u != nil {
			delete(u.known, e.ID)
		}
	}
	m.tidied = !open
	return nil
}
