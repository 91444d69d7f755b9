package database

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"drover/internal/coord"
	"drover/internal/failover"
)

// Processes runs the server's process and what was hung on it. app gives it.
type Processes interface {
	// Start starts them. It is quick.
	Start(ctx context.Context) error
	// Stop waits until they are gone, asking first.
	Stop(ctx context.Context)
	// Kill kills them at once; it returns when they are dead.
	Kill(reason string)
	// Running reports whether there may be any.
	Running() bool
}

// Restorer makes the first database, and replicas, from a backup; nil in Options: there are none.
type Restorer interface {
	// Available reports whether there is a backup; an error says that it is not known.
	Available(ctx context.Context) (bool, error)
	// Restore makes the empty files a database as far as the newest one and the log since lead: a primary's, which
	// was stopped in order. Interrupted, it is called again.
	Restore(ctx context.Context) error
	// Seed makes the files those of a replica that can follow source, as Driver.Clone does, without asking source for more than
	// where its history goes. Errors: whatever speaks for Clone.
	Seed(ctx context.Context, source Peer) error
}

// Source is the cluster that a standby cluster follows.
type Source interface {
	// Seed makes the files those of a replica, from the newest backup of a database of the source's; of whichever is the
	// newest, if system is empty. Interrupted, it is called again.
	Seed(ctx context.Context, system string) error
}

// Options of New. All but Backup, Source, Backups, Changed, Relieved, Detached and Roll are needed.
type Options struct {
	Failover  failover.Config
	Driver    Driver
	Processes Processes
	KV        coord.KV
	Prefix    string // of this cluster's keys, without a slash at its end
	StateFile string // what is to be remembered beside the database's files, on the same disk
	Listener  net.Listener
	Secret    []byte // what members know one another by; nil: whoever asks
	Log       *slog.Logger
	Backup    Restorer
	Source    Source                 // nil: no standby cluster is followed from here
	Backups   func() json.RawMessage // what the others are told of backups, at most some KiB; quick. nil: nothing
	Changed   func(Change)           // told of each change of role and primary; quick. nil: nobody
	// Relieved is told, before and after, of a stop of the server after which another member has all that it had, so
	// that it need not wait for its log to be archived; quick. nil: nobody.
	Relieved func(bool)
	// Detached is told before each start, copy and change of upstream whether the server is to receive nothing afterwards,
	// from an archive neither; quick. nil: nobody.
	Detached func(bool)
	// Roll has the primary's agent restart servers, one at a time, whose parameters wait for it: that is how long one may take to be
	// what it was. 0: nobody is restarted unasked.
	Roll time.Duration
}

// Change is what others may want to know of.
type Change struct {
	Role    Role
	Primary string // the name of the primary; empty: there is none
	Epoch   uint64
	// Timeline is this member's, as its engine calls it.
	Timeline string
}

// Role of a member.
type Role string

// The roles.
const (
	RolePrimary Role = "primary" // it admits clients who write
	RoleReplica Role = "replica" // it receives from the primary
	RoleStandby Role = "standby" // it applies another cluster's archive
	RoleNone    Role = "none"    // it is neither, yet or any more
)

// Member is one member of a cluster. Use New, then Run.
type Member struct {
	opt    Options
	began  time.Time
	wake   chan struct{} // something was observed
	reread chan struct{} // the record may be another one
	reask  chan struct{} // the other members may have something else to say
	repoll chan struct{} // the server may be another way
	killed chan struct{} // the watchdog is to look at its deadline
	group  sync.WaitGroup

	mu       sync.Mutex
	state    failover.State
	obs      failover.Observation
	decision failover.Decision
	revision coord.Revision
	writing  bool
	busy     bool
	stopping bool
	answered bool                     // the server that runs has answered
	failed   map[string]time.Duration // until when an action that failed is not tried again
	wrong    map[string]string        // what was last complained of, by what was being done
	handled  time.Duration            // when the last thing was done to files or server
	writes   sync.Mutex               // one persist at a time
	told     Change
	why      string
	whySince time.Duration
	peers    map[string]failover.Member // by ID, as last known
	upstream Peer                       // whom the server was told to follow, and where; zero: nobody
	views    map[string]Sighting        // of the others, by ID; Age is when they were asked
	life     context.Context            // of Run; nil: it does not run
	doing    string                     // what is being done, while busy
	turning  bool                       // clients are being turned away, while busy
	rolls    rolling
	unfitted map[string]string // why no further server is restarted with these settings
	seen     atomic.Pointer[View]

	// Since the member began:
	runs      int           // starts of the server
	copies    int           // how often the files were made a replica's anew
	seeded    bool          // the last time from a backup, and it has received nothing since
	elections int           // that it has heard of
	election  uint64        // the epoch of the last
	led       time.Duration // when it last knew that there is a primary

	// written is the epoch that the disk knows: what others may be told.
	written uint64
	fence   fence
}

