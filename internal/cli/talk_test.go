package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/client"
	"drover/internal/app"
	"drover/internal/control"
	"drover/internal/event"
)

// talk is the part of the fake agent that answers about jobs and the like.
type talk struct {
	bus    *event.Bus
	lines  []client.LogLine
	jobs   []client.Job
	reload client.Reload
	health []string // what is failing
	err    error
	made   []string // calls
}

func (a agent) note(format string, args ...any) error {
	a.talk.made = append(a.talk.made, fmt.Sprintf(format, args...))
	return a.talk.err
}

func (a agent) Bus() *event.Bus { return a.talk.bus }

func (a agent) StartJob(_ context.Context, name string) error   { return a.note("start %s", name) }
func (a agent) StopJob(_ context.Context, name string) error    { return a.note("stop %s", name) }
func (a agent) RestartJob(_ context.Context, name string) error { return a.note("restart %s", name) }
func (a agent) SignalJob(name, signal string) error             { return a.note("signal %s %s", name, signal) }
func (a agent) Maintenance(on bool) error                       { return a.note("maintenance %t", on) }
func (a agent) Webhook(name string) error                       { return a.note("webhook %s", name) }
func (a agent) PutMetric(values map[string]float64) error       { return a.note("metrics %v", values) }

func (a agent) PushWAL(ctx context.Context, path string) error {
	if a.wait {
		<-ctx.Done()
		return ctx.Err()
	}
	return a.note("push %s", path)
}

func (a agent) FetchWAL(ctx context.Context, name, path string) error {
	if a.wait {
		<-ctx.Done()
		return ctx.Err()
	}
	return a.note("fetch %s %s", name, path)
}

func (a agent) Reload(context.Context) (client.Reload, error) { return a.talk.reload, a.note("reload") }

func (a agent) PutEnv(change map[string]*string) error {
	var text []string
	for name, value := range change {
		if value == nil {
			text = append(text, name+" out")
		} else {
			text = append(text, name+" is "+*value)
		}
	}
	slices.Sort(text)
	return a.note("env %s", strings.Join(text, ", "))
}

func (a agent) Health(level string) client.Health {
	return client.Health{Level: level, Healthy: len(a.talk.health) == 0, Failing: a.talk.health}
}

func (a agent) Logs(job string, newest int) control.Lines {
	var found fixedLines
	for _, line := range a.talk.lines {
		if job == "" || job == line.Job {
			found = append(found, line)
		}
	}
	found = found[max(0, len(found)-newest):]
	return &found
}

// fixedLines are all there will ever be.
type fixedLines []client.LogLine

func (l *fixedLines) Missed() int { return 0 }

func (l *fixedLines) Next() []client.LogLine { all := *l; *l = nil; return all }

