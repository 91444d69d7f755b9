package app

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"drover/client"
	"drover/internal/coord"
	"drover/internal/coord/mem"
	"drover/internal/database"
)

// TestRoleService: the catalog has the member as what it is, and not while it is nothing.
func TestRoleService(t *testing.T) {
	co := mem.New()
	defer func() { _ = co.Close() }()
	s := newRoleService(co, slog.New(slog.DiscardHandler), "db", "m1", "10.0.0.1", 5432)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.run(ctx) }()
	seen := make(chan []coord.Instance, 100)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		co.WatchService(ctx, coord.Query{Name: "db"}, func(list []coord.Instance, err error) {
			if err == nil {
				seen <- list
			}
		})
	}()
	until := func(what string, holds func([]coord.Instance) bool) {
		t.Helper()
		for deadline := time.After(time.Minute); ; {
			select {
			case list := <-seen:
				if holds(list) {
					return
				}
			case <-deadline:
				t.Fatalf("the catalog never has %s", what)
			}
		}
	}
	none := func(list []coord.Instance) bool { return len(list) == 0 }
	as := func(tag, epoch, timeline string) func([]coord.Instance) bool {
		return func(list []coord.Instance) bool {
			return len(list) == 1 && list[0].Tags[0] == tag && list[0].Meta["epoch"] == epoch && list[0].Meta["timeline"] == timeline &&
				list[0].Address == "10.0.0.1" && list[0].Port == 5432
		}
	}
	until("nothing", none)
	s.become(database.Change{Role: database.RoleReplica, Primary: "m2", Epoch: 2, Timeline: "1"})
	until("a replica", as("replica", "2", "1"))
	s.become(database.Change{Role: database.RoleNone, Epoch: 3})
	until("nobody", none)
	s.become(database.Change{Role: database.RolePrimary, Primary: "m1", Epoch: 3, Timeline: "2"})
	until("a primary", as("primary", "3", "2"))
	cancel()
	<-done
	<-watching
}

func TestDatabaseHealth(t *testing.T) {
	well := client.Database{Role: "replica", Primary: "m1", Acks: 1, AcksWanted: 1}
	for want, change := range map[string]func(*client.Database){
		"":                                func(*client.Database) {},
		"the database has no primary":     func(d *client.Database) { d.Primary = "" },
		"the database has no primary: it": func(d *client.Database) { d.Primary, d.Why = "", "it" },
		"the database's member is neither primary nor replica: copying":                                func(d *client.Database) { d.Role, d.Why = "none", "copying" },
		"commits are acknowledged by fewer replicas than they should be: another loss could lose some": func(d *client.Database) { d.Acks = 0 },
		"failover is paused": func(d *client.Database) { d.Paused = true },
		"it cannot be fetched": func(d *client.Database) {
			d.Standby, d.Role, d.Primary, d.Why, d.AcksWanted = true, "standby", "", "it cannot be fetched", 0
		},
		"the database's member does not apply the log of the cluster that it follows: starting": func(d *client.Database) {
			d.Standby, d.Role, d.Primary, d.Why = true, "none", "", "starting"
		},
	} {
		d := well
		change(&d)
		if got := databaseHealth(&d); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestNoMember: an instance without a database says so.
func TestNoMember(t *testing.T) {
	a := &agent{}
	for _, err := range []error{
		func() error { _, err := a.DatabaseMembers(); return err }(),
		func() error { _, err := a.Switchover(t.Context(), client.SwitchoverRequest{}); return err }(),
		func() error { _, err := a.Pause(t.Context(), true); return err }(),
	} {
		if e, ok := err.(*client.Error); !ok || e.Kind != client.KindUnknown { //nolint:errorlint // it is made as that
			t.Error(err)
		}
	}
}
