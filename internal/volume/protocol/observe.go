package protocol

import (
	"fmt"
	"time"
)

// reading is the state of reads of the head, of which one is under way at most.
type reading struct {
	out   bool
	sent  Time // of the last
	retry retry
}

// Watch counts how long a head has stood unchanged before our eyes. Only reads that
// follow each other closely count: after a gap the holder must have had its chance to
// renew.
type Watch struct {
	Tag   Tag
	First Time // receipt of the first read that showed Tag
	Sent  Time // sending of the last one
	Last  Time // its receipt
}

// See counts a reading that was sent then and came now.
func (w *Watch) See(s Seen, sent, now Time) {
	if w.Tag != s.Tag || now-w.Last > longestGap(s.Head) {
		*w = Watch{Tag: s.Tag, First: now}
	}
	w.Sent, w.Last = sent, now
}

// Expired says whether s, the last reading, stood unchanged for the TTL that it states,
// and whether that is news.
func (w *Watch) Expired(s Seen, now Time) bool {
	return w.Tag == s.Tag && w.Sent-w.First >= Time(s.Head.TTL) && now-w.Last <= longestGap(s.Head)
}

// longestGap between two reads that an observation bears.
func longestGap(h Head) Time { return Time(h.TTL) / 3 }

// longestPoll bounds how long a released head waits for a standby.
const longestPoll = time.Second

// poll is how often a standby looks; a third of the TTL is the longest gap
// that an observation bears.
func (m *Machine) poll() Time { return min(m.cfg.TTL/5, longestPoll) }

// nextRead says when the head is to be read, if at all.
func (m *Machine) nextRead() (Time, bool) {
	if m.read.out || m.write != nil && (m.write.out || m.write.resend) && m.fault == "" {
		return 0, false
	}
	switch {
	case m.own != nil && m.write == nil && m.fault == "":
		return 0, false
	case m.read.retry.failures > 0:
		return m.read.retry.at, true
	case m.fault != "":
		return m.read.sent + m.poll(), true
	case m.write != nil, m.seen == nil:
		return 0, true
	}
	next := m.read.sent + m.poll()
	if due := m.watch.First + Time(m.seen.Head.TTL); m.seen.Head.State == Held && due > m.read.sent {
		next = min(next, due) // the read that decides is sent at the very moment
	}
	return next, true
}

func (m *Machine) actRead() bool {
	at, ok := m.nextRead()
	if !ok || m.now < at {
		return false
	}
	m.read.out, m.read.sent = true, m.now
	m.emit(ReadHead{})
	return true
}

func (m *Machine) takeRead(in HeadRead) {
	if !m.read.out {
		return
	}
	m.read.out = false
	switch {
	case in.Missing:
		m.read.retry.fail(m.read.sent, m.cfg.TTL)
		m.fault = "the head is missing"
	case in.Seen == nil:
		m.read.retry.fail(m.read.sent, m.cfg.TTL)
	default:
		m.read.retry.succeed()
		m.fault = m.refuses(in.Seen.Head)
		if m.fault == "" {
			m.understand(in.Seen, in.Sent)
		}
	}
	if m.fault != "" {
		m.watch = Watch{}
	}
}

// refuses says why a head cannot be the one that we knew, or what came after it.
func (m *Machine) refuses(h Head) string {
	switch {
	case h.Version > HeadVersion:
		return fmt.Sprintf("the head has format %d, this agent knows %d: update it", h.Version, HeadVersion)
	case h.Volume != m.cfg.Volume:
		return fmt.Sprintf("the head is of volume %q", h.Volume)
	case m.broken(LowerHead):
		return ""
	case h.Epoch < m.highEpoch || h.Seq < m.highSeq:
		return fmt.Sprintf("the head went back from epoch %d, commit %d to epoch %d, commit %d",
			m.highEpoch, m.highSeq, h.Epoch, h.Seq)
	}
	return ""
}

// understand draws the conclusions from a good reading.
func (m *Machine) understand(s *Seen, sent Time) {
	m.highEpoch, m.highSeq = max(m.highEpoch, s.Head.Epoch), max(m.highSeq, s.Head.Seq)
	switch {
	case m.write != nil:
		m.resolve(s, sent)
	case m.own == nil:
		m.observe(s, sent)
	case s.Tag != m.seen.Tag: // read because of a fault that has passed
		m.depose(s, sent)
	}
}

// observe counts for how long the head has not changed.
func (m *Machine) observe(s *Seen, sent Time) {
	changed := m.seen != nil && m.seen.Tag != s.Tag
	if m.broken(NoGap) && m.watch.Tag == s.Tag {
		m.watch.Last = m.now
	}
	m.watch.See(*s, sent, m.now)
	if m.broken(CountFromSending) && m.watch.First == m.now {
		m.watch.First = sent
	}
	m.seen = s
	if m.cfg.Detached && changed && s.Head.State == Held && m.stop == nil {
		m.exitHeld()
	}
}

// expired says whether the head stood unchanged for the TTL that it states.
func (m *Machine) expired() bool {
	if m.broken(NoGap) && m.watch.Tag == m.seen.Tag {
		m.watch.Last = m.now
	}
	return m.watch.Expired(*m.seen, m.now)
}
