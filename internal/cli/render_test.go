package cli

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover/internal/app"
)

func (f *fakeOps) Render(_ context.Context, opt app.RenderOptions) ([]app.Rendered, error) {
	f.render = opt
	return []app.Rendered{
		{Template: "conf", Destination: "/etc/conf", Changed: true, Old: "a\nb\x1b\nc", Text: "a\tx\nb\x1b\nd\n"},
		{Template: "new", Destination: "/etc/new", Changed: true, New: true, Text: "x"},
		{Template: "empty", Destination: "/etc/empty", Changed: true, New: true},
		{Template: "pass", Destination: "/run/pass", Changed: true, Secret: true, Old: "canary", Text: "canary2"},
		{Template: "same", Destination: "/etc/same", Old: "x", Text: "x"},
	}, f.err
}

func (f *fakeOps) ResumeRoll(_ context.Context, name string) (string, error) {
	if f.err != nil || name != "web" {
		return "", f.err
	}
	return "i2: not healthy after the change\x1b", nil
}

// TestRenderShowsWhatWouldChange as a diff, without secrets and what disturbs a terminal.
func TestRenderShowsWhatWouldChange(t *testing.T) {
	ops := &fakeOps{}
	const conf = "--- /etc/conf\n+++ /etc/conf\n@@ -1,3 +1,3 @@\n-a\n+a\tx\n b\x1b\n-c\n\\ No newline at end of file\n+d\n"
	const rest = "--- /dev/null\n+++ /etc/new\n@@ -0,0 +1 @@\n+x\n\\ No newline at end of file\n--- /dev/null\n+++ /etc/empty\n" +
		"/run/pass: would be written; its text may hold secrets, and is not shown\n/etc/same: not changed\n"
	if got := try(t, ops, nil, "render", "--dry-run"); got != (result{0, conf + rest, ""}) || !ops.render.DryRun {
		t.Errorf("got %+v", got)
	}
	w := World{OutTerm: true, ops: func(*app.Config, *slog.Logger) operations { return ops }}
	if got := tryIn(t, t.Context(), w, map[string]string{"TERM": "dumb"}, "render", "--dry-run", "conf", "new"); got.out != strings.ReplaceAll(conf, "\x1b", `\x1b`)+rest || strings.Join(ops.render.Names, " ") != "conf new" {
		t.Errorf("got %+v for %v", got, ops.render.Names)
	}
	if got := try(t, ops, nil, "render"); got != (result{0, "/etc/conf: written\n/etc/new: written\n/etc/empty: written\n/run/pass: written\n/etc/same: not changed\n", ""}) {
		t.Errorf("got %+v", got)
	}
	for _, args := range [][]string{{"render", "--json"}, {"render", "--dry-run", "--json"}} {
		if got := try(t, ops, nil, args...); got.code != 0 || strings.Contains(got.out, "canary") || strings.Contains(got.out, "@@ -1,3 +1,3 @@") != (len(args) == 3) {
			t.Errorf("%v: %+v", args, got)
		}
	}
	ops.err = errors.New("render x: missing: key shop/x: no answer yet")
	if got := try(t, ops, nil, "render"); got.code != 1 || !strings.HasSuffix(got.err, "key shop/x: no answer yet\n") || !strings.Contains(got.out, "written") {
		t.Errorf("got %+v", got)
	}
	if got := try(t, ops, nil, "render", "--timeout", "0s"); got.code != 2 {
		t.Errorf("got %+v", got)
	}
}

func TestRollResume(t *testing.T) {
	ops := &fakeOps{}
	for args, want := range map[string]result{
		"resume web":   {0, `roll web goes on; it was stopped by i2: not healthy after the change\x1b` + "\n", ""},
		"resume other": {0, "roll other was not stopped\n", ""},
		"resume":       {2, "", "drover: drover roll resume takes the name of one roll; drover status lists them\n"},
		"stop web":     {2, "", "drover: unknown word \"stop\"; give resume NAME\n"},
		"":             {2, "", "drover: nothing says what to do with a roll; give resume NAME\n"},
	} {
		if got := try(t, ops, nil, append([]string{"roll"}, strings.Fields(args)...)...); got != want {
			t.Errorf("%q: got %+v, want %+v", args, got, want)
		}
	}
	ops.err = &app.ConfigError{What: `there is no roll "web"`}
	if got := try(t, ops, nil, "roll", "resume", "web"); got.code != 2 {
		t.Errorf("got %+v", got)
	}
}

// TestCompletionOfNames: a shell offers what is in the configuration.
func TestCompletionOfNames(t *testing.T) {
	file := filepath.Join(t.TempDir(), "drover.yaml")
	text := "coordinator: consul://127.0.0.1:1\ntemplates:\n  a: {content: x, destination: /tmp/a}\n  b: {content: x, destination: /tmp/b, roll: {limit: 1, name: web}}\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{"render ": "a\nb\n:4\n", "render a ": "a\nb\n:4\n", "roll ": "resume\n:4\n", "roll resume ": "web\n:4\n", "roll resume web ": ":4\n"} {
		words := append([]string{"__complete"}, strings.Split(args, " ")...)
		if got := try(t, nil, map[string]string{"DROVER_CONFIG": file}, words...); !strings.HasPrefix(got.out, want) {
			t.Errorf("%q: got %+v, want %q", args, got, want)
		}
	}
}
