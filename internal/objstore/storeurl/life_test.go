package storeurl_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover/internal/app"
	"drover/internal/config"
	"drover/internal/objstore"
	"drover/internal/objstore/storeurl"
	"drover/internal/testkit/mantaserver"
)

// instance is a server with nothing on its disk but what an application wrote.
type instance struct {
	t   *testing.T
	url string
	dir string
}

func newInstance(t *testing.T, url, state string) *instance {
	t.Helper()
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	return &instance{t, url, t.TempDir()}
}

func (i *instance) config(flags map[string][]string, command ...string) *app.Config {
	i.t.Helper()
	env := map[string]string{
		"DROVER_PASSWORD": "test", "DROVER_ID": "one", "DROVER_TTL": "2s",
		"DROVER_DATA_DIR": filepath.Join(i.dir, "data"), "DROVER_SOCKET": filepath.Join(i.dir, "s"),
	}
	cfg, err := app.LoadConfig(config.Sources{
		Files: []string{filepath.Join(i.dir, "none")}, Flags: flags, Command: command,
		Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
	})
	if err != nil {
		i.t.Fatal(err)
	}
	cfg.Store.URL = i.url
	return cfg
}

// run lives the life of an instance whose application is a line of shell.
func (i *instance) run(state, script string) string {
	i.t.Helper()
	var out, log bytes.Buffer
	status, err := app.Run(i.t.Context(), i.config(map[string][]string{"state": {state}}, "sh", "-c", script),
		app.RunOptions{Stdout: &out, Stderr: &out, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil || status != 0 {
		i.t.Fatalf("run %q: %d, %v\n%s\n%s", script, status, err, out.String(), log.String())
	}
	return out.String()
}

func (i *instance) ops() *app.Ops {
	i.t.Helper()
	o := app.NewOps(i.config(nil), slog.New(slog.DiscardHandler))
	i.t.Cleanup(func() { _ = o.Close() })
	return o
}

// TestLifeOnManta has an application lose its server twice, with a store in
// Manta; then the upkeep of the volume, and a copy of it in restic's hands.
func TestLifeOnManta(t *testing.T) {
	server := mantaserver.Start(t, mantaserver.Options{MostEntries: 20})
	server.Setenv()
	url, state := server.URL("wiki"), filepath.Join(t.TempDir(), "state")
	write := `cd "` + state + `" && i=0; while [ $i -lt 40 ]; do echo page $i of %s > page$i; i=$((i+1)); done; cat page7 before 2>/dev/null; echo %[1]s > before`
	newInstance(t, url, state).run(state, fmt.Sprintf(write, "one"))
	if got := newInstance(t, url, state).run(state, `cat "`+state+`/page7"; `+fmt.Sprintf(write, "two")); got != "page 7 of one\npage 7 of two\none\n" {
		t.Errorf("the second instance sees %q", got)
	}
	third := newInstance(t, url, state)
	if got := third.run(state, `cat "`+state+`/before"`); got != "two\n" {
		t.Errorf("the third instance sees %q", got)
	}
	if report, err := third.ops().Probe(t.Context()); err != nil {
		t.Errorf("probe: %v: %+v", err, report)
	}
	if _, err := third.ops().Forget(t.Context(), app.ForgetOptions{Last: 1, Prune: true}); err != nil {
		t.Errorf("forget: %v", err)
	}
	if report, err := third.ops().Verify(t.Context(), app.VerifyOptions{ReadData: true}); err != nil || report.Packs == 0 {
		t.Errorf("verify: %+v, %v", report, err)
	}
	target := t.TempDir()
	if _, err := third.ops().Restore(t.Context(), app.RestoreOptions{Snapshot: "latest", Target: target}); err != nil {
		t.Errorf("restore: %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(target, state, "page39")); err != nil || string(got) != "page 39 of two\n" {
		t.Errorf("restored is %q, %v", got, err)
	}
	openCopy(t, url)
}

// openCopy is the way out that restic-env names: stock restic opens a copy on a disk.
func openCopy(t *testing.T, url string) {
	t.Helper()
	copied := "file://" + filepath.Join(t.TempDir(), "copy")
	to := copyStore(t, url, copied)
	if err := to.List(t.Context(), "data/locks/", func(i objstore.Info) error { return to.Delete(t.Context(), i.Key) }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := storeurl.Restic(url, "data"); err == nil || !strings.Contains(err.Error(), "restic -r") {
		t.Errorf("restic on Manta: %v", err)
	}
	restic{t, copied, os.Environ()}.run("check", "--read-data")
}
