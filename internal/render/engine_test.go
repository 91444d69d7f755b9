package render

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/internal/coord"
	"drover/internal/coord/mem"
	"drover/internal/render/target"
	"drover/internal/secret"
)

// stand is an engine that runs on a coordinator in memory.
type stand struct {
	*Engine
	t      *testing.T
	server *mem.Server
	kv     *mem.Client
	dir    string

	mu     sync.Mutex
	acts   []Act
	events []Event
	refuse error // what Act returns
	more   chan struct{}
}

func newStand(t *testing.T) *stand {
	server := mem.NewServer()
	s := &stand{t: t, server: server, kv: server.Open(), dir: t.TempDir(), more: make(chan struct{}, 1000)}
	t.Cleanup(func() { _ = s.kv.Close() })
	return s
}

func (s *stand) put(key, value string) {
	s.t.Helper()
	if _, err := s.kv.Put(s.t.Context(), key, []byte(value)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stand) path(name string) string { return filepath.Join(s.dir, name) }

func (s *stand) build(cfg Config) {
	s.t.Helper()
	client := s.server.Open()
	s.t.Cleanup(func() { _ = client.Close() })
	cfg.Sources.KV, cfg.Sources.Catalog = client, client
	cfg.Tell = func(e Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, e)
		s.more <- struct{}{}
	}
	if cfg.Act == nil {
		cfg.Act = func(_ context.Context, a Act) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.acts = append(s.acts, a)
			return s.refuse
		}
	}
	var err error
	if s.Engine, err = New(cfg); err != nil {
		s.t.Fatal(err)
	}
}

// start runs the engine until the test ends.
func (s *stand) start(cfg Config) {
	s.t.Helper()
	s.build(cfg)
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
}

const patience = 10 * time.Second

// until waits for a condition.
func (s *stand) until(what string, condition func() bool) {
	s.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			s.t.Fatalf("waited for %s; status %+v; events %+v", what, s.Status(), s.told())
		case <-tick.C:
		}
	}
}

func (s *stand) told() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

func (s *stand) acted() []Act {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.acts)
}

