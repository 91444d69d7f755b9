package client

import (
	"context"
	"net/http"
	"time"
)

// Database is this instance's part in a database's cluster.
type Database struct {
	Cluster  string `json:"cluster"`
	Engine   string `json:"engine"`
	Role     string `json:"role"`              // primary, replica, standby (it applies another cluster's archive) or none
	Primary  string `json:"primary,omitempty"` // who leads; absent: nobody, as far as is known
	Epoch    uint64 `json:"epoch"`             // counts the elections
	Timeline string `json:"timeline,omitempty"`
	Mode     string `json:"mode,omitempty"` // of replication: on, strict or off
	Sync     bool   `json:"sync"`           // of a replica: commits wait for it
	// SyncMembers are those whom commits wait for, Acks how many of them must have each, AcksWanted how many should.
	SyncMembers []string            `json:"sync_members,omitempty"`
	Acks        int                 `json:"acknowledgements"`
	AcksWanted  int                 `json:"acknowledgements_wanted"`
	Lag         *int64              `json:"lag_bytes,omitempty"` // of a replica: what it has not applied; absent: not known
	Paused      bool                `json:"paused,omitempty"`
	Switchover  *DatabaseSwitchover `json:"switchover,omitempty"`     // that is to come
	Withdrawn   *DatabaseWithdrawn  `json:"withdrawn,omitempty"`      // that was to come, until the next is asked for
	Without     float64             `json:"without_primary_seconds"`  // for how long there has been no primary; 0: there is one
	Restart     bool                `json:"restart_needed,omitempty"` // some parameter needs a restart
	Pending     []string            `json:"restart_parameters,omitempty"`
	Roll        string              `json:"roll,omitempty"`         // how restarts stand that are made unasked
	RollStopped bool                `json:"roll_stopped,omitempty"` // they go on only with other parameters
	Elections   int                 `json:"elections"`              // that this agent has heard of
	Copies      int                 `json:"copies"`                 // how often its files were made anew from another member's
	Why         string              `json:"why,omitempty"`          // what it waits for
	Backups     *DatabaseBackups    `json:"backups,omitempty"`      // absent: there are none
	// Standby: the cluster follows another one, by that one's archive, and has no primary. Committed is of a member of it
	// when the last commit that it has applied was made, by the clock of the primary there; absent: not known.
	Standby   bool       `json:"standby,omitempty"`
	Committed *time.Time `json:"last_commit,omitempty"`
}

// DatabaseBackups is what a member knows of the database's backups.
type DatabaseBackups struct {
	Last     *time.Time `json:"last,omitempty"`  // end of the newest base backup, by its server's clock; absent: none, or not known
	By       string     `json:"by,omitempty"`    // the member that made it
	Error    string     `json:"error,omitempty"` // why this member's last attempt failed, if it is the one to make them
	Failures int        `json:"failures"`        // of this agent's attempts
	// Archived is the segment of the log that this agent has stored last.
	Archived        string     `json:"archived,omitempty"`
	ArchivedAt      *time.Time `json:"archived_at,omitempty"`
	Waiting         int        `json:"waiting_segments"` // that are full here, and not stored
	WaitingBytes    int64      `json:"waiting_bytes"`
	WaitingSeconds  float64    `json:"waiting_seconds"`         // for how long the first of them has been
	ArchiveError    string     `json:"archive_error,omitempty"` // of the last attempt to store one
	ArchiveFailures int        `json:"archive_failures"`        // of this agent's attempts
	// RestoreTest is the last one that is known, whoever made it.
	RestoreTest *RestoreTest `json:"restore_test,omitempty"`
}

// DatabaseSwitchover is one that was asked for.
type DatabaseSwitchover struct {
	To    string     `json:"to,omitempty"` // absent: the best
	At    *time.Time `json:"at,omitempty"` // absent: at once
	Force bool       `json:"force,omitempty"`
}

// DatabaseWithdrawn is a switchover that was taken back because it could not be done.
type DatabaseWithdrawn struct {
	To   string    `json:"to,omitempty"` // absent: the best
	Why  string    `json:"why"`
	Time time.Time `json:"time"` // by the primary's clock
}

