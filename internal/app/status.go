package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"drover/client"
	"drover/internal/config"
	"drover/internal/render"
	"drover/internal/volume"
	"drover/internal/volume/protocol"
	"drover/internal/volume/slots"
)

// Status is control.Agent's.
func (a *agent) Status() (s client.Status) {
	s = client.Status{
		Service: a.cfg.Service, Instance: a.cfg.ID, Version: Version, Role: "supervisor",
		Health: "ok", Jobs: a.jobStates(), Services: a.services.states(), Watches: a.watches.states(), Templates: a.renders.current().status(), Rolls: a.renders.current().rollStates(), Secrets: a.secrets.state(), Git: gitState(a.git), Started: a.started, Maintenance: a.maintenance.Load(),
	}
	a.databaseStatus(&s)
	if a.member != nil || !a.cfg.HasVolume() {
		jobsHealth(&s)
		return s
	}
	defer jobsHealth(&s)
	s.Volume, s.Fence, s.Role = a.cfg.Volume, string(a.cfg.Fence), string(protocol.PhaseStarting)
	a.mu.Lock()
	t, waits := a.tenure, a.waits
	a.mu.Unlock()
	s.Slots = a.cfg.Slots
	switch {
	case t == nil && waits != "":
		s.Role, s.Message = RoleSpare, waits
		return s
	case t == nil:
		s.Health, s.Message = "degraded", a.notOpen()
		return s
	case t.slot != slots.None:
		s.Slot, s.Volume = &t.slot, t.cfg.Volume
	}
	rt := t.rt
	status, stats := rt.Status()
	headStatus(&s, status.Head)
	s.Role, s.Copied = string(status.Phase), status.Copied
	s.Diverged = stats.Diverged
	s.Health, s.Message = health(status, stats)
	if status.Phase == protocol.PhaseHolder {
		s.Pending = t.tracked.dirty.Load()
		if s.Pending && !stats.Captured.IsZero() {
			s.RPO = time.Since(stats.Captured).Seconds()
		}
		if t.mirror != nil {
			s.Mirror = t.mirror.status(status.Head)
			if bad := t.mirror.health(s.Mirror); bad != "" && s.Health == "ok" {
				s.Health, s.Message = "degraded", bad
			}
		}
	}
	if t.upkeep != nil && status.Phase == protocol.PhaseHolder {
		s.Upkeep = upkeepOf(t.upkeep.Stats())
		if s.Upkeep.Error != "" && s.Health == "ok" {
			s.Health, s.Message = "degraded", "upkeep: "+s.Upkeep.Error
		}
	}
	s.Progress = progressOf(rt.Progress(), time.Now())
	if stats.Restore > 0 {
		rto := stats.Restore.Seconds()
		s.RTO = &rto
	}
	if s.RestoreTest = restoreTestOf(t.tests.outcome()); s.RestoreTest != nil {
		if bad := restoreTestHealth(s.RestoreTest); bad != "" && s.Health == "ok" && status.Phase == protocol.PhaseHolder {
			s.Health, s.Message = "degraded", bad
		}
		if r := s.RestoreTest; r.Passed && (s.RTO == nil || r.Time.After(a.started)) {
			s.RTO = &r.Restore
		}
	}
	if !stats.LastBackup.Start.IsZero() {
		b := backupOf(volume.Outcome{Head: status.Head, Capture: stats.LastBackup}, 0, stats.LastError)
		s.LastBackup = &b
	}
	return s
}

// templatesHealth degrades what is well so far if a template is not.
func templatesHealth(s *client.Status) {
	for _, t := range s.Templates {
		bad := t.Error
		if bad == "" {
			bad = t.Unacted
		}
		if bad == "" && t.State == string(render.Blocked) && len(t.Missing) > 0 {
			bad = "waits for " + t.Missing[0]
		}
		if bad != "" && s.Health == "ok" {
			s.Health, s.Message = "degraded", "template "+t.Name+": "+bad
		}
	}
	if v := s.Secrets; v != nil && !v.Healthy && s.Health == "ok" {
		s.Health, s.Message = "degraded", "Vault does not serve some secrets: the last ones stay in use"
		if v.Error != "" {
			s.Message = "Vault: " + v.Error
		}
	}
}

// jobsHealth degrades what is well so far if a job is not.
func jobsHealth(s *client.Status) {
	defer templatesHealth(s)
	for _, job := range s.Jobs {
		bad := ""
		switch {
		case s.Health != "ok":
			return
		case job.Health == "unhealthy":
			bad = "unhealthy"
		case job.State == "restarting" && job.Restarts > 2:
			bad = fmt.Sprintf("failing: restarted %d times in a row", job.Restarts)
		}
		if bad != "" {
			s.Health, s.Message = "degraded", "job "+job.Name+" is "+bad
		}
	}
}

