package app

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover/client"
	"drover/internal/repo/fstest"
)

// Somebody removes a snapshot's object, and a pack of another one, from the bucket while
// the agent runs: status names both, the metric counts them, and the newest state is whole.
func TestStatusNamesDamagedSnapshots(t *testing.T) {
	w := newWorkshop(t)
	a := w.run("upkeep: {every: 1s}\n", "sleep", "600")
	packs := func() map[string]bool {
		found, err := filepath.Glob(w.bucket + "/data/data/*/*")
		fstest.Must(t, err)
		set := map[string]bool{}
		for _, p := range found {
			set[p] = true
		}
		return set
	}
	var ids []string
	before, second := map[string]bool{}, []string{}
	for i := range 3 {
		w.write("f", string(fstest.Noise(3000+i)))
		b, err := a.Backup(t.Context(), false)
		if err != nil || b.Error != "" {
			t.Fatalf("%+v, %v", b, err)
		}
		ids = append(ids, b.Snapshot)
		now := packs()
		for p := range now {
			if i == 1 && !before[p] {
				second = append(second, p)
			}
		}
		before = now
	}
	upkeep := func() *client.Upkeep {
		s, err := a.Status(t.Context())
		if err != nil || s.Upkeep == nil {
			return &client.Upkeep{}
		}
		return s.Upkeep
	}
	named := func(u *client.Upkeep, id, why string) bool {
		for _, d := range u.Damaged {
			if d.Snapshot == id && strings.Contains(d.Why, why) {
				return true
			}
		}
		return false
	}
	last := upkeep().Last
	a.until("the upkeep has seen the snapshots", func() bool { return upkeep().Last.After(last) && upkeep().Error == "" })
	if u := upkeep(); u.DamagedCount != 0 {
		t.Fatalf("%+v", u)
	}
	fstest.Must(t, os.Remove(w.bucket+"/data/snapshots/"+ids[0]))
	a.until("the removed snapshot is named", func() bool {
		u := upkeep()
		return u.DamagedCount == 1 && named(u, ids[0], "somebody else removed") && u.Error == ""
	})
	if text := a.metrics(); !strings.Contains(text, "drover_damaged_snapshots 1") {
		t.Error("the metric does not count it")
	}
	for _, p := range second {
		fstest.Must(t, os.Remove(p))
	}
	// What the upkeep has surveyed it does not look at again without a cause: a removed
	// snapshot is one.
	fstest.Must(t, os.Remove(w.bucket+"/data/snapshots/"+ids[2]))
	a.until("the one without its data is named", func() bool {
		u := upkeep()
		return named(u, ids[1], "") && u.Error != ""
	})
	if s, err := a.Status(t.Context()); err != nil || s.Health != "degraded" || !strings.Contains(s.Message, ids[1][:8]) {
		t.Errorf("health %q, %q, %v", s.Health, s.Message, err)
	}
	want := fmt.Sprint(fstest.Noise(10))
	w.write("f", want)
	if b, err := a.Backup(t.Context(), false); err != nil || b.Error != "" {
		t.Fatalf("%+v, %v", b, err)
	}
	a.end()
	fstest.Must(t, os.RemoveAll(w.state), os.Mkdir(w.state, 0o755))
	again := w.run("", "sleep", "600")
	if got, err := os.ReadFile(w.state + "/f"); err != nil || string(got) != want {
		t.Errorf("%.20q, %v", got, err)
	}
	again.end()
}
