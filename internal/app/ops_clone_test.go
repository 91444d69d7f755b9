package app

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"drover/internal/repo/fstest"
	"drover/internal/testkit/gotool"
)

// restic runs stock restic on a volume of a file store.
func restic(t *testing.T, repository, password string, args ...string) string {
	t.Helper()
	out, err := runRestic(t, repository, password, args...)
	if err != nil {
		t.Fatalf("restic %v: %v\n%s", args, err, out)
	}
	return out
}

// resticFails is what restic says when it cannot open the volume.
func resticFails(t *testing.T, repository, password string) string {
	t.Helper()
	out, err := runRestic(t, repository, password, "snapshots")
	if err == nil {
		t.Errorf("restic opened %s", repository)
	}
	return out
}

func runRestic(t *testing.T, repository, password string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), gotool.Path(t, "restic"), append([]string{"--no-cache", "-r", repository}, args...)...)
	cmd.Env = append(os.Environ(), "RESTIC_PASSWORD="+password)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestCloneIsARepositoryOfRestics: in the same store and in another one; also one
// that another clone had begun, whose snapshot objects are gone.
func TestCloneIsARepositoryOfRestics(t *testing.T) {
	w := newWorkshop(t)
	w.write("a/small", "1")
	w.write("big", string(fstest.Noise(20<<20)))
	w.write("twice", string(bytes.Repeat([]byte("again "), 1<<20)))
	first := w.commit()
	w.write("a/small", "2")
	w.commit()
	other := t.TempDir()
	for _, c := range []struct{ snapshot, store, volume, want string }{
		{"latest", w.bucket, "copy", "2"}, {first[:8], other, "data", "1"},
	} {
		to := w.ops("DROVER_STORE", "file://"+c.store, "DROVER_VOLUME", c.volume, "DROVER_PASSWORD", "simsim")
		half := filepath.Join(c.store, c.volume)
		if c.volume == "copy" { // what is left of a clone that died before its head was there
			if _, err := w.ops().Clone(t.Context(), CloneOptions{Snapshot: first, To: to.cfg}); err != nil {
				t.Fatal(err)
			}
			fstest.Must(t, os.Rename(half+"/drover/init", half+"/drover/clone"), os.Remove(half+"/drover/head"))
		}
		res, err := w.ops().Clone(t.Context(), CloneOptions{Snapshot: c.snapshot, To: to.cfg})
		if err != nil || res.Volume != c.volume || res.Snapshot == "" || c.volume == "copy" && res.Stored > 1<<20 {
			t.Fatalf("%+v, %v", res, err)
		}
		if said := restic(t, half, "simsim", "check", "--read-data"); !strings.Contains(said, "no errors were found") {
			t.Errorf("%s: %s", half, said)
		}
		if said := restic(t, half, "simsim", "snapshots", "--compact"); !strings.Contains(said, "1 snapshots") || !strings.Contains(said, res.Snapshot[:8]) {
			t.Errorf("%s: %s", half, said)
		}
		target := t.TempDir()
		restic(t, half, "simsim", "restore", "latest", "--target", target)
		if text, err := os.ReadFile(filepath.Join(target, w.state, "a/small")); err != nil || string(text) != c.want {
			t.Errorf("%s: restored %q, %v", half, text, err)
		}
		locks, err := filepath.Glob(w.bucket + "/*/locks/*")
		if err != nil || len(locks) != 0 {
			t.Errorf("locks %q are left, %v", locks, err)
		}
		// A large file that is read anew is cut as it was, and so is there already.
		fstest.Must(t, os.Chtimes(filepath.Join(w.state, "big"), fstest.Old, fstest.Old))
		if b, err := to.Snapshot(t.Context(), SnapshotOptions{Paths: []string{w.state}}); err != nil || b.Added > 1<<20 || b.Seq != 2 {
			t.Errorf("%s: a commit upon the clone: %+v, %v", half, b, err)
		}
		list, err := to.Snapshots(t.Context(), true)
		if err != nil || len(list) != 2 || list[0].ID != res.Snapshot || !list[0].Committed || list[0].Seq != 1 {
			t.Errorf("%s: %+v, %v", half, list, err)
		}
	}
}
