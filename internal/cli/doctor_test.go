package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/internal/app"
)

// write makes a file of a test and returns its name.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

const petProject = `services:
  web:
    command: drover run
    environment: {DROVER_STATE: /srv, DB_PASSWORD: sesame}
    volumes: [data:/srv]
    healthcheck: {test: [CMD, "true"]}
    restart: always
    mem_limit: 1g
    stop_grace_period: 30s
  cache: {image: "redis", healthcheck: {test: a}, restart: always, mem_limit: 1g}
volumes: {data: }
`

// TestDoctorPage: the report for people, without colours and with.
func TestDoctorPage(t *testing.T) {
	dir := t.TempDir()
	file := write(t, dir, "compose.yaml", petProject)
	got := try(t, &fakeOps{}, nil, "doctor", file)
	want := `service web

  pet    the Docker volume "data" is mounted at /srv
  where  FILE:5:15  (docker-volume)
  why    the files are on one host, and with them the only place where this can run
  mend   take the mount out: Drover restores /srv wherever this starts. To bring over what
         is in it, start once with --first-start adopt before

  risk   DB_PASSWORD stands here in the clear
  where  FILE:4:39  (secret-in-environment)
  why    it is in the file, in its history, and in every docker inspect
  mend   a secret's file, and the variable that names it, often DB_PASSWORD_FILE

Not judged for mounts, having none: cache

1 pet, 1 risk, 0 notes: FILE
`
	if got.out = strings.ReplaceAll(got.out, file, "FILE"); got != (result{1, want, ""}) {
		t.Errorf("got %+v\nwant %s", got, want)
	}
	coloured := tryIn(t, t.Context(), World{OutTerm: true}, nil, "doctor", file)
	for _, part := range []string{"\x1b[1mservice web\x1b[0m", "\x1b[1;31mpet  \x1b[0m", "\x1b[33mrisk \x1b[0m"} {
		if !strings.Contains(coloured.out, part) {
			t.Errorf("on a terminal there is no %q in %q", part, coloured.out)
		}
	}
	if plain := tryIn(t, t.Context(), World{OutTerm: true}, map[string]string{"NO_COLOR": "1"}, "doctor", file); strings.Contains(plain.out, "\x1b") {
		t.Errorf("NO_COLOR, and %q", plain.out)
	}
}

// TestDoctorExits: 0 without a grave finding, 1 with one, 2 if the file cannot be used.
func TestDoctorExits(t *testing.T) {
	dir := t.TempDir()
	clean := write(t, dir, "clean.yaml", "services: {a: {image: b}}\n")
	got := try(t, &fakeOps{}, nil, "doctor", "--json", clean)
	var list []app.Finding
	if err := json.Unmarshal([]byte(got.out), &list); err != nil || got.code != 0 || len(list) != 4 || list[0].Where != clean+":1:12" || list[0].Service != "a" {
		t.Errorf("got %+v, %v", got, err)
	}
	whole := write(t, dir, "whole.yaml", "services: {a: {image: b, restart: always, mem_limit: 1, healthcheck: {test: a}, volumes: [{type: tmpfs, target: /a}]}}\n")
	if got := try(t, &fakeOps{}, nil, "doctor", "--json", whole); got != (result{0, "[]\n", ""}) {
		t.Errorf("nothing found: %+v", got)
	}
	if got := try(t, &fakeOps{}, nil, "doctor", whole); got != (result{0, "nothing found: " + whole + "\n", ""}) {
		t.Errorf("nothing found: %+v", got)
	}
	bad := write(t, dir, "bad.yaml", "services:\n  a: [\n")
	odd := write(t, dir, "odd.yaml", "services:\n  a:\n    extends: nobody\n")
	for args, want := range map[string]string{
		"doctor " + bad:                  bad + ":2:",
		"doctor " + odd:                  odd + `:3:14: no service "nobody" to extend`,
		"doctor /no/such.yaml":           "/no/such.yaml: cannot be read: no such file or directory",
		"doctor a b":                     `unexpected argument "b"`,
		"doctor --grace 5 ":              `--grace: duration "5" has no unit`,
		"doctor --grace 5s " + clean:     "--grace and a Compose file; stop_grace_period",
		"doctor -c /no/such.yml":         "-c: cannot read /no/such.yml",
		"doctor " + clean + " --state a": `--state: state path "a" is not absolute`,
	} {
		got := try(t, &fakeOps{}, nil, strings.Fields(args)...)
		if got.code != exitUsage || got.out != "" || strings.Count(got.err, "\n") != 1 || !strings.Contains(got.err, want) {
			t.Errorf("%s: got %+v\nwant %s", args, got, want)
		}
	}
}

