package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drover/client"
	"drover/internal/event"
	"drover/internal/repo/fstest"
	"drover/internal/supervise"
	"drover/internal/volume"
)

// Tests are made while this instance holds, counted from the last one of anybody's; one
// that could not be made is tried again; a clock that was wrong does not stop them.
func TestRestoreTestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		log := new(logBuffer)
		var w struct { // the world, shared with the scheduler
			sync.Mutex
			made, told  []string
			holds, away bool
			epoch       uint64
			saved       *volume.RestoreTest
			outcome     volume.RestoreTest
		}
		w.epoch = 1
		w.saved = &volume.RestoreTest{Time: start.Add(-20 * time.Hour), Passed: true, Begun: true}
		w.outcome = volume.RestoreTest{Passed: true, Begun: true}
		tests := &restoreTests{
			every: 24 * time.Hour, log: slog.New(slog.NewTextHandler(log, nil)),
			holder: func() (uint64, bool) {
				w.Lock()
				defer w.Unlock()
				return w.epoch, w.holds
			},
			load: func(context.Context) (*volume.RestoreTest, error) {
				w.Lock()
				defer w.Unlock()
				if w.away {
					return nil, errors.New("away")
				}
				return w.saved, nil
			},
			test: func(context.Context) (volume.RestoreTest, error) {
				w.Lock()
				defer w.Unlock()
				w.made = append(w.made, fmt.Sprintf("%.1f", time.Since(start).Hours()))
				r := w.outcome
				r.Time = time.Now()
				if !r.Passed {
					return r, errors.New("boom")
				}
				return r, nil
			},
			tell: func(e event.Event) {
				w.Lock()
				defer w.Unlock()
				w.told = append(w.told, e.Name)
			},
			save: func(_ context.Context, r volume.RestoreTest) error {
				w.Lock()
				defer w.Unlock()
				w.saved = &r
				return nil
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); tests.run(ctx) }()
		step := func(d time.Duration, what, want string, change func()) {
			t.Helper()
			w.Lock()
			change()
			w.Unlock()
			time.Sleep(d)
			synctest.Wait()
			w.Lock()
			defer w.Unlock()
			if got := strings.Join(w.made, " "); got != want {
				t.Errorf("%s: made at %q, want %q", what, got, want)
			}
			w.made = nil
		}
		step(30*time.Hour, "a standby", "", func() {})
		step(time.Hour, "a store that is away", "", func() { w.holds, w.away = true, true })
		step(48*time.Hour, "as the holder", "31.0 55.0", func() { w.away = false })
		step(23*time.Hour, "another has tested meanwhile", "", func() {
			w.saved, w.epoch = &volume.RestoreTest{Time: time.Now(), Passed: true, Begun: true}, 2
		})
		step(2*time.Hour, "and then", "103.0", func() {})
		step(24*time.Hour, "no room: again after an hour", "127.0 128.0", func() { w.outcome = volume.RestoreTest{} })
		step(2*time.Hour, "room, and a damaged backup", "129.0", func() { w.outcome = volume.RestoreTest{Begun: true} })
		if s := restoreTestHealth(restoreTestOf(tests.outcome())); !strings.Contains(s, "the last restore test failed") || strings.Count(log.String(), "restore test FAILED") != 1 {
			t.Errorf("%q; %s", s, log.String())
		}
		step(time.Hour, "the last one was made in the future", "130.0", func() {
			w.outcome = volume.RestoreTest{Passed: true, Begun: true}
			w.saved, w.epoch = &volume.RestoreTest{Time: time.Now().Add(1000 * time.Hour), Begun: true, Passed: true}, 3
		})
		if got := strings.Join(w.told, " "); got != "test-passed test-passed test-passed test-failed test-passed" {
			t.Errorf("told of %q", got)
		}
		cancel()
		<-ended
	})
}

