package failover

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Phase of a cluster.
type Phase string

// The phases of a record.
const (
	Bootstrapping Phase = "bootstrapping" // Primary makes the first database
	Running       Phase = "running"       // Primary is, or is about to be, the primary of Epoch
	Electing      Phase = "electing"      // nobody may lead; Candidate asks the others how far they are
	Standby       Phase = "standby"       // nobody leads: the members follow another cluster by its archive, until a forced switchover is asked for
)

// Mode of replication.
type Mode string

// The modes.
const (
	Off    Mode = "off"    // asynchronous: what was acknowledged last can be lost with its primary
	On     Mode = "on"     // synchronous while there are replicas
	Strict Mode = "strict" // synchronous always: without replicas no commit is acknowledged
)

// Record is the cluster's one document in the coordinator, replaced by compare-and-swap.
type Record struct {
	Format int `json:"format"`
	// Revision grows with each replacement, whoever does it: of two records of an epoch the newer one is known by it.
	Revision uint64 `json:"revision,omitempty"`
	Epoch    uint64 `json:"epoch"`
	Phase    Phase  `json:"phase"`
	// Primary is the ID of the last member that was made primary.
	Primary string `json:"primary,omitempty"`
	// Since is the epoch in which it was made so: Epoch, unless others were elected in vain since.
	Since     uint64 `json:"since,omitempty"`
	Candidate string `json:"candidate,omitempty"`
	// Stopped says, while electing, that the primary's server is known to have ended.
	Stopped bool `json:"stopped,omitempty"`
	// System is the database's own identity; empty until it is made.
	System string `json:"system,omitempty"`
	Mode   Mode   `json:"mode"`
	// Set are those of whom enough know every acknowledged commit. It contains all that the
	// primary's server waits for, and Acks is at most the server's.
	Set        SyncSet           `json:"set"`
	Members    map[string]Member `json:"members,omitempty"` // by name
	Paused     bool              `json:"paused,omitempty"`
	Switchover *Switchover       `json:"switchover,omitempty"`
	Withdrawn  *Withdrawn        `json:"withdrawn,omitempty"` // the last that was asked for, if it was taken back so
	History    []Reign           `json:"history,omitempty"`   // the newest last
	// Forgotten is the newest epoch whose fork History has no room for any more: positions of older lineages
	// cannot be compared.
	Forgotten uint64 `json:"forgotten,omitempty"`
}

// MaxHistory is how many reigns a record remembers.
const MaxHistory = 64

// Member is one instance with its copy of the database.
type Member struct {
	// ID is of this copy of the files: another one than of each copy before, even under the same name.
	ID      string `json:"id"`
	Host    string `json:"host"`
	Port    int    `json:"port"`
	API     string `json:"api"` // host:port
	Version string `json:"version,omitempty"`
	Tags    Tags   `json:"tags,omitzero"`
}

// Tags say what a member is for.
type Tags struct {
	NoFailover bool `json:"nofailover,omitempty"` // it is never elected
	NoSync     bool `json:"nosync,omitempty"`     // nobody waits for it
	// Priority: of equals the highest is elected.
	Priority int `json:"failover_priority,omitempty"`
	// ReplicateFrom names the member that it takes the log from while that one is a replica that does well, instead of from the
	// primary. It implies NoSync: the primary does not see how far it is.
	ReplicateFrom string `json:"replicatefrom,omitempty"`
	// Delayed is how long after their commit it applies transactions: after each start it may receive nothing for as long.
	Delayed time.Duration `json:"delayed,omitempty"`
	// Without meaning here: others are copied from it rather than from the primary, and what load balancers are told.
	CloneFrom     bool `json:"clonefrom,omitempty"`
	NoLoadBalance bool `json:"noloadbalance,omitempty"`
}

// List names those that are set, with the priority if it is not 0.
func (t Tags) List() []string {
	var list []string
	for name, set := range map[string]bool{
		"nofailover": t.NoFailover, "noloadbalance": t.NoLoadBalance, "nosync": t.NoSync, "clonefrom": t.CloneFrom,
		"replicatefrom=" + t.ReplicateFrom: t.ReplicateFrom != "", "delayed=" + t.Delayed.String(): t.Delayed != 0,
	} {
		if set {
			list = append(list, name)
		}
	}
	if t.Priority != 0 {
		list = append(list, "failover_priority="+strconv.Itoa(t.Priority))
	}
	slices.Sort(list)
	return list
}

