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
	cut   map[[2]string]bool // from, to; "store" is the coordinator
	ids   int
	mail  []letter // what is under way, unordered

	values  int
	acked   map[int]uint64 // value: the epoch it was acknowledged in
	seen    map[int]bool   // values that an admitted client could read
	ackers  map[uint64]string
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

// entry is one commit in a log: which value, and which primary's it is.
type entry struct {
	value int
	epoch uint64
}

// Run plays one schedule.
func Run(opt Options) (Report, error) {
	w := &world{
		opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 1)), cut: map[[2]string]bool{},
		acked: map[int]uint64{}, seen: map[int]bool{}, ackers: map[uint64]string{},
	}
	w.store.beats = map[uint64]uint64{}
	for i := range opt.Members {
		w.all = append(w.all, w.newMember("m"+strconv.Itoa(i)))
	}
	w.runUntil(w.now+20*time.Second, nil)
	if w.err == nil && len(w.acked) == 0 {
		w.fail("the cluster did not form: %s", w.describe())
	}
	formed := w.now
	w.lastAck = w.now
	w.runUntil(formed+opt.Faults, w.disturb)
	w.heal()
	before := len(w.acked)
	w.runUntil(w.now+40*time.Second, nil)
	if w.err == nil && len(w.acked) == before && !w.excused() {
		w.fail("nothing was acknowledged although all is well again: %s", w.describe())
	}
	w.final()
	w.report.Acked, w.report.Reigns = len(w.acked), w.store.record.Epoch
	if w.err != nil {
		return w.report, fmt.Errorf("seed %d, %d members, mode %s, %d acknowledge: %w", opt.Seed, opt.Members, opt.Mode, opt.Acks, w.err)
	}
	return w.report, nil
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

func (w *world) runUntil(end time.Duration, disturb func()) {
	for w.now < end && w.err == nil {
		w.now += tick
		if disturb != nil {
			disturb()
		}
		w.deliver()
		for _, m := range w.all {
			m.live()
		}
		w.clients()
	}
}

// send has do happen after a while; lost says what becomes of it if the way is cut.
func (w *world) send(from, to string, do func()) {
	w.mail = append(w.mail, letter{w.now + time.Duration(w.rng.IntN(3))*tick, from, to, do})
}

func (w *world) deliver() {
	due := slices.DeleteFunc(slices.Clone(w.mail), func(l letter) bool { return l.at > w.now })
	w.mail = slices.DeleteFunc(w.mail, func(l letter) bool { return l.at <= w.now })
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

// clients write to whoever lets them, and note what they can read there.
func (w *world) clients() {
	for _, m := range w.all {
		s := &m.server
		if !s.up || m.frozen() || s.stopped || !s.primary || !s.open {
			continue
		}
		m.acknowledge()
		if w.opt.Mode != failover.Off {
			for _, e := range m.log[:min(s.visible, len(m.log))] {
				w.seen[e.value] = true
			}
		}
		if len(s.waiting) < 3 && w.rng.IntN(3) == 0 {
			w.values++
			m.log = append(m.log, entry{w.values, m.persisted.Led})
			s.waiting = append(s.waiting, len(m.log))
		}
	}
}

// ack is told by a server that has told a client.
func (w *world) ack(m *member, value int) {
	epoch := m.persisted.Led
	w.acked[value] = epoch
	if w.now-w.lastAck > w.report.Gap {
		w.report.Gap = w.now - w.lastAck
	}
	w.lastAck = w.now
	if other, ok := w.ackers[epoch]; ok && other != m.name && w.opt.Mode != failover.Off {
		w.fail("%s and %s acknowledge commits in epoch %d", other, m.name, epoch)
	}
	w.ackers[epoch] = m.name
}

// complete holds that a primary which admits clients has all that was acknowledged or could be read.
func (w *world) complete(m *member) {
	has := map[int]bool{}
	for _, e := range m.log {
		has[e.value] = true
	}
	lost := 0
	for v, epoch := range w.acked {
		if !has[v] && epoch < m.persisted.Led {
			lost++
			if w.opt.Mode != failover.Off {
				w.fail("%s leads epoch %d without value %d, which was acknowledged in epoch %d", m.name, m.persisted.Led, v, epoch)
				return
			}
			delete(w.acked, v)
		}
	}
	w.report.Lost += lost
	for v := range w.seen {
		if !has[v] {
			w.fail("%s leads epoch %d without value %d, which clients could read before", m.name, m.persisted.Led, v)
			return
		}
	}
}

// final holds that everything acknowledged is with the last primary.
func (w *world) final() {
	for _, m := range w.all {
		if m.server.up && m.server.primary && m.server.open && w.store.record.Primary == m.persisted.ID {
			w.complete(m)
		}
	}
}

// excused reports whether nobody can be elected for a reason that only a person can judge: a copy
// which may have had the only proof of a commit was destroyed.
func (w *world) excused() bool {
	for _, id := range w.store.record.Set.Members {
		if !slices.ContainsFunc(w.all, func(m *member) bool { return m.persisted.ID == id }) {
			return true
		}
	}
	return !slices.ContainsFunc(w.all, func(m *member) bool { return m.persisted.ID == w.store.record.Primary })
}

func (w *world) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "record %s", w.store.record.Encode())
	for _, m := range w.all {
		fmt.Fprintf(&b, "\n   %s %+v up %v primary %v open %v upstream %q set %v log %d why %q", m.name, m.persisted, m.server.up, m.server.primary,
			m.server.open, m.server.upstream, m.server.set, len(m.log), m.why)
	}
	return b.String()
}
