package app

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"drover/client"
	"drover/internal/database"
)

// registerDatabase registers how a database's member and its cluster are. Without a database all are 0.
func registerDatabase(reg *prometheus.Registry, a *agent) {
	of := func(f func(*client.Database) float64) func() float64 {
		return func() float64 {
			if d := a.database(); d != nil {
				return f(d)
			}
			return 0
		}
	}
	gauge := func(name, help string, f func(*client.Database) float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "drover", Subsystem: "database", Name: name, Help: help}, of(f)))
	}
	counter := func(name, help string, f func(*client.Database) float64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "drover", Subsystem: "database", Name: name, Help: help}, of(f)))
	}
	gauge("primary", "1 while this member is the primary and admits clients.", func(d *client.Database) float64 { return truth(d.Role == string(database.RolePrimary)) })
	gauge("replica", "1 while this member is a replica that receives from the primary.", func(d *client.Database) float64 { return truth(d.Role == string(database.RoleReplica)) })
	gauge("standby", "1 while this member applies the archive of another cluster.", func(d *client.Database) float64 { return truth(d.Role == string(database.RoleStandby)) })
	gauge("last_commit_timestamp_seconds", "Of a standby: when the last commit that it has applied was made, by the clock of the primary there; 0: not known.", func(d *client.Database) float64 {
		if d.Committed == nil {
			return 0
		}
		return float64(d.Committed.UnixMilli()) / 1000
	})
	gauge("epoch", "Epoch of the cluster's record: it grows with each election.", func(d *client.Database) float64 { return float64(d.Epoch) })
	gauge("timeline", "Timeline of this member's history.", func(d *client.Database) float64 {
		n, err := strconv.ParseFloat(d.Timeline, 64)
		return n * truth(err == nil)
	})
	gauge("lag_bytes", "How far this replica is behind the primary in applying; -1: not known.", func(d *client.Database) float64 {
		switch {
		case d.Role == string(database.RolePrimary):
			return 0
		case d.Lag == nil:
			return -1
		}
		return float64(*d.Lag)
	})
	gauge("synchronous_members", "Replicas that commits may wait for.", func(d *client.Database) float64 { return float64(len(d.SyncMembers)) })
	gauge("acknowledgements", "How many replicas acknowledge each commit at present.", func(d *client.Database) float64 { return float64(d.Acks) })
	gauge("acknowledgements_wanted", "How many should.", func(d *client.Database) float64 { return float64(d.AcksWanted) })
	gauge("without_primary_seconds", "For how long this member has known of no primary; 0: there is one.", func(d *client.Database) float64 { return d.Without })
	gauge("paused", "1 while failover is paused.", func(d *client.Database) float64 { return truth(d.Paused) })
	gauge("restart_needed", "1 while some parameter waits for a restart of this server.", func(d *client.Database) float64 { return truth(d.Restart) })
	counter("elections_total", "Elections that this agent has heard of.", func(d *client.Database) float64 { return float64(d.Elections) })
	counter("reinits_total", "How often the files here were made anew from another member's, in whole or in part.", func(d *client.Database) float64 { return float64(d.Copies) })
	ofBackups := func(f func(*client.DatabaseBackups) float64) func(*client.Database) float64 {
		return func(d *client.Database) float64 {
			if d.Backups == nil {
				return 0
			}
			return f(d.Backups)
		}
	}
	gauge("backup_interval_seconds", "How often a base backup is to be made; 0: there are none.", ofBackups(func(*client.DatabaseBackups) float64 { return a.cfg.Database.Backup.Every.Std().Seconds() }))
	gauge("last_backup_timestamp_seconds", "End of the newest base backup that is known, whoever made it, by its server's clock; 0: none is.", ofBackups(func(b *client.DatabaseBackups) float64 { return timestamp(b.Last) }))
	gauge("backup_failing", "1 while this member is the one to make base backups, and its last attempt failed.", ofBackups(func(b *client.DatabaseBackups) float64 { return truth(b.Error != "") }))
	counter("backup_failures_total", "Attempts of this agent to make a base backup that failed.", ofBackups(func(b *client.DatabaseBackups) float64 { return float64(b.Failures) }))
	gauge("last_archived_timestamp_seconds", "When this agent last stored a segment of the log; 0: not yet.", ofBackups(func(b *client.DatabaseBackups) float64 { return timestamp(b.ArchivedAt) }))
	gauge("archive_waiting_segments", "Segments of the log that are full, and not archived.", ofBackups(func(b *client.DatabaseBackups) float64 { return float64(b.Waiting) }))
	gauge("archive_waiting_bytes", "Bytes of the segments that are full, and not archived.", ofBackups(func(b *client.DatabaseBackups) float64 { return float64(b.WaitingBytes) }))
	gauge("archive_waiting_seconds", "For how long the first segment that is not archived has been full.", ofBackups(func(b *client.DatabaseBackups) float64 { return b.WaitingSeconds }))
	gauge("archive_failing", "1 while the last attempt of this agent to store a file of the log failed.", ofBackups(func(b *client.DatabaseBackups) float64 { return truth(b.ArchiveError != "") }))
	counter("archive_failures_total", "Attempts of this agent to store a file of the log that failed.", ofBackups(func(b *client.DatabaseBackups) float64 { return float64(b.ArchiveFailures) }))
}

// timestamp is a time in seconds; nil: 0.
func timestamp(t *time.Time) float64 {
	if t == nil {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}
