package protocol

import "slices"

// writeKind is the transition that a write makes.
type writeKind int

const (
	claimWrite writeKind = iota
	renewWrite
	commitWrite
	editWrite
	releaseWrite
)

// write is the one write of the head that is under way. It stays until it is
// known to have landed, or until the head differs from its base: before that
// it may still land.
type write struct {
	kind   writeKind
	head   Head
	base   Tag
	first  Time // when it was first sent, or a little before
	out    bool // an answer is awaited
	resend bool // it has not landed yet: the same bytes again
	retry  retry
}

// startWrite sends a head that follows the one seen. The write id is made here
// and nowhere else.
func (m *Machine) startWrite(kind writeKind, h Head) {
	h.Version, h.Volume, h.Write = HeadVersion, m.cfg.Volume, m.cfg.NewID()
	m.write = &write{kind: kind, head: h, base: m.seen.Tag, first: m.now, out: true}
	m.emit(PutHead{Head: h, Base: m.seen.Tag})
}

// ownHead is the head as the holder writes it, but for what a transition changes.
func (m *Machine) ownHead() Head {
	h := m.seen.Head
	h.Holder = m.cfg.Self
	h.Holder.Lock = m.lock.id
	h.TTL = Duration(m.cfg.TTL)
	return h
}

func (m *Machine) takePut(in HeadPut) {
	w := m.write
	if w == nil || !w.out {
		return
	}
	w.out = false
	switch {
	case in.OK:
		m.landed(in.Tag)
	case m.broken(UnknownIsYes):
		m.landed(m.seen.Tag)
	case m.broken(UnknownIsNo) && w.kind != claimWrite:
		m.abandonWrite()
	}
}

// resolve learns from a reading what became of the write under way.
func (m *Machine) resolve(s *Seen, sent Time) {
	w := m.write
	switch {
	case m.wrote(s.Head, w.head):
		m.landed(s.Tag)
	case s.Tag == w.base:
		w.resend = true
	case w.kind == claimWrite:
		m.write, m.intent = nil, nil
		m.observe(s, sent)
	case m.broken(NewBase) && s.Head.Epoch == w.head.Epoch:
		m.seen = s
		m.startWrite(w.kind, w.head)
	default:
		m.depose(s, sent)
	}
}

// wrote says whether read is the very head that we sent. A twin of us (a cloned
// disk, a machine that was rolled back) has our epoch and our claim, but never
// our write id.
func (m *Machine) wrote(read, sent Head) bool {
	if m.broken(CompareClaim) {
		return read.Epoch == sent.Epoch && read.Claim == sent.Claim
	}
	return read.Equal(sent)
}

// actResend sends the same bytes again: the head is still what they stand upon.
func (m *Machine) actResend() bool {
	w := m.write
	if w == nil || !w.resend || m.fault != "" || !w.retry.ready(m.now) {
		return false
	}
	w.resend, w.out = false, true
	w.retry.fail(m.now, m.cfg.TTL)
	m.emit(PutHead{Head: w.head, Base: w.base, Repeat: true})
	return true
}

// landed: the head is what we wrote.
func (m *Machine) landed(tag Tag) {
	w := m.write
	m.write = nil
	m.seen = &Seen{Head: w.head, Tag: tag}
	m.highEpoch, m.highSeq = max(m.highEpoch, w.head.Epoch), max(m.highSeq, w.head.Seq)
	if w.kind == claimWrite {
		m.claimed(w)
	}
	m.renewed(w.first)
	switch w.kind {
	case commitWrite:
		m.committed(w.head)
	case editWrite:
		m.edited(w.head)
	case releaseWrite:
		m.released()
	}
}

// abandonWrite is what UnknownIsNo does.
func (m *Machine) abandonWrite() {
	w := m.write
	m.write = nil
	if w.kind == commitWrite {
		m.failCommit(ErrStale)
	}
}

// Equal says whether two heads are the same in every field.
func (h Head) Equal(o Head) bool {
	return h.Version == o.Version && h.Volume == o.Volume && h.Epoch == o.Epoch && h.Claim == o.Claim &&
		h.Write == o.Write && h.Holder == o.Holder && h.State == o.State && h.TTL == o.TTL &&
		h.Seq == o.Seq && h.Snapshot == o.Snapshot && h.Tree == o.Tree && slices.Equal(h.Paths, o.Paths) &&
		h.Time.Equal(o.Time) && slices.Equal(h.Condemned, o.Condemned)
}
