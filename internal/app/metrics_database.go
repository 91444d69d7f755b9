package app

import (
	"strconv"

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
}