func health(status protocol.Status, stats volume.Stats) (health, message string) {
	switch {
	case status.Phase == protocol.PhaseFault:
		return "failed", status.Reason
	case stats.Unavailable != nil:
		return "degraded", "the store does not answer: " + stats.Unavailable.Error()
	case stats.LastError != nil:
		return "degraded", "the last backup failed: " + stats.LastError.Error()
	case stats.LastBackup.Fallback != nil:
		return "degraded", "the last backup's files were read while the application ran: " + stats.LastBackup.Fallback.Error()
	}
	return "ok", status.Reason
}

// RoleSpare is the role of an instance that waits for any slot.
const RoleSpare = "spare"

// notOpen says why there is no tenure.
func (a *agent) notOpen() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.waits != "":
		return "this instance " + a.waits
	case !a.cfg.HasVolume():
		return "no store is configured"
	}
	return "the volume is not open yet: waiting for the store"
}

// Backup is control.Agent's.
func (a *agent) Backup(ctx context.Context, queue bool) (client.Backup, error) {
	t := a.current()
	if t == nil {
		return client.Backup{Kind: "failed"}, errors.New("no backup: " + a.notOpen())
	}
	rt := t.rt
	start := time.Now()
	if queue {
		if s, _ := rt.Status(); s.Phase == protocol.PhaseStandby {
			err := fmt.Errorf("%w by another instance: %s", ErrHeld, s.Head.Holder.ID)
			return backupOf(volume.Outcome{}, 0, err), err
		}
		rt.Queue()
		return client.Backup{Queued: true}, nil
	}
	out, err := rt.Backup(ctx)
	return backupOf(out, time.Since(start), err), err
}

// backupOf tells an outcome as the API does.
func backupOf(out volume.Outcome, took time.Duration, err error) client.Backup {
	c := out.Capture
	b := client.Backup{
		Snapshot: c.Snapshot, Epoch: out.Head.Epoch, Seq: out.Head.Seq, Unchanged: c.Unchanged,
		Time: c.Start, Seconds: took.Seconds(), Bytes: c.Bytes, Added: c.Added, Files: c.Files,
		Skipped: c.Unreadable, Walked: c.Walked, Kind: kindOf(err), Consistent: c.Still, Pause: c.Pause.Seconds(),
	}
	if c.Fallback != nil {
		b.Fallback = c.Fallback.Error()
	}
	if b.Seconds == 0 {
		b.Seconds = c.Seconds
	}
	if err != nil {
		b.Error = err.Error()
	}
	return b
}

func kindOf(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrIncomplete):
		return "incomplete"
	case errors.Is(err, ErrHeld):
		return "held"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return "timeout"
	}
	return "failed"
}

