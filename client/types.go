// Package client is the Go client of a running agent's control API, which the
// command line and the end-to-end tests use, and the types of that API.
//
// It speaks HTTP over the agent's unix socket. It holds no state but the
// connection; every call honours its context. What the numbers mean is the
// agent's affair: the fields below say the units.
package client

import "time"

// Status is one instance's account of itself and of its volume, as
// `drover status --json` prints it.
type Status struct {
	Service  string `json:"service,omitempty"`
	Volume   string `json:"volume,omitempty"`
	Slot     *int   `json:"slot,omitempty"`  // which one Volume is, with ownership: slot
	Slots    int    `json:"slots,omitempty"` // how many there are
	Instance string `json:"instance"`
	Version  string `json:"version"`
	// Role: starting, standby, claiming, restoring, holder, fenced, deposed,
	// stopping, stopped, fault; "spare" while it waits for any slot; "supervisor" without a store;
	// of a database's member: primary, replica, waiting; "none" when no
	// agent runs and the store was read instead.
	Role string `json:"role"`
	// Health: ok, degraded (backups late or failing, store away) or failed.
	Health  string `json:"health"`
	Message string `json:"message,omitempty"` // why not ok, in one line

	Holder   string     `json:"holder,omitempty"` // instance that holds the head, as last seen
	State    string     `json:"state,omitempty"`  // the head's: free, held, released
	Epoch    uint64     `json:"epoch"`
	Seq      uint64     `json:"seq"`
	Snapshot string     `json:"snapshot,omitempty"` // newest committed
	Copied   uint64     `json:"copied,omitempty"`   // of a standby: the seq that its files are a copy of; it is behind by Seq - Copied
	Tree     string     `json:"tree,omitempty"`
	Paths    []string   `json:"paths,omitempty"`
	Fence    string     `json:"fence,omitempty"`
	TTL      float64    `json:"ttl_seconds,omitempty"`
	Commit   *time.Time `json:"last_commit,omitempty"`
	// RPO: seconds since the capture of the last commit if anything is known
	// to have changed since, else 0.
	RPO float64 `json:"rpo_seconds"`
	// RTO: seconds that the last restore, or later restore test, took; absent if there was none yet.
	RTO     *float64 `json:"rto_seconds,omitempty"`
	Pending bool     `json:"pending"` // changes or requests wait for a commit
	// LastBackup is the last attempt's outcome.
	LastBackup *Backup    `json:"last_backup,omitempty"`
	Jobs       []Job      `json:"jobs,omitempty"`
	Services   []Service  `json:"services,omitempty"` // what the catalog is told of the jobs
	Watches    []Watch    `json:"watches,omitempty"`
	Templates  []Template `json:"templates,omitempty"`
	Rolls      []Roll     `json:"rolls,omitempty"`
	Git        *Git       `json:"git,omitempty"`      // if there are repositories
	Secrets    *Secrets   `json:"secrets,omitempty"`  // of Vault, if there is one
	Diverged   []string   `json:"diverged,omitempty"` // snapshots kept by this instance
	Started    time.Time  `json:"started,omitzero"`
	// Maintenance: what the agent does by itself waits; see drover maintenance.
	Maintenance bool      `json:"maintenance,omitempty"`
	Mirror      *Mirror   `json:"mirror,omitempty"`   // of the holder, if there is one
	Progress    *Progress `json:"progress,omitempty"` // of the restore or backup under way
	Upkeep      *Upkeep   `json:"upkeep,omitempty"`   // of the holder
	// RestoreTest is the last one that is known, whoever made it.
	RestoreTest *RestoreTest `json:"restore_test,omitempty"`
	Database    *Database    `json:"database,omitempty"` // of a member of a cluster
}

// Progress is how far a restore or a backup is.
type Progress struct {
	Work       string  `json:"work"`    // restore, backup
	Seconds    float64 `json:"seconds"` // since its start
	Files      int64   `json:"files"`
	TotalFiles int64   `json:"total_files,omitempty"` // 0: not known
	Bytes      int64   `json:"bytes"`                 // of those files
	TotalBytes int64   `json:"total_bytes,omitempty"`
	// Left is how many seconds it will take at the rate so far; absent: not known.
	Left float64 `json:"left_seconds,omitempty"`
}

