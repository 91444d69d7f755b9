package database

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"drover/internal/failover"
)

// View is a member as others see it: as of its last step.
type View struct {
	Name     string `json:"name"`
	ID       string `json:"id"`
	Role     Role   `json:"role"`
	State    string `json:"state"` // running, starting, stopped; or what is being done to its files
	Epoch    uint64 `json:"epoch"`
	Primary  string `json:"primary,omitempty"` // the name of who leads, as far as this member knows
	System   string `json:"system,omitempty"`  // the database's own identity
	Timeline string `json:"timeline,omitempty"`
	Received string `json:"received,omitempty"`
	Applied  string `json:"applied,omitempty"`
	// How far Received and Applied go, and how much Applied is behind what the primary said last, in bytes; nil: not known.
	ReceivedBytes *int64        `json:"received_bytes,omitempty"`
	AppliedBytes  *int64        `json:"applied_bytes,omitempty"`
	Lag           *int64        `json:"lag_bytes,omitempty"`
	Committed     time.Time     `json:"committed,omitzero"`  // of a replica: when the last commit that it has applied was made, by its primary's clock
	Receiving     bool          `json:"receiving,omitempty"` // it is connected to its upstream, and gets what it can use
	Foremost      bool          `json:"foremost,omitempty"`  // of a standby cluster: it answers where one of its members is to
	Sync          bool          `json:"sync,omitempty"`      // commits wait for it
	Restart       bool          `json:"restart,omitempty"`   // some setting needs a restart
	Pending       []string      `json:"pending,omitempty"`   // the parameters that it would change
	Lowers        bool          `json:"lowers,omitempty"`    // see failover.Database
	Settings      string        `json:"settings,omitempty"`
	Server        string        `json:"server,omitempty"`       // its version
	Roll          string        `json:"roll,omitempty"`         // of a primary: how the restarts stand that it carries out by itself
	Stopped       bool          `json:"roll_stopped,omitempty"` // they go on only with other parameters
	Why           string        `json:"why,omitempty"`
	Tags          failover.Tags `json:"tags,omitzero"`
	Runs          int           `json:"runs"`               // starts of the server, in this life of the agent
	Copies        int           `json:"copies"`             // how often the files were made a replica's anew
	Elections     int           `json:"elections"`          // that it has heard of
	Replicas      []string      `json:"replicas,omitempty"` // of a primary: the IDs of who streams
	// Backups is what this member knows of backups, in the words of who made it.
	Backups json.RawMessage `json:"backups,omitempty"`

	Record *failover.Record    `json:"-"` // as last read; it is not changed
	Peers  map[string]Sighting `json:"-"` // the others, by ID
	Known  time.Time           `json:"-"` // when that record was read
	Vacant time.Duration       `json:"-"` // for how long it has known of no primary; 0: it knows one

	stepped time.Duration // when that was
	until   time.Duration // when a primary's claim ends that is not renewed
	set     failover.SyncSet

	outgrown bool // see failover.Database
}

// Sighting is what another member said of itself, and how long ago it was asked.
type Sighting struct {
	View
	Age time.Duration
}

// View is how this member is now. It takes no lock and waits for nothing.
func (m *Member) View() View {
	v := *m.seen.Load()
	now := m.now()
	if v.Role == RolePrimary && now >= v.until || (v.Role == RoleReplica || v.Role == RoleStandby) && now-v.stepped > 2*m.opt.Failover.TTL {
		v.Role, v.Why = RoleNone, "the agent is held up"
	}
	if v.Vacant != 0 {
		v.Vacant = now - v.Vacant
	}
	peers := make(map[string]Sighting, len(v.Peers))
	for id, s := range v.Peers {
		s.Age = now - s.Age
		peers[id] = s
	}
	v.Peers = peers
	return v
}

// publish makes the view of now. m.mu is held, or nobody else has m.
func (m *Member) publish() {
	c := m.change()
	v := View{
		Name: m.opt.Failover.Name, ID: m.state.ID, Role: c.Role, State: m.condition(), Epoch: c.Epoch, Why: m.decision.Why,
		Roll: m.rolls.says, Stopped: m.rolls.stopped, Tags: m.opt.Failover.Self.Tags, Runs: m.runs, Copies: m.copies, Record: m.obs.Record, Peers: maps.Clone(m.views),
		stepped: m.now(), until: m.decision.LeadUntil, Known: m.began.Add(m.obs.Sent),
	}
	if m.opt.Backups != nil {
		v.Backups = m.opt.Backups()
	}
	m.follow(&v)
	if d := m.obs.Disk; d != nil {
		v.System = d.System
	}
	if db := m.obs.Database; db != nil {
		v.Timeline, v.Received, v.Applied, v.Receiving = db.Timeline, db.Received, db.Applied, db.Receiving && !db.Primary
		v.Pending, v.Restart, v.Lowers, v.Settings, v.Server = db.Pending, len(db.Pending) > 0, db.Lowers, db.Settings, db.Version
		v.outgrown = db.Outgrown && !db.Primary
		v.Committed = db.Committed
		if db.Primary {
			v.Applied, v.set = db.Received, db.Set
			for _, r := range db.Replicas {
				if r.Streaming {
					v.Replicas = append(v.Replicas, r.ID)
				}
			}
		}
	}
	m.measure(&v)
	m.seen.Store(&v)
}