// DatabaseCluster is what a member knows of all.
type DatabaseCluster struct {
	Cluster    string              `json:"cluster"`
	Engine     string              `json:"engine"`
	Member     string              `json:"member"` // who says this
	Primary    string              `json:"primary,omitempty"`
	Epoch      uint64              `json:"epoch"`
	Mode       string              `json:"mode,omitempty"`
	Acks       int                 `json:"acknowledgements"`
	Paused     bool                `json:"paused,omitempty"`
	Switchover *DatabaseSwitchover `json:"switchover,omitempty"`
	Withdrawn  *DatabaseWithdrawn  `json:"withdrawn,omitempty"`
	Roll       string              `json:"roll,omitempty"`         // how restarts stand that are made unasked
	Stopped    bool                `json:"roll_stopped,omitempty"` // they go on only with other parameters
	Standby    bool                `json:"standby,omitempty"`      // it follows another cluster, by that one's archive
	Members    []DatabaseMember    `json:"members"`
	// Backups is what is known of backups: of the log, what the primary says, if it says anything.
	Backups *DatabaseBackups `json:"backups,omitempty"`
}

// DatabaseMember is one of them.
type DatabaseMember struct {
	Name string `json:"name"`
	Role string `json:"role"` // primary, replica, standby or none
	// State: running, starting, stopped, creating replica and the like; silent if it has not answered lately.
	State     string `json:"state"`
	Sync      bool   `json:"sync"`
	Receiving bool   `json:"receiving"`
	Timeline  string `json:"timeline,omitempty"`
	Lag       *int64 `json:"lag_bytes,omitempty"`
	// Of a standby: how far it has applied, as the engine calls it, and when the last commit of that was made, by the
	// clock of the primary there.
	Position   string     `json:"position,omitempty"`
	LastCommit *time.Time `json:"last_commit,omitempty"`
	LastBackup *time.Time `json:"last_backup,omitempty"`
	Why        string     `json:"why,omitempty"`
	Tags       []string   `json:"tags,omitempty"`
	Host       string     `json:"host"`
	Port       int        `json:"port"`
	API        string     `json:"api"` // host:port
	Version    string     `json:"version,omitempty"`
	Server     string     `json:"server_version,omitempty"`
	Restart    bool       `json:"restart_needed,omitempty"`
	Pending    []string   `json:"restart_parameters,omitempty"` // those that a restart would put into effect
	// Backups is what it says of them.
	Backups *DatabaseBackups `json:"backups,omitempty"`
}

// DatabaseHistory are the reigns that are remembered, the newest last.
type DatabaseHistory struct {
	Reigns    []DatabaseReign    `json:"reigns"`
	Withdrawn *DatabaseWithdrawn `json:"withdrawn,omitempty"` // the last switchover that was asked for, if it was taken back
}

// DatabaseReign is what was known when a member was made primary.
type DatabaseReign struct {
	Epoch    uint64    `json:"epoch"`
	Primary  string    `json:"primary"` // its name
	Reason   string    `json:"reason"`
	Time     time.Time `json:"time,omitzero"` // by its own clock
	Timeline string    `json:"timeline,omitempty"`
	Position string    `json:"position,omitempty"` // at which its history leaves that of the reign before
}

// DatabaseOutcome is what an order came to.
type DatabaseOutcome struct {
	Primary   string     `json:"primary,omitempty"` // who leads
	Former    string     `json:"former,omitempty"`  // who led before
	Epoch     uint64     `json:"epoch,omitempty"`
	Scheduled *time.Time `json:"scheduled,omitempty"`      // of a switchover that is to come
	Changed   bool       `json:"changed"`                  // false: it was so already
	Restarted []string   `json:"restarted,omitempty"`      // whose servers were, where several could be
	Leave     []string   `json:"leave,omitempty"`          // after an upgrade: members of other releases, which are not needed any more
	Server    string     `json:"server_version,omitempty"` // of an upgrade: the release
	Agent     string     `json:"agent_version,omitempty"`
	Seconds   float64    `json:"seconds"`
}