// New makes a member; it starts nothing.
func New(opt Options) (*Member, error) {
	m := &Member{
		opt: opt, began: time.Now(), wake: make(chan struct{}, 1), reread: make(chan struct{}, 1),
		reask: make(chan struct{}, 1), repoll: make(chan struct{}, 1), killed: make(chan struct{}, 1),
		peers: map[string]failover.Member{}, failed: map[string]time.Duration{}, wrong: map[string]string{}, views: map[string]Sighting{},
		unfitted: map[string]string{},
	}
	m.obs.Answers, m.obs.Unsure = map[string]failover.Answer{}, opt.Backup != nil
	p, err := readState(opt.StateFile)
	if err != nil {
		return nil, err
	}
	m.state.Persistent, m.written = p, p.Epoch
	m.publish()
	return m, nil
}

// errStopped ends the loops of Run.
var errStopped = errors.New("the member has ended")

// Run is the member's life: it ends when ctx does, or, in order, after Stop; or when another instance has its name. The server is
// dead then.
func (m *Member) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer m.group.Wait()
	defer cancel(nil)
	m.mu.Lock()
	m.life = ctx
	m.mu.Unlock()
	m.look(ctx)
	for _, part := range []func(context.Context){m.watchdog, m.serve, m.readRecord, m.watchRecord, m.seekBackup, m.beat, m.askAll, m.pollServer, m.tend} {
		m.group.Go(func() { part(ctx) })
	}
	m.awaitName(ctx)
	err := m.decide(ctx)
	m.opt.Processes.Kill("the member ends")
	cancel(errStopped)
	return err
}

// Stop asks for an orderly end: another one leads, if one can, and Run returns.
func (m *Member) Stop() {
	m.mu.Lock()
	m.stopping = true
	m.mu.Unlock()
	m.nudge()
}

// Ended is to be called when the server's process has ended by itself.
func (m *Member) Ended() { m.forgetServer() }

// now is the member's own clock.
func (m *Member) now() time.Duration { return time.Since(m.began) }

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func (m *Member) nudge() { poke(m.wake) }

// pace is how long a loop waits at rest, and at least while something is under way.
func (m *Member) pace(least time.Duration) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	rest := min(m.opt.Failover.TTL/8, time.Second)
	// What is waited for long is not waited for faster by asking more often, and questions to a bucket cost.
	if m.busy || m.decision.Why != "" && m.now()-m.whySince < 2*m.opt.Failover.TTL {
		return min(rest, least)
	}
	return rest
}

// How often it is asked while something is under way: the own server and the other members, which cost nothing but a little
// of the machine; and the coordinator, which mostly tells by itself.
const (
	near = 15 * time.Millisecond
	far  = 50 * time.Millisecond
)

// rest waits for that long, or until ch is poked; false: ctx has ended.
func (m *Member) rest(ctx context.Context, ch chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-ch:
	case <-timer.C:
	}
	return ctx.Err() == nil
}

// decide steps whenever something was observed, until the end.
func (m *Member) decide(ctx context.Context) error {
	for {
		d, seen, err := m.step()
		if err != nil {
			return err
		}
		m.tell(d)
		if err := m.actAll(ctx, d, seen); err != nil {
			return err
		}
		if m.ended() {
			return nil
		}
		if !m.rest(ctx, m.wake, m.pace(far)) {
			return context.Cause(ctx)
		}
	}
}

