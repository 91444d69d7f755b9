package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"drover/internal/objstore"
	"drover/internal/repo/archive"
	"drover/internal/repo/format"
	"drover/internal/volume/protocol"
)

// KeepOptions say how a copy is kept up: as a volume that somebody runs upon.
type KeepOptions struct {
	UpkeepOptions
	Cache archive.TreeCache // of the source's trees, which are the copy's as well; nil: none
	Shelf string            // a file for snapshot objects that were read; "": they are read again each time
}

// mirrorKeeper begins the name of whoever holds a copy for its upkeep. It has a blank,
// which no instance's name has: whoever meets it knows that nothing runs there.
const mirrorKeeper = "upkeep by "

// errCopyOnly: the upkeep asks for a commit, and there are no files to make it of.
var errCopyOnly = errors.New("nothing is committed here but copies")

// keeping is what a Mirror knows of the upkeep of its copy.
type keeping struct {
	opt    KeepOptions
	upkeep *Upkeep // nil: it keeps nothing up
	epoch  uint64  // of the head that we wrote last: until another has, what the upkeep knows holds
	rested uint64  // of the head upon which there was nothing to do
	mended string  // why a snapshot was copied without counting on the one before
}

// doubt is why the upkeep believes that the copy has lost something, "" if it does not.
func (k *keeping) doubt() string {
	if k.upkeep == nil {
		return ""
	}
	return k.upkeep.suspected
}

// KeepUp prepares Keep.
func (m *Mirror) KeepUp(opt KeepOptions) {
	opt.ofCopy = true
	m.keep = keeping{opt: opt, upkeep: NewUpkeep(nil, opt.UpkeepOptions)}
	m.keep.upkeep.forget()
}

// Kept tells what Keep did.
func (m *Mirror) Kept() UpkeepStats { return m.keep.upkeep.Stats() }

// Keep makes one run of the upkeep in the copy, under a short claim: snapshots that its
// retention does not keep are removed, data that no snapshot needs is condemned, and
// deleted by a later run, and small index objects are merged. It says when to come again.
// Between two runs only this Mirror may have written, else all waiting begins anew.
//
// Errors: ErrForked; ErrHeld; those of an upkeep. Nothing is deleted then.
func (m *Mirror) Keep(ctx context.Context) (next time.Duration, err error) {
	k := &m.keep
	next = k.opt.Every
	if m.last != nil {
		return next, fmt.Errorf("%w: whether the last copy landed is not known yet", objstore.ErrUnavailable)
	}
	defer func() {
		if ctx.Err() == nil { // the end of the instance is no fault of the mirror's
			k.upkeep.note(err)
		}
	}()
	seen, _, err := m.free(ctx)
	if err != nil || seen.Head.Snapshot == "" || seen.Head.Epoch == k.rested {
		return next, err
	}
	if err := m.openShelf(ctx); err != nil {
		return next, err
	}
	defer k.upkeep.end()
	err = m.to.claim(ctx, m.keeper(), refuse, func(ctx context.Context, s *Session) error {
		next, err = m.keepAs(ctx, s)
		return err
	})
	return next, err
}

// keepAs is one run under the claim of s.
func (m *Mirror) keepAs(ctx context.Context, s *Session) (time.Duration, error) {
	k := &m.keep
	h, ok := s.head()
	if !ok {
		return k.opt.Every, ErrHeld
	}
	sn, err := s.v.headSnapshot(ctx, h)
	if err == nil {
		_, _, err = m.copyOf(sn) // somebody may have committed before our claim
	}
	if err != nil {
		return k.opt.Every, err
	}
	if h.Epoch != k.epoch+1 {
		k.upkeep.forget()
	}
	k.epoch = h.Epoch
	k.upkeep.r = s.Runtime
	next, err := k.upkeep.once(ctx)
	if err == nil && k.upkeep.atRest() {
		k.rested = h.Epoch
	}
	return next, err
}

// openShelf also reads what is not in it yet, while nobody has to wait for us.
func (m *Mirror) openShelf(ctx context.Context) (err error) {
	u := m.keep.upkeep
	if m.keep.opt.Shelf == "" {
		return nil
	}
	if u.shelf, err = openShelf(m.keep.opt.Shelf); err != nil {
		u.opt.Log.Warn("upkeep: snapshot objects are read anew each time", "err", err)
		return nil
	}
	err = m.to.Repo.Aside(1, u.shelf.through).Snapshots(ctx, func(format.ID, *format.Snapshot) error { return nil })
	if lost(err) {
		return nil // the run finds it too, and names all
	}
	return err
}

// keeper are the options of a session that keeps the copy up.
func (m *Mirror) keeper() Options {
	return Options{
		Protocol: protocol.Config{Volume: m.to.Name, TTL: m.opt.TTL, Self: protocol.Holder{ID: mirrorKeeper + m.opt.Instance}},
		Tree:     TreeOptions{Version: m.opt.Version, Cache: m.keep.opt.Cache}, Log: m.opt.Log,
	}
}

func refuse(context.Context, *Runtime, protocol.Capture) (protocol.Captured, CaptureStats, error) {
	return protocol.Captured{}, CaptureStats{}, errCopyOnly
}

// free is position, after the claim of a Keep that died was ended: once nobody has
// renewed it for its TTL.
func (m *Mirror) free(ctx context.Context) (protocol.Seen, Position, error) {
	seen, at, err := m.position(ctx)
	if !errors.Is(err, ErrHeld) || !strings.HasPrefix(seen.Head.Holder.ID, mirrorKeeper) {
		return seen, at, err
	}
	if err := m.to.claim(ctx, m.keeper(), refuse, func(context.Context, *Session) error { return nil }); err != nil {
		return seen, at, err
	}
	return m.position(ctx)
}

// wrote notes that one of our heads took the place of another.
func (m *Mirror) wrote(before, now protocol.Head) {
	if m.keep.epoch == before.Epoch {
		m.keep.epoch = now.Epoch
	}
}
