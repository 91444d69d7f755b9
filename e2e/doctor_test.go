//go:build e2e

package e2e

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"drover/internal/testkit/dockertest"
)

// finding is what drover doctor --json lists.
type finding struct{ ID, Severity, Where, What string }

// doctor runs drover doctor in an instance, and returns its findings and exit status.
func (s *server) doctor(args ...string) (found []finding, code int) {
	s.w.t.Helper()
	out, err := s.Exec(s.w.t.Context(), append([]string{"drover", "doctor", "--json"}, args...)...)
	var exit *dockertest.ExitError
	if errors.As(err, &exit) {
		code = exit.Code
	} else if err != nil {
		s.w.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		s.w.t.Fatalf("drover doctor in %s: %v: %s", s.Name, err, out)
	}
	return found, code
}

// TestDoctor: in a container that keeps its state on a Docker volume, has its secrets in
// the environment, and makes backups that do not fit Docker's grace, drover doctor names
// these. In one that is as it should be it finds nothing.
func TestDoctor(t *testing.T) {
	w := newWorld(t, short, map[string]string{"DROVER_ON_CHANGE": "0s", "DROVER_LIMIT_UPLOAD": "150KiB"})
	networks := []*dockertest.Network{w.front, w.back}
	volume := w.run.Volume("git")
	pet := &server{w: w, Container: w.run.Start(dockertest.Spec{
		Name: "pet", Image: serverImage(t), Networks: networks, Env: w.env, Options: []string{"--volume", volume + ":/srv/git"},
	})}
	pet.awaitServing(takeover)
	sh(pet.Container, "head -c 2000000 /dev/urandom >/srv/git/project.git/large; drover backup")
	found, code := pet.doctor()
	for _, want := range []finding{
		{ID: "docker-volume", Severity: "pet", Where: "/srv/git"},
		{ID: "secret-in-environment", Severity: "risk", Where: "/proc/1/environ"},
		{ID: "stop-grace", Severity: "risk", Where: "/proc/1"},
	} {
		i := slices.IndexFunc(found, func(f finding) bool { return f.ID == want.ID })
		if i < 0 || found[i].Severity != want.Severity || found[i].Where != want.Where {
			t.Errorf("want %+v among %+v", want, found)
		}
	}
	if i := slices.IndexFunc(found, func(f finding) bool { return f.ID == "docker-volume" }); i >= 0 && !strings.Contains(found[i].What, volume) {
		t.Errorf("it does not name the Docker volume %s: %s", volume, found[i].What)
	}
	if code != 1 {
		t.Errorf("exit status %d with findings, want 1", code)
	}
	if text := fmt.Sprint(found); strings.Contains(text, w.env["DROVER_PASSWORD"]) || strings.Contains(text, w.env["AWS_SECRET_ACCESS_KEY"]) {
		t.Errorf("a secret comes out: %s", text)
	}
	if found, _ := pet.doctor("--grace", "2m"); slices.ContainsFunc(found, func(f finding) bool { return f.ID == "stop-grace" }) {
		t.Error("two minutes are enough, and it says that they are not")
	}

	clean := w.clean(networks)
	clean.NoVolumes(t)
	clean.awaitServing(takeover)
	if found, code := clean.doctor(); len(found) != 0 || code != 0 {
		t.Errorf("clean, and exit status %d, findings %+v", code, found)
	}
}

// clean starts an instance, on a volume of its own, whose secrets are in files that a
// shell writes before it steps aside, as an engine's secrets are.
func (w *world) clean(networks []*dockertest.Network) *server {
	const start = `mkdir -p /run/secrets; umask 077
printf %s "$1" >/run/secrets/password
printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$2" "$3" >/run/secrets/s3
exec drover run`
	return &server{w: w, Container: w.run.Start(dockertest.Spec{
		Name: "clean", Image: serverImage(w.t), Networks: networks, Options: []string{"--memory", "512m"},
		Env: map[string]string{
			"DROVER_STORE":         w.env["DROVER_STORE"] + "&credentials=/run/secrets/s3",
			"DROVER_PASSWORD_FILE": "/run/secrets/password", "DROVER_VOLUME": "clean", "DROVER_TTL": short.String(),
		},
		Entrypoint: "sh", Args: []string{"-euc", start, "sh", rand.Text(), w.env["AWS_ACCESS_KEY_ID"], w.env["AWS_SECRET_ACCESS_KEY"]},
	})}
}