// RestoreTest is the outcome of restoring the newest commit into scratch space.
type RestoreTest struct {
	Snapshot string    `json:"snapshot,omitempty"`
	Seq      uint64    `json:"seq"`
	Instance string    `json:"instance"` // that made it
	Time     time.Time `json:"time"`     // of its start
	// Passed: every byte was restored, read back and right, and the check agreed.
	Passed bool `json:"passed"`
	// Begun: it came far enough to say something. Else it could not be made.
	Begun   bool    `json:"begun"`
	Error   string  `json:"error,omitempty"`
	Files   int64   `json:"files"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
	Restore float64 `json:"restore_seconds"` // of the restore alone, with reading back
	// Of a database: the end of the base backup that was restored, and how far the log led from there.
	Backup  *time.Time `json:"backup,omitempty"`
	Reached string     `json:"reached,omitempty"`
}

// Upkeep is what the holder removed from the store since its agent started.
type Upkeep struct {
	Last      time.Time `json:"last,omitzero"`     // end of the last run
	Removed   int       `json:"snapshots_removed"` // by retention
	Condemned int       `json:"packs_condemned"`
	Deleted   int       `json:"packs_deleted"`
	Freed     int64     `json:"bytes_freed"`
	Waiting   int       `json:"packs_waiting"`       // condemned, and not deleted yet
	Waits     string    `json:"waits_for,omitempty"` // locks of others, for which they wait
	Error     string    `json:"error,omitempty"`     // of the last run: nothing is deleted
	// Damaged are snapshots that cannot be restored whole, as the last survey found, or that
	// somebody else removed since this agent holds the volume; DamagedCount says how many
	// there are, of which Damaged has the first.
	Damaged      []DamagedSnapshot `json:"damaged,omitempty"`
	DamagedCount int               `json:"damaged_count"`
}

// DamagedSnapshot is one of Upkeep's.
type DamagedSnapshot struct {
	Snapshot string `json:"snapshot"`
	Why      string `json:"why"`
}

// Mirror is how far the second store is.
type Mirror struct {
	Store  string `json:"store"`
	Volume string `json:"volume"`
	Known  bool   `json:"known"` // the mirror was reached by this holder
	Seq    uint64 `json:"seq"`   // of the newest commit that is in it
	Behind uint64 `json:"behind_commits"`
	// BehindSeconds is how long there has been something to copy.
	BehindSeconds float64 `json:"behind_seconds"`
	Stopped       bool    `json:"stopped"`         // it has a history of its own: nothing is written there
	Error         string  `json:"error,omitempty"` // of the last attempt
	// Upkeep is what this holder removed from it; absent: it has not looked yet.
	Upkeep *Upkeep `json:"upkeep,omitempty"`
}

// Job is one supervised process.
type Job struct {
	Name string `json:"name"`
	Main bool   `json:"main,omitempty"`
	// State: waiting (for its conditions, an event or its turn), starting, running,
	// draining (out of the catalog, not yet asked to stop), stopping, restarting (after its back-off) or exited.
	State    string     `json:"state"`
	PID      int        `json:"pid,omitempty"`
	Ready    bool       `json:"ready,omitempty"`
	Health   string     `json:"health,omitempty"` // healthy, unhealthy or unknown; absent: no checks
	Held     bool       `json:"held,omitempty"`   // stopped by hand: nothing else starts it
	Restarts int        `json:"restarts"`         // in a row
	Runs     int        `json:"runs,omitempty"`   // since the jobs were started
	Exit     *int       `json:"exit,omitempty"`   // of the last run that ended
	Since    time.Time  `json:"since,omitzero"`   // of its state
	Next     *time.Time `json:"next,omitempty"`   // restart, or turn
	Checks   []Check    `json:"checks,omitempty"`
}

// Service is what the catalog is told of a job.
type Service struct {
	Job  string `json:"job"`
	Name string `json:"name"`
	ID   string `json:"id"` // in the catalog
	// Status is what the catalog was last known to say, Wanted what it should: passing,
	// warning, critical or maintenance; absent: it is not there, or should not be.
	Status string    `json:"status,omitempty"`
	Wanted string    `json:"wanted,omitempty"`
	Since  time.Time `json:"since,omitzero"`  // of Status
	Error  string    `json:"error,omitempty"` // of the last attempt
}

// Watch is one thing in the coordinator that is watched; one of Service, Key and Prefix is given.
type Watch struct {
	Name    string    `json:"name"`
	Service string    `json:"service,omitempty"`
	Key     string    `json:"key,omitempty"`
	Prefix  string    `json:"prefix,omitempty"`
	Known   bool      `json:"known"`           // anything was heard of it
	Size    int       `json:"size"`            // instances, or keys, as last heard
	Since   time.Time `json:"since,omitzero"`  // when that was
	Error   string    `json:"error,omitempty"` // why the present state is not known
}

// Template is one file that is made of keys, services and secrets.
type Template struct {
	Name        string     `json:"name"`
	Destination string     `json:"destination,omitempty"`
	State       string     `json:"state"`             // rendered, waiting, blocked or failed
	Changed     *time.Time `json:"changed,omitempty"` // when the file was last replaced
	Since       *time.Time `json:"since,omitempty"`   // it is blocked, or fails
	Missing     []string   `json:"missing,omitempty"` // what it waits for
	Stale       []string   `json:"stale,omitempty"`   // whose newest values are not known: the last ones are in use
	Error       string     `json:"error,omitempty"`
	Unacted     string     `json:"unacted,omitempty"` // why what follows from the last change has not succeeded
}

// Roll is this instance's part of a change that instances make in turns.
type Roll struct {
	Name  string    `json:"name"`
	State string    `json:"state,omitempty"` // waiting, changing or stopped; absent: nothing to change
	Since time.Time `json:"since,omitzero"`
	Why   string    `json:"why,omitempty"`
}

// Secrets says whether Vault serves this instance. While it does not, what was read stays in use.
type Secrets struct {
	Healthy bool      `json:"healthy"`
	Since   time.Time `json:"since,omitzero"`
	Error   string    `json:"error,omitempty"`
	Failing []string  `json:"failing,omitempty"` // secrets that could not be had lately: path, and why
}

// Git is how the keys are that come from Git.
type Git struct {
	Writer       bool            `json:"writer"`          // this instance is the one that writes
	Error        string          `json:"error,omitempty"` // why it cannot become the writer
	Repositories []GitRepository `json:"repositories,omitempty"`
}

// GitRepository is one repository; the writer knows all of it.
type GitRepository struct {
	Name    string      `json:"name"`
	Looked  time.Time   `json:"looked,omitzero"` // when it was looked at last
	Error   string      `json:"error,omitempty"` // of that look
	Targets []GitTarget `json:"targets,omitempty"`
}

// GitTarget is a branch or a tag, and the keys that it became.
type GitTarget struct {
	Repository string   `json:"repository"`
	Ref        string   `json:"ref"`
	Prefix     string   `json:"prefix"`           // of its keys
	Mode       string   `json:"mode"`             // atomic or in-place
	Commit     string   `json:"commit,omitempty"` // that is there, whole
	Tree       string   `json:"tree,omitempty"`   // what current names
	Changed    bool     `json:"changed,omitempty"`
	Written    int      `json:"written,omitempty"` // keys
	Deleted    int      `json:"deleted,omitempty"` // keys
	Drift      int      `json:"drift,omitempty"`   // keys that somebody else had changed, and that were put right
	Missing    bool     `json:"missing,omitempty"` // the branch is gone
	Notes      []string `json:"notes,omitempty"`
	Error      string   `json:"error,omitempty"`
}

// Check is one check of a job's health.
type Check struct {
	Name     string    `json:"name"`
	Level    string    `json:"level"`              // alive or ready
	Health   string    `json:"health"`             // healthy, unhealthy or unknown
	Since    time.Time `json:"since,omitzero"`     // of Health
	Failures int       `json:"failures,omitempty"` // in a row
	Error    string    `json:"error,omitempty"`    // of the last failure
	Seconds  float64   `json:"seconds,omitempty"`  // that the last one took
}

// Backup is the outcome of one backup.
type Backup struct {
	Snapshot  string    `json:"snapshot,omitempty"`
	Epoch     uint64    `json:"epoch,omitempty"`
	Seq       uint64    `json:"seq,omitempty"`
	Queued    bool      `json:"queued,omitempty"` // accepted, not yet committed
	Unchanged bool      `json:"unchanged,omitempty"`
	Time      time.Time `json:"time,omitzero"` // of the capture
	Seconds   float64   `json:"seconds"`
	Bytes     int64     `json:"bytes"`       // of all files in it
	Added     int64     `json:"bytes_added"` // stored for it
	Files     int64     `json:"files"`
	Skipped   []string  `json:"skipped,omitempty"` // unreadable paths, on_unreadable: skip
	Walked    bool      `json:"walked,omitempty"`  // every file was looked at, not only what was reported as changed
	// Consistent: all files are of one moment. Fallback says why not, where the
	// configuration asks for it; Pause is how long the jobs were held still, in seconds.
	Consistent bool    `json:"consistent"`
	Pause      float64 `json:"pause_seconds,omitempty"`
	Fallback   string  `json:"fallback,omitempty"`
	Error      string  `json:"error,omitempty"`
	// Kind of the error, for exit codes: "", "incomplete", "held", "timeout", "failed".
	Kind string `json:"kind,omitempty"`
}

// Takeover is the outcome of one planned takeover.
type Takeover struct {
	Holder  string  `json:"holder,omitempty"` // who has the volume now
	Epoch   uint64  `json:"epoch,omitempty"`
	Seconds float64 `json:"seconds"` // from the request to the new claim
	Error   string  `json:"error,omitempty"`
	Kind    string  `json:"kind,omitempty"` // of the error: "", "held", "failed"
}

// Snapshot is one state of a volume, as `drover snapshots --json` prints it.
type Snapshot struct {
	ID        string    `json:"id"`
	Time      time.Time `json:"time"`
	Hostname  string    `json:"hostname"`
	Paths     []string  `json:"paths"`
	Tags      []string  `json:"tags,omitempty"`
	Tree      string    `json:"tree"`
	Epoch     uint64    `json:"epoch,omitempty"`
	Seq       uint64    `json:"seq,omitempty"`
	Committed bool      `json:"committed"`
	Head      bool      `json:"head,omitempty"`
	Diverged  bool      `json:"diverged,omitempty"`
	Files     int64     `json:"files,omitempty"`
	Bytes     int64     `json:"bytes,omitempty"`
}

// Event is one thing that happened to the instance.
type Event struct {
	Seq    uint64    `json:"seq"` // counts from 1 without gaps, since the agent's start
	Time   time.Time `json:"time"`
	Name   string    `json:"event"`
	Source string    `json:"source,omitempty"` // what it happened to: a job's name, a watch's; empty: the instance
	Text   string    `json:"text,omitempty"`   // for people, one line
	Status *int      `json:"status,omitempty"` // exit status, of a job's end
}

// Missed is the line of a stream, of events or of lines, that stands for those which
// were lost because the reader was slow.
type Missed struct {
	Missed int `json:"missed"`
}

// LogLine is one line of a job's output, without its line break.
type LogLine struct {
	Time   time.Time `json:"time"`
	Job    string    `json:"job"`
	Stream string    `json:"stream"` // stdout or stderr
	Text   string    `json:"text"`
}

// Reload is what a new configuration came to: the jobs by name.
type Reload struct {
	Started []string `json:"started,omitempty"`
	Stopped []string `json:"stopped,omitempty"`
	Changed []string `json:"changed,omitempty"` // stopped, and started as they are now defined
	Kept    []string `json:"kept,omitempty"`    // not touched
	// Parameters of the database's server that have changed ("hba": lines of pg_hba.conf); Pending are those that a restart of it
	// would put into effect.
	Parameters []string `json:"parameters,omitempty"`
	Pending    []string `json:"restart_parameters,omitempty"`
}

// Levels of health.
const (
	LevelAlive = "alive" // else a restart is due
	LevelReady = "ready" // else nothing should be sent to it
)

// Health says whether all that counts at a level is well.
type Health struct {
	Level   string   `json:"level"` // alive or ready
	Healthy bool     `json:"healthy"`
	Failing []string `json:"failing,omitempty"` // what is not, a line each
}