// condition is how the server stands, in Patroni's words. m.mu is held.
func (m *Member) condition() string {
	switch {
	case m.doing == "Clone" || m.doing == "Rewind" || m.doing == "Seed":
		return "creating replica"
	case m.doing == "Init" || m.doing == "Restore":
		return "initializing new cluster"
	case m.doing == "Stop":
		return "stopping"
	case m.obs.Database != nil:
		return "running"
	case m.opt.Processes.Running():
		return "starting"
	}
	return "stopped"
}

// follow fills in what is known of the cluster. m.mu is held.
func (m *Member) follow(v *View) {
	r := m.obs.Record
	if r == nil {
		v.Vacant = max(m.led, 1)
		return
	}
	if r.Phase == failover.Electing && r.Epoch > m.election {
		m.elections++
		m.election = r.Epoch
	}
	v.Elections = m.elections
	v.Sync = r.Set.Has(v.ID) && r.Set.Acks > 0 && v.Role == RoleReplica
	a, ok := m.obs.Answers[r.Primary]
	leads := r.Primary == v.ID && v.Role == RolePrimary ||
		ok && a.Primary && a.Epoch == r.Epoch && m.now()-a.Sent <= m.opt.Failover.TTL
	if r.Phase == failover.Running && leads {
		m.led, v.Primary = m.now(), r.Name(r.Primary)
		return
	}
	if r.Phase == failover.Standby { // which has none
		v.Foremost = m.foremost(v, r)
		return
	}
	v.Vacant = max(m.led, 1)
}

// foremost reports whether this member is, by its name, the first of a standby cluster's that apply; and so who is asked for where
// one is to be. m.mu is held.
func (m *Member) foremost(v *View, r *failover.Record) bool {
	for name, member := range r.Members {
		s, ok := m.views[member.ID]
		if name < v.Name && ok && m.now()-s.Age <= m.opt.Failover.TTL && s.Role == RoleStandby {
			return false
		}
	}
	return v.Role == RoleStandby
}

// measure tells positions in bytes, where the driver can. m.mu is held.
func (m *Member) measure(v *View) {
	g, ok := m.opt.Driver.(Gauge)
	if !ok {
		return
	}
	bytes := func(position string) *int64 {
		if n, ok := g.Bytes(position); ok {
			return &n
		}
		return nil
	}
	v.ReceivedBytes, v.AppliedBytes = bytes(v.Received), bytes(v.Applied)
	if v.Record == nil || v.AppliedBytes == nil || v.Record.Primary == v.ID || v.Record.Primary == "" {
		return
	}
	if front := bytes(m.obs.Answers[v.Record.Primary].Received); front != nil {
		lag := max(*front-*v.AppliedBytes, 0)
		v.Lag = &lag
	}
}

// Names are the members' names in the record, sorted.
func (v View) Names() []string {
	if v.Record == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(v.Record.Members))
}

// Named is a member of the record as this one knows it, whichever copy of the files it has: while they are copied anew
// they have another ID already. ok is false if it has not said anything for a TTL.
func (m *Member) Named(v View, name string) (Sighting, bool) {
	if name == v.Name {
		return Sighting{View: v}, true
	}
	if v.Record != nil {
		if s, ok := m.Of(v, v.Record.Members[name].ID); ok {
			return s, true
		}
	}
	best, found := Sighting{}, false
	for _, s := range v.Peers {
		if s.Name == name && s.Age <= m.opt.Failover.TTL && (!found || s.Age < best.Age) {
			best, found = s, true
		}
	}
	return best, found
}

// Of is a member, by its ID, as this one knows it; ok is false if it has not said anything for a TTL.
func (m *Member) Of(v View, id string) (Sighting, bool) {
	if id == v.ID {
		return Sighting{View: v}, true
	}
	s, ok := v.Peers[id]
	return s, ok && s.Age <= m.opt.Failover.TTL
}