func (s *stand) count(kind EventKind) int {
	n := 0
	for _, e := range s.told() {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

func content(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "(" + err.Error() + ")"
	}
	return string(b)
}

func (s *stand) untilFile(name, want string) {
	s.t.Helper()
	s.until(fmt.Sprintf("%s to be %q (it is %q)", name, want, content(s.path(name))), func() bool { return content(s.path(name)) == want })
}

func TestAChangeOfAKeyReachesTheFile(t *testing.T) {
	s := newStand(t)
	s.put("app/port", "80")
	s.start(Config{Templates: []Template{{Content: `port={{ key "app/port" }}{{ range ls "app/list" }} {{ .Key }}={{ .Value }}{{ end }}`, Destination: s.path("out")}}})
	s.untilFile("out", "port=80")
	s.put("app/port", "81")
	s.untilFile("out", "port=81")
	s.put("app/list/a", "1")
	s.untilFile("out", "port=81 a=1")
	info, err := os.Stat(s.path("out"))
	if err != nil || info.Mode() != target.DefaultMode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(s.path(".*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// A dependency that shows up only when another is known is found, however deep, and one
// that is not used any more is let go.
func TestSeveralPasses(t *testing.T) {
	s := newStand(t)
	s.put("a", "b")
	s.put("b", "c")
	s.put("c", "end")
	s.put("x", "other")
	s.start(Config{Templates: []Template{{Content: `{{ key (key (key "a")) }}`, Destination: s.path("out")}}})
	s.untilFile("out", "end")
	if n := s.Status()[0].Dependencies; n != 3 {
		t.Errorf("%d dependencies", n)
	}
	s.put("a", "x")
	s.put("other", "there")
	s.untilFile("out", "there")
	s.until("unused ones to go", func() bool {
		s.Engine.mu.Lock()
		defer s.Engine.mu.Unlock()
		return len(s.state.order) == 3 && len(s.state.deps) == 3
	})
}

func TestWhatBlocksIsTold(t *testing.T) {
	s := newStand(t)
	s.put("there", "1")
	s.start(Config{Templates: []Template{{
		Name: "conf", Content: `{{ key "there" }}{{ key "gone" }}{{ range safeTree "none" }}{{ end }}`,
		Destination: s.path("out"), Deadline: time.Millisecond,
	}}})
	s.until("the deadline", func() bool { return s.count(Late) == 1 })
	s.until("both to be missing", func() bool { return len(s.Status()[0].Missing) == 2 && s.Status()[0].Missing[0].Why != "no answer yet" })
	got := s.Status()[0]
	if got.State != Blocked || got.Missing[0].String() != "key(gone): there is no such key" || got.Missing[1].String() != "tree(none): there is nothing below it" ||
		got.Since == nil || got.Missing[0].Since.IsZero() {
		t.Errorf("%+v", got)
	}
	s.put("gone", "2")
	s.put("none/x", "2")
	s.untilFile("out", "12")
	s.until("it to be rendered", func() bool { return s.Status()[0].State == Rendered })
}

// While the coordinator is away everything stays, and status says so.
func TestAnOutageChangesNothing(t *testing.T) {
	s := newStand(t)
	s.put("a", "1")
	s.start(Config{Templates: []Template{{Content: `{{ key "a" }}{{ keyOrDefault "b" "none" }}`, Destination: s.path("out")}}})
	s.untilFile("out", "1none")
	s.until("it to be rendered", func() bool { return s.Status()[0].State == Rendered })
	s.server.SetAvailable(false)
	s.until("the outage to be told", func() bool { return len(s.Status()[0].Stale) == 2 })
	if got := s.Status()[0]; got.State != Rendered || content(s.path("out")) != "1none" {
		t.Errorf("%+v", got)
	}
	s.server.SetAvailable(true)
	s.put("a", "2")
	s.untilFile("out", "2none")
	s.until("the outage to be over", func() bool { return len(s.Status()[0].Stale) == 0 })
}

// An answer that never came is not the answer that there is nothing.
func TestUnknownIsNotNo(t *testing.T) {
	s := newStand(t)
	s.server.SetAvailable(false)
	s.start(Config{Templates: []Template{{Content: `{{ keyOrDefault "a" "none" }}{{ keyExists "b" }}{{ range ls "c" }}{{ end }}`, Destination: s.path("out")}}})
	s.until("all three to be unknown", func() bool {
		m := s.Status()[0].Missing
		return len(m) == 3 && !slices.ContainsFunc(m, func(m Missing) bool { return !strings.Contains(m.Why, "unavailable") })
	})
	if _, err := os.Stat(s.path("out")); err == nil {
		t.Error("it was rendered")
	}
	s.server.SetAvailable(true)
	s.untilFile("out", "nonefalse")
}

// What is deleted keeps its last value for key, and is gone for the others.
func TestADeletedKey(t *testing.T) {
	s := newStand(t)
	s.put("a", "1")
	s.start(Config{Templates: []Template{{Content: `{{ key "a" }} {{ keyExists "a" }} {{ keyOrDefault "a" "none" }}`, Destination: s.path("out")}}})
	s.untilFile("out", "1 true 1")
	if err := s.kv.Delete(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	s.untilFile("out", "1 false none")
}

// Templates that share what follows have it happen once, in order, when all files of the
// pass are in place.
func TestWhatFollowsHappensOncePerPass(t *testing.T) {
	s := newStand(t)
	s.put("a", "1")
	reload := Change{Kind: Reload, Command: []string{"reload"}}
	tmpl := func(name string, c Change) Template {
		return Template{Content: name + `{{ key "a" }}`, Destination: s.path(name), Change: c}
	}
	var seen []string
	s.start(Config{
		Templates: []Template{tmpl("x", reload), tmpl("y", Change{Kind: Signal, Job: "web", Signal: "HUP"}), tmpl("z", reload)},
		Act: func(_ context.Context, a Act) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.acts = append(s.acts, a)
			seen = append(seen, content(s.path("x"))+content(s.path("y"))+content(s.path("z")))
			return nil
		},
	})
	s.until("both", func() bool { return len(s.acted()) == 2 })
	s.put("a", "2")
	s.until("both again", func() bool { return len(s.acted()) == 4 })
	acts := s.acted()
	for i, a := range acts {
		wantKind, wantNames := Reload, []string{s.path("x"), s.path("z")}
		if i%2 == 1 {
			wantKind, wantNames = Signal, []string{s.path("y")}
		}
		if a.Kind != wantKind || !slices.Equal(a.Templates, wantNames) || a.First != (i < 2) {
			t.Errorf("%d: %+v", i, a)
		}
	}
	if want := []string{"x1y1z1", "x1y1z1", "x2y2z2", "x2y2z2"}; !slices.Equal(seen, want) {
		t.Errorf("saw %v", seen)
	}
}

// The old file stays when the check refuses the new one; the check sees the new one; what
// it prints is told.
func TestTheCheckComesFirst(t *testing.T) {
	s := newStand(t)
	s.put("a", "good")
	s.start(Config{Templates: []Template{{
		Content: `{{ key "a" }}`, Destination: s.path("out"), Change: Change{Kind: Restart, Job: "web"}, Backup: true,
		Check: []string{"sh", "-c", `test "$1" = "$DROVER_FILE" && cat "$1" && grep -q good "$1"`, "sh", "{file}"},
	}}})
	s.untilFile("out", "good")
	s.put("a", "bad")
	s.until("the refusal", func() bool { return s.Status()[0].State == Faulty })
	if got := s.Status()[0]; !strings.Contains(got.Fault, "check refused the file") || !strings.Contains(got.Fault, "bad") {
		t.Errorf("%+v", got)
	}
	if got := content(s.path("out")); got != "good" {
		t.Errorf("the file is %q", got)
	}
	s.put("a", "good again")
	s.untilFile("out", "good again")
	if got := content(s.path("out.bak")); got != "good" {
		t.Errorf("the backup is %q", got)
	}
	s.until("two restarts", func() bool { return len(s.acted()) == 2 })
	if left, _ := filepath.Glob(s.path(".*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// fakeSecrets gives what it is told to.
type fakeSecrets struct{ data map[string]any }

func (f fakeSecrets) Watch(ctx context.Context, r secret.Request, fn func(*secret.Secret, error)) {
	if r.Path == "denied" {
		fn(nil, secret.ErrUnauthorized)
	} else {
		fn(&secret.Secret{Data: f.data, LeaseDuration: time.Minute}, nil)
	}
	<-ctx.Done()
}

func (fakeSecrets) Close(context.Context) error { return nil }

const marker = "s3cr3t-value"

// Nothing that a secret holds shows in an error, a status or an event, and a template that
// reads one is not written to a disk.
func TestSecretsStaySecret(t *testing.T) {
	s := newStand(t)
	memory, err := os.MkdirTemp("/dev/shm", "render-test-") //nolint:usetesting // TempDir is not there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(memory) })
	read := `{{ with secret "db" }}{{ .Data.password }} {{ .LeaseDuration }}{{ end }}`
	s.start(Config{
		Sources: Sources{Secrets: fakeSecrets{map[string]any{"password": marker}}},
		Templates: []Template{
			{Name: "memory", Content: read, Destination: filepath.Join(memory, "out")},
			{Name: "disk", Content: read, Destination: s.path("disk")},
			{Name: "told", Content: read, Destination: s.path("told"), OnDisk: true},
			{Name: "parse", Content: `{{ with secret "db" }}{{ parseInt .Data.password }}{{ end }}`, Destination: filepath.Join(memory, "parse")},
			{Name: "check", Content: read, Destination: filepath.Join(memory, "check"), Check: []string{"sh", "-c", "cat {file}; exit 3"}},
			{Name: "denied", Content: `{{ with secret "denied" "p=` + marker + `" }}x{{ end }}`, Destination: filepath.Join(memory, "denied")},
		},
	})
	s.until("all to have come to something", func() bool {
		for i, want := range []State{Rendered, Faulty, Rendered, Faulty, Faulty, Blocked} {
			if s.Status()[i].State != want {
				return false
			}
		}
		return len(s.Status()[5].Missing) == 1 && s.Status()[5].Missing[0].Why == secret.ErrUnauthorized.Error()
	})
	if got := content(filepath.Join(memory, "out")); got != marker+" 60" {
		t.Errorf("the file is %q", got)
	}
	if got := content(s.path("disk")); strings.Contains(got, marker) {
		t.Error("it was written to a disk")
	}
	if got := s.Status()[1].Fault; !strings.Contains(got, target.ErrOnDisk.Error()) {
		t.Error(got)
	}
	if told := fmt.Sprintf("%+v %+v", s.Status(), s.told()); strings.Contains(told, marker) {
		t.Errorf("it shows: %s", told)
	}
}

func TestServices(t *testing.T) {
	s := newStand(t)
	register := func(id string, port int, status coord.Status, tags ...string) {
		t.Helper()
		if err := s.kv.Register(t.Context(), coord.Registration{
			ID: id, Name: "web", Address: "10.0.0.1", Port: port, Tags: tags, TTL: time.Minute, Initial: status,
			Meta: map[string]string{"zone": id},
		}); err != nil {
			t.Fatal(err)
		}
	}
	register("web-1", 80, coord.Passing, "b", "a")
	register("web-2", 81, coord.Critical, "a")
	s.start(Config{Templates: []Template{{Destination: s.path("out"), Content: `
{{- range service "web" }}{{ .ID }} {{ .Address }}:{{ .Port }} {{ .Tags }} {{ .ServiceMeta.zone }};{{ end }}
{{- range service "a.web|any" }} {{ .ID }}={{ .Status }}{{ end }}
{{- range services }} {{ .Name }}{{ .Tags }}{{ end }}{{ range $tag, $list := service "web" "any" | byTag }} {{ $tag }}:{{ len $list }}{{ end }}`}}})
	s.untilFile("out", "web-1 10.0.0.1:80 [a b] web-1; web-1=passing web-2=critical web[a b] a:2 b:1")
	if err := s.kv.Report(t.Context(), "web-2", coord.Passing, ""); err != nil {
		t.Fatal(err)
	}
	s.untilFile("out", "web-1 10.0.0.1:80 [a b] web-1;web-2 10.0.0.1:81 [a] web-2; web-1=passing web-2=passing web[a b] a:2 b:1")
}

func TestFiles(t *testing.T) {
	s := newStand(t)
	s.start(Config{Templates: []Template{{Content: `{{ file "` + s.path("in") + `" }}`, Destination: s.path("out")}}})
	s.until("the file to be missing", func() bool {
		m := s.Status()[0].Missing
		return len(m) == 1 && strings.Contains(m[0].Why, "no such file")
	})
	for _, text := range []string{"one", "three"} {
		if err := os.WriteFile(s.path("in"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.untilFile("out", text)
	}
	if err := os.Remove(s.path("in")); err != nil {
		t.Fatal(err)
	}
	s.until("it to be gone", func() bool { return len(s.Status()[0].Stale) == 1 })
	if got := content(s.path("out")); got != "three" {
		t.Errorf("the file is %q", got)
	}
}

// What follows and fails is tried again.
func TestWhatFollowsIsTriedAgain(t *testing.T) {
	s := newStand(t)
	s.refuse = errors.New("no such job")
	s.start(Config{Templates: []Template{{Content: "x", Destination: s.path("out"), Change: Change{Kind: Restart, Job: "web"}}}})
	s.until("the failure", func() bool { return s.Status()[0].Unacted == "no such job" })
	if s.count(Unacted) == 0 {
		t.Error("it was not told")
	}
}

func TestOnce(t *testing.T) {
	s := newStand(t)
	s.put("a", "1")
	cfg := Config{Templates: []Template{
		{Name: "one", Content: `{{ key "a" }}{{ writeToFile "` + s.path("other") + `" "" "" "0640" "beside" }}`, Destination: s.path("out"), Change: Change{Kind: Restart, Job: "web"}},
		{Name: "kept", Content: `in memory`},
	}}
	s.build(cfg)
	results, err := s.Once(t.Context(), true)
	if err != nil || string(results[0].Output) != "1" || !results[0].Changes() || len(s.acted()) > 0 {
		t.Errorf("dry: %+v, %v, %v", results, err, s.acted())
	}
	if left, _ := os.ReadDir(s.dir); len(left) > 0 {
		t.Errorf("dry, and there is %v", left)
	}
	s.build(cfg)
	if _, err := s.Once(t.Context(), false); err != nil || content(s.path("out")) != "1" || content(s.path("other")) != "beside" || len(s.acted()) != 1 {
		t.Errorf("%v, %v", err, s.acted())
	}
	if out, done := s.Output("kept"); string(out) != "in memory" || !done {
		t.Errorf("%q, %v", out, done)
	}
	s.build(cfg)
	if results, err := s.Once(t.Context(), true); err != nil || results[0].Changes() {
		t.Errorf("again: %+v, %v", results, err)
	}
}

func TestOnceSaysWhatIsMissing(t *testing.T) {
	s := newStand(t)
	s.build(Config{Templates: []Template{{Name: "conf", Content: `{{ key "a" }}`, Destination: s.path("out")}}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := s.Once(ctx, false)
		done <- err
	}()
	s.until("the answer", func() bool { m := s.Status()[0].Missing; return len(m) == 1 && m[0].Why == "there is no such key" })
	cancel()
	if err := <-done; err == nil || err.Error() != "render conf: missing: key(a): there is no such key" {
		t.Error(err)
	}
	// What will never be known is not waited for.
	s.build(Config{Templates: []Template{{Name: "conf", Content: `{{ with secret "a" }}{{ end }}`, Destination: s.path("out")}}})
	if _, err := s.Once(t.Context(), false); err == nil || err.Error() != "render conf: missing: secret(a): a source of secrets is not configured" {
		t.Error(err)
	}
	s.build(Config{Templates: []Template{{Name: "conf", Content: `{{ parseInt "x" }}`, Destination: s.path("out")}}})
	if _, err := s.Once(t.Context(), false); err == nil || !strings.Contains(err.Error(), "error calling parseInt") {
		t.Error(err)
	}
}

func TestTemplatesThatCannotBe(t *testing.T) {
	for text, templates := range map[string][]Template{
		"it needs a name of its own":            {{Content: "x"}},
		`template "/a": it needs a name`:        {{Content: "x", Destination: "/a"}, {Content: "y", Destination: "/a"}},
		"both a source and a content":           {{Content: "x", Source: "/y", Destination: "/a"}},
		"read source: open /nonesuch":           {{Source: "/nonesuch", Destination: "/a"}},
		`function "nonesuch" not defined`:       {{Content: "{{ nonesuch }}", Destination: "/a"}},
		`denied functions "[": syntax error in`: {{Content: "x", Deny: []string{"["}, Destination: "/a"}},
	} {
		if _, err := New(Config{Templates: templates}); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %s", err, text)
		}
	}
}
