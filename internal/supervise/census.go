package supervise

import (
	"os"
	"os/signal"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/proctree"
)

const (
	// pollEvery is how often a job whose first process has ended is looked at
	// while others of it live: nobody tells us about processes that are not
	// our children.
	pollEvery = 20 * time.Millisecond
	// readEvery is how often all processes are read meanwhile, although one that
	// was left at the last reading still lives: others may have been forked.
	readEvery = 200 * time.Millisecond
	// reapEvery is how long orphans may be zombies, for jobs that shed them by the
	// thousand.
	reapEvery = 50 * time.Millisecond
	// doubtFor is how long an orphan without an environment may be anybody's: it may be
	// in the middle of an exec.
	doubtFor = 50 * time.Millisecond
	// giveUpAfter bounds the wait for a rest that survives SIGKILL: processes
	// that we may not signal.
	giveUpAfter = 10 * time.Second
)

// kin are the processes of one run of a job: the session of its first, and orphans of
// any other session that carry the job's mark.
type kin struct {
	job   int // index
	name  string
	pid   int // of the first process, and of its session
	start uint64

	wish wish // guarded by the census's mu
	gone bool // too: nothing is left, and the loop was told; final

	// The census's own.
	now    wish        // what is done at this reading
	told   bool        // that the first process has ended
	left   recordedJob // one that lived at the last reading
	killAt time.Time   // when SIGKILL was first sent
}

// wish is what the loop wants of a census.
type wish struct {
	ended   bool // tell whether any are left, now that the first has ended with status; then, when none is
	status  int
	kill    bool          // until nothing is left
	signals []unix.Signal // once
}

func (w *wish) any() bool { return w.ended || w.kill || len(w.signals) > 0 }

// census reads the table of all processes, which takes milliseconds, and much longer
// on a busy machine: one reading answers for all jobs that somebody asks about, and
// the loop does not wait for it. What it has to tell comes as messages. It collects
// the orphans that jobs leave to us, too.
type census struct {
	s      *Supervisor
	killer *proctree.Killer
	asked  chan struct{} // capacity 1: there is a new wish

	mu   sync.Mutex // guards open, and what kin says
	open []*kin     // about which something is to be found out

	// The goroutine's own.
	fresh   bool          // a wish has come since the last reading
	zombies time.Time     // when a child ended; zero: none has since they were collected
	looked  time.Time     // the last look, a reading or not
	read    time.Time     // the begin of the last reading
	took    time.Duration // it
	orphans map[recordedJob]*orphan
	doubt   bool // an orphan may be of the run that was asked about last
}

// orphan is a process that left its job's session and was given to us.
type orphan struct {
	owner       string // the job whose mark it carries; "": none that could be seen
	blank       bool   // it had no environment at the last reading
	since, read time.Time
}

func newCensus(s *Supervisor) (*census, error) {
	killer, err := proctree.NewKiller()
	if err != nil {
		return nil, err
	}
	return &census{s: s, killer: killer, asked: make(chan struct{}, 1), orphans: map[recordedJob]*orphan{}}, nil
}

// ended is told that the first process was collected.
func (c *census) ended(k *kin, status int) {
	c.ask(k, func(w *wish) { w.ended, w.status = true, status })
}

func (c *census) signal(k *kin, sig unix.Signal) {
	c.ask(k, func(w *wish) { w.signals = append(w.signals, sig) })
}

func (c *census) kill(k *kin) { c.ask(k, func(w *wish) { w.kill = true }) }

// ask never waits for a reading. A run that is gone is left alone: what looks like
// it may be of the next one.
func (c *census) ask(k *kin, what func(*wish)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k == nil || k.gone {
		return
	}
	what(&k.wish)
	if !slices.Contains(c.open, k) {
		c.open = append(c.open, k)
	}
	wake(c.asked)
}

// run takes the readings, until the jobs are gone.
func (c *census) run() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	defer signal.Stop(children)
	c.zombies = time.Now() // before anybody listened
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(c.due()))
		select {
		case <-c.s.finished:
			c.fresh = true
			c.look()
			return
		case <-c.asked:
			c.fresh = true
		case <-children:
			if c.zombies.IsZero() {
				c.zombies = time.Now()
			}
		case <-timer.C:
			c.look()
		}
	}
}

// due is when to look next. Between two readings there is as much time as one takes,
// within reason: half a processor is enough.
func (c *census) due() time.Time {
	at := time.Now().Add(longestWait)
	sooner := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	if c.fresh {
		sooner(c.read.Add(c.took + min(c.took, pollEvery)))
	}
	if !c.zombies.IsZero() {
		sooner(c.zombies.Add(reapEvery))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) > 0 {
		sooner(c.looked.Add(pollEvery))
	}
	return at
}