// SyncSet is who acknowledges commits, by ID, sorted, and how many of them must.
type SyncSet struct {
	Members []string `json:"members,omitempty"`
	Acks    int      `json:"acks"`
}

// Has reports whether id is one of them.
func (s SyncSet) Has(id string) bool { return slices.Contains(s.Members, id) }

// quorum is of how many of the members one at least knows any commit that was acknowledged.
func (s SyncSet) quorum() int {
	if s.Acks == 0 {
		return min(1, len(s.Members)) // nobody promised
	}
	return len(s.Members) - s.Acks + 1
}

// Equal reports whether it is the same set.
func (s SyncSet) Equal(o SyncSet) bool { return s.Acks == o.Acks && slices.Equal(s.Members, o.Members) }

// Switchover is a planned change that somebody asked for.
type Switchover struct {
	To string    `json:"to,omitempty"` // a member's name; empty: the best
	At time.Time `json:"at,omitzero"`  // not before; the primary's clock
	// Force is a failover by hand: done although the primary does not answer, or is not asked.
	Force bool `json:"force,omitempty"`
}

// Reign is what was known when a member was made primary.
type Reign struct {
	Epoch   uint64    `json:"epoch"`
	Primary string    `json:"primary"` // ID
	Reason  string    `json:"reason"`
	Time    time.Time `json:"time,omitzero"` // by its own clock, for people
	// From is the position at which its history leaves that of the reign before, and Timeline its name,
	// as the engine tells them once it leads.
	From     string `json:"from,omitempty"`
	Timeline string `json:"timeline,omitempty"`
}

// ErrFormat: a newer version wrote the record.
var ErrFormat = errors.New("the record was written by a newer version")

const format = 1

// ParseRecord reads what Encode wrote.
func ParseRecord(text []byte) (*Record, error) {
	var r Record
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("read the cluster's record: %w", err)
	}
	if r.Format > format {
		return nil, fmt.Errorf("read the cluster's record: %w (format %d; this one knows %d)", ErrFormat, r.Format, format)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	return &r, nil
}

func (r *Record) check() error {
	phases, modes, ids := []Phase{Bootstrapping, Running, Electing, Standby}, []Mode{Off, On, Strict}, r.Set.Members
	once := slices.IsSorted(ids) && len(slices.Compact(slices.Clone(ids))) == len(ids)
	if r.Format < 1 || r.Epoch == 0 || !slices.Contains(phases, r.Phase) || !slices.Contains(modes, r.Mode) || !once ||
		r.Set.Acks < 0 || r.Set.Acks > len(ids) {
		return fmt.Errorf("read the cluster's record: it contradicts itself (format %d, epoch %d, phase %q, mode %q, %d of %q acknowledge)",
			r.Format, r.Epoch, r.Phase, r.Mode, r.Set.Acks, ids)
	}
	return nil
}

// Encode is what is stored.
func (r *Record) Encode() []byte {
	r.Format = format
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // there is nothing in it that JSON does not have
	}
	return text
}

// Clone is a copy that shares nothing.
func (r *Record) Clone() *Record {
	c := *r
	c.Set.Members, c.Members, c.History = slices.Clone(r.Set.Members), maps.Clone(r.Members), slices.Clone(r.History)
	if r.Switchover != nil {
		s := *r.Switchover
		c.Switchover = &s
	}
	if r.Withdrawn != nil {
		w := *r.Withdrawn
		c.Withdrawn = &w
	}
	return &c
}

// Next is a copy for whoever wants to replace the record by a changed one.
func (r *Record) Next() *Record {
	c := r.Clone()
	c.Revision++
	return c
}

// version orders records.
type version struct{ epoch, revision uint64 }

func (r *Record) version() version { return version{r.Epoch, r.Revision} }

func (v version) before(o version) bool {
	return v.epoch < o.epoch || v.epoch == o.epoch && v.revision < o.revision
}

// Name is the member's whose ID is given; empty: nobody's.
func (r *Record) Name(id string) string {
	for name, m := range r.Members {
		if m.ID == id {
			return name
		}
	}
	return ""
}
