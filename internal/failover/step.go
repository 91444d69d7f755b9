package failover

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Process is what is known of the server's process.
type Process string

// The states of a process.
const (
	Down     Process = "down"     // it does not run, nor does anything that it started
	Starting Process = "starting" // it has not answered yet
	Up       Process = "up"       // it has answered
)

// Observation is what a member sees when Step is called. Times are by its own monotonic clock.
type Observation struct {
	Now   time.Duration
	Clock time.Time // for what is planned by the clock, and for people; nothing depends on it

	// Known says that the record has been read at all, or is known not to be there (then it is nil).
	Known  bool
	Record *Record       // as last read
	Sent   time.Duration // when the question was sent that Record and Beat answer
	Got    time.Duration // when the answer was there
	Beat   uint64        // counts as long as the primary of the record's epoch lives
	Beaten time.Duration // when this member's last accepted beat was sent; it was of BeatenEpoch
	// BeatenEpoch is the epoch that this member's last accepted beat was of; 0: none yet.
	BeatenEpoch uint64

	// Alive is when the primary of AliveEpoch last told this member directly that it leads.
	Alive      time.Duration
	AliveEpoch uint64
	Answers    map[string]Answer // the newest one of each other member, by ID

	Disk     *Disk // nil: not known
	Process  Process
	Database *Database // as of Asked; nil: the server does not answer
	Asked    time.Duration

	Busy     bool // a file or server action is still under way; none but Kill is begun beside it
	Backup   bool // there is a backup to begin with
	Unsure   bool // it is not known whether there is
	Stopping bool // this instance is to end
}

// Answer is what a member says of itself when it is asked.
type Answer struct {
	ID       string        `json:"id"`
	Epoch    uint64        `json:"epoch"`   // the highest that it has written down
	Lineage  uint64        `json:"lineage"` // see Persistent
	Led      uint64        `json:"led,omitempty"`
	Detached bool          `json:"detached,omitempty"` // it receives from nobody, and will not before Epoch has a primary
	Received string        `json:"received,omitempty"`
	Primary  bool          `json:"primary,omitempty"` // its server accepts writes, or would from clients
	Down     bool          `json:"down,omitempty"`    // its server does not run, and will not lead before it has asked for another epoch
	Leaving  bool          `json:"leaving,omitempty"` // its instance is to end
	Sent     time.Duration `json:"-"`                 // when it was asked, and when it had answered
	Got      time.Duration `json:"-"`
}

// State is what a member remembers between two steps.
type State struct {
	Persistent
	sure Persistent // what is written down for certain: a step is not taken before the last one's is

	// tried is the highest epoch that this life of the member has asked for itself, at triedAt.
	tried    uint64
	triedAt  time.Duration
	leads    uint64                   // the epoch that it leads in; 0: none
	began    time.Duration            // when it began to
	claimed  time.Duration            // when it had asked for that
	was      bool                     // its server has been a primary's in this reign
	settled  bool                     // enough others have all that was acknowledged before this reign
	sworn    []string                 // who has written down that its files are of this reign's history
	change   string                   // the position at which the server's set was in effect
	streamed map[string]time.Duration // when a replica was last seen to stream
	troubled time.Duration            // since when the server does not answer, or tells of an incident; 0: it does
	stopping bool                     // as observed last
	leaving  bool                     // a switchover or a stop is under way: no client is admitted any more
	leaver   string                   // who is to follow; empty: whoever
	stuck    time.Duration            // since when the switchover that is due, wish, could not be; 0: it can, or there is none
	wish     Switchover

	starts int // of the server, since it last answered

	sign    time.Duration            // when the primary, or the election, was last seen to live
	mark    mark                     // what that was
	unfed   time.Duration            // since when the replica gets nothing although its upstream leads; 0: it does
	reached string                   // what it had applied by then
	rewound bool                     // going back has been tried since it received last
	shunned time.Duration            // when a replica that is to feed this one was found not to; 0: never
	kept    []string                 // for whom the log is kept
	entered map[string]time.Duration // since when a member's entry is in the record, as far as this reign has seen
	last    *Record                  // the newest that was obeyed
	asked   []SyncSet                // that the record has, instead of last's, if a write upon last has been done
	vacant  time.Duration            // since when it could stand for election; 0: it could not
}

