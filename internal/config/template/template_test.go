package template

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

const limit = 1 << 16

// variables are an environment.
func variables(all map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := all[name]; return v, ok }
}

var env = variables(map[string]string{
	"NAME": "Template", "PARTS": "a:b:c", "EMPTY": "", "COUNT": "3", "SAYS": `say "hi"`, "LINES": "one\ntwo", "SECRET": "correct-horse",
})

func TestRender(t *testing.T) {
	for _, test := range []struct{ source, want string }{
		{`a: {{ .NAME }}`, `a: Template`},
		{`{{.EMPTY}}|{{ .EMPTY | default "x" }}|{{ .NONE | default "y" }}|{{ default "z" .NONE }}`, `|x|y|z`},
		{`{{ .NONE | default 10 }}`, `10`},
		{`{{ .NONE | replaceAll "a" "b" | default "y" }}`, `y`},
		{`{{ if .NONE }}a{{ else }}b{{ end }}{{ if .NAME }}c{{ end }}{{ if not .NONE }}d{{ end }}`, `bcd`},
		{`{{ if and .NAME .NONE }}a{{ else if eq .NAME "Template" }}b{{ end }}`, `b`},
		{`{{ or .NONE .NAME }}`, `Template`},
		{`{{ with .NONE }}a{{ else }}b{{ end }}{{ with .NAME }}{{ . }}{{ $.COUNT }}{{ end }}`, `bTemplate3`},
		{`{{ env "NAME" }}{{ env "NONE" }}`, `Template`},
		{`Hello, {{.PARTS | split ":" | join "." }}!`, `Hello, a.b.c!`},
		{`{{ len (.EMPTY | split ":") }}`, `0`},
		{`Hello, {{.NAME | replaceAll "e" "_" }}!`, `Hello, T_mplat_!`},
		{`Hello, {{.NAME | regexReplaceAll "[epa]+" "_" }}!`, `Hello, T_m_l_t_!`},
		{`{{ .NAME | regexReplaceAll "(T)(e)" "$2$1" }}`, `eTmplate`},
		{`{{ range $i := loop 5 }}{{ $i }},{{end}}`, `0,1,2,3,4,`},
		{`{{ range $i := loop 5 8 }}{{ $i }},{{end}}`, `5,6,7,`},
		{`{{ range $i := loop 5 1 }}{{ $i }},{{end}}`, `5,4,3,2,`},
		{`{{ range loop .COUNT }}{{ . }}{{end}}`, `012`},
		{`{{ range $i := loop 2 }}{{ $n := printf "NAME_%d" $i }}{{ if env $n }}x{{ else }}-{{ end }}{{ end }}`, `--`},
		{`{{ .NAME | toLower }}{{ .NAME | toUpper }}`, `templateTEMPLATE`},
		{`{{ .SAYS | quote }} {{ .LINES | json }} {{ .PARTS | split ":" | json }}`, `"say \"hi\"" "one\ntwo" ["a","b","c"]`},
		{`{{"{{"}} kept }}`, `{{ kept }}`},
		{"a\n{{- /* gone */ -}}\n b", `ab`},
		{`{{ define "x" }}<{{ .NAME }}>{{ end }}{{ template "x" . }}{{ template "x" "y" }}`, `<Template><Template>`},
		{`{{ block "b" . }}{{ .COUNT }}{{ end }}`, `3`},
		{`{{ . }}`, `{}`},
		{`{{ range loop 9 }}{{ if eq . 3 }}{{ break }}{{ end }}{{ if eq . 1 }}{{ continue }}{{ end }}{{ . }}{{ end }}`, `02`},
	} {
		text, err := Render(test.source, env, limit)
		if err != nil || text.Made != test.want {
			t.Errorf("%s: got %+v, %v, want %s", test.source, text, err, test.want)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, test := range []struct{ source, want string }{
		{"a: b\nc: {{ .NONE }}", `2:4: variable NONE is not set; set it, or write {{ .NONE | default "…" }}`},
		{"a: é{{- .NONE | split \":\" }}", `1:5: variable NONE is not set`},
		{"{{ $x := .NONE }}", `1:1: variable NONE is not set`},
		{"{{ with .NAME }}{{ $.NONE }}{{ end }}", `1:17: variable NONE is not set`},
		{"{{ default .NONE .EMPTY | printf \"%s%s\" .NONE }}", `1:1: variable NONE is not set`},
		{"{{ range split \",\" .NONE }}{{ end }}", `1:1: variable NONE is not set`},
		{"a\n{{ .NAME ", `2:0: not a valid template: unclosed action`},
		{"{{ nothing .NAME }}", `1:0: not a valid template: function "nothing" not defined`},
		{"{{ drover_text 0 }}", `1:0: not a valid template: function "drover_text" not defined`},
		{"{{ .NAME.X }}", `1:1: cannot carry out {{ .NAME.X }}`},
		{"{{ with .NAME }}{{ .X }}{{ end }}", `1:17: cannot carry out {{ .X }}: can't evaluate field X in type`},
		{"{{ split \":\" }}", `1:1: cannot carry out {{ split ":" }}: wrong number of args for split: want 2 got 1`},
		{"x\n{{ range .SECRET }}{{ end }}", `2:1: cannot carry out {{ range .SECRET }}`},
		{"{{ if eq (split \"-\" .SECRET) \"a\" }}{{ end }}", `1:1: cannot carry out {{ if eq (split "-" .SECRET) "a" }}`},
		{"{{ loop .SECRET }}", `1:1: an argument of loop is not a whole number`},
		{"{{ loop 1 2 3 }}", `1:1: loop has 3 arguments; write`},
		{"{{ loop 100000 }}", `1:1: loop makes more than 10000 numbers`},
		{"{{ .NAME | regexReplaceAll .SECRET \"(\" | regexReplaceAll \"(\" .SECRET }}", `1:1: the first argument of regexReplaceAll is not a regular expression`},
		{"{{ range loop 1000 }}{{ range loop 1000 }}{{ end }}{{ end }}", `1:22: the template takes more than 100000 steps`},
		{"{{ range loop 5000 }}{{ range 5000 }}{{ end }}{{ end }}", `the template takes more than 100000 steps`},
		{"{{ range loop 5000 }}0123456789abcdef{{ end }}", `the template makes more than 65536 bytes`},
		{"{{ $x := .SECRET }}{{ range loop 99 }}{{ $x = printf \"%s%s\" $x $x }}{{ end }}", `the template makes more than 65536 bytes`},
		{"{{ $x := .SECRET }}{{ range loop 99 }}{{ $x = replaceAll \"c\" $x $x }}{{ end }}", `the template makes more than 65536 bytes`},
		{"{{ $x := .SECRET }}{{ range loop 99 }}{{ $x = regexReplaceAll \".\" \"$0$0\" $x }}{{ end }}", `the template makes more than 65536 bytes`},
		{"{{ $x := \"\\\\\" }}{{ range loop 99 }}{{ $x = js $x }}{{ end }}", `the template makes more than 65536 bytes`},
		{`{{ define "x" }}{{ template "x" }}{{ end }}{{ template "x" }}`, `the template takes more than 100000 steps`},
		{`{{ range loop 9000 }}{{ if (split "" (printf "%065000d" 1)) }}{{ end }}{{ end }}`, `the template makes more than 65536 bytes`},
		{`{{ range loop 9000 }}{{ if loop 9000 }}{{ end }}{{ end }}`, `the template makes more than 65536 bytes`},
		{`{{ template "y" }}`, `1:1: cannot carry out {{ template "y" }}`},
	} {
		_, err := Render(test.source, env, limit)
		var bad *Error
		if !errors.As(err, &bad) {
			t.Errorf("%s: got %v", test.source, err)
			continue
		}
		got := fmt.Sprintf("%d:%d: %s", bad.Line, bad.Column, bad)
		if !strings.Contains(got, test.want) || strings.Contains(got, "\n") || strings.Contains(got, "correct") {
			t.Errorf("%s:\n got %s\nwant %s", test.source, got, test.want)
		}
	}
}

// TestSource: whatever ranges and actions do to the lines, a place in what was made is
// one in the file.
func TestSource(t *testing.T) {
	source := strings.Join([]string{
		`a: {{ .NAME }} # é`,
		`{{ range $i := loop 2 }}`,
		`b{{ $i }}: {{ if .NONE }}`,
		`  gone`,
		`{{ end }}x`,
		`{{- end }}`,
		`c: {{ .LINES }} d`,
		`é {{"é"}}e`,
	}, "\n")
	source = strings.Replace(source, ".NONE", `env "NONE"`, 1)
	text, err := Render(source, env, limit)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		at, source, action string
	}{
		{"a:", "a:", ""}, {"Template", "{{ .NAME", "{{.NAME}}"}, {"# é", "# é", ""},
		{"b0", "b{{", ""}, {"0:", "{{ $i }}", "{{$i}}"}, {"b1", "b{{", ""}, {"x\nb1", "x\n{{-", ""},
		{"c:", "c:", ""}, {"one", "{{ .LINES", "{{.LINES}}"}, {"two", "{{ .LINES", "{{.LINES}}"}, {" d\n", " d\n", ""}, {"d\n", "d\n", ""},
		{"e", "e:", ""},
	} {
		if test.at == "e" {
			test.at, test.source = "ée", `{{"é"}}`
			test.action = `{{"é"}}`
		}
		at, from := strings.Index(text.Made, test.at), strings.Index(source, test.source)
		if at < 0 || from < 0 {
			t.Fatalf("%q is not in\n%s", test, text.Made)
		}
		line, column := place(text.Made, at)
		wantLine, wantColumn := place(source, from)
		gotLine, gotColumn, action := text.Source(line, column)
		if gotLine != wantLine || gotColumn != wantColumn || action != test.action {
			t.Errorf("%q at %d:%d: got %d:%d %s, want %d:%d %s", test.at, line, column, gotLine, gotColumn, action, wantLine, wantColumn, test.action)
		}
	}
	line, _ := place(text.Made, len(text.Made))
	if gotLine, _, _ := text.Source(line, 1000); gotLine != 8 {
		t.Errorf("the end is on line %d", gotLine)
	}
}

func TestHide(t *testing.T) {
	text, err := Render(`{{ .SECRET }} {{ .SAYS }} {{ .COUNT }} {{ .SECRET | toUpper | quote }}`, env, limit)
	if err != nil {
		t.Fatal(err)
	}
	got, hid := text.Hide(`"correct-horse" or "say \"hi\"" or 3 or CORRECT-HORSE`)
	if want := `"{{.SECRET}}" or "{{.SAYS}}" or 3 or {{.SECRET | toUpper | quote}}`; got != want || !hid {
		t.Errorf("got %s, %v\nwant %s", got, hid, want)
	}
	if got, hid := text.Hide("nothing"); got != "nothing" || hid {
		t.Errorf("got %s, %v", got, hid)
	}
}

func TestProbe(t *testing.T) {
	text, err := Render("value: {{ .NAME }}\nb: {{ .PARTS | split \":\" | json }} {{ .EMPTY }}", env, limit)
	if err != nil {
		t.Fatal(err)
	}
	p := text.Probe()
	if want := "value: valuex0x\nb: [\"valuex1x\",\"valuex2x\",\"valuex3x\"] valuex4x"; p.Text != want {
		t.Errorf("got  %s\nwant %s", p.Text, want)
	}
	if got, want := p.Restore(p.Text), "value: Template\nb: [\"a\",\"b\",\"c\"] "; got != want || got != text.Made {
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if line, column, action, ok := p.Action("avaluex3xvaluex0x"); !ok || line != 2 || column != 4 || action != `{{.PARTS | split ":" | json}}` {
		t.Errorf("got %d:%d %s %v", line, column, action, ok)
	}
}

// FuzzRender: whatever the template, it is a text whose every place has one in the file,
// or one line that says nothing of the environment.
func FuzzRender(f *testing.F) {
	const secret = "correct-horse-battery"
	for _, seed := range []string{
		"a: {{ .X }}", "{{ range loop 3 }}\n{{ . }}{{ end }}", "{{ .X | split \"-\" | json }}", "{{ define \"a\" }}{{ . }}{{ end }}{{ template \"a\" .X }}",
		"{{- .X -}}", "{{/* c */}}", "{{ with $x := .X }}{{ $x }}{{ else }}{{ $.Y }}{{ end }}", "{{ if eq .X 1 }}{{ end }}", "{{\"{{\"}}", "{{ index .X 99 }}", "{{ slice .X 3 1 }}",
		"{{ range $i, $c := .X }}{{ end }}", "{{ printf \"%d\" .X }}", "{{ len 3 }}", "{{ .X.Y }}", "{{ call .X }}", "{{ loop .X }}", "{{ block \"b\" . }}{{ end }}", "{{ break }}", "{{ nil }}", "{{ html .X | urlquery }}",
		"{{ (split \"-\" .X) | join .X | quote }}", "{{ lt .X .Y 3 }}", "{{ range 3 }}{{ continue }}{{ end }}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, source string) {
		lookUp := func(string) (string, bool) { return secret, true }
		text, err := Render(source, lookUp, limit)
		if err != nil {
			var bad *Error
			if !errors.As(err, &bad) || bad.What == "" || strings.ContainsAny(bad.Error(), "\n\r") {
				t.Fatalf("not a line of our own: %v", err)
			}
			if strings.Contains(bad.Error(), "horse") && !strings.Contains(source, "horse") {
				t.Fatalf("it tells a variable: %v", err)
			}
			return
		}
		if len(text.Made) > limit {
			t.Fatalf("%d bytes", len(text.Made))
		}
		lines, _ := place(source, len(source))
		for at := 0; at <= len(text.Made); at += 1 + len(text.Made)/50 {
			line, column := place(text.Made, at)
			if gotLine, gotColumn, _ := text.Source(line, column); gotLine < 1 || gotLine > lines && source != "" || gotColumn < 1 {
				t.Fatalf("%d:%d is from %d:%d", line, column, gotLine, gotColumn)
			}
		}
		if p := text.Probe(); !strings.Contains(source, "json") && !strings.Contains(source, "quote") && p.Restore(p.Text) != text.Made {
			t.Fatalf("%q\nis not %q", p.Restore(p.Text), text.Made)
		}
	})
}

// TestEnvironmentIsNotListed: no action shows variables that it does not name.
func TestEnvironmentIsNotListed(t *testing.T) {
	t.Setenv("DROVER_TEST_SECRET", "correct-horse")
	for _, source := range []string{`{{ . }}`, `{{ printf "%v %+v %#v" . . . }}`, `{{ range $k, $v := . }}{{ $v }}{{ end }}`, `{{ json . }}`} {
		text, err := Render(source, os.LookupEnv, limit)
		if err == nil && strings.Contains(text.Made, "correct") {
			t.Errorf("%s: %s", source, text.Made)
		}
	}
}
