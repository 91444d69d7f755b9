package language

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// table is data by dependency.
type table map[Dependency]any

func (t table) Value(d Dependency) (any, bool) { v, ok := t[d]; return v, ok }

func execute(t *testing.T, text string, data Data, opt Options) (Result, error) {
	t.Helper()
	tmpl, err := Parse("test", text, opt)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl.Execute(data)
}

func TestQueries(t *testing.T) {
	for call, want := range map[string]string{
		`key "a/b"`:                              "key(a/b)",
		`key "/a/b@dc1"`:                         "key(a/b@dc1)",
		`key "//a?ns=default&partition=default"`: "key(a)",
		`key "a b|c~d"`:                          "key(a b|c~d)",
		`ls "a/"`:                                "tree(a/)",
		`tree "/"`:                               "tree()",
		`service "web"`:                          "service(web)",
		`service "web" "any"`:                    "service(web|any)",
		`service "v1.2.web@dc-1.x~_agent|warning,passing,"`: "service(v1.2.web@dc-1.x~_agent|passing,warning)",
		`service "a=b:c.web"`:                               "service(a=b:c.web)",
		`service "web|,"`:                                   "service(web|none)",
		`services`:                                          "services()",
		`services "@dc1"`:                                   "services(@dc1)",
		`node`:                                              "node()",
		`node "n.1@dc1"`:                                    "node(n.1@dc1)",
		`nodes "@dc1~_agent"`:                               "nodes(@dc1~_agent)",
		`datacenters true`:                                  "datacenters()",
		`secret "/secret/a/"`:                               "secret(secret/a)",
		`secret "pki/issue/x" "cn=a" " ttl = 1h "`:          "secret(pki/issue/x with cn, ttl)",
		`secrets "secret/"`:                                 "secrets(secret)",
		`pkiCert "pki/issue/x" "cn=a"`:                      "pkiCert(pki/issue/x with cn)",
	} {
		r, err := execute(t, "{{ "+call+" }}", table{}, Options{})
		if err != nil || len(r.Used) != 1 || r.Used[0].String() != want || len(r.Missing) != 1 {
			t.Errorf("%s: %v, %v", call, r.Used, err)
		}
	}
	for _, call := range []string{
		`key "@dc"`, `key "a@b@c"`, `key "a@"`, `key "a?ns=x"`, `key "a?x=y"`, `key "a@dc?ns=default"`, `key "/"`, `key "a@d c"`,
		`service "web|bad"`, `service ".web"`, `service "web."`, `service "we b"`, `service "web~n@dc"`, `service "web" "any" "any"`, `service "@dc"`,
		`services "web"`, `node "@dc"`, `node "a b"`, `nodes "x"`, `nodes "~"`, `secret "/"`, `secret "a" "novalue"`, `pkiCert " "`, `datacenters true true`,
	} {
		if r, err := execute(t, "{{ "+call+" }}", table{}, Options{}); err == nil {
			t.Errorf("%s is no error, but %v", call, r.Used)
		}
	}
}

// What is missing is a reason to wait, whatever the template makes of the gap; what is
// there and wrong is an error.
func TestMissingComesFirst(t *testing.T) {
	secret := Dependency{Kind: Secret, Name: "db"}
	text := `{{ (secret "db").Data.port | parseInt }}`
	r, err := execute(t, text, table{}, Options{ErrorOnMissing: true})
	if err != nil || len(r.Missing) != 1 || r.Missing[0].Dependency != secret {
		t.Errorf("%v, %v", r.Missing, err)
	}
	r, err = execute(t, text, table{secret: &SecretValue{Data: map[string]any{"port": "80"}}}, Options{})
	if err != nil || string(r.Output) != "80" || !r.Secret {
		t.Errorf("%q, %v", r.Output, err)
	}
	_, err = execute(t, text, table{secret: &SecretValue{Data: map[string]any{"port": "hunter2"}}}, Options{})
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "error calling parseInt") {
		t.Error(err)
	}
	_, err = execute(t, `{{ (secret "db").Data.user }}`, table{secret: &SecretValue{Data: map[string]any{}}}, Options{ErrorOnMissing: true})
	if err == nil || !strings.Contains(err.Error(), `no entry for key "user"`) {
		t.Error(err)
	}
}

