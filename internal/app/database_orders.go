package app

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"drover/client"
	"drover/internal/database"
	"drover/internal/failover"
	"drover/internal/volume/protocol"
)

// cluster is the member of a database that runs here.
func (a *agent) cluster() (*database.Member, error) {
	if a.member == nil {
		return nil, refused(client.KindUnknown, "this instance is no member of a database: its configuration has none")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.member.run == nil {
		return nil, refused(client.KindBusy, "the database's member has not begun yet")
	}
	return a.member.run, nil
}

// Switchover is control.Agent's.
func (a *agent) Switchover(ctx context.Context, r client.SwitchoverRequest) (client.DatabaseOutcome, error) {
	m, err := a.cluster()
	if err != nil {
		return client.DatabaseOutcome{}, err
	}
	if r.Cancel {
		found, err := m.Withdraw(ctx)
		return client.DatabaseOutcome{Changed: found}, explainedOrder(err)
	}
	var at time.Time
	if r.At != nil {
		at = *r.At
	}
	out, err := m.Switchover(ctx, r.To, at)
	return outcome(out), explainedOrder(err)
}

// Failover is control.Agent's.
func (a *agent) Failover(ctx context.Context, r client.FailoverRequest) (client.DatabaseOutcome, error) {
	m, err := a.cluster()
	if err != nil {
		return client.DatabaseOutcome{}, err
	}
	out, err := m.Failover(ctx, r.To, r.Force)
	return outcome(out), explainedOrder(err)
}

// Pause is control.Agent's.
func (a *agent) Pause(ctx context.Context, on bool) (client.DatabaseOutcome, error) {
	m, err := a.cluster()
	if err != nil {
		return client.DatabaseOutcome{}, err
	}
	changed, err := m.Pause(ctx, on)
	if changed {
		a.log.Warn("database: failover was paused or resumed by hand", "paused", on)
	}
	v := m.View()
	return client.DatabaseOutcome{Primary: v.Primary, Epoch: v.Epoch, Changed: changed}, explainedOrder(err)
}

// Reinit is control.Agent's.
func (a *agent) Reinit(ctx context.Context, r client.ReinitRequest) (client.DatabaseOutcome, error) {
	m, err := a.cluster()
	if err != nil {
		return client.DatabaseOutcome{}, err
	}
	out, err := m.Reinit(ctx, r.Member)
	return outcome(out), explainedOrder(err)
}

// RestartDatabase is control.Agent's.
func (a *agent) RestartDatabase(ctx context.Context, r client.RestartRequest) (client.DatabaseOutcome, error) {
	m, err := a.cluster()
	if err != nil {
		return client.DatabaseOutcome{}, err
	}
	if r.All || r.Pending {
		done, err := m.RestartAll(ctx, r.Pending)
		out := outcome(done)
		out.Changed = len(done.Restarted) > 0
		return out, explainedOrder(err)
	}
	if r.Member == "" {
		r.Member = a.cfg.ID
	}
	out, err := m.Restart(ctx, r.Member)
	return outcome(out), explainedOrder(err)
}

// UpgradeDatabase is control.Agent's.
func (a *agent) UpgradeDatabase(ctx context.Context, r client.UpgradeRequest) (client.DatabaseOutcome, error) {
	m, err := a.cluster()
	if err != nil {
		return client.DatabaseOutcome{}, err
	}
	done, err := m.Upgrade(ctx, r.Version, r.Members)
	out := outcome(done)
	out.Leave, out.Server, out.Agent, out.Changed = done.Leave, done.Release.Server, done.Release.Agent, done.Former != ""
	return out, explainedOrder(err)
}

func outcome(o database.Outcome) client.DatabaseOutcome {
	out := client.DatabaseOutcome{Primary: o.Primary, Former: o.Former, Epoch: o.Epoch, Changed: true, Restarted: o.Restarted}
	if !o.Scheduled.IsZero() {
		out.Scheduled = &o.Scheduled
	}
	return out
}

// explainedOrder translates what a member says.
func explainedOrder(err error) error {
	var no *database.Refused
	switch {
	case errors.As(err, &no):
		kind := map[database.RefusalKind]string{
			database.RefusedUnknown: client.KindUnknown, database.RefusedBusy: client.KindBusy, database.RefusedUnsafe: client.KindUnsafe,
		}[no.Kind]
		return refused(kind, "%v", err)
	case errors.Is(err, context.DeadlineExceeded):
		return refused(client.KindTimeout, "%v", err)
	}
	return err
}

// serverJob maps what is asked of the database's server as a job: it is the cluster's to start and to stop.
func (a *agent) serverJob(name string) error {
	if a.member == nil || name != a.cfg.DatabaseJob() {
		return nil
	}
	return refused(client.KindHeld, "job %s is a database's server, which its cluster starts and stops; see drover restart %s, drover switchover and drover pause", name, name)
}

// DatabaseMembers is control.Agent's.
func (a *agent) DatabaseMembers() (client.DatabaseCluster, error) {
	m, err := a.cluster()
	if err != nil {
		return client.DatabaseCluster{}, err
	}
	v := m.View()
	c := client.DatabaseCluster{
		Cluster: a.cfg.Database.Cluster, Engine: string(a.cfg.Database.Engine), Member: v.Name, Primary: v.Primary, Epoch: v.Epoch,
		Members: []client.DatabaseMember{},
	}
	if v.Record == nil {
		return c, nil
	}
	c.Standby = v.Record.Phase == failover.Standby
	c.Mode, c.Acks, c.Paused, c.Switchover = string(v.Record.Mode), v.Record.Set.Acks, v.Record.Paused, pendingSwitchover(v.Record)
	c.Withdrawn = withdrawn(v.Record)
	leader, _ := m.Named(v, v.Primary)
	c.Roll, c.Stopped = leader.Roll, leader.Stopped
	c.Backups = allBackups(v)
	for _, name := range v.Names() {
		one := memberOf(m, v, name)
		if all := c.Backups; all != nil && all.By == name {
			one.LastBackup = all.Last
		}
		c.Members = append(c.Members, one)
	}
	if s, ok := m.Named(v, v.Primary); ok && c.Backups != nil {
		if said := backupsOf(s.View); said != nil {
			said.Last, said.By, said.RestoreTest = c.Backups.Last, c.Backups.By, c.Backups.RestoreTest
			c.Backups = said
		}
	}
	return c, nil
}

func memberOf(m *database.Member, v database.View, name string) client.DatabaseMember {
	r := v.Record.Members[name]
	one := client.DatabaseMember{
		Name: name, Role: string(database.RoleNone), State: "silent", Host: r.Host, Port: r.Port, API: r.API, Version: r.Version,
		Tags: r.Tags.List(),
	}
	s, ok := m.Named(v, name)
	if !ok {
		return one
	}
	one.Role, one.State, one.Sync, one.Receiving, one.Timeline = string(s.Role), s.State, s.Sync, s.Receiving, s.Timeline
	one.Why, one.Restart, one.Pending, one.Server, one.Backups = s.Why, s.Restart, s.Pending, s.Server, backupsOf(s.View)
	switch s.Role {
	case database.RoleReplica:
		one.Lag = s.Lag
	case database.RoleStandby:
		one.Position, _, _ = strings.Cut(s.Applied, "<") // without where it comes from
		one.LastCommit = moment(s.Committed)
	}
	return one
}

// moment is nil of no time.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func pendingSwitchover(r *failover.Record) *client.DatabaseSwitchover {
	if r.Switchover == nil {
		return nil
	}
	s := &client.DatabaseSwitchover{To: r.Switchover.To, Force: r.Switchover.Force}
	if at := r.Switchover.At; !at.IsZero() {
		s.At = &at
	}
	return s
}

