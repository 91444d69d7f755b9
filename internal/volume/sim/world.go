package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"drover/internal/volume/protocol"
)

// ttl is that of every head in the simulation.
const ttl = 10 * time.Second

// Class is a kind of world; each has its faults.
type Class string

// The classes.
const (
	Plain   Class = "plain"   // crashes, power losses, lost disks, pauses, a bad network
	Strict  Class = "strict"  // the same with fence: strict, cloned disks and bounded clocks
	Twins   Class = "twins"   // cloned disks, rolled-back machines, jumping clocks
	Pruning Class = "pruning" // condemning, late deletion, restic's unlock and prune by force
	Outage  Class = "outage"  // nothing but a store that is away for everybody at once
	PutBack Class = "putback" // somebody puts an old head back, and later the right one
)

// Classes lists all of them.
func Classes() []Class { return []Class{Plain, Strict, Twins, Pruning, Outage, PutBack} }

// Options say what to run.
type Options struct {
	Seed   uint64
	Class  Class // "": by the seed
	Mutant protocol.Mutant
	Trace  bool // keep the trace
}

// Result of one schedule.
type Result struct {
	Class   Class
	Err     error  // the first broken promise
	Trace   string // of all that happened
	Events  int
	Commits int // acknowledged
	Claims  int
	Kept    int // diverged snapshots
	Lived   time.Duration
}

// Run plays one schedule to its end, or to the first broken promise.
func Run(opt Options) Result {
	w := newWorld(opt)
	w.play()
	return Result{
		Class: w.class, Err: w.err, Trace: w.trace.String(), Events: w.events,
		Commits: w.acks, Claims: w.claims, Kept: w.kept, Lived: w.now,
	}
}

type world struct {
	opt    Options
	class  Class
	rng    *rand.Rand
	now    time.Duration
	queue  events
	count  uint64
	events int
	err    error
	trace  strings.Builder

	adopt   bool
	discard bool
	warm    bool

	store  store
	repo   repo
	agents []*agent
	boots  int
	ids    int
	writes int // next write of an application

	calm     bool          // faults have ceased
	outage   time.Duration // the store is away for everybody until then
	tampered bool          // somebody put an old head back: only checkBase promises anything from then on
	damaged  bool          // by force: a snapshot that the head names lacks packs

	acked  set // what some backup acknowledged
	acks   int
	claims int
	kept   int
	calmAt time.Duration
	served bool // a backup was asked for and acknowledged since calm
	owners map[string]string
}

type event struct {
	at time.Duration
	n  uint64
	do func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].n < e[j].n
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func newWorld(opt Options) *world {
	w := &world{opt: opt, class: opt.Class, rng: rand.New(rand.NewPCG(opt.Seed, 0x5eed)), owners: map[string]string{}}
	if w.class == "" {
		all := Classes()
		w.class = all[opt.Seed%uint64(len(all))]
	}
	w.adopt, w.discard, w.warm = w.chance(0.5), w.chance(0.2), w.chance(0.6)
	w.store = newStore()
	w.repo = newRepo()
	for i := range 2 + w.rng.IntN(3) {
		w.agents = append(w.agents, newAgent(w, string(rune('A'+i))))
	}
	return w
}

// after schedules do; events at one moment come in the order of their scheduling.
func (w *world) after(d time.Duration, do func()) {
	w.count++
	heap.Push(&w.queue, event{at: w.now + d, n: w.count, do: do})
}

const (
	stormLength = 90 * time.Second // faults come in it
	calmLength  = 60 * ttl         // by its end somebody must have served
)

func (w *world) play() {
	for _, a := range w.agents {
		w.after(w.between(0, 3*time.Second), a.start)
	}
	w.after(w.between(0, 5*time.Second), w.fault)
	w.after(stormLength/2+w.between(0, stormLength/2), w.becalm)
	for w.err == nil && len(w.queue) > 0 {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		w.events++
		e.do()
		w.checkRunning()
		if w.calm && w.served && w.settled() {
			return
		}
		if w.calm && w.now > w.calmAt+calmLength {
			w.checkLive()
			return
		}
	}
}

func (w *world) failf(format string, args ...any) {
	if w.err == nil && !w.tampered {
		w.err = fmt.Errorf("seed %d (%s) at %s: %s", w.opt.Seed, w.class, w.now, fmt.Sprintf(format, args...))
		w.logf("VIOLATION: %v", w.err)
	}
}

func (w *world) logf(format string, args ...any) {
	if w.opt.Trace {
		fmt.Fprintf(&w.trace, "%10s  %s\n", w.now.Round(time.Millisecond), fmt.Sprintf(format, args...))
	}
}

func (w *world) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.rng.Int64N(int64(hi-lo)+1))
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// latency of one way to the store.
func (w *world) latency() time.Duration {
	if w.class == Outage || w.calm || w.chance(0.9) {
		return w.between(5*time.Millisecond, 100*time.Millisecond)
	}
	return w.between(0, 4*time.Second)
}

// away says whether a message between an agent and the store is lost now.
func (w *world) away(a *agent) bool {
	if w.now < w.outage || w.now < a.cutOff {
		return true
	}
	return w.class != Outage && !w.calm && w.chance(0.03)
}