// mark is what changes while somebody leads or is elected.
type mark struct {
	epoch     uint64
	phase     Phase
	candidate string
	beat      uint64
}

// Decision is what a member does next.
type Decision struct {
	// Actions in their order; those after one that failed are left out.
	Actions []Action
	// LeadUntil is when the server is to be killed if no later decision says otherwise; 0: this member leads nobody.
	LeadUntil time.Duration
	// Beat: this member leads in this epoch, and beats for it; 0: it does not.
	Beat uint64
	// Ask are the IDs of members to ask now.
	Ask []string
	// Why says, for people, what is waited for; empty: all is well.
	Why string
}

// Action is one thing to do. Exactly one of the types below.
type Action interface{ action() }

// The actions. All are done again until an observation shows their effect.
type (
	// Persist writes down what must not be forgotten; before all others.
	Persist struct{ Persistent }
	// Write replaces the record that was observed, or creates it if there was none.
	Write struct{ Record *Record }
	// Kill ends the server at once, with all that it has started.
	Kill struct{ Reason string }
	// Stop ends the server in order: what it wrote is with its replicas.
	Stop struct{}
	// Init makes the first database; Restore does it from the newest backup.
	Init    struct{}
	Restore struct{}
	// Clone and Rewind make the files those of a replica of From, under a new ID: State.Renewing is
	// written down first, State.Renewed when they are whole. Where Rewind is not enough it clones.
	Clone  struct{ From, ID string }
	Rewind struct{ From, ID string }
	// Seed makes them those of a replica of another cluster's database, from its newest backup; System is empty as long as
	// it is not known which database that is.
	Seed struct{ System, ID string }
	// Start starts the server, see database.Configuration.
	Start struct {
		Standby  bool
		Archive  bool // of a standby that follows nobody: it applies another cluster's archive
		Upstream string
		Set      SyncSet
	}
	// Follow has a replica follow another member; empty: nobody.
	Follow struct{ Upstream string }
	// Synchronize sets who acknowledges commits.
	Synchronize struct{ Set SyncSet }
	// Promote makes the replica a primary.
	Promote struct{}
	// Admit opens or closes the server to clients.
	Admit struct{ Clients bool }
	// Keep keeps what these members still need of the log. Those after it are done even if it fails.
	Keep struct{ IDs []string }
)

func (Persist) action()     {}
func (Write) action()       {}
func (Kill) action()        {}
func (Stop) action()        {}
func (Init) action()        {}
func (Restore) action()     {}
func (Clone) action()       {}
func (Rewind) action()      {}
func (Seed) action()        {}
func (Start) action()       {}
func (Follow) action()      {}
func (Synchronize) action() {}
func (Promote) action()     {}
func (Admit) action()       {}
func (Keep) action()        {}

// step is one call of Step.
type step struct {
	cfg Config
	s   State
	o   Observation
	r   *Record // the record, if it may be obeyed
	d   Decision
}

