package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write puts text into a file of its own.
func writeConfig(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestConfigCommand(t *testing.T) {
	file := writeConfig(t, "store: {url: \"file:///b\", password: {{ .PASSWORD | quote }}}\nvolume: {{ .NAME }}\nstate: [/srv/a]\n")
	env := map[string]string{"PASSWORD": "correct-horse", "NAME": "wiki"}
	for _, test := range []struct {
		args      string
		code      int
		out, errs string
	}{
		{"render", 0, "store: {url: \"file:///b\", password: [secret]}\nvolume: wiki\nstate: [/srv/a]\n", ""},
		{"render --json", 0, "\"text\": \"store: {url", ""},
		{"validate -- app", 0, "valid\n", ""},
		{"validate --json -- app", 0, "\"valid\": true", ""},
		{"validate", 2, "", "drover: nothing to run; put the command after --"},
		{"validate --every 7 -- app", 2, "", "drover: --every: duration \"7\" has no unit; write 7s"},
		{"validate --json --every 7 -- app", 2, "\"where\": \"--every\"", "drover: --every: "},
		{"validate --state rel -- app", 2, "", "drover: --state: state path \"rel\" is not absolute"},
		{"validate --state rel --ttl 1ms --data-dir x -- app", 2, "", "drover: --state: state path \"rel\" is not absolute; begin it with a slash\ndrover: --data-dir: data directory \"x\" is not absolute; begin it with a slash\ndrover: --ttl: lease TTL 1ms is out of range"},
		{"schema", 0, "\"title\": \"drover.yaml\"", ""},
		{"", 2, "", "drover: nothing says what to do with the configuration; give render, validate or schema"},
		{"show", 2, "", "drover: nothing says"},
		{"-- render", 2, "", "drover: nothing says"},
	} {
		args := append([]string{"config", "-c", file}, strings.Fields(test.args)...)
		got := try(t, nil, env, args...)
		if got.code != test.code || !strings.Contains(got.out, test.out) || !strings.HasPrefix(got.err, test.errs) || (test.errs == "") != (got.err == "") || strings.Count(got.err, "\n") != strings.Count(test.errs, "drover: ") || strings.Contains(got.out+got.err, "correct") {
			t.Errorf("%s: got %+v", test.args, got)
		}
	}
	if got := try(t, nil, map[string]string{"PASSWORD": "x"}, "config", "validate", "-c", file, "--", "app"); got.code != 2 || !strings.HasPrefix(got.err, "drover: "+file+":2:9: variable NAME is not set; set it, or write {{ .NAME | default ") {
		t.Errorf("got %+v", got)
	}
	if got := try(t, nil, nil, "config", "schema"); !json.Valid([]byte(got.out)) {
		t.Errorf("the schema is no JSON: %+v", got)
	}
}