// look takes a reading if one can tell anything new, and says and does what follows.
func (c *census) look() {
	c.looked = time.Now()
	reap := false
	if !c.zombies.IsZero() && time.Since(c.zombies) >= reapEvery {
		c.zombies, reap = time.Time{}, proctree.AnyZombie()
	}
	open := c.begin()
	if !c.fresh && !reap && !c.worthwhile(open) {
		return
	}
	c.fresh, c.zombies, c.read = false, time.Time{}, time.Now()
	err := c.killer.Look()
	c.took = time.Since(c.read)
	if err != nil {
		c.s.log.Error("the processes of the jobs cannot be seen", "error", err)
	}
	var tell []message
	var gone []*kin
	for _, k := range open {
		m, over := c.answer(k, err == nil)
		if over {
			gone = append(gone, k)
		}
		if m.kin != nil {
			tell = append(tell, m)
		}
	}
	c.close(gone)
	for _, m := range tell {
		c.s.send(m)
	}
	if err == nil {
		c.reap()
		c.forget()
	}
	c.looked = time.Now()
}

// begin takes the wishes that the reading to come answers, and no later ones: it may
// have passed what they ask about.
func (c *census) begin() []*kin {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.open {
		k.now, k.wish.signals = k.wish, nil
	}
	return slices.Clone(c.open)
}

// worthwhile: a reading is, unless one process of each run is known to live.
func (c *census) worthwhile(open []*kin) bool {
	if len(open) > 0 && time.Since(c.read) >= readEvery {
		return true
	}
	return slices.ContainsFunc(open, func(k *kin) bool {
		p, ok := proctree.Lookup(k.left.pid)
		return !ok || p.Start != k.left.start || !p.Alive()
	})
}

// answer does what was asked with the processes of a run. The message is what there
// is to tell, if it has a kin; over: nothing more is to be found out. Nothing is known
// of processes that were not seen; that the first has ended is told all the same.
func (c *census) answer(k *kin, seen bool) (m message, over bool) {
	left := 0
	if seen {
		c.doubt = false
		left = c.killer.Select(c.of(k))
		c.act(k, left)
		if left == 0 && c.doubt {
			return message{}, false
		}
	}
	switch {
	case k.now.ended && !k.told:
		k.told = true
		return message{input: Input{Event: Exited, Job: k.job, Status: k.now.status, Left: left > 0}, kin: k}, left == 0
	case !k.told:
		return message{}, false
	case seen && left > 0 && !k.killAt.IsZero() && time.Since(k.killAt) >= giveUpAfter:
		c.s.log.Error("processes of a job cannot be killed", "job", k.name, "count", left)
	case !seen || left > 0:
		return message{}, false
	}
	return message{input: Input{Event: Cleared, Job: k.job}, kin: k}, true
}

// close takes those off the list about which there is nothing to be found out.
func (c *census) close(gone []*kin) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range gone {
		k.gone = true
	}
	c.open = slices.DeleteFunc(c.open, func(k *kin) bool { return k.gone || !k.wish.any() })
}

// act kills and signals the processes that are selected.
func (c *census) act(k *kin, left int) {
	k.left = recordedJob{}
	c.killer.Selected(func(p *proctree.Proc) { k.left = recordedJob{p.PID, p.Start} })
	if left > 0 {
		for _, sig := range k.now.signals {
			c.s.log.Info("processes of a job outlive its first", "job", k.name, "count", left, "signal", unix.SignalName(sig))
			c.killer.SignalSelected(sig)
		}
	}
	if !k.now.kill {
		return
	}
	if left > 0 {
		c.killer.KillSelected()
	}
	if k.killAt.IsZero() {
		k.killAt = time.Now()
		if left > 0 {
			c.s.log.Warn("job is killed", "job", k.name, "processes", left)
		}
	}
}

// of returns a test for the processes of one run. An orphan that has erased its
// environment is taken for this job's only if there is no other job.
func (c *census) of(k *kin) func(*proctree.Proc) bool {
	alone := c.s.onlyOne()
	return func(p *proctree.Proc) bool {
		if p.Session == k.pid && p.Start >= k.start {
			return true
		}
		if !c.s.isJobs(p) || c.s.isFirst(p.PID) {
			return false
		}
		owner, sure := c.owner(p)
		c.doubt = c.doubt || !sure
		return alone || owner == k.name
	}
}

// owner is the job whose mark an orphan carries. A process that is ending has no
// environment any more: once seen is enough.
func (c *census) owner(p *proctree.Proc) (job string, sure bool) {
	id := recordedJob{p.PID, p.Start}
	o := c.orphans[id]
	if o == nil {
		o = &orphan{since: c.read}
		c.orphans[id] = o
	}
	if o.owner == "" && o.read != c.read {
		o.read = c.read
		o.owner, o.blank = jobOf(p.PID, c.s.run)
	}
	return o.owner, !o.blank || !p.Alive() || c.read.Sub(o.since) >= doubtFor
}

// forget drops what is known of orphans that are not there any more.
func (c *census) forget() {
	for id := range c.orphans {
		if p := c.killer.Find(id.pid); p == nil || p.Start != id.start {
			delete(c.orphans, id)
		}
	}
}

// reap collects orphans. It must not take what somebody waits for: the first
// processes of jobs (in s.first), and whatever else the agent executes (in the
// agent's session).
func (c *census) reap() {
	c.s.births.Lock()
	defer c.s.births.Unlock()
	c.killer.ReapSeen(func(p *proctree.Proc) bool {
		return p.Session != c.killer.Self().Session && !c.s.isFirst(p.PID)
	})
}
