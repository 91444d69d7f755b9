package app

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"drover/internal/config"
	"drover/internal/database"
	"drover/internal/database/wal"
	"drover/internal/failover"
	"drover/internal/repo/fstest"
)

// TestLost: a member is made anew only if what it has leads nowhere, and a base backup does.
func TestLost(t *testing.T) {
	a := newTestArchive(t)
	is := func(want, applied string) {
		t.Helper()
		got, err := lost(t.Context(), a.at, applied)
		if err != nil || !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("%s: %q, %v; want %q", applied, got, err, want)
		}
	}
	is("", "1/0/350000") // no backup
	a.backup("first", 1, 3)
	a.segments(1, 3, 4)
	is("", "1/0/350000") // it gets on
	is("", "1/0/500000") // the next segment comes, maybe
	a.backup("second", 1, 8)
	a.segments(1, 8)
	is("", "1/0/350000")
	is("the log from 0/500000 on is not archived any more", "1/0/500000")
	is("", "1/0/800100")

	a.history(2, "1\t0/800200\twhy\n")
	is("", "1/0/800200")
	is("it has applied timeline 1 up to 0/800300, and was left before that", "1/0/800300")
	is("", "2/0/900000<1/0/800200")
	if _, err := lost(t.Context(), a.at, "nonsense"); err == nil {
		t.Error("that is no position")
	}
}

// TestFollowed: the log of another cluster is brought, and nothing is written there; once the cluster is one of its own
// nobody is asked any more.
func TestFollowed(t *testing.T) {
	cfg := config.Default()
	cfg.Volume, cfg.Database = "data", config.DefaultDatabase()
	cfg.Database.Data = t.TempDir()
	cfg.Database.StandbyOf.Store = config.Store{URL: "file://" + t.TempDir(), Password: config.NewSecret("sesame")}
	var carried walArchive
	f, err := openFollowed(t.Context(), cfg, nil, func(w walArchive) { carried = w }, slog.New(slog.DiscardHandler))
	fstest.Must(t, err)
	defer f.close()
	if err := f.Seed(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "has no volume \"data\"") {
		t.Errorf("seeded from nothing: %v", err)
	}
	own := *f.cfg
	st, err := openStore(t.Context(), &own, nil, 1, f.log)
	fstest.Must(t, err)
	_, _, err = openVolume(t.Context(), st, &own, true, f.log)
	fstest.Must(t, err)
	if err := f.Seed(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "has no base backup") {
		t.Errorf("seeded from nothing: %v", err)
	}
	view := database.View{System: "42", Record: &failover.Record{Phase: failover.Standby}}
	fstest.Must(t, f.look(t.Context(), view, nil))
	if carried == nil {
		t.Fatal("nobody brings the log")
	}
	name := "000000010000000000000003"
	if err := carried.Bring(t.Context(), name, filepath.Join(cfg.Database.Data, "pg_wal", name)); !errors.Is(err, wal.ErrNotFound) {
		t.Errorf("brought what is not there: %v", err)
	}
	if err := carried.Store(t.Context(), filepath.Join(cfg.Database.Data, "pg_wal", name)); err == nil {
		t.Error("stored in another cluster's archive")
	}
	if err := f.st.Put(t.Context(), "data/x", nil); err == nil {
		t.Error("wrote into another cluster's store")
	}
	if f.wrong() != "" {
		t.Errorf("that a file is not there yet is a fault: %s", f.wrong())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := carried.Bring(ctx, name, filepath.Join(cfg.Database.Data, "pg_wal", name)); err == nil || f.wrong() == "" {
		t.Errorf("%v, and nothing is wrong", err)
	}
	view.Record = &failover.Record{Phase: failover.Running}
	fstest.Must(t, f.look(t.Context(), view, nil))
	if !f.ignored || f.courier != nil {
		t.Error("a cluster of its own still follows")
	}
}
