package app

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"drover/client"
	"drover/internal/event"
	"drover/internal/repo/fstest"
	"drover/internal/volume"
)

// Of work that takes its time the log tells again and again; of what is soon over, nothing.
func TestTellProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(logBuffer)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Second)
		defer cancel()
		bus := event.NewBus(10)
		tellProgress(ctx, slog.New(slog.NewTextHandler(log, nil)), bus.Publish, func() *volume.Progress {
			now := time.Since(start)
			switch {
			case now < 50*time.Second: // a new one each time
				return &volume.Progress{Work: "backup", Since: time.Now()}
			case now < 170*time.Second:
				return &volume.Progress{Work: "restore", Since: start.Add(50 * time.Second), Bytes: int64(now.Seconds()-50) * 10, TotalBytes: 2000}
			}
			return nil
		})
		if got := log.String(); strings.Count(got, "restore goes on") != 3 || strings.Contains(got, "backup") || !strings.Contains(got, "bytes=700 total_bytes=2000 took=1m10s left=2m10s") {
			t.Error(got)
		}
		sub := bus.Subscribe(event.Options{Recent: 10, Queue: 10})
		defer sub.Close()
		e, _, err := sub.Next(t.Context())
		if err != nil || e.Seq != 1 || e.Name != "progress" || e.Source != "restore" || e.Text != "0 of 0 files, 400 of 2000 bytes, 2m40s left" {
			t.Errorf("%+v, %v", e, err)
		}
	})
}

// An agent that restores, or backs up, says how far it is, and nothing when it is done.
func TestProgressOfAnAgent(t *testing.T) {
	w := newWorkshop(t)
	for _, name := range []string{"a", "b", "c", "d"} {
		w.write(name, string(fstest.Noise(256<<10)))
	}
	env := w.env()
	env["DROVER_LIMIT_UPLOAD"] = "512KiB"
	a := startAgent(t, env, w.state, "", "sleep", "600")
	done := make(chan error, 1)
	go func() { _, err := a.Backup(t.Context(), false); done <- err }()
	var seen *client.Progress
	a.until("a backup under way is told of", func() bool {
		s, err := a.Status(t.Context())
		if err == nil && s.Progress != nil && s.Progress.Files > 0 {
			seen = s.Progress
		}
		return seen != nil
	})
	if seen.Work != "backup" || seen.Seconds <= 0 || seen.TotalFiles != 0 {
		t.Errorf("%+v", seen)
	}
	fstest.Must(t, <-done)
	if s, err := a.Status(t.Context()); err != nil || s.Progress != nil {
		t.Errorf("when it is done: %+v, %v", s.Progress, err)
	}
}
