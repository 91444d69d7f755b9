package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"drover/client"
	"drover/internal/app"
	"drover/internal/control"
	"drover/internal/objstore/probe"
	"drover/internal/testkit/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// fakeOps answers every operation with err, or with something plausible.
type fakeOps struct {
	err       error
	snapshot  app.SnapshotOptions // that was asked for
	restore   app.RestoreOptions
	database  app.RestoreDatabaseOptions
	forget    app.ForgetOptions
	ends      [2]string // of a comparison
	changes   []app.Change
	rollback  app.RollbackOptions
	export    app.ExportOptions
	clone     app.CloneOptions
	copied    app.CopyOptions
	render    app.RenderOptions
	password  string       // a new one
	removed   string       // key
	unchanged bool         // is what a rollback finds
	progress  app.Progress // reported in the course of it
	result    app.RestoreResult
	backup    client.Backup
	longest   time.Duration // of the last backups
	problems  []string
	volumes   []string // in the store
	closed    bool
}

func (f *fakeOps) GitSync(context.Context) ([]client.GitTarget, error) {
	return []client.GitTarget{{Repository: "conf", Ref: "refs/heads/main", Commit: "0123456789abcdef", Written: 3, Changed: true}}, f.err
}

func (f *fakeOps) GitFollow(context.Context) error { return f.err }

func (f *fakeOps) report(fn func(app.Progress)) {
	if fn != nil {
		fn(f.progress)
	}
}

func (f *fakeOps) Init(context.Context) (bool, error) { return true, f.err }

func (f *fakeOps) Snapshot(_ context.Context, opt app.SnapshotOptions) (client.Backup, error) {
	f.snapshot = opt
	f.report(opt.Progress)
	return f.backup, f.err
}

func (f *fakeOps) RestoreDatabase(_ context.Context, opt app.RestoreDatabaseOptions) (app.RestoreDatabaseResult, error) {
	f.database = opt
	return app.RestoreDatabaseResult{Target: opt.Target, System: "7", Segments: 2}, f.err
}

func (f *fakeOps) Restore(_ context.Context, opt app.RestoreOptions) (app.RestoreResult, error) {
	f.restore = opt
	return f.result, f.err
}

func (f *fakeOps) Snapshots(context.Context, bool) ([]client.Snapshot, error) {
	return []client.Snapshot{
		{ID: "1111111122222222", Time: time.Unix(1e9, 0), Hostname: "web", Paths: []string{"/srv/git"}, Seq: 1, Committed: true, Files: 3, Bytes: 2048},
		{ID: "3333333344444444", Time: time.Unix(1e9+60, 0), Hostname: "we\x1bb", Paths: []string{"/srv/git"}, Seq: 2, Committed: true, Head: true, Files: 40, Bytes: 5 << 20},
	}, f.err
}

func (f *fakeOps) SnapshotAt(_ context.Context, at time.Time) (client.Snapshot, error) {
	return client.Snapshot{ID: "1111111122222222", Time: at.Add(-90 * time.Second)}, f.err
}

func (f *fakeOps) Diff(_ context.Context, from, to string, fn func(app.Change) error) (app.DiffResult, error) {
	f.ends = [2]string{from, to}
	if f.err != nil {
		return app.DiffResult{}, f.err
	}
	for _, c := range f.changes {
		if err := fn(c); err != nil {
			return app.DiffResult{}, err
		}
	}
	return app.DiffResult{From: client.Snapshot{ID: "1111111122222222", Time: time.Unix(1e9, 0)}, To: client.Snapshot{ID: "3333333344444444", Time: time.Unix(1e9+60, 0)}, Added: 1, Changed: 2}, nil
}

func (f *fakeOps) Rollback(_ context.Context, opt app.RollbackOptions) (app.RollbackResult, error) {
	f.rollback = opt
	return app.RollbackResult{Snapshot: "5555555566666666", Of: "1111111122222222", Seq: 3, Files: 1, Bytes: 2048, Seconds: 0.5, Unchanged: f.unchanged}, f.err
}

func (f *fakeOps) Export(_ context.Context, opt app.ExportOptions) (app.ExportResult, error) {
	f.export = opt
	if f.err == nil && opt.File == "" {
		_, _ = io.WriteString(opt.Out, "an archive")
	}
	return app.ExportResult{Snapshot: "3333333344444444", Files: 2, Dirs: 1, Bytes: 2048, Seconds: 0.5}, f.err
}

