package cli

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/client"
	"drover/internal/repo/fstest"
	"drover/internal/testkit/postgresserver"
	"drover/internal/testkit/vaultserver"
)

const secretive = `
secrets: {vault: {address: %[1]q, approle: {role_id_file: %[2]q, secret_id_file: %[3]q}, poll: 1s}}
templates:
  pass:
    content: "[[ with secret \"kv/data/app\" ]]password=[[ .Data.data.password ]][[ end ]]"
    destination: %[4]s/pass
    check: {command: "cat $DROVER_FILE; cat $DROVER_FILE >&2; test ! -e DIR/refuse"}
    on_change: {signal: app}
  db: {content: "[[ with secret \"database/creds/app\" ]][[ .Data.username ]] [[ .Data.password ]][[ end ]]", destination: %[4]s/db}
jobs:
  app:
    main: true
    command: "trap 'echo the file has $(wc -c < %[4]s/pass)' HUP; date > DIR/state/made; echo the variable has ${#PASSWORD}; echo the descriptor has $(wc -c <&3); while :; do sleep 0.05; done"
    env_templates: {PASSWORD: "[[ with secret \"kv/data/app\" ]][[ .Data.data.password ]][[ end ]]"}
    fd_templates: {3: "[[ with secret \"kv/data/app\" ]]{\"password\": \"[[ .Data.data.password ]]\"}[[ end ]]"}
`

// canaries are secrets of different lengths, which nothing but memory may hold.
var canaries = []string{"tweet-8d1f0a", "chirp-8d1f0a-27", "warble-8d1f0a-27c4e"}

// testSecretsStory: secrets of a real Vault reach a file in memory, a job's environment and its file descriptor,
// through a sealing and a refused file, and nothing else.
func testSecretsStory(t *testing.T, binary string, p *place) {
	v, pg := vaultserver.Start(t, vaultserver.Options{}), postgresserver.Start(t)
	v.KV("kv", "2")
	v.Postgres(pg, "app", time.Minute, time.Hour)
	v.Policy("app", "kv/*", "database/creds/app")
	v.Auth("approle", "approle")
	role := v.AppRole("app", map[string]any{"token_policies": "app", "token_ttl": "1m", "token_max_ttl": "1h"})
	set := func(canary string) {
		t.Helper()
		v.Do(http.MethodPost, "kv/data/app", map[string]any{"data": map[string]any{"password": canary}})
	}
	set(canaries[0])
	memory, err := os.MkdirTemp("/dev/shm", "drover-test-") //nolint:usetesting // TempDir is not in memory
	fstest.Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(memory) })
	n := p.node(t, binary, "one", fmt.Sprintf(secretive, v.Address, role, v.SecretID("app", false), memory))
	secrets := slices.Clone(canaries)
	n.heard("the variable has 12", "the descriptor has 28")
	holds := func(canary string) {
		t.Helper()
		got, err := os.ReadFile(memory + "/pass")
		info, statErr := os.Stat(memory + "/pass")
		if fstest.Must(t, err, statErr); string(got) != "password="+canary || info.Mode().Perm() != 0o600 {
			t.Errorf("the file has %q, %v", got, info.Mode())
		}
	}
	holds(canaries[0])
	db, err := os.ReadFile(memory + "/db")
	fstest.Must(t, err)
	user, password, _ := strings.Cut(string(db), " ")
	if _, err := pg.Query(t.Context(), user, password, "SELECT 1"); err != nil {
		t.Errorf("the credentials of the database: %v", err)
	}
	secrets = append(secrets, password)
	n.is(0, "committed", "backup")

	v.Seal()
	st := n.until("it says that Vault is sealed", func(st client.Status) bool {
		return st.Secrets != nil && !st.Secrets.Healthy && st.Health == "degraded"
	})
	if !strings.Contains(st.Message, "Vault") || jobOf(st, "app").Restarts != 0 {
		t.Errorf("while Vault is sealed: %+v", st)
	}
	holds(canaries[0])
	v.Unseal()
	set(canaries[1])
	n.heard("the variable has 15", "the descriptor has 31")
	n.until("all is well", func(st client.Status) bool { return st.Health == "ok" })
	holds(canaries[1])

	n.write("refuse", "")
	set(canaries[2])
	n.heard("the variable has 19")
	n.until("the file is refused", func(st client.Status) bool {
		return slices.ContainsFunc(st.Templates, func(one client.Template) bool {
			return one.Name == "pass" && strings.Contains(one.Error, "check refused")
		})
	})
	holds(canaries[1])
	fstest.Must(t, os.Remove(n.dir+"/refuse"))
	n.until("the file is taken", func(st client.Status) bool { return st.Health == "ok" })
	holds(canaries[2])
	st = n.until("its job runs", func(st client.Status) bool { return jobOf(st, "app").PID > 0 })

	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", jobOf(st, "app").PID))
	if err != nil || !bytes.Contains(environ, []byte("PASSWORD="+canaries[2])) {
		t.Errorf("the job's environment: %v", err)
	}
	n.with("DROVER_LOG_LEVEL=warn").is(0, "not shown", "render", "--dry-run", "db")
	n.is(0, "committed", "backup")
	noneShown(t, secrets, n, p.dir)
	fstest.Must(t, n.cmd.Process.Signal(syscall.SIGTERM))
	n.end()
	noneShown(t, secrets, n, p.dir)
	if _, err := pg.Query(t.Context(), user, password, "SELECT 1"); err == nil {
		t.Error("the credentials of the database outlive the agent")
	}
}

// noneShown searches all that is not the job's or in memory: what commands print, the
// command lines of all processes, and every file on a disk.
func noneShown(t *testing.T, secrets []string, n *node, dirs ...string) {
	t.Helper()
	searched := 0
	search := func(where string, text []byte) {
		searched++
		for i, secret := range secrets {
			for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret))} {
				if bytes.Contains(text, []byte(form)) {
					t.Errorf("secret %d is in %s", i, where)
				}
			}
		}
	}
	for _, args := range [][]string{{"status", "--json"}, {"status"}, {"events", "--json"}, {"events", "--recent"}, {"logs", "app"}, {"render", "--dry-run"}, {"render", "--dry-run", "--json"}, {"config"}, {"config", "--json"}} {
		got := n.do(args...)
		search("drover "+strings.Join(args, " "), []byte(got.out+got.err))
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	fstest.Must(t, err)
	for _, name := range lines {
		text, _ := os.ReadFile(name) // it may have ended
		search(name, text)
	}
	for _, dir := range append(dirs, n.dir) {
		fstest.Must(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(name)
			search(name, text)
			return err
		}))
	}
	const least = 20
	if searched < least {
		t.Errorf("only %d texts were searched", searched)
	}
}
