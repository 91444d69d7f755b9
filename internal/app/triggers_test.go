package app

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/config"
	"drover/internal/volume"
)

func TestTriggersDebounceChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changed := make(chan struct{})
		var at []time.Duration
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		go triggers{
			onChange: 2 * time.Second, changed: changed,
			backup: func() { at = append(at, time.Since(start)) },
		}.run(ctx)
		changed <- struct{}{} // at 0 s
		time.Sleep(time.Second)
		changed <- struct{}{} // at 1 s: quiet until 3 s
		time.Sleep(9 * time.Second)
		for range 60 { // from 10 s, ceaseless: due at 10 + 20 s, then again
			changed <- struct{}{}
			time.Sleep(500 * time.Millisecond)
		}
		cancel()
		synctest.Wait()
		want := []time.Duration{3 * time.Second, 30 * time.Second}
		if len(at) != 2 || at[0] != want[0] || at[1] != want[1] {
			t.Fatalf("backups at %v, want %v", at, want)
		}
	})
}

func TestTriggersFollowTheSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour+time.Minute)
		defer cancel()
		triggers{every: time.Hour, backup: func() { n++ }}.run(ctx)
		if n != 3 {
			t.Fatalf("%d backups in three hours, want 3", n)
		}
	})
}

// A last backup that would not fit the scheduler's grace is told of while there is
// time to change that: once, not at each backup.
func TestWarnOfGrace(t *testing.T) {
	for _, c := range []struct {
		onStop bool
		took   float64
		want   int
	}{{true, 9, 0}, {true, 11, 1}, {false, 60, 0}} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			a := &agent{cfg: config.Default(), log: slog.New(slog.NewTextHandler(&log, nil))}
			a.cfg.Backup.OnStop = c.onStop
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			a.warnOfGrace(ctx, func() volume.Stats {
				return volume.Stats{LastBackup: volume.CaptureStats{Seconds: c.took}}
			})
			if got := strings.Count(log.String(), "stop_grace_period"); got != c.want {
				t.Errorf("%+v: warned %d times: %s", c, got, log.String())
			}
		})
	}
}
