package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"drover/client"
	"drover/internal/app"
)

// store is a fake of several volumes.
type fakeStore map[string]struct {
	status client.Status
	err    error
}

type fakeVolume struct {
	fakeOps
	store  fakeStore
	volume string
}

func (f *fakeVolume) Status(context.Context) (client.Status, error) {
	one := f.store[f.volume]
	return one.status, one.err
}

// TestStatusOfAll: a line for each volume, also for one that cannot be read, which makes
// the command fail in the end.
func TestStatusOfAll(t *testing.T) {
	store := fakeStore{}
	volumes := []string{"data-a", "data-b", "made", "other"}
	add := func(name string, st client.Status, err error) {
		one := store[name]
		one.status, one.err = st, err
		store[name] = one
	}
	commit := time.Unix(1e9, 0)
	add("data-a", client.Status{Commit: &commit, Snapshot: "3333333344444444", Health: "ok", State: "held", Holder: "a", Epoch: 3, Seq: 2, Role: "none"}, nil)
	add("data-b", client.Status{Health: "degraded", Message: "b has been\nsilent", State: "held", Holder: "b", Epoch: 1, Role: "none"}, nil)
	add("made", client.Status{}, fmt.Errorf("open: %w", app.ErrNoRepository))
	add("other", client.Status{}, fmt.Errorf("open: %w", app.ErrWrongPassword))
	w := func(names []string) World {
		return World{ops: func(cfg *app.Config, _ *slog.Logger) operations {
			return &fakeVolume{fakeOps{volumes: names}, store, cfg.Volume}
		}}
	}
	got := tryIn(t, t.Context(), w(volumes), storeEnv, "status", "--all")
	lines := strings.Split(strings.TrimSpace(got.out), "\n")
	if got.code != exitWrongPassword || len(lines) != 5 || got.err != "drover: 1 of 4 volumes could not be read: open: "+app.ErrWrongPassword.Error()+"; check DROVER_PASSWORD or the password file\n" {
		t.Fatalf("%+v", got)
	}
	for i, want := range []string{
		"VOLUME HOLDER EPOCH LAST COMMIT HEALTH", "data-a a 3 1m30s ago: 33333333 (seq 2) ok", "data-b b 1 none yet degraded: b has been; silent",
		"made nobody (not made yet) 0 none yet ok", "other ? 0 ? failed: open: wrong password",
	} {
		if line := strings.Join(strings.Fields(lines[i]), " "); !strings.HasPrefix(line, want) {
			t.Errorf("line %d is %q, want %q", i, line, want)
		}
	}
	var all []client.Status
	got = tryIn(t, t.Context(), w(volumes[:2]), storeEnv, "status", "--all", "--json")
	if err := json.Unmarshal([]byte(got.out), &all); err != nil || got.code != 0 || len(all) != 2 || all[1].Volume != "data-b" || all[1].Health != "degraded" {
		t.Errorf("%+v, %v", got, err)
	}
	if got = tryIn(t, t.Context(), w(nil), storeEnv, "status", "--all"); got.code != 0 || got.out != "no volumes\n" {
		t.Errorf("%+v", got)
	}
	for _, one := range []string{"--slot=1", "--volume=a"} {
		if got = tryIn(t, t.Context(), w(volumes), storeEnv, "status", "--all", one); got.code != exitUsage {
			t.Errorf("%+v", got)
		}
	}
}

// TestStatusOfSlots: a line for each slot.
func TestStatusOfSlots(t *testing.T) {
	store := fakeStore{}
	one := store["data-0"]
	one.status = client.Status{Health: "ok", State: "held", Holder: "a", Epoch: 3, Role: "none"}
	store["data-0"] = one
	one.status, one.err = client.Status{}, app.ErrNoRepository
	store["data-1"] = one
	w := World{ops: func(cfg *app.Config, _ *slog.Logger) operations { return &fakeVolume{fakeOps{}, store, cfg.Volume} }}
	env := map[string]string{"DROVER_OWNERSHIP": "slot", "DROVER_SLOTS": "2", "DROVER_SOCKET": "/no/agent"}
	for k, v := range storeEnv {
		env[k] = v
	}
	got := tryIn(t, t.Context(), w, env, "status")
	if got.code != 0 || strings.Join(strings.Fields(got.out), " ") != "SLOT VOLUME HOLDER EPOCH LAST COMMIT HEALTH 0 data-0 a 3 none yet ok 1 data-1 nobody (not made yet) 0 none yet ok" {
		t.Errorf("%+v", got)
	}
}