func TestAbsentAndDenied(t *testing.T) {
	for call, want := range map[string]string{
		`connect "web"`: "service mesh", `caRoots`: "service mesh", `caLeaf "x"`: "service mesh", `partitions`: "enterprise", `peerings`: "enterprise",
		`exportedServices "x"`: "enterprise", `nomadVar "x"`: "Nomad", `nomadServices`: "Nomad", `plugin "x"`: "no command is run",
	} {
		if _, err := execute(t, "{{ if false }}{{ "+call+" }}{{ end }}fine", table{}, Options{}); err != nil {
			t.Errorf("%s is not called: %v", call, err)
		}
		if _, err := execute(t, "{{ "+call+" }}", table{}, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", call, err)
		}
	}
	opt := Options{Deny: []string{"env", "sprig_*"}}
	for _, call := range []string{`env "x"`, `sprig_upper "x"`} {
		if _, err := execute(t, "{{ "+call+" }}", table{}, opt); err == nil || !strings.Contains(err.Error(), "is disabled") {
			t.Errorf("%s: %v", call, err)
		}
	}
	if r, err := execute(t, `{{ toUpper "x" }}`, table{}, opt); err != nil || string(r.Output) != "X" {
		t.Error(err)
	}
}

func TestSandbox(t *testing.T) {
	dir := t.TempDir()
	box := filepath.Join(dir, "box")
	if err := os.MkdirAll(box, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "out"), filepath.Join(box, "in")} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "out"), filepath.Join(box, "link")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{box + "/in": true, box + "/../box/in": true, box + "/link": false, box + "/../out": false, dir + "/out": false, box + "/none": false} {
		_, err := execute(t, fmt.Sprintf("{{ file %q }}", path), localData{}, Options{Sandbox: box})
		if (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// What would not end does.
func TestBounds(t *testing.T) {
	for _, text := range []string{
		`{{ range loop 9999999999999 }}{{ end }}`,
		`{{ range loop -9223372036854775808 9223372036854775807 }}{{ end }}`,
		`{{ range loop 4000 }}{{ range loop 4000 }}{{ end }}{{ end }}`,
		`{{ range loop 4000 }}` + strings.Repeat("x", 1<<20) + `{{ end }}`,
		`{{ indent 99999999999 "x" }}`,
		`{{ define "a" }}{{ executeTemplate "a" }}{{ end }}{{ executeTemplate "a" }}`,
		`{{ define "a" }}{{ template "a" }}{{ end }}{{ template "a" }}`,
		`{{ divide 0 1 }}`, `{{ modulo 0 1 }}`,
	} {
		if _, err := execute(t, text, table{}, Options{}); err == nil {
			t.Errorf("%.60s: no error", text)
		}
	}
}

func TestFilesAreLeftForLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	r, err := execute(t, fmt.Sprintf(`{{ "y" | writeToFile %q "u" "g" "0640" "append,newline" }}`, path), table{}, Options{})
	if want := []File{{Path: path, User: "u", Group: "g", Mode: 0o640, Append: true, Content: "y\n"}}; err != nil || !slices.Equal(r.Files, want) {
		t.Errorf("%+v, %v", r.Files, err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("it was written")
	}
}

func TestSpewPrintsToDebug(t *testing.T) {
	var debug strings.Builder
	r, err := execute(t, `{{ spew_dump "a" }}{{ spew_printf "%v" 1 }}x`, table{}, Options{Debug: &debug})
	if err != nil || string(r.Output) != "x" || debug.String() != "(string) (len=1) \"a\"\n1" {
		t.Errorf("%q, %q, %v", r.Output, debug.String(), err)
	}
	if r, err = execute(t, `{{ spew_dump "a" }}x`, table{}, Options{}); err != nil || string(r.Output) != "x" {
		t.Errorf("%q, %v", r.Output, err)
	}
}