func withdrawn(r *failover.Record) *client.DatabaseWithdrawn {
	if r.Withdrawn == nil {
		return nil
	}
	return &client.DatabaseWithdrawn{To: r.Withdrawn.To, Why: r.Withdrawn.Why, Time: r.Withdrawn.Time}
}

// DatabaseHistory is control.Agent's.
func (a *agent) DatabaseHistory() (client.DatabaseHistory, error) {
	m, err := a.cluster()
	if err != nil {
		return client.DatabaseHistory{}, err
	}
	h := client.DatabaseHistory{Reigns: []client.DatabaseReign{}}
	r := m.View().Record
	if r == nil {
		return h, nil
	}
	h.Withdrawn = withdrawn(r)
	for _, reign := range r.History {
		h.Reigns = append(h.Reigns, client.DatabaseReign{
			Epoch: reign.Epoch, Primary: cmp.Or(r.Name(reign.Primary), database.MemberOf(reign.Primary)), Reason: reign.Reason, Time: reign.Time, Timeline: reign.Timeline, Position: reign.From,
		})
	}
	return h, nil
}

// database is the status of the member; nil: there is none.
func (a *agent) database() *client.Database {
	m, err := a.cluster()
	if err != nil {
		return nil
	}
	v := m.View()
	d := &client.Database{
		Cluster: a.cfg.Database.Cluster, Engine: string(a.cfg.Database.Engine), Role: string(v.Role), Primary: v.Primary, Epoch: v.Epoch,
		Timeline: v.Timeline, Sync: v.Sync, Without: v.Vacant.Seconds(), Restart: v.Restart, Elections: v.Elections, Copies: v.Copies, Why: v.Why,
		Mode: string(a.cfg.Database.Synchronous), Pending: v.Pending, Backups: allBackups(v),
	}
	leader, _ := m.Named(v, v.Primary)
	d.Roll, d.RollStopped = leader.Roll, leader.Stopped
	switch v.Role {
	case database.RoleReplica:
		d.Lag = v.Lag
	case database.RoleStandby:
		d.Committed = moment(v.Committed)
		d.Why = cmp.Or(d.Why, a.member.follow.wrong())
	}
	if r := v.Record; r != nil {
		d.Standby = r.Phase == failover.Standby
		d.Mode, d.Acks, d.Paused, d.Switchover = string(r.Mode), r.Set.Acks, r.Paused, pendingSwitchover(r)
		d.Withdrawn = withdrawn(r)
		for _, id := range r.Set.Members {
			if name := r.Name(id); name != "" {
				d.SyncMembers = append(d.SyncMembers, name)
			}
		}
		slices.Sort(d.SyncMembers)
	}
	if d.Mode != string(failover.Off) && !d.Standby {
		d.AcksWanted = a.cfg.Database.Acknowledgements
	}
	return d
}