// Step decides what the member does next. The runner calls it again whenever something was observed, and
// after some time in any case. newID is an ID that nobody has had, in case one is needed.
func Step(cfg Config, s State, o Observation, newID string) (State, Decision) {
	s.streamed, s.sure, s.stopping = maps.Clone(s.streamed), s.Persistent, o.Stopping
	t := &step{cfg: cfg, s: s, o: o}
	if t.s.ID == "" {
		t.s.ID = newID
		t.persist()
	}
	if o.Database != nil {
		t.s.starts = 0
	}
	if o.Process == Down || o.Database != nil && o.Database.Incident == "" {
		t.s.troubled = 0
	}
	t.adopt()
	t.lead()
	switch {
	case !o.Known:
		t.d.Why = "the coordinator has not answered yet"
		t.unled()
	case o.Record == nil:
		t.found()
	case t.r == nil:
		t.d.Why = "the coordinator shows a record older than one that this member has obeyed"
		t.unled()
		t.restore()
	case t.s.leads == t.r.Epoch:
		t.reign()
	case t.r.Phase == Standby:
		t.shadow(newID)
	case t.r.Primary == t.s.ID:
		t.reclaim()
	case t.r.Phase == Bootstrapping:
		t.awaitFirst()
	default:
		t.serve(newID)
	}
	t.ask()
	return t.s, t.d
}

func (t *step) do(a ...Action) { t.d.Actions = append(t.d.Actions, a...) }

// start has the server started. One that never answers may not be able to here.
func (t *step) start(a Start) {
	t.s.starts++
	t.d.Why = "starting"
	t.do(a)
}

// persist has what is to be remembered written first.
func (t *step) persist() {
	for i, a := range t.d.Actions {
		if _, ok := a.(Persist); ok {
			t.d.Actions[i] = Persist{t.s.Persistent}
			return
		}
	}
	t.d.Actions = slices.Insert(t.d.Actions, 0, Action(Persist{t.s.Persistent}))
}

// adopt takes notice of the record.
func (t *step) adopt() {
	r := t.o.Record
	if r == nil || r.Epoch < t.s.Epoch || t.s.last != nil && r.version().before(t.s.last.version()) {
		return
	}
	if t.s.last == nil || t.s.last.version() != r.version() {
		t.s.asked = nil // what was asked for upon an older record has been done, or never will be
	}
	t.r, t.s.last = r, r
	if r.Epoch > t.s.Epoch {
		t.s.Epoch = r.Epoch
		t.persist()
	}
	m := mark{r.Epoch, r.Phase, r.Candidate, t.o.Beat}
	if m != t.s.mark {
		t.s.mark, t.s.sign = m, t.o.Got
	}
	if t.o.AliveEpoch == r.Epoch {
		t.s.sign = max(t.s.sign, t.o.Alive)
	}
}

// silent is for how long the primary, or an election, is known to have shown no sign of life. What
// was not asked for is not known.
func (t *step) silent() time.Duration { return max(t.o.Sent-t.s.sign, 0) }

// lead works out whether this member leads, and until when it may believe so.
func (t *step) lead() {
	if t.r != nil {
		mine := t.r.Primary == t.s.ID && t.r.Phase != Electing
		switch {
		case mine && t.s.leads != t.r.Epoch && t.s.tried == t.r.Epoch && t.o.Now < t.s.triedAt+t.cfg.TTL:
			t.s.leads, t.s.began, t.s.claimed, t.s.vacant = t.r.Epoch, t.o.Now, t.s.triedAt, 0
			t.s.was, t.s.settled, t.s.change, t.s.leaving, t.s.starts = false, false, "", false, 0
			t.s.streamed, t.s.kept, t.s.sworn, t.s.entered = map[string]time.Duration{}, nil, nil, nil
			for _, id := range t.attending() {
				t.s.streamed[id] = t.o.Now
			}
		case t.s.leads != 0 && (!mine || t.s.leads != t.r.Epoch):
			t.s.leads = 0
		}
	}
	if t.s.leads == 0 {
		return
	}
	until := t.proof() + t.cfg.TTL - t.cfg.TTL/10 // two clocks may run at different rates
	if t.o.Now >= until {
		t.s.leads = 0
		t.kill("it could not prove for " + t.cfg.TTL.String() + " that it is the primary")
		return
	}
	t.d.LeadUntil, t.d.Beat = until, t.s.leads
}