func (f *fakeOps) Clone(_ context.Context, opt app.CloneOptions) (app.CloneResult, error) {
	f.clone = opt
	return app.CloneResult{Of: "1111111122222222", Store: opt.To.Store.URL, Volume: opt.To.Volume, Snapshot: "7777777788888888", Stored: 2048, Seconds: 0.5}, f.err
}

func (f *fakeOps) Ls(_ context.Context, snapshot, path string, fn func(app.Entry) error) error {
	if f.err != nil {
		return f.err
	}
	for _, name := range []string{snapshot, "/a\nb", "/\xff\x1b[31m", path} {
		if err := fn(app.Entry{Path: name, Type: "file", Mode: 0o644, ModTime: time.Unix(1e9, 0)}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeOps) Verify(context.Context, app.VerifyOptions) (app.VerifyReport, error) {
	return app.VerifyReport{Snapshots: 2, Packs: 1, Blobs: 9, Problems: f.problems}, f.err
}

func (f *fakeOps) RestoreTest(context.Context, app.RestoreTestOptions) (client.RestoreTest, error) {
	t := client.RestoreTest{Snapshot: "1111111122222222", Seq: 7, Time: time.Unix(1, 0), Passed: f.err == nil, Begun: true, Files: 3, Bytes: 4096, Seconds: 2, Restore: 1.5}
	if f.err != nil {
		t.Error = f.err.Error()
	}
	return t, f.err
}

func (f *fakeOps) Forget(_ context.Context, opt app.ForgetOptions) (app.ForgetReport, error) {
	f.forget = opt
	return app.ForgetReport{Keep: []client.Snapshot{{}}, Remove: []client.Snapshot{{ID: "1111111122222222"}}}, f.err
}

func (f *fakeOps) Prune(_ context.Context, opt app.PruneOptions) (app.PruneReport, error) {
	if opt.Progress != nil {
		opt.Progress(f.progress)
	}
	return app.PruneReport{PacksDeleted: 1, PacksRepacked: 2, BytesFreed: 3 << 20}, f.err
}

func (f *fakeOps) Probe(context.Context) (app.ProbeReport, error) {
	if f.err != nil {
		return app.ProbeReport{}, f.err
	}
	report := app.ProbeReport{Store: "file:///bucket"}
	report.Steps = append(report.Steps, probe.Step{Name: "conditions are honoured", OK: len(f.problems) == 0, Took: 5 * time.Millisecond})
	if len(f.problems) > 0 {
		return report, errors.New(f.problems[0])
	}
	report.Latency = append(report.Latency, probe.Latency{Op: "put", P50: 40 * time.Microsecond, P99: time.Millisecond})
	return report, nil
}

func (f *fakeOps) ResticEnv(context.Context) ([]app.EnvVar, error) {
	return []app.EnvVar{{Name: "RESTIC_REPOSITORY", Value: "/it's/data"}}, f.err
}

func (f *fakeOps) Status(context.Context) (client.Status, error) {
	commit := time.Unix(1e9, 0)
	return client.Status{Volume: "data", Role: "none", Health: "ok", State: "held", Holder: "web-1", Epoch: 3, Seq: 2, Snapshot: "3333333344444444", Commit: &commit}, f.err
}

func (f *fakeOps) Volumes(context.Context) ([]string, error)            { return f.volumes, f.err }
func (f *fakeOps) LongestBackup(context.Context) (time.Duration, error) { return f.longest, f.err }

func (f *fakeOps) Copy(_ context.Context, opt app.CopyOptions) (app.CopyResult, error) {
	f.copied = opt
	return app.CopyResult{Store: opt.To.Store.URL, Volume: opt.To.Volume, Copied: 2, Seq: 7}, f.err
}

func (f *fakeOps) Keys(context.Context) ([]app.Key, error) {
	return []app.Key{{ID: testKey, Current: true, Username: "u", Hostname: "h\x1b"}}, f.err
}

func (f *fakeOps) AddKey(_ context.Context, password app.Secret) (string, error) {
	f.password = password.Reveal()
	return testKey, f.err
}

func (f *fakeOps) ReplaceKey(_ context.Context, password app.Secret) (string, error) {
	f.password = password.Reveal()
	return testKey, f.err
}

func (f *fakeOps) RemoveKey(_ context.Context, name string) (string, error) {
	f.removed = name
	return testKey, f.err
}

func (f *fakeOps) Close() error { f.closed = true; return nil }

// result is what a command line did.
type result struct {
	code     int
	out, err string
}

// try carries out a command line in a world with only this environment.
func try(t *testing.T, ops *fakeOps, env map[string]string, args ...string) result {
	t.Helper()
	return tryIn(t, context.Background(), World{ops: func(*app.Config, *slog.Logger) operations { return ops }}, env, args...)
}

func tryIn(t *testing.T, ctx context.Context, w World, env map[string]string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	w.In, w.Out, w.Err = strings.NewReader(""), &out, &errs
	w.Files = []string{filepath.Join(t.TempDir(), "none")}
	w.Env = func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	w.Now = func() time.Time { return time.Unix(1e9+90, 0) }
	if w.agent == nil {
		w.agent = func(_ context.Context, load func() (*app.Config, error), _, _ io.Writer) (int, error) {
			_, err := load()
			return 7, err
		}
	}
	code := run(ctx, args, w)
	return result{code, out.String(), errs.String()}
}

var storeEnv = map[string]string{"DROVER_STORE": "file:///bucket", "DROVER_PASSWORD": "open sesame"}

// TestExitCodes: each kind of error has its code, and is one line on stderr.
func TestExitCodes(t *testing.T) {
	for _, test := range []struct {
		err  error
		code int
		line string
	}{
		{errors.New("disk on fire"), 1, "drover: disk on fire\n"},
		{fmt.Errorf("open: %w", app.ErrNoRepository), 10, ""},
		{fmt.Errorf("open: %w", app.ErrWrongPassword), 12, "check DROVER_PASSWORD"},
		{fmt.Errorf("claim: %w by web-1", app.ErrHeld), 11, ""},
		{fmt.Errorf("lock: %w", app.ErrLocked), 11, ""},
		{fmt.Errorf("read /a: %w", app.ErrIncomplete), 3, "/a"},
		{fmt.Errorf("commit: %w", app.ErrShrunk), 1, ""},
		{fmt.Errorf("commit: %w", app.ErrPaths), 1, ""},
		{errors.Join(errors.New("one"), errors.New("two\x1b")), 1, "drover: one; two\\x1b\n"},
		{fmt.Errorf("read: %w", context.Canceled), 130, ""},
	} {
		ops := &fakeOps{err: test.err}
		for _, args := range [][]string{
			{"init"}, {"snapshot", "/a"}, {"restore"}, {"restore", "--at", "2h"}, {"snapshots"}, {"ls"}, {"diff"}, {"rollback", "a"}, {"export"}, {"clone", "--to-volume", "b", "--to-password-file", "/p"}, {"verify"}, {"forget", "--keep-last", "1"},
			{"prune"}, {"probe"}, {"restore-test"}, {"restic-env"}, {"status", "--socket", "/no/agent/here"}, {"status", "--all"},
		} {
			ops.closed = false
			got := try(t, ops, storeEnv, args...)
			if got.code != test.code || got.out != "" || strings.Count(got.err, "\n") != 1 || !strings.HasPrefix(got.err, "drover: ") ||
				!strings.Contains(got.err, test.line) || !ops.closed || strings.Contains(got.err, "sesame") {
				t.Errorf("%v with %v: got %+v, closed %v", args, test.err, got, ops.closed)
			}
		}
	}
}

// TestBadInput: a command line that cannot be meant is one clear line and code 2.
func TestBadInput(t *testing.T) {
	for args, want := range map[string]string{
		"bakup":                           `unknown command "bakup"; did you mean backup?`,
		"xyzzy":                           `unknown command "xyzzy"; see drover --help`,
		"backup now":                      `unexpected argument "now"`,
		"backup --nope":                   `unknown flag: --nope; see drover backup --help`,
		"backup --timeout 5":              `--timeout: duration "5" has no unit; write 5s for seconds, or ms, m, h, d, w`,
		"backup --timeout soon":           `--timeout: "soon" is not a duration; write`,
		"init --store /bucket":            `--store: store is not a URL; write file:///dir, s3://bucket/prefix or manta://account/stor/prefix`,
		"init --store manta:///stor":      `names no account; write manta://account/stor/prefix`,
		"init --store file:///b":          `no password given for the store; set DROVER_PASSWORD`,
		"init":                            `no store given; set --store, DROVER_STORE or store.url`,
		"probe":                           `no store given`,
		"init -c /no/such.yaml":           `-c: cannot read /no/such.yaml: no such file or directory`,
		"run":                             `nothing to run; put the command after --`,
		"run app":                         `unexpected argument "app"; put -- before the application's command`,
		"run app -- b":                    `unexpected argument "app"; put --`,
		"run --state /a -- app":           `--state: state paths without a store to keep them in`,
		"run --store file:///b -- app":    `--store: a store without a state path`,
		"run --fence loose -- app":        `--fence: "loose" is not one of history, strict`,
		"run --on-change":                 `flag needs an argument: --on-change`,
		"snapshot":                        `no store given`,
		"restore a b":                     `unexpected argument "b"`,
		"rollback":                        `no snapshot given; name one of drover snapshots, or say --at TIME`,
		"export --json":                   `--json and an archive on standard output; say --output FILE`,
		"restore --at noon":               `--at: "noon" is not a time; write one as in "2026-01-31 15:04"`,
		"verify --read-data-subset 8/7":   `--read-data-subset: "8/7" is not a subset; write n/t (group n of t, t up to 256), a percentage`,
		"verify --read-data-subset next:": `--read-data-subset: "next:" is not a subset; write n/t`,
		"forget":                          `no rule says what to keep; give --keep-last`,
		"forget --keep-last -1":           `cannot keep -1; give a number of 1 or more`,
		"forget --keep-last x":            `--keep-last: "x" is not a whole number`,
		"completion":                      `name one shell; bash, zsh, fish or powershell`,
		"completion tcsh":                 `no completion for "tcsh"`,
		"demo --pushes 0":                 `cannot push 0 commits; give a number from 1 to 1000`,
		"demo --ttl 1":                    `--ttl: duration "1" has no unit`,
		"help nothing":                    `unknown command "nothing"`,
		"version please":                  `unexpected argument "please"`,
		"status --volume drover":          `--volume: volume name "drover" is reserved`,
		"snapshots --password-file /none": `no store given`,
	} {
		got := try(t, &fakeOps{}, nil, strings.Fields(args)...)
		if got.code == 7 { // what the agent of these tests returns beside a bad configuration
			got.code = exitUsage
		}
		if got.code != exitUsage || got.out != "" || strings.Count(got.err, "\n") != 1 || !strings.Contains(got.err, want) {
			t.Errorf("%s: got %+v\nwant %s", args, got, want)
		}
	}
	for _, args := range []string{"restore abcd --at 2h", "ls abcd --at 2h /srv", "diff abcd abcd --at 2h", "rollback abcd --at 2h", "export abcd --at 2h", "clone abcd --at 2h --to-volume b --to-password-file /p"} {
		if got := try(t, &fakeOps{}, storeEnv, strings.Fields(args)...); got.code != exitUsage || !strings.Contains(got.err, "a snapshot and --at; give one of them") {
			t.Errorf("%s: %+v", args, got)
		}
	}
	if got := try(t, &fakeOps{}, storeEnv, "verify", "--read-data", "--read-data-subset", "1/2"); got.code != exitUsage || !strings.Contains(got.err, "give one of them") {
		t.Errorf("verify with both: %+v", got)
	}
	if got := try(t, &fakeOps{}, storeEnv, "snapshot"); got.code != exitUsage || !strings.Contains(got.err, "no path given") {
		t.Errorf("snapshot without a path: %+v", got)
	}
}

func TestHuman(t *testing.T) {
	ops := &fakeOps{
		result: app.RestoreResult{Snapshot: "3333333344444444", Files: 12, Dirs: 1, Bytes: 3 << 20, Seconds: 0.25, SkippedMetadata: map[string]int64{"owner": 12, "device": 1}},
		backup: client.Backup{Snapshot: "3333333344444444", Seq: 2, Files: 1, Bytes: 100, Added: 50, Seconds: 1.5, Skipped: []string{"/a\nb"}},
	}
	for args, want := range map[string]result{
		"init":                       {0, "created; keep the password: without it nothing can be restored\n", ""},
		"restore":                    {0, "restored 33333333 in place: 12 files, 1 directory, 3.0 MiB in 250ms\n", "drover: metadata not set: device 1, owner 12\n"},
		"restore latest --target /t": {0, "restored 33333333 below /t: 12 files, 1 directory, 3.0 MiB in 250ms\n", "drover: metadata not set: device 1, owner 12\n"},
		"snapshot /a":                {0, "committed 33333333 (seq 2): 1 file, 100 B; 50 B stored in 1.5s\n", "drover: skipped, not readable: /a\\nb\n"},
		"ls abc /sub":                {0, "abc\n/a\\nb\n/\\xff\\x1b[31m\n/sub\n", ""},
		"verify":                     {0, "no problem found: 2 snapshots, 1 pack, 9 blobs\n", ""},
		"restore-test":               {0, "passed: 11111111 (seq 7), 3 files, 4.0 KiB; restored and read back in 1.5s\n", ""},
		"prune":                      {0, "freed 3.0 MiB: 1 pack removed, 2 packs packed anew\n", ""},
		"prune --dry-run":            {0, "would free 3.0 MiB: 1 pack removed, 2 packs packed anew\n", ""},
		"rollback 1111":              {0, "committed 55555555 (seq 3) with the state of 11111111: 1 file, 2.0 KiB in 500ms\n", ""},
		"export":                     {0, "an archive", ""},
		"export -o /f latest":        {0, "exported 33333333 to /f: 2 files, 1 directory, 2.0 KiB in 500ms\n", ""},
		"clone --to-volume b --to-password-file /p": {0, "cloned 11111111 to volume b of file:///bucket: 2.0 KiB stored in 500ms\n", ""},
		"restic-env":                      {0, "export RESTIC_REPOSITORY='/it'\\''s/data'\n", ""},
		"status --socket /no/agent":       {0, "volume       data\nrole         none\nhealth       ok\nholder       web-1\nepoch        3\nlast commit  1m30s ago: 33333333 (seq 2)\n", ""},
		"version --json --log-level info": {0, "", ""},
	} {
		got := try(t, ops, storeEnv, strings.Fields(args)...)
		if strings.HasPrefix(args, "version") {
			got.out = ""
		}
		if got != want {
			t.Errorf("%s:\n got %+v\nwant %+v", args, got, want)
		}
	}
	got := try(t, &fakeOps{unchanged: true}, storeEnv, "rollback", "1111")
	if got != (result{0, "nothing to do: the newest state 55555555 (seq 3) is that of 11111111\n", ""}) {
		t.Errorf("rollback to what is: %+v", got)
	}
	got = try(t, ops, storeEnv, "snapshots")
	want := regexp.MustCompile(`^ID        TIME                 HOST     SEQ  FILES  SIZE     STATE      PATHS
11111111  \S+ \S+  web      1    3      2\.0 KiB  committed  /srv/git
33333333  \S+ \S+  we\\x1bb  2    40     5\.0 MiB  head       /srv/git
$`)
	if !want.MatchString(got.out) {
		t.Errorf("snapshots: got\n%s", got.out)
	}
	got = try(t, ops, storeEnv, "probe")
	if got != (result{0, "CHECK                    RESULT  TOOK\nconditions are honoured  ok      5ms\n\nCALL  MEDIAN  99 %\nput   40µs    1ms\n", ""}) {
		t.Errorf("probe: %+v", got)
	}
	got = try(t, &fakeOps{problems: []string{"it ignores If-Match"}}, storeEnv, "probe")
	if got != (result{1, "CHECK                    RESULT  TOOK\nconditions are honoured  FAILED  5ms\n", "drover: it ignores If-Match\n"}) {
		t.Errorf("probe that fails: %+v", got)
	}
	ops.problems = []string{"pack a: damaged", "pack b: two\nlines"}
	got = try(t, ops, storeEnv, "verify")
	if got != (result{1, "pack a: damaged\npack b: two; lines\n", "drover: verify: 2 problems found\n"}) {
		t.Errorf("verify with problems: %+v", got)
	}
}

// TestJSON: what --json prints is JSON, and nothing but it is on stdout.
func TestJSON(t *testing.T) {
	for _, args := range []string{
		"init", "snapshot /a", "restore", "snapshots", "verify", "diff", "rollback a", "export -o /f", "clone --to-volume b --to-password-file /p", "forget --keep-last 1", "prune", "probe", "restic-env",
		"status --socket /no/agent", "version",
	} {
		got := try(t, &fakeOps{}, storeEnv, append(strings.Fields(args), "--json")...)
		if got.code != 0 || !json.Valid([]byte(got.out)) || got.err != "" {
			t.Errorf("%s: got %+v", args, got)
		}
	}
	got := try(t, &fakeOps{}, storeEnv, "ls", "--json")
	for line := range strings.Lines(got.out) {
		if !json.Valid([]byte(line)) {
			t.Errorf("ls: line %q", line)
		}
	}
	got = try(t, &fakeOps{problems: []string{"x"}}, storeEnv, "verify", "--json")
	if got.code != 1 || !json.Valid([]byte(got.out)) {
		t.Errorf("verify with problems: %+v", got)
	}
}

func TestOptionsArrive(t *testing.T) {
	ops := &fakeOps{}
	try(t, ops, storeEnv, "restore", "abcd", "--target", "/t", "--delete", "--strict-metadata", "--include", "/x", "--include", "/y")
	if r := ops.restore; r.Snapshot != "abcd" || r.Target != "/t" || !r.Delete || !r.StrictMetadata || strings.Join(r.Include, " ") != "/x /y" {
		t.Errorf("restore: %+v", r)
	}
	try(t, ops, storeEnv, "restore")
	if ops.restore.Snapshot != "latest" {
		t.Errorf("restore: %+v", ops.restore)
	}
	try(t, ops, storeEnv, "rollback", "--at", "2h", "--replace-paths")
	if r := ops.rollback; r.Snapshot != "1111111122222222" || !r.ReplacePaths {
		t.Errorf("rollback: %+v", r)
	}
	try(t, ops, storeEnv, "export", "abcd", "--output", "/f")
	if e := ops.export; e.Snapshot != "abcd" || e.File != "/f" {
		t.Errorf("export: %+v", e)
	}
	try(t, ops, storeEnv, "snapshot", "--replace-paths", "--tag", "a", "/p", "/q")
	if o := ops.snapshot; !o.ReplacePaths || strings.Join(o.Tags, " ") != "a" || strings.Join(o.Paths, " ") != "/p /q" {
		t.Errorf("snapshot: %+v", o)
	}
	try(t, ops, storeEnv, "forget", "--keep-daily", "7", "--keep-within", "30d", "--dry-run", "--prune", "abcd")
	if f := ops.forget; f.Daily != 7 || f.Within != 30*24*time.Hour || !f.DryRun || !f.Prune || strings.Join(f.Snapshots, " ") != "abcd" {
		t.Errorf("forget: %+v", f)
	}
}

func TestRun(t *testing.T) {
	var cfg *app.Config
	w := World{agent: func(_ context.Context, load func() (*app.Config, error), _, _ io.Writer) (int, error) {
		var err error
		cfg, err = load()
		return 143, err
	}}
	env := map[string]string{"DROVER_STORE": "file:///bucket", "DROVER_PASSWORD": "p", "DROVER_FENCE": "strict", "DROVER_EXCLUDE": "*.tmp"}
	got := tryIn(t, context.Background(), w, env, "run", "--state", "/srv/a", "--state", "/srv/b", "--on-change", "2s", "--ttl", "4s", "--json", "--", "app", "--state", "x")
	if got.code != 143 || got.err != "" {
		t.Fatalf("got %+v", got)
	}
	_, job, _ := cfg.Main()
	if strings.Join(cfg.Paths(), " ") != "/srv/a /srv/b" || cfg.Fence != "strict" || strings.Join(job.Command, " ") != "app --state x" ||
		cfg.Backup.OnChange.Std() != 2*time.Second || cfg.Log.Format != "json" || cfg.Exclude[0] != "*.tmp" {
		t.Errorf("got %+v", cfg)
	}
}

// agent answers the control API in these tests.
type agent struct {
	backup client.Backup
	err    error
	wait   bool // until the caller leaves
	talk   *talk
}

func (a agent) Status() client.Status {
	if a.talk != nil {
		return client.Status{Role: "supervisor", Health: "ok", Jobs: a.talk.jobs}
	}
	rto := 0.5
	return client.Status{Service: "wiki", Volume: "data", Instance: "web-1", Holder: "web-1", State: "held", Role: "holder", Health: "ok", Epoch: 1,
		Mirror: &client.Mirror{Known: true, Upkeep: &client.Upkeep{Last: time.Now(), Removed: 3, Waiting: 2}},
		Upkeep: &client.Upkeep{DamagedCount: 4, Damaged: []client.DamagedSnapshot{{Snapshot: "3333333344444444", Why: "gone"}}},
		RTO:    &rto, RPO: 3, Pending: true, Jobs: []client.Job{{Name: "main", Main: true, State: "running", PID: 12}}}
}

func (a agent) Backup(ctx context.Context, queue bool) (client.Backup, error) {
	if a.wait {
		<-ctx.Done()
		return client.Backup{}, ctx.Err()
	}
	b := a.backup
	b.Queued = queue
	return b, a.err
}

// serve answers as a on a socket until the test ends.
func serve(t *testing.T, a agent) map[string]string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	serveAt(t, a, path)
	return map[string]string{"DROVER_SOCKET": path}
}

func serveAt(t *testing.T, a control.Agent, path string) {
	t.Helper()
	server := control.New(a, control.Options{Path: path})
	if err := server.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestBackup(t *testing.T) {
	done := client.Backup{Snapshot: "3333333344444444", Seq: 2, Files: 2, Bytes: 10, Added: 5, Seconds: 0.1}
	unchanged := done
	unchanged.Unchanged = true
	for _, test := range []struct {
		agent agent
		args  string
		want  result
	}{
		{agent{backup: done}, "backup", result{0, "committed 33333333 (seq 2): 2 files, 10 B; 5 B stored in 100ms\n", ""}},
		{agent{backup: unchanged}, "backup", result{0, "committed already: nothing changed since 33333333 (seq 2) in 100ms\n", ""}},
		{agent{}, "backup --queue", result{0, "queued\n", ""}},
		{agent{err: errors.New("held by web-2"), backup: client.Backup{Kind: "held"}}, "backup", result{11, "", "drover: backup: held by web-2\n"}},
		{agent{err: errors.New("cannot read /a"), backup: client.Backup{Kind: "incomplete"}}, "backup", result{3, "", "drover: backup: cannot read /a\n"}},
		{agent{err: errors.New("store away")}, "backup", result{1, "", "drover: backup: store away\n"}},
		{agent{wait: true}, "backup --timeout 50ms", result{1, "", "drover: backup: not committed in time: the limit was 50ms\n"}},
	} {
		if got := try(t, nil, serve(t, test.agent), strings.Fields(test.args)...); got != test.want {
			t.Errorf("%s: got %+v\nwant %+v", test.args, got, test.want)
		}
	}
	got := try(t, nil, serve(t, agent{err: errors.New("held by web-2"), backup: client.Backup{Kind: "held"}}), "backup", "--json")
	var b client.Backup
	if err := json.Unmarshal([]byte(got.out), &b); err != nil || b.Kind != "held" || b.Error != "held by web-2" || got.code != 11 {
		t.Errorf("json of a refusal: %+v, %v", got, err)
	}
	got = try(t, nil, map[string]string{"DROVER_SOCKET": "/no/agent"}, "backup")
	if got != (result{1, "", "drover: backup: no agent answers on /no/agent; is `drover run` up, and DROVER_SOCKET its socket?\n"}) {
		t.Errorf("no agent: %+v", got)
	}
}

// An agent is asked, and a hook backs up, while somebody edits the configuration file.
func TestBesideABrokenFile(t *testing.T) {
	env := serve(t, agent{})
	env["DROVER_CONFIG"] = filepath.Join(t.TempDir(), "drover.yaml")
	if err := os.WriteFile(env["DROVER_CONFIG"], []byte("jobs: {half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := try(t, nil, env, "backup", "--queue"); got != (result{0, "queued\n", ""}) {
		t.Errorf("%+v", got)
	}
	if got := try(t, nil, env, "status"); got.code != 0 || got.err != "" || !strings.Contains(got.out, "web-1 (this instance)") {
		t.Errorf("%+v", got)
	}
	env["DROVER_SOCKET"] = "/no/agent" // now the file must be read
	if got := try(t, nil, env, "status"); got.code != 2 {
		t.Errorf("%+v", got)
	}
}

// TestInterrupted: a wait that is interrupted ends with 130.
func TestInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancelCause(context.Background())
	interrupt(errInterrupted)
	got := tryIn(t, ctx, World{}, serve(t, agent{wait: true}), "backup")
	if got != (result{130, "", "drover: backup: interrupted\n"}) {
		t.Errorf("got %+v", got)
	}
}

func TestStatus(t *testing.T) {
	env := serve(t, agent{})
	got := try(t, nil, env, "status")
	want := `service   wiki
volume    data
instance  web-1
role      holder
health    ok
holder    web-1 (this instance)
epoch     1
last commit  none yet
RPO       3s, changes wait for a commit
RTO       500ms (the last restore)
mirror    up to date
mirror upkeep  3 snapshots removed, 0 packs deleted (0 B), 2 packs to go
damaged   33333333: gone
damaged   and 3 more

JOB       STATE  PID  RESTARTS
main (main)  ● running  12  0
`
	squeeze := regexp.MustCompile(` {2,}`)
	if got.code != 0 || squeeze.ReplaceAllString(got.out, "  ") != squeeze.ReplaceAllString(want, "  ") {
		t.Errorf("got %+v", got)
	}
	var status client.Status
	if got := try(t, nil, env, "status", "--json"); json.Unmarshal([]byte(got.out), &status) != nil || status.Instance != "web-1" {
		t.Errorf("got %+v", got)
	}
	got = try(t, nil, map[string]string{"DROVER_SOCKET": "/no/agent"}, "status")
	if got.code != 1 || got.err != "drover: status: no agent answers on /no/agent, and no store is given; set --socket, or --store to read the store\n" {
		t.Errorf("got %+v", got)
	}
}

// TestProgress: a line that is drawn over on a terminal, nothing elsewhere.
func TestProgress(t *testing.T) {
	ops := &fakeOps{progress: app.Progress{Phase: "backup", Files: 1, Bytes: 5 << 20, TotalBytes: 10 << 20}}
	w := World{ErrTerm: true, ops: func(*app.Config, *slog.Logger) operations { return ops }}
	got := tryIn(t, context.Background(), w, storeEnv, "snapshot", "/a")
	line := "backup [##########----------]  50%  1  5.0 MiB"
	if want := "\r" + line + "\r" + strings.Repeat(" ", len(line)) + "\r"; got.err != want {
		t.Errorf("got %q\nwant %q", got.err, want)
	}
	if got := try(t, ops, storeEnv, "snapshot", "/a"); got.err != "" {
		t.Errorf("no terminal: %q", got.err)
	}
	ops.progress = app.Progress{Phase: "prune: deleting packs", Files: 3, TotalFiles: 4}
	if got := tryIn(t, context.Background(), w, storeEnv, "prune"); !strings.Contains(got.err, "prune: deleting packs [###############-----]  75%  3/4") {
		t.Errorf("prune: %q", got.err)
	}
}

// TestTimeLeft: it is told from what was done, once there is a second to go by.
func TestTimeLeft(t *testing.T) {
	now := app.Progress{Phase: "restore", Files: 2, TotalFiles: 8, Bytes: 1 << 20, TotalBytes: 4 << 20}
	for elapsed, want := range map[time.Duration]string{
		900 * time.Millisecond: "restore [#####---------------]  25%  2/8  1.0 MiB",
		2 * time.Second:        "restore [#####---------------]  25%  2/8  1.0 MiB  512.0 KiB/s  6s left",
	} {
		if got := progressLine(now, elapsed); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	now.Bytes = now.TotalBytes
	if got := progressLine(now, time.Minute); strings.Contains(got, "left") {
		t.Errorf("done: %q", got)
	}
}

// TestExportSparesTerminals: an archive would spoil them.
func TestExportSparesTerminals(t *testing.T) {
	ops := &fakeOps{}
	w := World{OutTerm: true, ops: func(*app.Config, *slog.Logger) operations { return ops }}
	if got := tryIn(t, context.Background(), w, storeEnv, "export"); got.code != exitUsage || got.out != "" || !strings.Contains(got.err, "--output FILE") {
		t.Errorf("got %+v", got)
	}
	if got := tryIn(t, context.Background(), w, storeEnv, "export", "-o", "/f"); got.code != 0 {
		t.Errorf("to a file: %+v", got)
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := try(t, nil, nil, "completion", shell); got.code != 0 || !strings.Contains(got.out, "drover") {
			t.Errorf("%s: code %d, %d bytes", shell, got.code, len(got.out))
		}
	}
	if got := try(t, nil, nil, "__complete", "run", "--fence", ""); !strings.HasPrefix(got.out, "history\nstrict\n") {
		t.Errorf("values of --fence: %q", got.out)
	}
}

func TestModeText(t *testing.T) {
	for mode, want := range map[os.FileMode]string{
		0o644: "-rw-r--r--", os.ModeDir | os.ModeSticky | 0o777: "drwxrwxrwt", os.ModeSymlink | 0o777: "lrwxrwxrwx",
		os.ModeSetuid | 0o755: "-rwsr-xr-x", os.ModeSetgid | 0o640: "-rw-r-S---", os.ModeDevice | os.ModeCharDevice | 0o600: "crw-------", os.ModeNamedPipe | 0o600: "prw-------",
	} {
		if got := modeText(mode); got != want {
			t.Errorf("%v: got %s, want %s", mode, got, want)
		}
	}
}