// TestDoctorAsksTheStore: how long backups take; a store that does not answer is no
// reason not to look at the rest.
func TestDoctorAsksTheStore(t *testing.T) {
	file := write(t, t.TempDir(), "compose.yaml", "services: {a: {command: drover run, stop_grace_period: 30s}}\n")
	if got := try(t, &fakeOps{longest: 40 * time.Second}, storeEnv, "doctor", file); got.code != 1 || !strings.Contains(got.out, "one of the last backups took 40s") {
		t.Errorf("longer than the grace: %+v", got)
	}
	if got := try(t, &fakeOps{longest: 4 * time.Second}, storeEnv, "doctor", file); strings.Contains(got.out, "stop-grace") {
		t.Errorf("shorter: %+v", got)
	}
	got := try(t, &fakeOps{err: errors.New("on\nfire")}, storeEnv, "doctor", file)
	if got.err != "drover: the store was not asked how long backups take: on; fire\n" || strings.Contains(got.out, "stop-grace") {
		t.Errorf("no answer: %+v", got)
	}
	if got := try(t, &fakeOps{longest: 40 * time.Second}, nil, "doctor", file); strings.Contains(got.out, "stop-grace") {
		t.Errorf("no store is known, and it was asked: %+v", got)
	}
}

// TestDoctorInstance: what the agent was told by flag, variable and file counts, and a
// flag of the command line above it.
func TestDoctorInstance(t *testing.T) {
	root := t.TempDir()
	write(t, root, ".dockerenv", "")
	conf := write(t, root, "drover.yaml", "service: wiki\nstate: [/b]\n")
	write(t, root, "proc/self/mountinfo", "1 0 0:1 / / rw - overlay overlay rw\n2 1 8:1 /volumes/a/_data /a rw - ext4 x rw\n3 1 8:1 /volumes/b/_data /b rw - ext4 x rw\n")
	write(t, root, "proc/1/cmdline", "drover\x00run\x00-c\x00"+conf+"\x00--socket\x00"+root+"/none\x00")
	write(t, root, "proc/1/environ", "DROVER_STORE=s3://b?endpoint=http://localhost:1\x00A_PASSWORD=sesame\x00")
	write(t, root, "proc/1/status", "SigCgt:\t0000000000004000\n")
	find := func(env map[string]string, args ...string) string {
		got := tryIn(t, t.Context(), World{look: root, ops: func(*app.Config, *slog.Logger) operations { return &fakeOps{} }}, env, append([]string{"doctor", "--json"}, args...)...)
		var list []app.Finding
		if err := json.Unmarshal([]byte(got.out), &list); err != nil || strings.Contains(got.out, "sesame") || got.err != "" || got.code != 1 {
			t.Fatalf("%v: %+v", err, got)
		}
		var all []string
		for _, f := range list {
			if f.Service != "wiki" || f.Instance == "" {
				t.Errorf("%+v", f)
			}
			all = append(all, fmt.Sprint(f.Severity, " ", f.ID, " ", f.Where))
		}
		return strings.Join(all, "\n")
	}
	want := "pet docker-volume /b\nrisk docker-volume /a\nrisk store-same-domain DROVER_STORE\nrisk secret-in-environment /proc/1/environ"
	if got := find(nil); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	want = "pet docker-volume /a\nrisk docker-volume /b\nrisk secret-in-environment /proc/1/environ"
	if got := find(map[string]string{"DROVER_STATE": "/c"}, "--state", "/a", "--store", "s3://b"); got != want {
		t.Errorf("with flags:\n%s\nwant\n%s", got, want)
	}
	if got := tryIn(t, t.Context(), World{look: t.TempDir()}, nil, "doctor"); got.code != exitFailure || !strings.Contains(got.err, "look at the mounts") {
		t.Errorf("without /proc: %+v", got)
	}
}
