package sim

import (
	"errors"
	"fmt"
	"time"

	"drover/internal/volume/protocol"
)

var (
	errAway = errors.New("the store is away")
	errFull = errors.New("the disk is full")
)

// store holds the head, and all that it ever was.
type store struct {
	seen protocol.Seen
	past []sight
	tags int
	from []*disk        // of each epoch from 1 on, the disk of the instance that claimed it
	back *protocol.Seen // the right head, while an old one is put back
}

// sight is a head and when it came.
type sight struct {
	at   time.Duration
	seen protocol.Seen
}

func newStore() store {
	s := store{seen: protocol.Seen{
		Head: protocol.Head{Version: protocol.HeadVersion, Volume: "data", State: protocol.Free, TTL: protocol.Duration(ttl), Write: "first"},
		Tag:  "t0",
	}}
	s.past = []sight{{seen: s.seen}}
	return s
}

// put is a conditional write that arrives.
func (w *world) put(a *agent, d *disk, p protocol.PutHead) (protocol.Tag, bool) {
	s := &w.store
	if s.seen.Tag != p.Base {
		w.logf("store: %s's write %s on %s arrives and is refused (now %s)", a.id, p.Head.Write, p.Base, s.seen.Tag)
		return "", false
	}
	w.checkWrite(a, s.seen.Head, p.Head)
	if p.Head.Epoch > s.seen.Head.Epoch {
		s.from = append(s.from, d)
	}
	s.tags++
	s.seen = protocol.Seen{Head: p.Head, Tag: protocol.Tag(fmt.Sprintf("t%d", s.tags))}
	s.past = append(s.past, sight{at: w.now, seen: s.seen})
	w.logf("store: %s's write %s lands: %s epoch %d seq %d %s → %s", a.id, p.Head.Write, p.Head.State, p.Head.Epoch, p.Head.Seq, p.Head.Snapshot, s.seen.Tag)
	w.checkHead()
	return s.seen.Tag, true
}

// wasHead says whether the head was of that claim and snapshot at some moment of a time.
func (s *store) wasHead(claim, snapshot string, from, to time.Duration) bool {
	for i, p := range s.past {
		ends := to
		if i+1 < len(s.past) {
			ends = s.past[i+1].at
		}
		if p.at <= to && ends >= from && p.seen.Head.Claim == claim && p.seen.Head.Snapshot == snapshot {
			return true
		}
	}
	return false
}

// requestTimeout is when the runtime takes a silent request for failed.
const requestTimeout = ttl / 4

func (a *agent) readHead() {
	w := a.w
	op, sent := a.begin("read"), a.clock.read(w.now)
	w.after(requestTimeout, func() { a.finish(op, protocol.HeadRead{Sent: sent, Err: errAway}) })
	w.after(w.latency(), func() {
		if w.away(a) {
			w.refuse(a, op, protocol.HeadRead{Sent: sent, Err: errAway})
			return
		}
		seen := w.store.seen
		w.after(w.latency(), func() {
			if !w.away(a) {
				a.finish(op, protocol.HeadRead{Sent: sent, Seen: &seen})
			}
		})
	})
}

// refuse answers a request that fails: at once, or never.
func (w *world) refuse(a *agent, op op, in protocol.Input) {
	if w.chance(0.5) {
		w.after(w.latency(), func() { a.finish(op, in) })
	}
}

func (a *agent) putHead(p protocol.PutHead) {
	w := a.w
	op, sent, d := a.begin("put"), a.clock.read(w.now), a.disk
	w.after(requestTimeout, func() { a.finish(op, protocol.HeadPut{Sent: sent, Err: errAway}) })
	arrive := func() {
		tag, ok := w.put(a, d, p)
		in := protocol.HeadPut{Sent: sent, OK: ok, Tag: tag}
		if !ok {
			in.Err = errors.New("conflict")
		}
		w.after(w.latency(), func() {
			if !w.away(a) {
				a.finish(op, in)
			}
		})
	}
	stormy := !w.calm && w.class != Outage
	w.after(w.latency(), func() {
		switch {
		case !w.away(a):
			arrive()
		case stormy && w.chance(0.5): // lost to us, on its way all the same
			w.after(w.between(0, 3*ttl), arrive)
		default:
			w.refuse(a, op, protocol.HeadPut{Sent: sent, Err: errAway})
		}
	})
	if stormy && w.chance(0.1) { // a proxy repeats it
		w.after(w.between(0, 3*ttl), arrive)
	}
}
