// Package slots decides which of several volumes, the slots of a service, an instance
// tries to claim.
//
// It promises: one slot is tried at a time; the slot whose files lie on the disk comes
// first; a free one is taken, and one whose holder is silent for a TTL; one that could
// not be had is left alone for a while, so that the others get their turn. It is pure:
// Chooser.Step takes one input and the time and returns actions; Chooser.Deadline says
// when a Tick is wanted.
//
// It leaves to others: claiming and all that is safe about it (package protocol, of
// which one machine at a time runs for the slot that is tried), reading heads, and
// clearing away what another slot left on the disk (package volume).
package slots

import (
	"time"

	"drover/internal/volume/protocol"
)

// Time is the protocol's.
type Time = protocol.Time

// None is no slot.
const None = -1

// Config is what the chooser is told once.
type Config struct {
	Slots int
	TTL   time.Duration // ours; each head says its own
	// Spread is any number, another in each instance, so that those that lose a race go
	// on to different slots.
	Spread uint64
	// Mutant breaks one rule. For tests alone, which show that they notice.
	Mutant Mutant
}

// Mutant names a rule that is left out. The zero value breaks nothing.
type Mutant string

// The mutants, each with the rule that it breaks.
const (
	OwnForgotten Mutant = "own-forgotten" // the slot whose files lie here comes first
	NotShy       Mutant = "not-shy"       // a slot that could not be had is left alone for a while
	Unwatched    Mutant = "unwatched"     // a held slot is free for whoever saw it unchanged for a TTL
)

// Input is something that happened.
type Input interface{ input() }

type (
	// Boot starts the chooser; it comes once, first. Own is the slot whose files lie on
	// the disk and may stand nowhere else; None if there is none.
	Boot struct{ Own int }
	// Tick says only that time has passed.
	Tick struct{}
	// HeadRead answers a ReadHead. Sent is when the request was sent.
	HeadRead struct {
		Slot   int
		Sent   Time
		Seen   *protocol.Seen // nil: the read failed (unknown), unless Absent
		Absent bool           // there is no such volume yet
	}
	// Ended answers a Try: the slot is not ours (any more), and nothing here is its.
	Ended struct {
		Slot  int
		Unfit bool // it could not be had, for another reason than that somebody holds it
	}
)

func (Boot) input()     {}
func (Tick) input()     {}
func (HeadRead) input() {}
func (Ended) input()    {}

// Action is something for the caller to do.
type Action interface{ action() }

type (
	// ReadHead: get the head of a slot; answer HeadRead.
	ReadHead struct{ Slot int }
	// Try: run the protocol on the slot, with what was counted of its head; answer Ended.
	// Reads under way are given up: no answer to one may come any more.
	Try struct {
		Slot  int
		Watch protocol.Watch
	}
)

func (ReadHead) action() {}
func (Try) action()      {}

// Chooser chooses for one instance. It is not for use by two goroutines at once.
type Chooser struct {
	cfg    Config
	now    Time
	booted bool
	slots  []slot
	trying int // None: no slot is tried
	reads  int // under way
	lost   int // tries in a row that ended without a slot
	out    []Action
}

// slot is what is known of one.
type slot struct {
	known   bool           // a read was answered, well or not
	seen    *protocol.Seen // by the last read; nil: it failed
	absent  bool
	watch   protocol.Watch
	reading bool
	sent    Time // of the last read
	due     Time // of the next
	failed  int  // reads in a row
	shy     Time // until then it is left to others
	unfit   int  // tries in a row that showed it unfit
}

// New returns a chooser that waits for Boot.
func New(cfg Config) *Chooser {
	return &Chooser{cfg: cfg, slots: make([]slot, cfg.Slots), trying: None}
}

// Step takes in what happened by now and returns what to do, in order.
func (c *Chooser) Step(now Time, in Input) []Action {
	c.now, c.out = now, nil
	switch in := in.(type) {
	case Boot:
		c.booted = true
		if in.Own != None && !c.broken(OwnForgotten) {
			c.try(in.Own)
		}
	case HeadRead:
		c.takeRead(in)
	case Ended:
		c.takeEnded(in)
	}
	if c.booted && c.trying == None {
		if i := c.choice(); i != None {
			c.try(i)
		} else {
			c.read()
		}
	}
	return c.out
}

func (c *Chooser) broken(rule Mutant) bool { return c.cfg.Mutant == rule }

func (c *Chooser) try(i int) {
	c.trying, c.reads = i, 0
	for j := range c.slots {
		c.slots[j].reading = false
	}
	c.out = append(c.out, Try{Slot: i, Watch: c.slots[i].watch})
}

