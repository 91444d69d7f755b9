// Package sim plays clusters of a small replicated database, from a seed: members with real
// failover.Step, servers with logs, timelines and acknowledgements, a coordinator whose answers
// come late or not at all, a network that is cut one way or both, and clients that write through all of it.
//
// It promises that whatever breaks failover's promises in a schedule is told, with the seed. The model of
// the database is the poorest that can lose a commit; real ones are the drivers' tests.
package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"drover/internal/failover"
)

// Options of a schedule.
type Options struct {
	Seed    uint64
	Members int
	Mode    failover.Mode
	Acks    int
	Faults  time.Duration // how long things go wrong, after the cluster has formed
	Relay   bool          // the last member takes its log from another replica, and copies may be a replica's
	Awake   bool          // nobody sleeps, no server outlives its agent: no two accept commits at the same moment, in any mode
	Trace   func(string)  // nil: nobody
}

const (
	tick = 20 * time.Millisecond
	ttl  = 2 * time.Second
)

// Report is what a schedule has shown.
type Report struct {
	Acked, Lost, Faults int
	Reigns              uint64        // the last epoch
	Gap                 time.Duration // the longest time without an acknowledged commit while things went wrong
}

// world is all of it.
type world struct {
	opt   Options
	rng   *rand.Rand
	now   time.Duration
	store coordinator
	all   []*member
	owner map[string]*member // of each ID there was
	cut   map[[2]string]bool // from, to; "store" is the coordinator
	ids   int
	mail  []letter // what is under way, unordered
	due   []letter

	// How this schedule is.
	kind     int // of faults that it has more of; see disturb
	seldom   int // how seldom there is one
	sluggish int // how seldom something takes long

	acked   []uint64 // by value: the epoch it was acknowledged in; 0: it was not
	seen    []bool   // by value: an admitted client could read it
	count   int      // of those acknowledged
	ackers  map[uint64]string
	byHand  uint64 // the last epoch whose primary a person chose
	faulty  bool   // things go wrong now
	lastAck time.Duration
	report  Report
	err     error
}

// letter is something that takes effect later, unless its way is cut then.
type letter struct {
	at       time.Duration
	from, to string
	do       func()
}

// coordinator holds the record and the beats.
type coordinator struct {
	record   *failover.Record
	revision int
	older    *failover.Record // what a stale read shows
	beats    map[uint64]uint64
	down     bool
}

// Run plays one schedule.
func Run(opt Options) (Report, error) {
	w := &world{
		opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 1)), cut: map[[2]string]bool{}, owner: map[string]*member{},
		acked: []uint64{0}, seen: []bool{false}, ackers: map[uint64]string{},
	}
	w.store.beats = map[uint64]uint64{}
	w.kind, w.seldom, w.sluggish = w.rng.IntN(faults), []int{40, 120, 250, 400}[w.rng.IntN(4)], []int{5, 15, 50}[w.rng.IntN(3)]
	for i := range opt.Members {
		w.all = append(w.all, w.newMember("m"+strconv.Itoa(i)))
	}
	if !w.recovers(30 * time.Second) {
		w.fail("the cluster did not form: %s", w.describe())
	}
	w.lastAck, w.faulty = w.now, true
	for _, m := range w.all {
		m.pace = []int{1, 2, 4, 10, 30}[w.rng.IntN(5)]
	}
	w.runFor(opt.Faults, nil)
	w.faulty = false
	w.heal()
	if !w.recovers(60*time.Second) && !w.excused() {
		w.fail("not all is well again: %s", w.describe())
	}
	w.final()
	w.report.Acked = w.count
	if w.store.record != nil {
		w.report.Reigns = w.store.record.Epoch
	}
	if w.err != nil {
		return w.report, fmt.Errorf("seed %d, %d members, mode %s, %d acknowledge: %w", opt.Seed, opt.Members, opt.Mode, opt.Acks, w.err)
	}
	return w.report, nil
}

// recovers lets time pass until commits are acknowledged and all members are content; false: not within that time.
func (w *world) recovers(within time.Duration) bool {
	before := w.count
	return w.runFor(within, func() bool {
		return w.count > before+5 && !slices.ContainsFunc(w.all, func(m *member) bool { return !m.content() })
	}) || w.err != nil
}

func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("at %v: "+format, append([]any{w.now}, args...)...)
		w.trace("FAILS: %v", w.err)
	}
}

func (w *world) trace(format string, args ...any) {
	if w.opt.Trace != nil {
		w.opt.Trace(fmt.Sprintf("%8.2f ", w.now.Seconds()) + fmt.Sprintf(format, args...))
	}
}

func (w *world) newID() string {
	w.ids++
	return "i" + strconv.Itoa(w.ids)
}

// runFor lets time pass; true: until done said so.
func (w *world) runFor(d time.Duration, done func() bool) bool {
	for end := w.now + d; w.now < end && w.err == nil; {
		w.now += tick
		if w.faulty {
			w.disturb()
		}
		w.deliver()
		for _, m := range w.all {
			m.live()
		}
		w.clients()
		if done != nil && done() {
			return true
		}
	}
	return false
}

// send has do happen after a while, and now and then after a long one, if the way is not cut then.
func (w *world) send(from, to string, do func()) {
	late := time.Duration(w.rng.IntN(3)) * tick
	if w.faulty && w.rng.IntN(2*w.sluggish) == 0 {
		late = w.some()
	}
	w.mail = append(w.mail, letter{w.now + late, from, to, do})
}

// after has do happen then.
func (w *world) after(d time.Duration, do func()) {
	w.mail = append(w.mail, letter{w.now + d, "", "", do})
}

func (w *world) deliver() {
	keep, due := w.mail[:0], w.due[:0]
	for _, l := range w.mail {
		if l.at > w.now {
			keep = append(keep, l)
		} else {
			due = append(due, l)
		}
	}
	w.mail, w.due = keep, due
	for _, l := range due {
		if w.reaches(l.from, l.to) {
			l.do()
		}
	}
}

func (w *world) reaches(from, to string) bool {
	if (from == "store" || to == "store") && w.store.down {
		return false
	}
	return !w.cut[[2]string{from, to}]
}

// byID is the member that has this copy now.
func (w *world) byID(id string) *member {
	if m := w.owner[id]; m != nil && m.persisted.ID == id {
		return m
	}
	return nil
}

// replace is the coordinator's compare-and-swap.
func (w *world) replace(by string, next *failover.Record) {
	s := &w.store
	w.trace("%s writes: epoch %d %s primary %s candidate %s set %v", by, next.Epoch, next.Phase, next.Primary, next.Candidate, next.Set)
	if r := s.record; r != nil && r.Paused && r.Phase == failover.Running && next.Phase == failover.Electing && (r.Switchover == nil || !r.Switchover.Force) {
		w.fail("%s has a primary elected although failover is paused", by)
	}
	chosen := next.Phase == failover.Running && (s.record == nil || s.record.Epoch < next.Epoch || s.record.Phase != failover.Running)
	s.older, s.record = s.record, next
	s.revision++
	if chosen {
		w.chosen()
	}
}

func (w *world) describe() string {
	var b strings.Builder
	if w.store.record != nil {
		fmt.Fprintf(&b, "record %s", w.store.record.Encode())
	}
	for _, m := range w.all {
		fmt.Fprintf(&b, "\n   %s %+v up %v primary %v open %v upstream %q set %v log %d torn %v why %q", m.name, m.persisted, m.server.up, m.server.primary,
			m.server.open, m.server.upstream, m.server.set, len(m.log), m.torn, m.why)
	}
	return b.String()
}