// registerMetrics registers what status tells as gauges.
func registerMetrics(reg *prometheus.Registry, a *agent) {
	gauge := func(name, help string, f func(client.Status) float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "drover", Name: name, Help: help},
			func() float64 { return f(a.Status()) }))
	}
	counter := func(name, help string, f func(client.Status) float64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "drover", Name: name, Help: help},
			func() float64 { return f(a.Status()) }))
	}
	gauge("holder", "1 while this instance holds the volume.", func(s client.Status) float64 {
		return truth(s.Role == string(protocol.PhaseHolder))
	})
	gauge("healthy", "1 while nothing is degraded or failed.", func(s client.Status) float64 { return truth(s.Health == "ok") })
	gauge("epoch", "Epoch of the head as last seen.", func(s client.Status) float64 { return float64(s.Epoch) })
	gauge("commits", "Sequence number of the newest commit.", func(s client.Status) float64 { return float64(s.Seq) })
	gauge("lease_margin_seconds", "Time until the claim must be renewed: then another may claim, or, under fence: strict, the jobs are killed. 0: no claim.",
		func(client.Status) float64 { return a.leaseMargin().Seconds() })
	gauge("last_backup_seconds", "Duration of the last backup of this agent; 0: none yet.", ofBackup(func(b *client.Backup) float64 { return b.Seconds }))
	gauge("last_backup_added_bytes", "Bytes that the last backup of this agent added to the store.", ofBackup(func(b *client.Backup) float64 { return float64(b.Added) }))
	gauge("last_backup_failed", "1 if the last backup of this agent failed.", ofBackup(func(b *client.Backup) float64 { return truth(b.Error != "") }))
	gauge("rpo_seconds", "Age of the last commit while changes wait, else 0.", func(s client.Status) float64 { return s.RPO })
	gauge("last_commit_timestamp_seconds", "Time of the newest commit, by its holder's clock.", func(s client.Status) float64 {
		if s.Commit == nil {
			return 0
		}
		return float64(s.Commit.UnixNano()) / 1e9
	})
	ofMirror := func(f func(*client.Mirror) float64) func(client.Status) float64 {
		return func(s client.Status) float64 {
			if s.Mirror == nil {
				return 0
			}
			return f(s.Mirror)
		}
	}
	gauge("mirror_behind_commits", "Commits that are not in the mirror yet.", ofMirror(func(m *client.Mirror) float64 { return float64(m.Behind) }))
	gauge("mirror_behind_seconds", "How long there has been something to copy to the mirror.", ofMirror(func(m *client.Mirror) float64 { return m.BehindSeconds }))
	gauge("mirror_failing", "1 while the last attempt to copy to the mirror failed.", ofMirror(func(m *client.Mirror) float64 { return truth(m.Error != "") }))
	gauge("mirror_upkeep_failing", "1 while the upkeep of the mirror cannot do its work, and deletes nothing.", ofMirror(func(m *client.Mirror) float64 { return truth(m.Upkeep != nil && m.Upkeep.Error != "") }))
	registerRestoreTests(gauge)
	ofUpkeep := func(f func(*client.Upkeep) float64) func(client.Status) float64 {
		return func(s client.Status) float64 {
			if s.Upkeep == nil {
				return 0
			}
			return f(s.Upkeep)
		}
	}
	gauge("upkeep_failing", "1 while the upkeep meets something that cannot be read, and deletes nothing.", ofUpkeep(func(u *client.Upkeep) float64 { return truth(u.Error != "") }))
	gauge("damaged_snapshots", "Snapshots that the upkeep's last survey found damaged, or that somebody else removed.", ofUpkeep(func(u *client.Upkeep) float64 { return float64(u.DamagedCount) }))
	gauge("upkeep_packs_waiting", "Packs that are condemned, and not deleted yet.", ofUpkeep(func(u *client.Upkeep) float64 { return float64(u.Waiting) }))
	counter("upkeep_freed_bytes_total", "Bytes of the packs that this agent's upkeep has deleted.", ofUpkeep(func(u *client.Upkeep) float64 { return float64(u.Freed) }))
	counter("upkeep_snapshots_removed_total", "Snapshots that this agent's upkeep has removed by retention.", ofUpkeep(func(u *client.Upkeep) float64 { return float64(u.Removed) }))
	underWay := func(f func(*client.Progress) float64) func(client.Status) float64 {
		return func(s client.Status) float64 {
			if s.Progress == nil {
				return 0
			}
			return f(s.Progress)
		}
	}
	gauge("progress_files", "Files that the restore or backup under way has looked at; 0: none is.", underWay(func(p *client.Progress) float64 { return float64(p.Files) }))
	gauge("progress_bytes", "Bytes of those files.", underWay(func(p *client.Progress) float64 { return float64(p.Bytes) }))
	gauge("progress_total_bytes", "Bytes that it has to look at in all; 0: not known.", underWay(func(p *client.Progress) float64 { return float64(p.TotalBytes) }))
	gauge("progress_seconds", "How long it has taken by now.", underWay(func(p *client.Progress) float64 { return p.Seconds }))
	gauge("restore_seconds", "Duration of the last restore; 0: none yet.", func(s client.Status) float64 {
		if s.RTO == nil {
			return 0
		}
		return *s.RTO
	})
}

func ofBackup(f func(*client.Backup) float64) func(client.Status) float64 {
	return func(s client.Status) float64 {
		if s.LastBackup == nil {
			return 0
		}
		return f(s.LastBackup)
	}
}

// leaseMargin is how long the claim is still good without a renewal; negative: it is
// overdue; 0: this instance holds nothing.
func (a *agent) leaseMargin() time.Duration {
	t := a.current()
	if t == nil {
		return 0
	}
	status, _ := t.rt.Status()
	if status.Phase != protocol.PhaseHolder {
		return 0
	}
	good := t.cfg.Lease.TTL.Std()
	if t.cfg.Fence == config.FenceStrict {
		good -= good / 5 // protocol.Config.Margin
	}
	return status.Renewed - volume.Now() + good
}

// registerRestoreTests registers what the last restore test came to.
func registerRestoreTests(gauge func(name, help string, f func(client.Status) float64)) {
	of := func(f func(*client.RestoreTest) float64) func(client.Status) float64 {
		return func(s client.Status) float64 {
			if s.RestoreTest == nil {
				return 0
			}
			return f(s.RestoreTest)
		}
	}
	gauge("restore_test_timestamp_seconds", "Time of the last restore test that is known, by its instance's clock; 0: none.",
		of(func(t *client.RestoreTest) float64 { return float64(t.Time.UnixNano()) / 1e9 }))
	gauge("restore_test_passed", "1 if the last restore test passed.",
		of(func(t *client.RestoreTest) float64 { return truth(t.Passed) }))
	gauge("restore_test_failed", "1 if the last restore test showed that the newest commit, or base backup, cannot be restored as it should.",
		of(func(t *client.RestoreTest) float64 { return truth(!t.Passed && t.Begun) }))
	gauge("restore_test_restore_seconds", "Duration of the last restore test's restore, with reading everything back.",
		of(func(t *client.RestoreTest) float64 { return t.Restore }))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