func (c *Chooser) takeRead(in HeadRead) {
	s := &c.slots[in.Slot]
	if !s.reading {
		return
	}
	s.reading, s.known, s.absent, s.seen = false, true, in.Absent, in.Seen
	c.reads--
	if in.Seen == nil && !in.Absent {
		// As the protocol spaces its reads, so that an observation bears a few failures.
		s.due = s.sent + min(c.cfg.TTL/32<<min(s.failed, 5), c.cfg.TTL/4)
		s.failed++
		return
	}
	s.failed = 0
	s.due = s.sent + c.pace(s)
	if in.Seen == nil {
		return
	}
	s.watch.See(*in.Seen, in.Sent, c.now)
	expires := s.watch.First + Time(in.Seen.Head.TTL)
	if in.Seen.Head.State == protocol.Held && expires > s.sent {
		s.due = min(s.due, expires) // the read that decides is sent at the very moment
	}
}

// mostShy bounds, in TTLs, how long a slot is left alone that could not be had again and again.
const mostShy = 8

func (c *Chooser) takeEnded(in Ended) {
	if in.Slot != c.trying {
		return
	}
	c.trying = None
	c.lost++
	s := &c.slots[in.Slot]
	s.seen, s.absent, s.due = nil, false, c.now
	if !in.Unfit {
		s.unfit = 0
		return
	}
	s.shy = c.now + c.cfg.TTL*Time(min(1<<s.unfit, mostShy))
	s.unfit = min(s.unfit+1, mostShy)
}

// choice is the slot to try now: the lowest that is free, so that the first instances
// have the first slots. Who has lost a race may be one of many, and those go on to
// different ones.
func (c *Chooser) choice() int {
	var free []int
	for i := range c.slots {
		if !c.slots[i].known {
			break // it may be free, and is lower
		}
		if c.free(i) {
			free = append(free, i)
		}
	}
	switch {
	case len(free) == 0:
		return None
	case c.lost == 0:
		return free[0]
	}
	return free[(c.cfg.Spread+uint64(c.lost))%uint64(len(free))]
}

// free says whether nobody holds the slot, or a silent one, as far as is known now.
func (c *Chooser) free(i int) bool {
	s := &c.slots[i]
	switch {
	case c.now < s.shy && !c.broken(NotShy):
		return false
	case s.seen == nil:
		return s.absent
	case s.seen.Head.State != protocol.Held:
		return true
	}
	return s.watch.Expired(*s.seen, c.now) && !c.broken(Unwatched)
}

// How often heads are read: each second, as a standby does, and for many slots so
// seldom that one instance makes no more than this many requests in a second; but
// always often enough for an observation to count (protocol.Watch).
const (
	shortestPause  = time.Second / readsPerSecond
	readsPerSecond = 50
	mostReads      = 16 // at once
)

func (c *Chooser) pace(s *slot) Time {
	ttl := c.cfg.TTL
	if s.seen != nil {
		ttl = Time(s.seen.Head.TTL)
	}
	often := min(ttl/5, time.Second)
	return min(max(often, shortestPause*Time(len(c.slots))), ttl/4)
}

// read asks for the heads that are due, the longest due first.
func (c *Chooser) read() {
	for c.reads < mostReads {
		next := None
		for i := range c.slots {
			s := &c.slots[i]
			if !s.reading && s.due <= c.now && (next == None || s.due < c.slots[next].due) {
				next = i
			}
		}
		if next == None {
			return
		}
		s := &c.slots[next]
		s.reading, s.sent = true, c.now
		c.reads++
		c.out = append(c.out, ReadHead{Slot: next})
	}
}

// Deadline returns when a Tick is wanted next; false: only an input matters.
func (c *Chooser) Deadline() (Time, bool) {
	if !c.booted || c.trying != None {
		return 0, false
	}
	var at Time
	found := false
	earliest := func(t Time) {
		if t > c.now && (!found || t < at) {
			at, found = t, true
		}
	}
	for i := range c.slots {
		s := &c.slots[i]
		earliest(s.shy)
		if !s.reading {
			earliest(s.due)
		}
	}
	return at, found
}

// Status is what people see of the choice.
type Status struct {
	Trying int // None: waiting
	Held   int // slots that somebody holds
	Silent int // slots that could not be looked at
}

// Status returns what people see.
func (c *Chooser) Status() Status {
	st := Status{Trying: c.trying}
	for _, s := range c.slots {
		switch {
		case s.seen != nil && s.seen.Head.State == protocol.Held:
			st.Held++
		case s.seen == nil && s.failed > 0:
			st.Silent++
		}
	}
	return st
}