// SwitchoverRequest is the body of POST /v1/database/switchover.
type SwitchoverRequest struct {
	To      string     `json:"to,omitempty"` // empty: the best
	At      *time.Time `json:"at,omitempty"` // nil: at once
	Cancel  bool       `json:"cancel,omitempty"`
	Timeout float64    `json:"timeout_seconds,omitempty"` // 0: none
}

// FailoverRequest is the body of POST /v1/database/failover.
type FailoverRequest struct {
	To      string  `json:"to,omitempty"`
	Force   bool    `json:"force,omitempty"`
	Timeout float64 `json:"timeout_seconds,omitempty"`
}

// PauseRequest is the body of POST /v1/database/pause.
type PauseRequest struct {
	On *bool `json:"on"` // nil is refused
}

// ReinitRequest is the body of POST /v1/database/reinit.
type ReinitRequest struct {
	Member  string  `json:"member"`
	Timeout float64 `json:"timeout_seconds,omitempty"`
}

// RestartRequest is the body of POST /v1/database/restart.
type RestartRequest struct {
	Member  string  `json:"member,omitempty"`  // empty: this instance's
	All     bool    `json:"all,omitempty"`     // one at a time, the primary's last
	Pending bool    `json:"pending,omitempty"` // those only, of all, whose parameters need it
	Timeout float64 `json:"timeout_seconds,omitempty"`
}

// UpgradeRequest is the body of POST /v1/database/upgrade.
type UpgradeRequest struct {
	Version string  `json:"version,omitempty"` // the server's or the agent's; empty: the newest that a member has
	Members int     `json:"members,omitempty"` // how many of it are waited for; 0: as many as commits need, and one
	Timeout float64 `json:"timeout_seconds,omitempty"`
}

// DatabaseMembers asks for all members of the database's cluster.
func (c *Client) DatabaseMembers(ctx context.Context) (DatabaseCluster, error) {
	var d DatabaseCluster
	err := c.call(ctx, http.MethodGet, "/v1/database/members", nil, &d)
	return d, err
}

// DatabaseHistory asks for the reigns.
func (c *Client) DatabaseHistory(ctx context.Context) (DatabaseHistory, error) {
	var h DatabaseHistory
	err := c.call(ctx, http.MethodGet, "/v1/database/history", nil, &h)
	return h, err
}

// Switchover has another member lead, as planned, and waits until it does; or writes down that it is to, later.
func (c *Client) Switchover(ctx context.Context, r SwitchoverRequest) (DatabaseOutcome, error) {
	return c.order(ctx, "switchover", r)
}

// Failover has a member lead although something acknowledged may be lost.
func (c *Client) Failover(ctx context.Context, r FailoverRequest) (DatabaseOutcome, error) {
	return c.order(ctx, "failover", r)
}

// Pause has no member be elected until it is called again with on false.
func (c *Client) Pause(ctx context.Context, on bool) (DatabaseOutcome, error) {
	return c.order(ctx, "pause", PauseRequest{On: &on})
}

// Reinit has a replica's files be copied anew, and waits until it receives.
func (c *Client) Reinit(ctx context.Context, r ReinitRequest) (DatabaseOutcome, error) {
	return c.order(ctx, "reinit", r)
}

// RestartDatabase restarts servers, and waits until they are what they were.
func (c *Client) RestartDatabase(ctx context.Context, r RestartRequest) (DatabaseOutcome, error) {
	return c.order(ctx, "restart", r)
}

// UpgradeDatabase waits for enough members of a release, and has one of them lead.
func (c *Client) UpgradeDatabase(ctx context.Context, r UpgradeRequest) (DatabaseOutcome, error) {
	return c.order(ctx, "upgrade", r)
}

func (c *Client) order(ctx context.Context, what string, body any) (DatabaseOutcome, error) {
	var out DatabaseOutcome
	err := c.call(ctx, http.MethodPost, "/v1/database/"+what, body, &out)
	return out, err
}
