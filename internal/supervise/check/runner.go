package check

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// slots is how many probes may be in their first moments at once, and hold
	// is how long those are: beyond, a probe waits for an answer and costs
	// nothing. So 200 checks that come due together are no storm, and as many
	// that hang hold nobody up.
	slots = 16
	hold  = 50 * time.Millisecond
	// grace is how long a probe may take to return once its context has ended.
	grace = time.Second
	// sweepEvery is the time between two looks for what commands left.
	sweepEvery = 5 * time.Second
)

// Runner runs checks. Its methods may be called at any time, from any
// goroutine, also before and after Run; they wait for nothing.
type Runner struct {
	log    *slog.Logger
	notify func(Change)
	begin  time.Time
	sweep  time.Duration

	mu      sync.Mutex
	checks  []*item
	up      map[string]bool // jobs that run
	queue   []*probe        // to be begun
	flying  map[*probe]bool
	held    int // slots
	changes []Change
	ended   bool

	wake chan struct{} // capacity 1: there is something for the loop to do
	news chan struct{} // capacity 1: changes grew
}

// item is a Check and how it stands.
type item struct {
	Check
	spec  Spec
	track Track
	gone  bool   // replaced
	probe *probe // the last; nil: none yet
	err   string
	took  time.Duration
}

// probe is one probe of a check.
type probe struct {
	*item
	cancel    context.CancelFunc // nil: it has not begun
	cancelled bool
	holds     bool // a slot
	lost      bool
}

// New prepares checks; it starts nothing. notify gets every change; it may call
// the Runner, and should not take long: later changes wait for it.
func New(checks []Check, notify func(Change), log *slog.Logger) *Runner {
	r := &Runner{
		log: log, notify: notify, begin: time.Now(), sweep: sweepEvery,
		up: map[string]bool{}, flying: map[*probe]bool{},
		wake: make(chan struct{}, 1), news: make(chan struct{}, 1),
	}
	for _, c := range checks {
		r.checks = append(r.checks, newItem(c))
	}
	return r
}

func newItem(c Check) *item {
	if c.Every <= 0 {
		c.Every = defaultEvery
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.Threshold <= 0 {
		c.Threshold = defaultThreshold
	}
	return &item{
		Check: c,
		spec:  Spec{Every: c.Every, StartPeriod: c.StartPeriod, Threshold: c.Threshold},
		track: Track{Seed: rand.Uint64() | 1},
	}
}

func (r *Runner) now() time.Duration { return time.Since(r.begin) }

// Started tells that a job runs: its checks begin, anew if they had begun.
func (r *Runner) Started(job string) { r.tell(job, Start) }

// Stopped tells that a job is being stopped, or has ended: its checks become
// unknown. To be called before the job is asked to stop, lest it is found
// unhealthy on its way.
func (r *Runner) Stopped(job string) { r.tell(job, Stop) }

func (r *Runner) tell(job string, e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up[job] = e == Start
	for _, it := range r.checks {
		if it.Job == job {
			r.step(it, e)
		}
	}
	wake(r.wake)
}

// Replace gives a job other checks. One that has the name of an earlier one
// stands as that did until its own first probe, so that a reload of a job that
// is well does not make it unready.
func (r *Runner) Replace(job string, checks []Check) {
	r.mu.Lock()
	defer r.mu.Unlock()
	earlier := map[string]*item{}
	kept := make([]*item, 0, len(r.checks)+len(checks))
	for _, it := range r.checks {
		if it.Job != job {
			kept = append(kept, it)
			continue
		}
		earlier[it.Name] = it
		it.gone = true
		if it.track.Flight == Flying {
			it.probe.end()
		}
	}
	for _, c := range checks {
		c.Job = job
		it := newItem(c)
		if old := earlier[c.Name]; old != nil {
			it.track, it.err, it.took = old.track.Inherit(r.now()), old.err, old.took
		} else if r.up[job] {
			r.step(it, Start)
		}
		kept = append(kept, it)
	}
	r.checks = kept
	wake(r.wake)
}

// States lists the checks, those of a job in their order.
func (r *Runner) States() []State {
	r.mu.Lock()
	defer r.mu.Unlock()
	states := make([]State, len(r.checks))
	for i, it := range r.checks {
		states[i] = State{
			Name: it.Name, Job: it.Job, Level: it.Level, Health: it.track.Health, Since: r.begin.Add(it.track.Since),
			Failures: it.track.Failures, Error: it.err, Took: it.took,
		}
	}
	return states
}

// Healthy tells whether a job is alive: none of its checks of that level is
// unhealthy; or ready: all of its checks, of both levels, are healthy.
func (r *Runner) Healthy(job string, level Level) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, it := range r.checks {
		if it.Job != job || level == Alive && it.Level != Alive {
			continue
		}
		if h := it.track.Health; h == Unhealthy || level == Ready && h == Unknown {
			return false
		}
	}
	return true
}

// step feeds one check's machine and does what it says. The lock is held.
func (r *Runner) step(it *item, e Event) {
	from := it.track.Health
	switch {
	case e == Start || e == Stop:
		it.err = ""
	case it.track.Flight == Lost || e == Stuck:
		it.err = "the probe does not end"
	}
	var actions []Action
	it.track, actions = Step(it.spec, it.track, e, r.now())
	for _, a := range actions {
		switch a {
		case Probe:
			it.probe = &probe{item: it}
			r.queue = append(r.queue, it.probe)
		case Cancel:
			it.probe.end()
		case Changed:
			r.changes = append(r.changes, Change{
				Check: it.Check, From: from, To: it.track.Health, At: r.begin.Add(it.track.Since),
				Failures: it.track.Failures, Error: it.err,
			})
			wake(r.news)
		}
	}
}

func (p *probe) end() {
	p.cancelled = true
	if p.cancel != nil {
		p.cancel()
	}
}

func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
