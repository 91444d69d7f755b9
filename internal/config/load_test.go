package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sources are those of a root user on a host called host, with only the given
// environment and file text ("" for none).
func sources(t *testing.T, file string, env map[string]string, flags map[string][]string) Sources {
	t.Helper()
	src := Sources{
		Files:    []string{filepath.Join(t.TempDir(), "drover.yaml")},
		Env:      func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		Flags:    flags,
		UID:      func() int { return 0 },
		Hostname: func() (string, error) { return "host", nil },
	}
	if file != "" {
		if err := os.WriteFile(src.Files[0], []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return src
}

// designExample is the example of the contract.
const designExample = `service: review
store: {url: "s3://state/review?endpoint=http://s3:9000", password_file: /run/secrets/store}
volume: data
state: [{path: /srv/git, exclude: ["*.lock"]}]
backup: {on_change: 2s, every: 1h, on_stop: true}
lease: {ttl: 10s}
fence: history            # or strict
first_start: refuse       # or adopt
jobs: {git: {command: [git, daemon, --reuseaddr, --port=9418], main: true}}
`

func TestLoadExample(t *testing.T) {
	c, err := Load(sources(t, designExample, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CheckRun(); err != nil {
		t.Fatal(err)
	}
	name, job, ok := c.Main()
	got := fmt.Sprint(c.Service, c.Store.URL, c.Store.PasswordFile, c.Volume, c.State, c.Backup.OnChange, c.Backup.Every, c.Backup.OnStop,
		c.Lease.TTL, c.Fence, c.FirstStart, name, job.Command, ok, job.Stop, c.ID, c.DataDir, c.Socket)
	want := "review" + fmt.Sprint("", "s3://state/review?endpoint=http://s3:9000", "/run/secrets/store", "data", []StatePath{{"/srv/git", []string{"*.lock"}}},
		Duration(2*time.Second), Duration(time.Hour), true, Duration(10*time.Second), FenceHistory, FirstStartRefuse, "git",
		Command{"git", "daemon", "--reuseaddr", "--port=9418"}, true, Stop{Signal: "TERM", Grace: DefaultGrace}, "host", "/var/lib/drover", "/run/drover/drover.sock")
	if strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestLoadForms(t *testing.T) {
	c, err := Load(sources(t, `
state: [/srv/a/, {path: /srv/b}]
exclude:
  - "*.tmp"
backup:
limits: {upload: 10MiB, memory: "1.5GiB", connections: 4}
jobs:
  web: {command: [sleep, 5, true, 0x10], env: {PORT: 8080, DEBUG: true}, stop: {signal: SIGQUIT, grace: 1m}}
`, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	web := c.Jobs["web"]
	checks := map[string]bool{
		"short and long state paths":  len(c.State) == 2 && c.State[0].Path == "/srv/a" && c.State[1].Path == "/srv/b",
		"exclude":                     len(c.Exclude) == 1 && c.Exclude[0] == "*.tmp",
		"empty section keeps default": c.Backup.OnStop,
		"sizes":                       c.Limits.Upload == 10<<20 && c.Limits.Memory == 3<<29 && c.Limits.Connections == 4,
		"arguments verbatim":          strings.Join(web.Command, " ") == "sleep 5 true 0x10",
		"variables verbatim":          web.Env["PORT"] == "8080" && web.Env["DEBUG"] == "true",
		"the only job is main":        web.Main,
		"stop":                        web.Stop.Signal == "QUIT" && web.Stop.Signal.Number() == 3 && web.Stop.Grace.Std() == time.Minute,
	}
	for what, ok := range checks {
		if !ok {
			t.Errorf("%s: got %+v", what, c)
		}
	}
}

func TestPrecedence(t *testing.T) {
	file := "volume: of-file\nfence: strict\nlease: {ttl: 30s}\nstore: {password: inline}\n"
	env := map[string]string{"DROVER_VOLUME": "of-env", "DROVER_TTL": "20s", "DROVER_PASSWORD_FILE": "/env", "DROVER_STATE": "/a:/b,/c", "DROVER_EXCLUDE": "a:b\nc,d", "DROVER_ON_STOP": "0"}
	flags := map[string][]string{"volume": {"of-flag"}, "password-command": {"cat /x"}, "state": {"/one", "/two"}}

	c, err := Load(sources(t, file, env, nil))
	if err != nil {
		t.Fatal(err)
	}
	if c.Volume != "of-env" || c.Fence != FenceStrict || c.Lease.TTL.Std() != 20*time.Second || c.Backup.OnStop ||
		c.Store.Password.Set() || c.Store.PasswordFile != "/env" ||
		strings.Join(c.Paths(), " ") != "/a /b /c" || strings.Join(c.Exclude, " ") != "a:b c,d" {
		t.Errorf("environment over file: got %+v", c)
	}
	c, err = Load(sources(t, file, env, flags))
	if err != nil {
		t.Fatal(err)
	}
	if c.Volume != "of-flag" || c.Lease.TTL.Std() != 20*time.Second || c.Store.PasswordFile != "" ||
		strings.Join(c.Store.PasswordCommand, "|") != "/bin/sh|-c|cat /x" || strings.Join(c.Paths(), " ") != "/one /two" {
		t.Errorf("flag over environment: got %+v", c)
	}
}

func TestCommandBecomesMain(t *testing.T) {
	src := sources(t, "jobs: {side: {command: [sleep, 1]}}", nil, nil)
	src.Command = []string{"app", "--its-flags"}
	c, err := Load(src)
	if err != nil {
		t.Fatal(err)
	}
	name, job, ok := c.Main()
	if !ok || name != MainJob || strings.Join(job.Command, " ") != "app --its-flags" || len(c.Jobs) != 2 {
		t.Errorf("got %q %+v %v", name, job, ok)
	}
}

// TestSingleJobByTurns: it is not main, for its first end would be the instance's.
func TestSingleJobByTurns(t *testing.T) {
	c, err := Load(sources(t, "jobs: {tidy: {command: [tidy], every: 1h}}", nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if name, _, ok := c.Main(); ok {
		t.Errorf("%s is main", name)
	}
}

func TestNotRoot(t *testing.T) {
	src := sources(t, "", map[string]string{"XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/home/u"}, nil)
	src.UID = func() int { return 7 }
	c, err := Load(src)
	if err != nil {
		t.Fatal(err)
	}
	if c.Socket != "/run/user/7/drover/drover.sock" || c.DataDir != "/home/u/.local/state/drover" {
		t.Errorf("got %s, %s", c.Socket, c.DataDir)
	}
}

// TestFileErrors: each wrong file is one line that starts with its place and, after
// the semicolon, says how to mend it.
func TestFileErrors(t *testing.T) {
	for _, test := range []struct{ file, want string }{
		{"volme: x", `1:1: unknown key "volme"; did you mean "volume"?`},
		{"backup:\n  evry: 1h", `2:3: unknown key "evry" in backup; did you mean "every"?`},
		{"on_change: 2s", `1:1: unknown key "on_change"; it belongs to backup`},
		{"lease: {fence: strict}", `1:9: unknown key "fence" in lease; it belongs to the top of the file`},
		{"lease: {zzzzzz: 1}", `1:9: unknown key "zzzzzz" in lease; known here: head, ttl`},
		{"state: [{path: /a, excludes: [x]}]", `1:20: unknown key "excludes" in state[0]; did you mean "exclude"?`},
		{"jobs: {a: {comand: x}}", `1:12: unknown key "comand" in jobs.a; did you mean "command"?`},
		{"volume: a\nvolume: b", `2:1: not valid YAML: mapping key "volume" already defined at [1:1]; see`},
		{"volume: [a]", `1:9: volume must be a single value, not a list`},
		{"volume:", `1:9: volume has no value; give it one or take the line out`},
		{"volume: true", `1:9: volume is a text, not true or false; write it in quotes if it is meant`},
		{"backup: 5", `1:9: backup must be a mapping of keys to values, not a single value`},
		{"- a", `1:1: the file must be a mapping of keys to values, not a list`},
		{"state: /srv", `1:8: state must be a list, not a single value`},
		{"backup: {on_stop: yes}", `1:19: backup.on_stop: "yes" is not true or false`},
		{"limits: {connections: many}", `1:23: limits.connections: "many" is not a whole number`},
		{"lease: {ttl: 10}", `1:14: lease.ttl: duration "10" has no unit; write 10s for seconds, or ms, m, h, d, w`},
		{"lease: {ttl: soon}", `1:14: lease.ttl: "soon" is not a duration; write a number and a unit`},
		{"lease: {ttl: 10ms}", `1:14: lease TTL 10ms is out of range; write one from 1s to 1h`},
		{"backup: {on_change: -2s}", `1:21: backup.on_change: duration "-2s" is negative; write one of 0 or more`},
		{"limits: {upload: fast}", `1:18: limits.upload: "fast" is not a size; write a number and a unit`},
		{"fence: strikt", `1:8: fence: "strikt" is not one of history, strict; did you mean "strict"?`},
		{"first_start: ignore", `1:14: first_start: "ignore" is not one of refuse, adopt`},
		{"volume: drover", `1:9: volume name "drover" is reserved; choose another`},
		{"volume: a/b", `1:9: volume name "a/b" is not valid; use 1 to 63 letters`},
		{"state: [srv/git]", `1:9: state path "srv/git" is not absolute; begin it with a slash`},
		{"state: [/srv/git, /srv/git/a]", `1:19: state paths "/srv/git" and "/srv/git/a" overlap; keep the outer one`},
		{"state: [/]", `1:9: the root directory cannot be a state path; name`},
		{"state: [{exclude: [a]}]", `1:9: a state path is empty; write an absolute path`},
		{"state: [{path: /a, exclude: ['[']}]", `1:30: exclude pattern "[" is not valid; close its brackets`},
		{"state: [/var/lib]", `data directory "/var/lib/drover" and state path "/var/lib" overlap; set --data-dir`},
		{"state: [/srv]\ndata_dir: /srv/drover", `2:11: data directory "/srv/drover" and state path "/srv" overlap; set --data-dir`},
		{"state: [/srv]\nstore: {url: \"file:///srv/bucket\"}", `1:9: state path "/srv" and the store's directory "/srv/bucket" overlap; keep`},
		{"store: {url: /srv/bucket}", `1:14: store is not a URL; write file:///dir, s3://bucket/prefix or manta://account/stor/prefix`},
		{"store: {url: \"file://srv/bucket\"}", `1:14: directory of store "file://srv/bucket" is not absolute; write file:///dir, with three slashes`},
		{"store: {url: \"gs://bucket\"}", `1:14: no store of kind "gs"; write`},
		{"store: {url: \"s3:///prefix\"}", `1:14: store "s3:///prefix" names no bucket; write`},
		{"store: {password: a, password_file: /b}", `1:37: the password is given in more than one way (also by `},
		{"jobs: {a: {main: true, command: x}, b: {main: true, command: x}}", `1:40: jobs "a" and "b" are both main; one job ends the instance: keep one`},
		{"jobs: {a: {main: true}}", `1:11: job "a" has no command; add command: [program, argument, …]`},
		{"jobs: {a: {command: []}}", `1:11: job "a" has no command; add`},
		{"jobs: {a: {command: ' '}}", `1:21: jobs.a.command: command is empty; write what to run`},
		{"jobs: {a: {command: {b: c}}}", `1:21: jobs.a.command must be a single value or a list, not a mapping`},
		{"jobs: {a: {command: x, stop: {signal: NOPE}}}", `1:39: jobs.a.stop.signal: "NOPE" is not a signal; write a name such as TERM`},
		{"jobs: {a: {command: x, dir: here}}", `1:29: directory "here" of job "a" is not absolute; begin it with a slash`},
		{"jobs: {a b: {command: x}}", `1:13: job name "a b" is not valid; use`},
		{"socket: " + "/" + strings.Repeat("s", 200), `1:9: socket path of 201 bytes is too long; use at most 107, with --socket`},
		{"state: [*nowhere]", `1:9: alias of an anchor that is not above`},
		{"volume: !!binary aGk=", `1:9: tag !!binary is not supported; write the plain value`},
		{"volume: a\n---\nvolume: b", `3:7: a second document; keep one`},
		{"store: {url: \"x", `1:14: not valid YAML:`},
		{"\tvolume: a", `1:7: not valid YAML:`},
		{"volume: a\n  fence: b", `1:9: not valid YAML: mapping value is not allowed in this context; see`},
	} {
		src := sources(t, test.file, nil, nil)
		_, err := Load(src)
		if err == nil {
			t.Errorf("%q: no error", test.file)
			continue
		}
		var bad *Error
		if !errors.As(err, &bad) {
			t.Errorf("%q: %v is not an Error", test.file, err)
		}
		line := strings.TrimPrefix(err.Error(), src.Files[0]+":")
		if !strings.Contains(line, test.want) || strings.Contains(line, "\n") {
			t.Errorf("%q:\n got %s\nwant %s", test.file, line, test.want)
		}
	}
}

func TestOtherSourcesErrors(t *testing.T) {
	for _, test := range []struct {
		env     map[string]string
		flags   map[string][]string
		file    string
		command []string
		want    string
	}{
		{env: map[string]string{"DROVER_EVERY": "often"}, want: `DROVER_EVERY: "often" is not a duration; write`},
		{flags: map[string][]string{"every": {"7"}}, want: `--every: duration "7" has no unit; write 7s`},
		{flags: map[string][]string{"ttl": {"1ms"}}, want: `--ttl: lease TTL 1ms is out of range`},
		{flags: map[string][]string{"allow-shrink": {"perhaps"}}, want: `--allow-shrink: "perhaps" is not true or false`},
		{file: "state: [/a]", flags: map[string][]string{"state": {"rel"}}, want: `--state: state path "rel" is not absolute`},
		{flags: map[string][]string{"state": {"rel"}}, want: `--state: state path "rel" is not absolute`},
		{env: map[string]string{"DROVER_STORE": "ftp://x"}, want: `DROVER_STORE: no store of kind "ftp"`},
		{env: map[string]string{"DROVER_PASSWORD": "a", "DROVER_PASSWORD_FILE": "/b"}, want: `DROVER_PASSWORD_FILE: the password is given in more than one way (also by DROVER_PASSWORD); keep one`},
		{env: map[string]string{"DROVER_CONFIG": "/no/such"}, want: `DROVER_CONFIG: cannot read /no/such: no such file or directory`},
		{file: "jobs: {a: {command: x, main: true}}", command: []string{"y"}, want: `job "a" is main already; take it out, or the command after --`},
		{file: "jobs: {main: {command: x}}", command: []string{"y"}, want: `job "main" has the name of the command after --; rename it`},
	} {
		src := sources(t, test.file, test.env, test.flags)
		src.Command = test.command
		_, err := Load(src)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v\nwant %s", err, test.want)
		}
	}
}

func TestCheckRun(t *testing.T) {
	for _, test := range []struct{ file, want string }{
		{"", "nothing to run"},
		{"jobs: {a: {command: x}}", ""},
		{"jobs: {a: {command: x}}\nstate: [/a]", "state paths without a store"},
		{"jobs: {a: {command: x}}\nstore: {url: 'file:///b', password: p}", "a store without a state path"},
		{"jobs: {a: {command: x}}\nstate: [/a]\nstore: {url: 'file:///b'}", "no password given"},
		{"jobs: {a: {command: x}}\nstate: [/a]\nstore: {url: 'file:///b', password: p}", ""},
	} {
		c, err := Load(sources(t, test.file, nil, nil))
		if err != nil {
			t.Fatal(err)
		}
		switch err := c.CheckRun(); {
		case test.want == "" && err != nil:
			t.Errorf("%q: %v", test.file, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%q: got %v, want %s", test.file, err, test.want)
		}
	}
}

// TestHostileFiles: what would cost the parser minutes is refused at once, by its line.
func TestHostileFiles(t *testing.T) {
	for _, piece := range []string{"[", "{", "- ", "? ", "a: {", "{a: ", "- ? "} {
		file := "volume: a\n" + strings.Repeat(piece, 20000)
		_, err := loadText([]byte(file))
		if want := "drover.yaml:2: is nested too deeply; at most 64 levels"; err == nil || err.Error() != want {
			t.Errorf("%q over and over: got %v", piece, err)
		}
	}
	aliases := "a: &a [x, x]\n"
	for c := 'b'; c < 'z'; c++ {
		aliases += fmt.Sprintf("%c: &%c [*%c, *%c]\n", c, c, c-1, c-1)
	}
	if _, err := loadText([]byte("jobs:\n  " + strings.ReplaceAll(aliases, "\n", "\n  "))); err == nil {
		t.Error("aliases of aliases: no error")
	}
	if _, err := loadText(make([]byte, maxFile+1)); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("large file: %v", err)
	}
}
