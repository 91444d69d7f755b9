package app

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/client"
	"drover/internal/repo/fstest"
)

// The volumes of a store are found among what else lies there; each is asked for by its
// own password.
func TestVolumesOfAStore(t *testing.T) {
	w := newWorkshop(t)
	w.write("a", "1")
	w.commit()
	other := w.ops("DROVER_VOLUME", "other", "DROVER_PASSWORD", "simsim")
	_, err := other.Init(t.Context())
	fstest.Must(t, err)
	fstest.Must(t, os.MkdirAll(w.bucket+"/restics/data", 0o755), os.MkdirAll(w.bucket+"/drover", 0o755), os.Mkdir(w.bucket+"/lost+found", 0o755))
	fstest.Write(t, w.bucket+"/restics/config", "x")
	fstest.Write(t, w.bucket+"/file", "x")
	names, err := w.ops().Volumes(t.Context())
	if err != nil || !slices.Equal(names, []string{"data", "other"}) {
		t.Errorf("%q, %v", names, err)
	}
}

// Who holds a volume and does not renew is called silent; a restore test that failed is
// told as well.
func TestStatusFromTheStore(t *testing.T) {
	w := newWorkshop(t)
	w.write("a", "1")
	status := func() client.Status {
		t.Helper()
		s, err := w.ops().Status(t.Context())
		fstest.Must(t, err)
		return s
	}
	head := w.bucket + "/data/drover/head"
	long := time.Now().Add(-time.Hour)
	fstest.Must(t, os.Chtimes(head, long, long))
	if s := status(); s.Health != "ok" {
		t.Errorf("nobody holds it: %+v", s)
	}
	a := w.run("", "sleep", "600")
	if _, err := a.Backup(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if s := status(); s.Health != "ok" || s.State != "held" || s.Role != "none" {
		t.Errorf("%+v", s)
	}
	a.end()
	long = time.Now().Add(-2 * time.Minute)
	fstest.Must(t, os.Chtimes(head, long, long))
	if s := status(); s.Health != "degraded" || !strings.Contains(s.Message, "test holds it, and has been silent for 2m") {
		t.Errorf("%+v", s)
	}
}
