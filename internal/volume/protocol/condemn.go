package protocol

import "slices"

// edit is a change of the list of condemned packs.
type edit struct {
	request    uint64
	packs      []string
	condemn    bool
	epoch, seq uint64 // of the head that a condemnation was computed against
}

func (m *Machine) takeEdit(e edit) {
	switch {
	case m.own == nil || !m.own.ready:
		m.reply([]uint64{e.request}, Head{}, ErrNotHolder)
	case m.stop != nil:
		m.reply([]uint64{e.request}, Head{}, ErrStopping)
	default:
		m.edits = append(m.edits, e)
	}
}

// actEdit writes the next change of the list. A pack once condemned leaves the
// list only when it is gone.
func (m *Machine) actEdit() bool {
	if len(m.edits) == 0 || m.own == nil || m.write != nil || m.fault != "" {
		return false
	}
	e := m.edits[0]
	if e.condemn && m.staleEdit(e) && !m.broken(StaleCondemn) {
		m.edits = m.edits[1:]
		m.reply([]uint64{e.request}, m.seen.Head, ErrStale)
		return true
	}
	h := m.ownHead()
	h.Condemned = slices.Clone(h.Condemned)
	if e.condemn {
		h.Condemned = append(h.Condemned, e.packs...)
	} else {
		h.Condemned = slices.DeleteFunc(h.Condemned, func(p string) bool { return slices.Contains(e.packs, p) })
	}
	slices.Sort(h.Condemned)
	h.Condemned = slices.Compact(h.Condemned)
	m.startWrite(editWrite, h)
	return true
}

// edited: the change of the list has landed.
func (m *Machine) edited(h Head) {
	e := m.edits[0]
	m.edits = m.edits[1:]
	if e.condemn && m.commit != nil {
		m.commit.doomed = append(m.commit.doomed, e.packs...)
	}
	m.reply([]uint64{e.request}, h, nil)
}

// staleEdit says whether something may count on the packs that was not there
// when they were chosen: a newer commit, or a snapshot on its way into the head.
// (A capture that still runs is compared when it ends.)
func (m *Machine) staleEdit(e edit) bool {
	if e.epoch != m.seen.Head.Epoch || e.seq != m.seen.Head.Seq {
		return true
	}
	c := m.commit
	return c != nil && c.got != nil && slices.ContainsFunc(c.got.Packs, func(p string) bool { return slices.Contains(e.packs, p) })
}
