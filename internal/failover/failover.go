// Package failover decides who is the primary of a replicated database, and what each member
// does next: Step is a pure function of what a member knows, sees and remembers.
//
// It promises, whatever crashes, sleeps, is cut off or comes late: in synchronous modes no
// acknowledged commit is missing from a later primary, not even one that its client hears of only after
// that was chosen, and no two members acknowledge commits in the same epoch. DESIGN.md has the rules and why they
// suffice. What is done, and by which clock, is left to package database and its drivers.
package failover

import "time"

// Config of a member. It does not change while it lives.
type Config struct {
	Name string
	Self Member // without an ID: that is State's
	Mode Mode   // of a cluster that this member makes
	Acks int    // how many acknowledge a commit where so many replicas are; at least 1
	// TTL is how long the primary may be silent before another one is elected, and after how long it
	// kills its server if it cannot prove that it is the primary.
	TTL time.Duration
	// Missing is how long commits wait for a replica that has gone, before it is waited for no more.
	Missing time.Duration
	// Forget is after how long a member that does not answer is taken out of the record.
	Forget time.Duration
	// Lost is after how long without a sign of any member the database is restored from the newest backup; 0: never.
	Lost time.Duration
	// Adopt: files that were no cluster's member's may found one.
	Adopt bool
	// Standby: the cluster that this member founds follows another one, by that one's archive.
	Standby bool
	// Compare orders positions, as database.Driver does.
	Compare func(a, b string) (order int, ok bool)
}

// Persistent is what a member remembers on its disk, beside the database. It is written before
// anything is done that depends on it.
type Persistent struct {
	ID    string `json:"id"`    // of this copy of the files; made anew with each copy
	Epoch uint64 `json:"epoch"` // the highest seen; lower ones are not obeyed any more
	// Lineage is the epoch of the primary whose history the files are a prefix of, as last proven by receiving from it.
	Lineage uint64 `json:"lineage"`
	// Led is the epoch in which the files were those of a primary; 0: of none since they were copied or made a replica's.
	Led uint64 `json:"led,omitempty"`
	// Made is the epoch in which this member made the first database; 0: it did not.
	Made uint64 `json:"made,omitempty"`
	// Torn: another copy began to replace the files, and has not been whole.
	Torn bool `json:"torn,omitempty"`
}

// Disk is what a driver sees in the files.
type Disk struct {
	Empty  bool   // nothing, or what an interrupted Init or Clone left
	System string // the database's own identity
	// Replica: a server would start as a replica from them. It has not been promoted, if it was to be.
	Replica bool
}

// Database is what a running server says of itself: of a moment, Observation.Asked, which is not before the end
// of the last action that was done to it.
type Database struct {
	Primary bool // it is no replica
	// Received is how far its log goes on stable storage: of a replica all that it has received and will apply, of a primary all
	// that it has written. Empty: not known yet, as after a restart.
	Received string
	Applied  string
	// Committed is when the last commit that a replica has applied was made, by its primary's clock; zero: it is not known. For people.
	Committed time.Time
	Timeline  string
	// Began is where the history of a primary leaves that of the one before, if that is known better than
	// by what it had received when it was elected (whose end may be half a record).
	Began    string
	Upstream string // the ID of whom it is configured to follow; empty: nobody
	// Receiving: it is connected to its upstream and what it gets follows what it has.
	Receiving bool
	// Detached: it follows nobody, and nothing more can be received from anybody, not even after a restart.
	Detached bool
	// Archive: it follows nobody, and applies what another cluster's archive has.
	Archive  bool
	Set      SyncSet // who acknowledges the commits of a primary, as in effect
	Open     bool    // it admits clients
	Replicas []Replica
	Incident string // why it cannot be trusted although it answers: a disk that cannot be written

	// For the runner and for people; no decision depends on them.
	Version  string   // of the server
	Settings string   // names what the server is configured with: another one for other parameters
	Pending  []string // parameters that a restart would change, sorted
	// Lowers: some of those go lower than replicas may go before their primary has.
	Lowers bool
	// Outgrown: this replica applies nothing more before it is restarted, since the primary has more of something.
	Outgrown bool
}

// Replica is one that is connected to this primary.
type Replica struct {
	ID        string
	Flushed   string // position that it has on stable storage
	Streaming bool   // it has caught up once, and follows
}