// databaseHealth says what is wrong with a cluster, in one line; empty: nothing.
func databaseHealth(d *client.Database) string {
	why := ""
	if d.Why != "" {
		why = ": " + d.Why
	}
	switch {
	case d.Standby && d.Role == string(database.RoleStandby) && d.Why != "":
		return d.Why
	case d.Standby && d.Role == string(database.RoleNone):
		return "the database's member does not apply the log of the cluster that it follows" + why
	case d.Primary == "" && !d.Standby:
		return "the database has no primary" + why
	case d.Role == string(database.RoleNone):
		return "the database's member is neither primary nor replica" + why
	case d.Acks < d.AcksWanted:
		return "commits are acknowledged by fewer replicas than they should be: another loss could lose some"
	case d.Paused:
		return "failover is paused"
	case d.RollStopped:
		return d.Roll
	}
	return backupsHealth(d.Backups)
}

// databaseStatus fills in the part of a database's member.
func (a *agent) databaseStatus(s *client.Status) {
	if a.member == nil {
		return
	}
	s.Role = "waiting"
	if s.Database = a.database(); s.Database == nil {
		s.Health, s.Message = "degraded", "the database's member has not begun yet"
		return
	}
	s.Epoch = s.Database.Epoch
	if b := s.Database.Backups; b != nil {
		s.RestoreTest = b.RestoreTest
	}
	if s.Database.Role != string(database.RoleNone) {
		s.Role = s.Database.Role
	}
	bad := databaseHealth(s.Database)
	a.mu.Lock()
	store := a.member.store
	a.mu.Unlock()
	if store != nil && store.mirror != nil && store.mirror.turn() {
		s.Mirror = store.mirror.status(protocol.Head{})
		bad = cmp.Or(bad, store.mirror.health(s.Mirror))
	}
	if bad != "" && s.Health == "ok" {
		s.Health, s.Message = "degraded", bad
	}
}
