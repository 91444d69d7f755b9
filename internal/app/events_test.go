package app

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"drover/internal/event"
	"drover/internal/repo/fstest"
	"drover/internal/volume/protocol"
)

// What happens to the volume causes jobs: its claim, a restore, each commit, its loss.
func TestEventsOfTheVolume(t *testing.T) {
	w := newWorkshop(t)
	w.write("f", "0")
	w.commit()
	fstest.Must(t, os.RemoveAll(w.state), os.Mkdir(w.state, 0o755))
	dir := t.TempDir()
	s := runs(t, fmt.Sprintf(`
store: {url: "file://%s", password: sesame}
state: [%q]
data_dir: %q
lease: {ttl: 1s}
jobs:
  app: {command: [sleep, "600"], main: true, after: {first: succeeded}}
  first: {command: 'test "$(cat %s/f)" = 0 && echo first', once: [claimed]}
  again: {command: echo again, on: [restored, committed]}
  tested: {command: echo tested, on: [test-failed]}
  alarm: {command: 'touch %s/lost', on: [lost]}
`, w.bucket, w.state, dir+"/data", w.state, dir))
	s.event("claimed", "")
	s.event("restored", "")
	s.event("started", "app")
	r := &running{t: t, log: s.log, ended: make(chan error, 1)}
	r.until("the restore has caused a run", func() bool { return s.job("again").Runs == 1 && s.job("again").State == "waiting" })
	if j := s.job("first"); j.Runs != 1 || *j.Exit != 0 {
		t.Errorf("%+v", j)
	}
	w.write("f", "1")
	if b, err := s.Backup(t.Context(), false); err != nil {
		t.Fatal(b, err)
	}
	if e := s.event("committed", ""); e.Text == "" {
		t.Errorf("%+v", e)
	}
	r.until("the commit has caused a run", func() bool { return s.job("again").Runs == 2 })
	s.bus.Publish(event.Event{Name: eventTestFailed})
	r.until("the failed restore test has caused a run", func() bool { return s.job("tested").Runs == 1 })
	// A loss ends all jobs, and runs what it causes outside of the supervisor.
	s.bus.Publish(event.Event{Name: eventLost})
	r.until("the alarm ran", func() bool {
		_, err := os.Stat(filepath.Join(dir, "lost"))
		return err == nil
	})
	if j := s.job("alarm"); j.Runs != 0 {
		t.Errorf("%+v", j)
	}
}

func TestHappenings(t *testing.T) {
	var h happenings
	at := func(p protocol.Phase, seq uint64) protocol.Status {
		return protocol.Status{Phase: p, Head: protocol.Head{Seq: seq, Snapshot: fmt.Sprint(seq)}}
	}
	var got []string
	for _, s := range []protocol.Status{
		at(protocol.PhaseStarting, 0), at(protocol.PhaseStandby, 3), at(protocol.PhaseStandby, 4), at(protocol.PhaseClaiming, 4),
		at(protocol.PhaseRestoring, 4), at(protocol.PhaseHolder, 4), at(protocol.PhaseHolder, 4), at(protocol.PhaseHolder, 5),
		at(protocol.PhaseDeposed, 5), at(protocol.PhaseStandby, 9), at(protocol.PhaseClaiming, 9), at(protocol.PhaseHolder, 9),
		at(protocol.PhaseFenced, 9), at(protocol.PhaseHolder, 9), at(protocol.PhaseStopping, 9), at(protocol.PhaseStopping, 10), at(protocol.PhaseStopped, 10),
	} {
		for _, e := range h.of(s) {
			got = append(got, e.Name+e.Text)
		}
	}
	want := []string{"claimed", "restored", "committed5", "lost", "claimed", "lost", "claimed", "committed10"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