// proof is the last moment at which nobody else could have been about to be elected: who stands has seen no
// beat in what it read, and heard nothing from this member, for a TTL before it asked the coordinator for
// the last time. All that this member can have taken for a proof lies before that TTL.
func (t *step) proof() time.Duration {
	proof := t.s.claimed
	if t.o.BeatenEpoch == t.s.leads {
		proof = max(proof, t.o.Beaten)
	}
	if t.r == nil || t.r.Phase == Bootstrapping {
		return proof
	}
	agreed := t.o.Now // nobody but these can be elected: each waits for a TTL after we asked
	for _, set := range append(t.s.asked[:len(t.s.asked):len(t.s.asked)], t.r.Set) {
		for _, id := range set.Members {
			if id == t.s.ID {
				continue
			}
			a, ok := t.o.Answers[id]
			if !ok || a.Epoch != t.s.leads || a.Sent <= t.s.began { // before, it was not told that this one leads
				return proof
			}
			agreed = min(agreed, a.Sent)
		}
	}
	return max(proof, agreed)
}

// kill ends the server, if it may run. Until it has ended this member shows no sign of life: it might be that it cannot be.
func (t *step) kill(reason string) {
	if t.o.Process != Down {
		t.do(Kill{reason})
		t.d.Beat = 0
	}
}

// unled is what a member does that does not know the record: what it did, but lead.
func (t *step) unled() {
	if t.s.leads == 0 && (t.o.Database != nil && t.o.Database.Primary || t.s.Led != 0 && t.o.Process != Down && !t.o.Busy) {
		t.kill("it is a primary, and nothing says that it may be")
	}
}

// ask has those asked whose answers are needed.
func (t *step) ask() {
	if t.r == nil {
		return
	}
	for _, m := range t.r.Members {
		if m.ID != t.s.ID {
			t.d.Ask = append(t.d.Ask, m.ID)
		}
	}
	slices.Sort(t.d.Ask)
}

// write has the record replaced by a changed copy.
func (t *step) write(change func(*Record)) {
	next := t.r.Clone()
	change(next)
	t.put(next)
}

// put has it replaced by that one. Until another record is seen it is not known whether it was.
func (t *step) put(next *Record) {
	if t.r != nil {
		next.Revision = t.r.Revision + 1
		if !next.Set.Equal(t.r.Set) && !slices.ContainsFunc(t.s.asked, next.Set.Equal) {
			t.s.asked = append(t.s.asked[:len(t.s.asked):len(t.s.asked)], next.Set)
		}
	}
	t.do(Write{next})
}

// own is this member's entry.
func (t *step) own() Member {
	m := t.cfg.Self
	m.ID = t.s.ID
	return m
}

// enrolled reports whether the record has this member's entry; else it has it written.
func (t *step) enrolled() bool {
	if t.r.Members[t.cfg.Name] == t.own() {
		return true
	}
	t.write(func(r *Record) { enrol(r, t.cfg.Name, t.own()) })
	return false
}

func enrol(r *Record, name string, m Member) {
	if r.Members == nil {
		r.Members = map[string]Member{}
	}
	r.Members[name] = m
}

// reigns appends one to the history. Those in which nothing forked are forgotten first.
func reigns(r *Record, next Reign) {
	r.History = append(r.History, next)
	for len(r.History) > MaxHistory {
		i := max(slices.IndexFunc(r.History, func(old Reign) bool { return old.From == "" && old.Epoch != next.Epoch }), 0)
		if old := r.History[i]; old.From != "" {
			r.Forgotten = old.Epoch
		}
		r.History = slices.Delete(r.History, i, i+1)
	}
}

// fresh reports whether an answer is of now.
func (t *step) fresh(id string) (Answer, bool) {
	a, ok := t.o.Answers[id]
	return a, ok && t.o.Now-a.Sent <= t.cfg.TTL
}

func sortedIDs(ids map[string]bool) []string {
	return slices.SortedFunc(maps.Keys(ids), cmp.Compare[string])
}