// The agent tests by itself, and everybody hears of it; so does who asks for one.
func TestRestoreTest(t *testing.T) {
	w := newWorkshop(t)
	w.write("f", "precious")
	a := w.run(`restore_test: {every: 1s, check: {command: 'grep -q precious ".$STATE/f" && cd "$DROVER_RESTORED" && ! test -e lost'}}`+"\n", "sleep", "600")
	if b, err := a.Backup(t.Context(), false); err != nil || b.Error != "" {
		t.Fatalf("%+v, %v", b, err)
	}
	var s client.Status
	until := func(what string, ok func(*client.RestoreTest) bool) {
		t.Helper()
		a.until(what, func() bool {
			var err error
			s, err = a.Status(t.Context())
			return err == nil && s.RestoreTest != nil && ok(s.RestoreTest)
		})
	}
	until("a restore test passed", func(r *client.RestoreTest) bool { return r.Passed })
	if s.RestoreTest.Files != 1 || s.RestoreTest.Instance != "test" || s.Health != "ok" || s.RTO == nil || *s.RTO <= 0 {
		t.Errorf("%+v", s)
	}
	w.write("f", "spoiled")
	if b, err := a.Backup(t.Context(), false); err != nil || b.Error != "" {
		t.Fatalf("%+v, %v", b, err)
	}
	until("a restore test failed", func(r *client.RestoreTest) bool { return r.Begun && !r.Passed })
	if s.Health != "degraded" || !strings.Contains(s.Message, "the last restore test failed") {
		t.Errorf("%+v", s)
	}
	if from, err := w.ops().Status(t.Context()); err != nil || from.RestoreTest == nil {
		t.Errorf("read from the store: %+v, %v", from, err)
	}
	a.end()

	scratch := t.TempDir()
	check := `echo "I saw $(cat "$DROVER_RESTORED` + w.state + `/f")"; sleep 600 & exit 3`
	_, err := w.ops("DROVER_RESTORE_TEST_DIR", scratch, "DROVER_RESTORE_TEST_CHECK", check).RestoreTest(t.Context(), RestoreTestOptions{})
	if err == nil || !strings.Contains(err.Error(), "I saw spoiled") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("a check that fails: %v", err)
	}
	if left, err := filepath.Glob(scratch + "/.restore-test/data/*"); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
	r, err := w.ops("DROVER_RESTORE_TEST_DIR", scratch).RestoreTest(t.Context(), RestoreTestOptions{})
	if err != nil || !r.Passed || r.Seq != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if from, err := w.ops().Status(t.Context()); err != nil || from.RestoreTest == nil || !from.RestoreTest.Passed || from.RTO == nil {
		t.Errorf("read from the store: %+v, %v", from, err)
	}
	_, err = newWorkshop(t).ops("DROVER_RESTORE_TEST_DIR", scratch).RestoreTest(t.Context(), RestoreTestOptions{})
	if !errors.Is(err, volume.ErrNoSnapshot) {
		t.Errorf("nothing to restore: %v", err)
	}
}

// A check that hangs is killed with all that it started, and one of another user may
// enter what it is to look at.
func TestRestoreTestCheck(t *testing.T) {
	dir := t.TempDir()
	fstest.Must(t, os.WriteFile(dir+"/here", nil, 0o600))
	hangs := restoreCheck{command: []string{"sh", "-c", "test -e here && sleep 600 & sleep 600"}, timeout: 300 * time.Millisecond, env: os.Environ()}
	if err := hangs.run(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "longer than 300ms") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := hangs.run(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if os.Geteuid() == 0 {
		w := newWorkshop(t)
		w.write("f", "1")
		w.commit()
		v, err := w.ops().open(t.Context())
		fstest.Must(t, err)
		base, err := os.MkdirTemp("", "scratch") //nolint:usetesting // open to other users
		fstest.Must(t, err, os.Chmod(base, 0o755))
		t.Cleanup(func() { fstest.Must(t, os.RemoveAll(base)) })
		data, err := volume.OpenDataDir(base+"/data", "data")
		fstest.Must(t, err)
		defer func() { fstest.Must(t, data.Close()) }()
		w.write("f", "2")
		cfg := w.ops("DROVER_DATA_DIR", base+"/data", "DROVER_RESTORE_TEST_CHECK", `test "$(id -u)" = 65534 && ls -d * && test ! -e `+base+`/data/data/record`).cfg
		opt := restoreTestOptions(cfg, os.Environ(), &supervise.User{UID: 65534, GID: 65534}, slog.New(slog.DiscardHandler))
		if r, err := v.TestRestore(t.Context(), opt); err != nil || !r.Passed {
			t.Errorf("as another user: %+v, %v", r, err)
		}
	}
	absent := restoreCheck{command: []string{"/no/such/check"}, timeout: time.Minute}
	if err := absent.run(t.Context(), dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("not there: %v", err)
	}
}
