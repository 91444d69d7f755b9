package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestTemplate(t *testing.T) {
	c, err := Load(sources(t, `service: {{ .NAME | default "wiki" }}
store: {url: "file:///b/{{ .DIR }}", password: {{ .PASSWORD | quote }}}
lease: {ttl: {{ .TTL | default 5 }}s}
exclude: {{ .SKIP | split "," | json }}
backup:
{{- if .EVERY }}
  every: {{ .EVERY }}
{{- end }}
jobs:
  {{ .NAME | default "wiki" }}:
    main: {{ .MAIN }}
    command: [app, "{{ .NAME | default "a b" }}", {{ .PASSWORD | quote }}, '{{"{{"}} as it is }}']
    env:
      PORT: {{ .PORT }}
      SHELL: ${PORT}
`, map[string]string{"DIR": "x y", "PASSWORD": "p: 'q' \"r\" # \\n, {", "SKIP": "*.tmp,*.bak, x: y", "MAIN": "true", "PORT": "8080", "EVERY": "1h"}, nil))
	if err != nil {
		t.Fatal(err)
	}
	job := c.Jobs["wiki"]
	got := fmt.Sprintf("%s|%s|%s|%s|%q|%s|%v|%q|%v", c.Service, c.Store.URL, c.Store.Password.Reveal(), c.Lease.TTL, c.Exclude, c.Backup.Every, job.Main, job.Command, job.Env)
	want := fmt.Sprintf("wiki|file:///b/x y|p: 'q' \"r\" # \\n, {|5s|%q|1h|true|%q|map[PORT:8080 SHELL:${PORT}]",
		[]string{"*.tmp", "*.bak", " x: y"}, []string{"app", "a b", "p: 'q' \"r\" # \\n, {", "{{ as it is }}"})
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestNoTemplate: without two braces nothing is done to a file.
func TestNoTemplate(t *testing.T) {
	c, err := Load(sources(t, `jobs: {a: {command: "echo ${X} $(x) }} { {"}}`, nil, nil))
	if err != nil || c.Jobs["a"].Command[2] != "echo ${X} $(x) }} { {" {
		t.Errorf("got %+v, %v", c, err)
	}
}

// TestTemplateErrors: each is one line about the user's file, and tells no value.
func TestTemplateErrors(t *testing.T) {
	for _, test := range []struct{ file, want string }{
		{"volume: a\nservice: {{ .NONE }}", `2:10: variable NONE is not set; set it, or write {{ .NONE | default "…" }}`},
		{"volume: {{ .NONE", `1: not a valid template: unclosed action; for two braces`},
		{"volume: {{ lower .SECRET }}", `1: not a valid template: function "lower" not defined;`},
		{"volume: {{ range .SECRET }}{{ end }}", `1:9: cannot carry out {{ range .SECRET }}`},
		// What stands after lines that are gone, or more.
		{"{{ if .NONE }}\na\nb\n{{ end }}\nvolme: x # {{ .SECRET }}", `5:1: unknown key "volme"; did you mean`},
		{"jobs:\n{{ range loop 3 }}  j{{ . }}:\n    command: x\n{{ end }}x: y", `4:10: unknown key "x"`},
		{"{{ range loop 3 }}\n{{ end }}lease: {ttl: soon}", `2:23: lease.ttl: "soon" is not a duration`},
		// Of a check that looks at the whole.
		{"{{ range loop 3 }}\n{{ end }}\nstate: [/a, /a/b]", `3:13: state paths "/a" and "/a/b" overlap`},
		// Values are text, and are not told.
		{"lease: {ttl: {{ .SECRET }}}", `1:14: lease.ttl: "{{.SECRET}}" is not a duration; write a number and a unit, such as 500ms, 2s, 5m, 1h30m, 1d; drover config render shows the value`},
		{"volume: {{ .INJECT }}", `1:9: {{.INJECT}} prints what YAML reads as more than text; write | quote at its end, and no quotes around it; | json for a list`},
		{"volume: {{ .COMMENT }}", `1:9: {{.COMMENT}} prints what`},
		{"volume: {{ .COLON }}\nslots: 3", `1:9: {{.COLON}} prints what`},
		{"exclude: [{{ .LIST }}, d]", `1:11: {{.LIST}} prints what`},
		{"jobs: {a: {command: [x, {{ .FLOW }}]}}", `1:25: {{.FLOW}} prints what`},
		{`jobs: {a: {command: "x {{ .ESCAPE }}"}}`, `1:24: {{.ESCAPE}} prints what`},
		{`jobs: {a: {command: "x {{ .DOUBLE }}"}}`, `{{.DOUBLE}}`},
		{`jobs: {a: {command: 'x {{ .SINGLE }}'}}`, `1:24: {{.SINGLE}} prints what`},
		{"# {{ .INJECT }}\nvolume: a", `prints what`},
		{"service: {{ .ALIAS }}", `{{.ALIAS}}`},
		{"jobs:\n  {{ .INDENT }}a: {command: x}\n  b: {command: x}", `2:3: {{.INDENT}} prints what`},
		{"jobs:\n  a: {command: x}\n  {{ .KEY }}: {command: x}", `3:3: {{.KEY}} prints what`},
		{"jobs: {a: {command: x{{ .MISUSE | quote }}}}", `1:22: {{.MISUSE | quote}} prints what`},
	} {
		src := sources(t, test.file, map[string]string{
			"SECRET": theSecret, "INJECT": theSecret + "\nfence: strict", "COMMENT": "a #" + theSecret, "COLON": "a\nfence:", "LIST": "a, b", "FLOW": "a], main: true, dir: /" + theSecret + ", limits: {}, env: [b", "ESCAPE": `a\nb` + theSecret,
			"DOUBLE": `", main: true, dir: "/` + theSecret, "SINGLE": "it''s " + theSecret, "ALIAS": "*" + theSecret, "INDENT": "x: {command: y}\n  ", "KEY": "b: {command: y}\n  c", "MISUSE": ", main: true, dir: /" + theSecret,
		}, nil)
		_, err := Load(src)
		if err == nil {
			t.Errorf("%s: no error", test.file)
			continue
		}
		line := strings.TrimPrefix(err.Error(), src.Files[0]+":")
		if !strings.Contains(line, test.want) || strings.Contains(line, theSecret) || strings.Contains(line, "\n") {
			t.Errorf("%s:\n got %s\nwant %s", test.file, line, test.want)
		}
	}
}

func TestRendered(t *testing.T) {
	for _, test := range []struct{ file, want string }{
		{"volume: a # b", "volume: a # b"},
		{"volume: {{ .VOLUME }}\n{{ range loop 2 }}# {{ . }}\n{{ end }}", "volume: data\n# 0\n# 1\n"},
		{"jobs: {a: {command: x, env: {KEY: {{ .SECRET }}}}}", "jobs: {a: {command: x, env: {KEY: " + theSecret + "}}}"},
		{"store: {password: {{ .SECRET }}, url: x}\nvolume: a", "store: {password: [secret], url: x}\nvolume: a"},
		{"store:\n  password: " + theSecret + "\nvolume: a\n", "store:\n  password: [secret]\nvolume: a\n"},
		{"store:\n  password: " + theSecret + "   # mine\n  url: x", "store:\n  password: [secret]   # mine\n  url: x"},
		{"store:\n  password: |\n    " + theSecret + "\n    more\nvolume: a\n", "store:\n  password: [secret]\nvolume: a\n"},
		{"store:\n  password: \"" + theSecret + "\"", "store:\n  password: [secret]"},
		{"service: &p " + theSecret + "\nmirror: {store: {password: *p}}", "service: &p [secret]\nmirror: {store: {password: [secret]}}"},
		{"store: {password: [" + theSecret + ", b]}\nvolume: a", "store: {password: [secret]}\nvolume: a"},
		{"store:\n  password: " + theSecret + "\n   bad: [", "store:\n  password: [secret]\n"},
		{"store: {password: \"" + theSecret, "store: {password: [secret]\n"},
		{"store: {password: }\n", "store: {password: }\n"},
		{"é: é\nstore: {é: é, password: " + theSecret + "}", "é: é\nstore: {é: é, password: [secret]}"},
	} {
		got, err := Rendered(sources(t, test.file, map[string]string{"VOLUME": "data", "SECRET": theSecret}, nil))
		if err != nil || got != test.want {
			t.Errorf("%q:\n got %q, %v\nwant %q", test.file, got, err, test.want)
		}
	}
	if _, err := Rendered(sources(t, "", nil, nil)); err == nil || !strings.Contains(err.Error(), "there is no configuration file; name one with -c, or write ") {
		t.Errorf("got %v", err)
	}
	if _, err := Rendered(sources(t, "a: {{ .NONE }}", nil, nil)); err == nil || !strings.Contains(err.Error(), ":1:4: variable NONE is not set") {
		t.Errorf("got %v", err)
	}
}

// FuzzTemplate: a variable is text wherever it stands, or the file is refused. It sets
// nothing else.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{
		"a", "", " ", "a b", "null", "~", "true", "0x1f", "a: b", "a #b", "- a", "[a]", "{a: b}", "a\nfence: strict", "a\n", "\ta", `"`, `\"`, `a", main: true, dir: "/x`, "a'", "''", "'", "*a", "&a b", "!t b", "%a", "@a", "`", "|", ">", "? a",
		"a]", "a}", "a,b", "a\r\nb", "\u2028", "\x00", "\xff", "é", "<<", "---", "...", "\u0085", "a\\", "a:", ": a", " #", "a\n    b", "{{", "}}", "value0x",
	} {
		f.Add(seed)
	}
	places := []string{
		"{{ .X }}", "\"{{ .X }}\"", "'{{ .X }}'", "{{ .X | quote }}", "a{{ .X }}b", "{{ .X }}{{ .X }}", "|\n        {{ .X }}\n", ">\n        a {{ .X }}\n        b\n", "\"a {{ .X }}\n        b\"", "a\n        {{ .X }}", "{{ .X }} # {{ .X }}",
	}
	f.Fuzz(func(t *testing.T, x string) {
		if strings.ContainsRune(x, 0) {
			return // no variable holds one
		}
		src := Sources{Env: func(string) (string, bool) { return x, true }, UID: os.Getuid, Hostname: os.Hostname}
		for _, place := range places {
			c := Default()
			file := "volume: v\njobs:\n  j:\n    command: [run]\n    env:\n      A: " + place + "\n      B: c\nservice: s\n"
			if err := src.decode(c, "drover.yaml", []byte(file)); err != nil {
				if strings.ContainsAny(err.Error(), "\n") {
					t.Fatalf("%q at %s: more than a line: %q", x, place, err)
				}
				continue
			}
			job := c.Jobs["j"]
			if c.Volume != "v" || c.Service != "s" || c.Fence != FenceHistory || len(c.Jobs) != 1 || job.Main || len(job.Command) != 1 || len(job.Env) != 2 || job.Env["B"] != "c" {
				t.Fatalf("%q at %s sets more than its own value: %+v", x, place, c)
			}
			if place == "{{ .X | quote }}" && job.Env["A"] != string([]rune(x)) {
				t.Fatalf("quoted, %q is %q", x, job.Env["A"])
			}
			if place == "\"{{ .X }}\"" && strings.TrimSpace(job.Env["A"]) != plain(x) && job.Env["A"] != x {
				t.Fatalf("in quotes, %q is %q", x, job.Env["A"])
			}
		}
		if err := src.decode(Default(), "drover.yaml", []byte("jobs: {j: {command: [run], env: {A: {{ .X | quote }}}}}")); err != nil {
			t.Fatalf("quoted, %q is refused: %v", x, err)
		}
	})
}