// step asks the core what to do, upon the record of that revision. An error is the end of the member.
func (m *Member) step() (failover.Decision, coord.Revision, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.observation()
	var d failover.Decision
	if err := m.stands(o); err != nil {
		return d, m.revision, err
	}
	m.state, d = failover.Step(m.opt.Failover, m.state, o, newID(m.opt.Failover.Name))
	if d.Why != "" && m.decision.Why == "" { // those that rest look at once
		for _, ch := range []chan struct{}{m.reread, m.reask, m.repoll} {
			poke(ch)
		}
	}
	m.decision = d
	m.fence.set(d.LeadUntil)
	poke(m.killed)
	if o.Record != nil {
		for _, member := range o.Record.Members {
			m.peers[member.ID] = member
		}
	}
	m.publish()
	return d, m.revision, nil
}

// observation is what is seen now. m.mu is held.
func (m *Member) observation() failover.Observation {
	o := m.obs
	o.Now, o.Clock, o.Busy, o.Stopping = m.now(), time.Now(), m.busy, m.stopping
	if o.Process = m.process(); o.Process == failover.Down {
		o.Database = nil
	}
	if db := o.Database; db != nil && db.Upstream != "" && m.moved(db.Upstream) {
		elsewhere := *db
		elsewhere.Upstream += " where it was" // it is not what is to be followed
		o.Database = &elsewhere
	}
	return o
}

// moved reports whether a member that is followed is at another address than when that was told to the server, as instances that were started
// again can be. m.mu is held.
func (m *Member) moved(id string) bool {
	p, known := m.peers[id]
	return known && m.upstream.ID == id && (p.Host != m.upstream.Host || p.Port != m.upstream.Port)
}

// process is how the server stands. m.mu is held.
func (m *Member) process() failover.Process {
	switch {
	case !m.opt.Processes.Running():
		m.answered = false
		return failover.Down
	case m.answered:
		return failover.Up
	}
	return failover.Starting
}

// ended reports whether an orderly end has come to its end.
func (m *Member) ended() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.stopping || m.busy || m.writing || m.opt.Processes.Running() {
		return false
	}
	// A handing over, and leaving the record, are written first; if the coordinator is away the end does not wait for it.
	for _, a := range m.decision.Actions {
		if _, ok := a.(failover.Write); ok {
			return m.obs.Sent+m.opt.Failover.TTL < m.now()
		}
	}
	return m.decision.LeadUntil == 0
}

// tell says what has changed, to people and to others.
func (m *Member) tell(d failover.Decision) {
	m.mu.Lock()
	c := m.change()
	changed := c != m.told
	m.told = c
	why := d.Why
	reason := why != m.why
	if m.why = why; reason {
		m.whySince = m.now()
	}
	m.mu.Unlock()
	if reason && why != "" {
		m.opt.Log.Info("database: "+why, "epoch", c.Epoch)
	}
	if !changed {
		return
	}
	m.opt.Log.Info("database: role", "role", c.Role, "primary", c.Primary, "epoch", c.Epoch)
	if m.opt.Changed != nil {
		m.opt.Changed(c)
	}
}

// change is what others are told now. m.mu is held.
func (m *Member) change() Change {
	c := Change{Role: RoleNone}
	if r := m.obs.Record; r != nil {
		c.Epoch = r.Epoch
		if r.Phase == failover.Running {
			c.Primary = r.Name(r.Primary)
		}
	}
	db := m.obs.Database
	switch {
	case db == nil || !m.answered:
	case m.closing():
	case db.Primary && db.Open && m.decision.LeadUntil != 0:
		c.Role, c.Timeline = RolePrimary, db.Timeline
	case !db.Primary && (db.Receiving || db.Open && m.opt.Failover.Self.Tags.Delayed != 0):
		c.Role, c.Timeline = RoleReplica, db.Timeline
	case !db.Primary && db.Archive && db.Open && m.shadows():
		c.Role, c.Timeline = RoleStandby, db.Timeline
	}
	return c
}

// shadows reports whether the cluster follows another one. m.mu is held.
func (m *Member) shadows() bool { return m.obs.Record != nil && m.obs.Record.Phase == failover.Standby }

// closing reports whether it was decided that clients are to leave: others are told so before it is done, and
// not otherwise while it is. m.mu is held.
func (m *Member) closing() bool { return m.turning || turnsAway(m.decision.Actions) }

// turnsAway reports whether these actions have no client admitted any more.
func turnsAway(actions []failover.Action) bool {
	for _, a := range actions {
		switch a := a.(type) {
		case failover.Admit:
			if !a.Clients {
				return true
			}
		case failover.Kill, failover.Stop:
			return true
		}
	}
	return false
}
