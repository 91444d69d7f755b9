package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"drover/internal/containerpilot"
)

func TestConvertCommand(t *testing.T) {
	file := writeConfig(t, "{\n  consul: 'hub:8500', preStart: 'prepare', services: [{name: 'a', health: 'probe', poll: 1, ttl: 3}]\n}")
	got := try(t, nil, nil, "convert", "containerpilot", file, "--", "app", "--port", "80")
	if got.code != 0 || !strings.Contains(got.out, "    command: [app, --port, \"80\"]\n") || !strings.HasPrefix(got.err, "drover: "+file+":2:11: consul: 'hub:8500' was read together with the CONSUL_ variables") || strings.Count(got.err, "\n") != 1 {
		t.Errorf("got %+v", got)
	}
	var result containerpilot.Result
	if got := try(t, nil, nil, "convert", "containerpilot", "--json", file, "--", "app"); got.code != 0 || got.err != "" || json.Unmarshal([]byte(got.out), &result) != nil || result.Version != 2 || len(result.Notes) != 1 || result.Notes[0].Line != 2 || !strings.Contains(result.Text, "command: [app]") {
		t.Errorf("got %+v, %+v", got, result)
	}
	for args, want := range map[string]string{
		"":                        "drover: nothing says what to convert; give containerpilot FILE\n",
		"upstart x":               "drover: nothing says what to convert; give",
		"containerpilot":          "drover: drover convert containerpilot takes one file; give its path, or - for standard input\n",
		"containerpilot a b":      "takes one file",
		"containerpilot /no/such": "drover: cannot read /no/such: no such file or directory\n",
		"containerpilot -":        "drover: -:1:1: the file must begin with {; is it a configuration of ContainerPilot?\n",
		"containerpilot --json " + writeConfig(t, "{\n  jobs: [\n"): ":2:9: no ] ends what begins here\n",
	} {
		if got := try(t, nil, nil, append([]string{"convert"}, strings.Fields(args)...)...); got.code != exitUsage || got.out != "" || !strings.Contains(got.err, want) || strings.Count(got.err, "\n") != 1 {
			t.Errorf("%s: got %+v, want %s", args, got, want)
		}
	}
}

// oldVersion2 and oldVersion3 say the same to both versions: one thing before the
// application, a check of it, one beside it that starts three times, one at turns, and one
// each before and after its stop. Each notes its name.
const oldVersion2 = `{
  "consul": "{{ .CONSUL | default "hub" }}:8500",
  "preStart": "note preStart",
  "stopTimeout": 20,
  "preStop": ["note", "preStop"],
  "postStop": "note {{ .LAST | default "postStop" }}",
  "services": [{ "name": "app", "port": 80, "interfaces": "static:127.0.0.1", "health": "note check", "poll": 1, "ttl": 3 }],
  "coprocesses": [{ "name": "beside", "command": "note beside", "restarts": 2 }],
  "tasks": [{ "name": "turns", "command": "note turns", "frequency": "200ms", "timeout": "10s" }]
}`

const oldVersion3 = `{
  consul: '{{ .CONSUL | default "hub" }}:8500',
  stopTimeout: 20,
  jobs: [
    { name: "preStart", exec: "note preStart" },
    { name: "app", exec: ["application"], port: 80, interfaces: "static:127.0.0.1", when: { source: "preStart", once: "exitSuccess" },
      health: { exec: "note check", interval: 1, ttl: 3 } },
    { name: "beside", exec: "note beside", restarts: 2, when: { source: "preStart", once: "exitSuccess" } },
    { name: "turns", exec: "note turns", timeout: "10s", when: { interval: "200ms" } },
    { name: "preStop", exec: "note preStop", when: { source: "app", once: "stopping" } },
    { name: "postStop", exec: 'note {{ .LAST | default "postStop" }}', when: { source: "app", once: "stopped" } },
    { name: "well", exec: "note well", when: { source: "app", once: "healthy" } },
    { name: "broken", exec: "note broken", when: { source: "app", once: "exitFailed" } },
    {{ if .NEVER }}{ name: "never", exec: "note never" },{{ end }}
  ]
}`

// testConverted: what was converted behaves as it did.
func testConverted(t *testing.T, m *machine) {
	m.write("note", "#!/bin/sh\necho \"$1\" >> \"$NOTES\"\n")
	m.write("application", "#!/bin/sh\ntrap 'note stopped; exit 3' TERM\nnote app\nwhile :; do sleep 0.1; done\n")
	for _, program := range []string{"note", "application"} {
		if err := os.Chmod(filepath.Join(m.dir, program), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, old := range map[string]string{"version2": oldVersion2, "version3": oldVersion3} {
		notes := filepath.Join(m.dir, name+".notes")
		plain := m.with("DROVER_STORE=", "DROVER_LOG_LEVEL=error", "NOTES="+notes, "PATH="+m.dir+":"+os.Getenv("PATH"))
		made := plain.do("convert", "containerpilot", m.write(name, old), "--", "application")
		if made.code != 0 || !strings.Contains(made.err, "CONSUL_HTTP_TOKEN") {
			t.Fatalf("%s: convert: %+v", name, made)
		}
		file := m.write(name+".yaml", made.out)
		plain.is(0, "valid", "config", "validate", "-c", file)

		agent := plain.start("run", "-c", file)
		count := noted(t, notes, func(count map[string]int) bool {
			return count["app"] == 1 && count["turns"] > 1 && count["beside"] == 3
		})
		if count["preStop"]+count["postStop"]+count["stopped"]+count["broken"]+count["never"] > 0 {
			t.Errorf("%s: too early: %v", name, count)
		}
		agent.signal(syscall.SIGTERM)
		got := agent.wait()
		text, err := os.ReadFile(notes)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Fields(string(text))
		at := func(word string) int { return slices.Index(lines, word) }
		switch {
		case got.code != 3:
			t.Errorf("%s: ends with %+v", name, got)
		case at("preStart") < 0 || at("preStart") > at("app") || at("preStart") > at("beside"):
			t.Errorf("%s: preStart is not before: %v", name, lines)
		case at("well") >= 0 && at("well") < at("check"):
			t.Errorf("%s: healthy before the first check: %v", name, lines)
		case at("preStop") < at("app") || at("preStop") > at("stopped") || at("stopped") > at("postStop"):
			t.Errorf("%s: the stop is out of order: %v", name, lines)
		}
	}
}

// noted waits until the notes are as wanted.
func noted(t *testing.T, file string, want func(map[string]int) bool) map[string]int {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		text, _ := os.ReadFile(file) // it may not be there yet
		count := map[string]int{}
		for word := range strings.FieldsSeq(string(text)) {
			count[word]++
		}
		if want(count) {
			return count
		}
		select {
		case <-deadline:
			t.Fatalf("the notes are %v", count)
		case <-tick.C:
		}
	}
}