func (l *fixedLines) Wait(ctx context.Context) ([]client.LogLine, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// newTalk is an agent with some past.
func newTalk() *talk {
	t := &talk{bus: event.NewBus(10)}
	t.jobs = []client.Job{{Name: "db", Main: true, State: "running", PID: 12, Health: "healthy"}, {Name: "web", State: "exited", Exit: new(int), Held: true}}
	t.bus.Publish(event.Event{Name: "startup"})
	two := 2
	t.bus.Publish(event.Event{Name: "failed", Source: "web", Status: &two, Text: "ended\x1b[2J"})
	at := time.Unix(1e9, 0)
	t.lines = []client.LogLine{{Time: at, Job: "db", Stream: "stdout", Text: "ready <1>"}, {Time: at, Job: "web", Stream: "stderr", Text: "\x1b[31mbad\x1b[0m\t\x1b]0;title\a"}}
	return t
}

// TestTalk: what each command asks for, and what it prints.
func TestTalk(t *testing.T) {
	for args, want := range map[string]struct{ call, out string }{
		"start db":                 {"start db", "db: running, pid 12, healthy\n"},
		"stop web":                 {"stop web", "web: exited, exit 0, until it is started by hand\n"},
		"restart db":               {"restart db", "db: running, pid 12, healthy\n"},
		"signal db HUP":            {"signal db HUP", "sent\n"},
		"reload":                   {"reload", "started a, b; restarted db; 2 jobs not touched\n"},
		"maintenance on":           {"maintenance true", "maintenance is on\n"},
		"maintenance off":          {"maintenance false", "maintenance is off\n"},
		"put-env A=b=c== B= C-":    {"env A is b=c==, B is , C out", "3 variables put\n"},
		"put-metric a=1 b=-2.5e-3": {"metrics map[a:1 b:-0.0025]", "2 metrics put\n"},
		"webhook deploy":           {"webhook deploy", "told\n"},
		"ping":                     {"", "the agent answers\n"},
		"ping --level ready":       {"", "ready\n"},
		"logs db":                  {"", "ready <1>\n"},
		"logs -n 1":                {"", "web | \x1b[31mbad\x1b[0m\t\x1b]0;title\a\n"},
		"logs --lines 0":           {"", ""},
		"events --recent 0":        {"", ""},
	} {
		a := agent{talk: newTalk()}
		a.talk.reload = client.Reload{Started: []string{"a", "b"}, Changed: []string{"db"}, Kept: []string{"x", "y"}}
		env := serve(t, a)
		got := try(t, nil, env, strings.Fields(args)...)
		if got != (result{0, want.out, ""}) || strings.Join(a.talk.made, "; ") != want.call {
			t.Errorf("%s: got %+v, called %q; want %+v", args, got, a.talk.made, want)
		}
		got = try(t, nil, env, append(strings.Fields(args), "--json")...)
		for line := range strings.Lines(got.out) {
			if (strings.HasPrefix(args, "logs") || strings.HasPrefix(args, "events")) && !json.Valid([]byte(line)) {
				t.Errorf("%s --json: line %q", args, line)
			}
		}
		if got.code != 0 || got.err != "" || want.out != "" && !strings.HasPrefix(got.out, "{") {
			t.Errorf("%s --json: %+v", args, got)
		}
	}
}

// TestTalkRefused: each kind of refusal has its code, and is one line.
func TestTalkRefused(t *testing.T) {
	for kind, code := range map[string]int{
		client.KindUnknown: 1, client.KindFailed: 1, client.KindForbidden: 1, client.KindBusy: 11, client.KindHeld: 11, client.KindInvalid: 2,
	} {
		a := agent{talk: newTalk()}
		a.talk.err = &client.Error{Kind: kind, Message: "says " + kind}
		env := serve(t, a)
		for _, args := range []string{"start db", "stop db", "restart db", "signal db HUP", "reload", "maintenance on", "put-env A=1", "put-metric a=1", "webhook x"} {
			name, _, _ := strings.Cut(args, " ")
			if got := try(t, nil, env, strings.Fields(args)...); got != (result{code, "", "drover: " + name + ": says " + kind + "\n"}) {
				t.Errorf("%s: got %+v, want %d", args, got, code)
			}
			got := try(t, nil, env, append(strings.Fields(args), "--json")...)
			var refusal client.Error
			if err := json.Unmarshal([]byte(got.out), &refusal); err != nil || refusal.Kind != kind || got.code != code {
				t.Errorf("%s --json: got %+v", args, got)
			}
		}
	}
	a := agent{talk: newTalk()}
	a.talk.health = []string{"db: check tcp: refused", "web: stopped"}
	env := serve(t, a)
	if got := try(t, nil, env, "ping", "--level", "ready"); got != (result{1, "", "drover: ping: not ready: db: check tcp: refused, web: stopped\n"}) {
		t.Errorf("not ready: %+v", got)
	}
	if got := try(t, nil, env, "ping", "--level", "alive", "--json"); got.code != 1 || !strings.Contains(got.out, `"healthy": false`) {
		t.Errorf("not alive: %+v", got)
	}
	if got := try(t, nil, env, "logs", "none"); got != (result{1, "", "drover: logs: there is no job none\n"}) {
		t.Errorf("no such job: %+v", got)
	}
	for _, args := range []string{"start db", "logs", "events", "ping", "ping --level alive", "reload", "put-env A=1"} {
		got := try(t, nil, map[string]string{"DROVER_SOCKET": "/no/agent"}, strings.Fields(args)...)
		if got.code != 1 || got.out != "" || !strings.Contains(got.err, "no agent answers on /no/agent; is `drover run` up") {
			t.Errorf("%s without an agent: %+v", args, got)
		}
	}
}

func TestTalkBadInput(t *testing.T) {
	for args, want := range map[string]string{
		"start":                `no job given; drover status lists them`,
		"restart a b":          `unexpected argument "b"`,
		"signal":               `no job given`,
		"signal db":            `no signal given; name one such as HUP`,
		"signal db HUP x":      `unexpected argument "x"`,
		"maintenance":          `no word given; on or off`,
		"maintenance maybe":    `"maybe" is neither on nor off`,
		"put-env":              `no variable given; write NAME=VALUE, or NAME- to take it out`,
		"put-env A":            `"A" is neither NAME=VALUE nor NAME-`,
		"put-env =x":           `"=x" names no variable`,
		"put-env -- -":         `"-" names no variable`,
		"put-env A=1 A-":       `"A" is given twice`,
		"put-env A=\xff":       `"A=\xff" is not text that can be sent`,
		"put-metric":           `no metric given; write NAME=NUMBER`,
		"put-metric a":         `"a" is not NAME=NUMBER`,
		"put-metric a=":        `"" is not a number`,
		"put-metric a=NaN":     `"NaN" is not a number`,
		"put-metric a=1 a=2":   `"a" is given twice`,
		"webhook":              `no hook given`,
		"ping --level good":    `--level: "good" is not one of alive, ready`,
		"ping --level=":        `--level: "" is not one of alive, ready`,
		"events --recent -1":   `--recent: cannot show -1 events; give a number of 0 or more`,
		"events --recent many": `--recent: "many" is not a whole number`,
		"logs --lines -1":      `--lines: cannot show -1 lines`,
		"logs a b":             `unexpected argument "b"`,
		"reload now":           `unexpected argument "now"`,
	} {
		a := agent{talk: newTalk()}
		got := try(t, nil, serve(t, a), strings.Fields(args)...)
		if got.code != exitUsage || got.out != "" || strings.Count(got.err, "\n") != 1 || !strings.Contains(got.err, want) || len(a.talk.made) > 0 {
			t.Errorf("%s: got %+v, called %v\nwant %s", args, got, a.talk.made, want)
		}
	}
}

func TestEvents(t *testing.T) {
	env := serve(t, agent{talk: newTalk()})
	got := try(t, nil, env, "events")
	want := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  startup
\S+ \S+  failed:web  status 2  ended\\x1b\[2J
$`)
	if got.code != 0 || got.err != "" || !want.MatchString(got.out) {
		t.Errorf("got %+v", got)
	}
	a := agent{talk: newTalk()}
	for range 20 {
		a.talk.bus.Publish(event.Event{Name: "committed"})
	}
	got = try(t, nil, serve(t, a), "events", "--json", "--recent", "3")
	if lines := strings.Count(got.out, "\n"); lines != 3 || !strings.Contains(got.out, `"seq":22,`) {
		t.Errorf("got %+v", got)
	}
}

// TestMissed: a reader learns that it was too slow.
func TestMissed(t *testing.T) {
	var out, errs strings.Builder
	s := &session{World: World{Out: &out, Err: &errs}}
	if err := s.printEvent(client.EventLine{Missed: 3}); err != nil || out.String() != "" || errs.String() != "drover: 3 events missed: they came faster than they were read\n" {
		t.Errorf("%v, %q, %q", err, out.String(), errs.String())
	}
	s.json = true
	if err := s.printEvent(client.EventLine{Missed: 3}); err != nil || out.String() != "{\"missed\":3}\n" {
		t.Errorf("%v, %q", err, out.String())
	}
	out.Reset()
	if err := s.printLog(client.LogsLine{Missed: 5}, true); err != nil || out.String() != "{\"missed\":5}\n" {
		t.Errorf("%v, %q", err, out.String())
	}
	s.json = false
	errs.Reset()
	if err := s.printLog(client.LogsLine{Missed: 1}, true); err != nil || errs.String() != "drover: 1 line missed: they came faster than they were read\n" {
		t.Errorf("%v, %q", err, errs.String())
	}
}

// TestFollowInterrupted: a stream that is left ends with 130.
func TestFollowInterrupted(t *testing.T) {
	for _, args := range []string{"events -f", "logs -f"} {
		ctx, interrupt := context.WithCancelCause(context.Background())
		out := &trigger{when: "\n", then: func() { interrupt(errInterrupted) }}
		env := serve(t, agent{talk: newTalk()})
		w := World{In: strings.NewReader(""), Out: out, Err: io.Discard, Now: time.Now, Files: []string{"/none"}, Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }}
		if code := run(ctx, strings.Fields(args), w); code != 130 {
			t.Errorf("%s: %d", args, code)
		}
	}
}

// trigger calls a function when something is written.
type trigger struct {
	when string
	then func()
}

func (w *trigger) Write(text []byte) (int, error) {
	if strings.Contains(string(text), w.when) {
		w.then()
	}
	return len(text), nil
}

// TestLogsSpareTerminals: colours stay, what would disturb a terminal does not.
func TestLogsSpareTerminals(t *testing.T) {
	got := tryIn(t, context.Background(), World{OutTerm: true}, serve(t, agent{talk: newTalk()}), "logs", "web")
	if want := "\x1b[31mbad\x1b[0m\t\\x1b]0;title\\a\n"; got.out != want || got.code != 0 {
		t.Errorf("got %+v, want %q", got, want)
	}
	for text, want := range map[string]string{
		"": "", "plain\tü": "plain\tü", "\x1b[2J": `\x1b[2J`, "\x1b[1;38:5:2mx": "\x1b[1;38:5:2mx", "\x1b": `\x1b`, "\x1b[": `\x1b[`, "a\x1b[mb\x9b2J": "a\x1b[mb\\x9b2J", "\r\x1b[31": `\r\x1b[31`,
	} {
		if got := harmless(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// TestReloadTells what became of the jobs.
func TestReloadTells(t *testing.T) {
	a := agent{talk: newTalk()}
	env := serve(t, a)
	a.talk.reload = client.Reload{Kept: []string{"db"}}
	if got := try(t, nil, env, "reload"); got != (result{0, "no job changed\n", ""}) {
		t.Errorf("got %+v", got)
	}
	a.talk.reload = client.Reload{Stopped: []string{"old"}, Kept: []string{"db"}}
	if got := try(t, nil, env, "reload"); got != (result{0, "stopped old; 1 job not touched\n", ""}) {
		t.Errorf("got %+v", got)
	}
}

// TestCompletionOfJobs: a shell offers what the agent has.
func TestCompletionOfJobs(t *testing.T) {
	env := serve(t, agent{talk: newTalk()})
	for args, want := range map[string]string{
		"restart ": "db\nweb\n:4\n", "logs ": "db\nweb\n:4\n", "logs db ": ":4\n", "signal db ": "HUP\nINT\n", "maintenance ": "on\noff\n:4\n", "put-env ": ":4\n",
	} {
		words := append([]string{"__complete"}, strings.Split(args, " ")...)
		if got := try(t, nil, env, words...); !strings.HasPrefix(got.out, want) {
			t.Errorf("%q: got %q, want %q", args, got.out, want)
		}
	}
	if got := try(t, nil, map[string]string{"DROVER_SOCKET": "/no/agent"}, "__complete", "stop", ""); !strings.HasPrefix(got.out, ":4\n") {
		t.Errorf("without an agent: %q", got.out)
	}
}

// goldenStatus has a job in every state, checks that fail, and long words.
func goldenStatus() client.Status {
	now := time.Unix(1e9+90, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	in := func(d time.Duration) *time.Time { t := now.Add(d); return &t }
	exit := func(n int) *int { return &n }
	commit, rto := ago(90*time.Second), 0.5
	return client.Status{
		Service: "review", Volume: "data", Instance: "review-1", Role: "holder", Health: "degraded", Maintenance: true, Holder: "review-1", State: "held", Epoch: 3, Seq: 42,
		Message:  "the store does not answer: put s3://state/review/heads/data: dial tcp 10.0.0.7:9000: connect: connection refused",
		Snapshot: "1a2b3c4d5e6f", Commit: &commit, RPO: 12, Pending: true, RTO: &rto, Paths: []string{"/srv/git", "/srv/wiki"},
		Jobs: []client.Job{
			{Name: "gerrit", Main: true, State: "running", PID: 4711, Since: ago(76 * time.Hour), Ready: true, Health: "healthy", Checks: []client.Check{{Name: "web", Level: "ready", Health: "healthy", Error: "passed long ago"}}},
			{Name: "a-very-long-name-of-a-job", State: "running", PID: 4194304, Since: ago(99*24*time.Hour + 23*time.Hour), Health: "unhealthy", Restarts: 2, Checks: []client.Check{
				{Name: "web", Level: "ready", Health: "unhealthy", Failures: 3, Error: `Get "http://127.0.0.1:8080/health": dial tcp 127.0.0.1:8080: connect: connection refused`},
				{Name: "tcp", Level: "alive", Health: "healthy", Failures: 1, Error: "i/o timeout\x1b[2J"},
			}},
			{Name: "mailer", State: "restarting", Restarts: 7, Exit: exit(1), Next: in(8500 * time.Millisecond)},
			{Name: "cache", State: "stopping", PID: 99, Since: ago(time.Second)},
			{Name: "metrics", State: "starting", PID: 100, Health: "unknown"},
			{Name: "prep", State: "exited", Exit: exit(0), Runs: 1},
			{Name: "import", State: "exited", Exit: exit(137), Runs: 1},
			{Name: "debug", State: "exited", Exit: exit(143), Held: true},
			{Name: "reindex", State: "waiting", Next: in(4*time.Minute + 30*time.Second), Exit: exit(0), Runs: 12},
		},
		Services: []client.Service{
			{Job: "gerrit", Name: "review", ID: "review-1", Status: "passing", Wanted: "passing", Since: ago(76 * time.Hour)},
			{Job: "a-very-long-name-of-a-job", Name: "the-name-of-a-service", ID: "x", Status: "maintenance", Wanted: "critical", Since: ago(time.Minute), Error: "register: dial tcp 127.0.0.1:8500: connect: connection refused"},
			{Job: "mailer", Name: "mail", ID: "mail-1", Wanted: ""},
			{Job: "cache", Name: "cache", ID: "cache-1", Status: "critical", Since: ago(time.Second)},
		},
		Watches: []client.Watch{
			{Name: "db", Service: "postgres", Known: true, Size: 3, Since: ago(time.Hour)},
			{Name: "conf", Key: "shop/a/very/long/key/that/has/no/room", Known: true, Size: 1, Since: ago(time.Hour), Error: "the coordinator is not available: dial tcp 127.0.0.1:8500: connect: connection refused"},
			{Name: "all", Prefix: "shop/", Known: true},
			{Name: "mail", Service: "mail", Error: "not known yet"},
		},
		Templates: []client.Template{
			{Name: "conf", Destination: "/etc/review/conf", State: "rendered", Changed: in(-3 * time.Minute), Stale: []string{"key shop/level: connection refused", "key shop/size: connection refused"}},
			{Name: "blocked", Destination: "/run/a/very/long/path/of/a/file/that/has/no/room", State: "blocked", Since: in(-time.Minute), Missing: []string{"key shop/none: it is not there", "service postgres: no answer yet"}},
			{Name: "bad", Destination: "/etc/bad", State: "failed", Since: in(-time.Second), Error: "check refused the file: exit status 1: line 3: unknown word\x1b[2J, and more text than fits"},
			{Name: "env.gerrit.PASSWORD", State: "rendered", Unacted: "restart job gerrit: it does not stop"},
		},
		Rolls: []client.Roll{
			{Name: "web"}, {Name: "db", State: "stopped", Since: ago(time.Hour), Why: "the roll is stopped: i2: not healthy after the change: within 5m0s: ready check web"}, {Name: "x", State: "waiting", Since: ago(time.Second)},
		},
		Secrets: &client.Secrets{Since: ago(time.Minute), Error: "log in: Vault is sealed", Failing: []string{"database/creds/app: Vault is sealed"}},
	}
}

// statusAgent answers with one status.
type statusAgent struct {
	agent
	status client.Status
}

func (a statusAgent) Status() client.Status { return a.status }

// TestStatusPage holds the page to testdata: on a terminal with and without colours,
// and elsewhere.
func TestStatusPage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	serveAt(t, statusAgent{status: goldenStatus()}, path)
	for name, test := range map[string]struct {
		term bool
		env  map[string]string
	}{
		"colour": {true, map[string]string{}}, "no-colour": {true, map[string]string{"NO_COLOR": "1"}}, "piped": {false, map[string]string{}},
		"dumb": {true, map[string]string{"TERM": "dumb"}},
	} {
		test.env["DROVER_SOCKET"] = path
		got := tryIn(t, context.Background(), World{OutTerm: test.term, ops: func(*app.Config, *slog.Logger) operations { return nil }}, test.env, "status")
		if got.code != 0 || got.err != "" {
			t.Fatalf("%s: %+v", name, got)
		}
		golden := filepath.Join("testdata", "status-"+strings.Replace(name, "dumb", "no-colour", 1)+".txt")
		if *update {
			if err := os.WriteFile(golden, []byte(got.out), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got.out != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got.out, want)
		}
		bare := regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(got.out, "")
		if (bare != got.out) != (name == "colour") {
			t.Errorf("%s: coloured: %t", name, bare != got.out)
		}
		for line := range strings.Lines(bare) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); test.term && n > pageWidth || strings.ContainsAny(line, "\x1b") || strings.HasSuffix(line, " \n") {
				t.Errorf("%s: line of %d characters: %q", name, n, line)
			}
		}
	}
}

func TestBrief(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59*time.Second + 999*time.Millisecond: "59s", time.Minute: "1m", 61 * time.Second: "1m1s", 59*time.Minute + 59*time.Second: "59m59s",
		time.Hour: "1h", 23*time.Hour + 59*time.Minute: "23h59m", 76 * time.Hour: "3d4h", 99*24*time.Hour + 23*time.Hour: "99d23h", 400 * 24 * time.Hour: "400d",
	} {
		if got := brief(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

func TestWrap(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "short": "short", "one two three": "one two|three", "abcdefghijklmnop": "abcdefgh|ijklmnop", "12345678 9": "12345678|9", "a bcdefghijkl": "a|bcdefghi|jkl", "üüüü üüüü": "üüüü|üüüü",
	} {
		if got := strings.Join(wrap(text, 8), "|"); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// FuzzArguments: whatever is given as variables and metrics is sent as it was meant, or
// refused.
func FuzzArguments(f *testing.F) {
	for _, seed := range []string{"A=b=c", "A=", "A-", "A", "=", "-", "a=1e3", "a=0x1p-2", "a=NaN", "a=\xff", "A=\x00"} {
		f.Add(seed, "B=1")
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		args := []string{one, two}
		var usage usageError
		env, err := parseEnv(args)
		if err != nil && !errors.As(err, &usage) {
			t.Errorf("%q: %v", args, err)
		}
		if err == nil {
			text, _ := json.Marshal(env)
			var sent map[string]*string
			if err := json.Unmarshal(text, &sent); err != nil || len(sent) != 2 {
				t.Errorf("%q: sent %s", args, text)
			}
			for _, arg := range args {
				name, value, sets := strings.Cut(arg, "=")
				if got := sent[strings.TrimSuffix(name, map[bool]string{false: "-"}[sets])]; (got != nil) != sets || sets && *got != value {
					t.Errorf("%q: sent %s", arg, text)
				}
			}
		}
		metrics, err := parseMetrics(args)
		if err != nil && !errors.As(err, &usage) {
			t.Errorf("%q: %v", args, err)
		}
		for name, value := range metrics {
			if name == "" || math.IsNaN(value) || math.IsInf(value, 0) {
				t.Errorf("%q: %v", args, metrics)
			}
		}
	})
}
