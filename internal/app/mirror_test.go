package app

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover/client"
	"drover/internal/repo/fstest"
	"drover/internal/testkit/s3server"
)

// TestCopyIsARepositoryOfRestics: with a key of its own; what is new comes later.
func TestCopyIsARepositoryOfRestics(t *testing.T) {
	w := newWorkshop(t)
	w.write("a", "1")
	w.commit()
	w.write("big", string(fstest.Noise(4<<20)))
	w.commit()
	other := t.TempDir()
	to := w.ops("DROVER_STORE", "file://"+other, "DROVER_VOLUME", "copy", "DROVER_PASSWORD", "simsim")
	for want := 2; want <= 3; want++ {
		res, err := w.ops().Copy(t.Context(), CopyOptions{To: to.cfg})
		if err != nil || res.Copied != map[int]int{2: 2, 3: 1}[want] || res.Seq != uint64(want) || want == 3 && res.Stored > 1<<20 {
			t.Fatalf("%+v, %v", res, err)
		}
		if said := restic(t, other+"/copy", "simsim", "check", "--read-data"); !strings.Contains(said, "no errors were found") {
			t.Error(said)
		}
		if said := restic(t, other+"/copy", "simsim", "snapshots", "--compact"); !strings.Contains(said, fmt.Sprint(want)+" snapshots") {
			t.Error(said)
		}
		w.write("a", "2")
		w.commit()
	}
	// restic opens a volume with a replaced password, and not with the old one.
	fresh := w.ops("DROVER_PASSWORD", "fresh")
	_, err := w.ops().ReplaceKey(t.Context(), fresh.cfg.Store.Password)
	fstest.Must(t, err)
	restic(t, w.bucket+"/data", "fresh", "check")
	if _, err := w.ops().Keys(t.Context()); err == nil {
		t.Error("the old password opens the volume")
	}
	if err := resticFails(t, w.bucket+"/data", "sesame"); !strings.Contains(err, "wrong password") {
		t.Errorf("restic with the old password: %s", err)
	}
	if list, err := fresh.Keys(t.Context()); err != nil || len(list) != 1 || !list[0].Current {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestMirrorTakesOver: an agent keeps a second region up to date, which is away for a
// while and does no harm by that; then the first region is lost with all that is in it.
func TestMirrorTakesOver(t *testing.T) {
	s3 := s3server.Start(t, s3server.Options{})
	s3.Setenv()
	secrets := filepath.Join(t.TempDir(), "secrets")
	fstest.Write(t, secrets, fmt.Sprintf("[there]\naws_access_key_id = %s\naws_secret_access_key = %s\n", s3.AccessKey, s3.SecretKey))
	t.Setenv("AWS_ACCESS_KEY_ID", "another")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "stores")
	url := s3.URL("region2") + "&credentials=" + secrets + "&profile=there"
	w := newWorkshop(t)
	w.write("f", "0")
	a := w.run(fmt.Sprintf("mirror: {store: {url: %q, password: simsim}, every: 1s}\n", url), "sleep", "600")
	arrived := func() {
		t.Helper()
		a.until("the mirror is up to date", func() bool {
			s, err := a.Status(t.Context())
			return err == nil && s.Mirror != nil && s.Mirror.Known && s.Mirror.Behind == 0 && s.Mirror.Error == "" && s.Mirror.Seq == s.Seq
		})
	}
	commit := func(text string) {
		t.Helper()
		w.write("f", text)
		if b, err := a.Backup(t.Context(), false); err != nil || b.Error != "" {
			t.Fatalf("%+v, %v", b, err)
		}
	}
	commit("1")
	arrived()
	s3.Stop()
	for i := range 3 {
		commit(fmt.Sprint(2 + i)) // an outage of the mirror is none of the backups
	}
	a.until("the mirror is said to be behind", func() bool {
		s, err := a.Status(t.Context())
		return err == nil && s.Mirror.Behind == 3 && s.Mirror.BehindSeconds > 0
	})
	s3.StartAgain()
	arrived()
	a.end()
	fstest.Must(t, os.RemoveAll(w.bucket), os.RemoveAll(w.state))

	env := map[string]string{"DROVER_STORE": url, "DROVER_PASSWORD": "simsim", "DROVER_ID": "there", "DROVER_TTL": "1s"}
	b := startAgent(t, env, w.state, "", "sleep", "600")
	if text, err := os.ReadFile(w.state + "/f"); err != nil || string(text) != "4" {
		t.Errorf("the second region has %q, %v", text, err)
	}
	if _, err := b.Backup(t.Context(), false); err != nil {
		t.Error(err)
	}
	report, err := w.ops("DROVER_STORE", url, "DROVER_PASSWORD", "simsim").Verify(t.Context(), VerifyOptions{ReadData: true})
	if err != nil || len(report.Problems) != 0 || report.Snapshots < 4 {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestMirrorThatHangs: a second store that takes connections and never answers holds
// nothing up but the mirror, and is told of; when it answers again, all arrives.
func TestMirrorThatHangs(t *testing.T) {
	s3 := s3server.Start(t, s3server.Options{})
	s3.Setenv()
	w := newWorkshop(t)
	w.write("f", "0")
	a := w.run(fmt.Sprintf("mirror: {store: {url: %q, password: simsim}, every: 1s, max_lag: 2s}\n", s3.URL("hangs")), "sleep", "600")
	status := func(what string, ok func(client.Status) bool) {
		t.Helper()
		a.until(what, func() bool {
			s, err := a.Status(t.Context())
			return err == nil && s.Mirror != nil && ok(s)
		})
	}
	commit := func(text string) {
		t.Helper()
		w.write("f", text)
		if b, err := a.Backup(t.Context(), false); err != nil || b.Error != "" {
			t.Fatalf("%+v, %v", b, err)
		}
	}
	commit("1")
	status("the mirror has the first commit", func(s client.Status) bool { return s.Mirror.Known && s.Mirror.Seq == s.Seq })
	s3.Pause()
	for i := range 3 {
		commit(fmt.Sprint(2 + i))
	}
	status("the mirror is said to be too far behind", func(s client.Status) bool {
		return s.Mirror.Behind == 3 && s.Health == "degraded" && strings.Contains(s.Message, "max_lag")
	})
	s3.Resume()
	status("all has arrived", func(s client.Status) bool { return s.Mirror.Behind == 0 && s.Mirror.Seq == 4 && s.Health == "ok" })
}

// TestMirrorRetention: the mirror has a rule of its own. What it drops the store has
// still; `drover status` and the metrics tell of it.
func TestMirrorRetention(t *testing.T) {
	w := newWorkshop(t)
	other := t.TempDir()
	w.write("f", "0")
	a := w.run(fmt.Sprintf("mirror: {store: {url: \"file://%s\", password: simsim}, every: 1s, upkeep: 1s, keep: {last: 2}}\n", other), "sleep", "600")
	for i := range 5 {
		w.write("f", fmt.Sprint(i))
		if b, err := a.Backup(t.Context(), false); err != nil || b.Error != "" {
			t.Fatalf("%+v, %v", b, err)
		}
	}
	a.until("the mirror has dropped what its rule does not keep", func() bool {
		s, err := a.Status(t.Context())
		return err == nil && s.Mirror.Behind == 0 && s.Mirror.Upkeep != nil && s.Mirror.Upkeep.Removed == 3 && s.Mirror.Upkeep.Waiting > 0 && s.Health == "ok"
	})
	if text := a.metrics(); !strings.Contains(text, "drover_mirror_upkeep_failing 0") {
		t.Error("the metric is missing")
	}
	if list, err := w.ops().Snapshots(t.Context(), true); err != nil || len(list) != 5 {
		t.Errorf("the store has %d snapshots, %v", len(list), err)
	}
	a.end()
	there := w.ops("DROVER_STORE", "file://"+other, "DROVER_PASSWORD", "simsim")
	if list, err := there.Snapshots(t.Context(), true); err != nil || len(list) != 2 || list[1].Seq != 5 {
		t.Errorf("the mirror has %+v, %v", list, err)
	}
	if said := restic(t, other+"/data", "simsim", "check", "--read-data"); !strings.Contains(said, "no errors were found") {
		t.Error(said)
	}
	v, err := there.open(t.Context())
	fstest.Must(t, err)
	if seen, err := v.ReadHead(t.Context()); err != nil || seen.Head.State != "released" {
		t.Errorf("the mirror is not free: %+v, %v", seen.Head, err)
	}
}
