package language

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover/internal/testkit/consultemplate"
)

// localData answers for files, as the engine does.
type localData struct{}

func (localData) Value(d Dependency) (any, bool) {
	if d.Kind != FileContent {
		return nil, false
	}
	b, err := os.ReadFile(d.Name)
	return string(b), err == nil
}

// environ is a clean environment with what the corpus reads.
func environ(t *testing.T) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "ORACLE_SET=value", "ORACLE_EMPTY="}
}

func lookup(env []string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, e := range env {
			if k, v, _ := strings.Cut(e, "="); k == name {
				return v, true
			}
		}
		return "", false
	}
}

// The same templates on the same data render the same bytes.
func TestSameAsConsulTemplate(t *testing.T) {
	names, texts := consultemplate.Corpus(t, "testdata/corpus.txt")
	fixture, theirs, ours := t.TempDir(), t.TempDir(), t.TempDir()
	for name, content := range map[string]string{"plain.txt": "line\n", "data.json": `{"a": [1, "x"], "b": {"c": true}}`} {
		if err := os.WriteFile(filepath.Join(fixture, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := environ(t)
	place := func(out string) map[string]string {
		placed := map[string]string{}
		for name, text := range texts {
			placed[name] = strings.NewReplacer("FIXTURE", fixture, "OUT", out).Replace(text)
		}
		return placed
	}
	if out, err := consultemplate.Once(t, consultemplate.Job{Templates: place(filepath.Join(theirs, "out")), Dir: theirs, Env: env}); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join(theirs, name))
			if err != nil {
				t.Fatal(err)
			}
			tmpl, err := Parse(name, place(filepath.Join(ours, "out"))[name], Options{Env: lookup(env)})
			if err != nil {
				t.Fatal(err)
			}
			got, err := tmpl.Execute(localData{})
			if err != nil || len(got.Missing) > 0 {
				t.Fatalf("%v; missing %v", err, got.Missing)
			}
			if !bytes.Equal(got.Output, want) {
				t.Errorf("got\n%s\nwant\n%s", got.Output, want)
			}
			for _, f := range got.Files {
				compareFile(t, f, filepath.Join(theirs, strings.TrimPrefix(f.Path, ours)))
			}
		})
	}
}

// compareFile holds what writeToFile asks for against what the real one wrote.
func compareFile(t *testing.T, f File, theirs string) {
	t.Helper()
	b, err := os.ReadFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(theirs)
	if err != nil {
		t.Fatal(err)
	}
	if uint32(info.Mode().Perm()) != f.Mode {
		t.Errorf("%s: mode %o, want %v", f.Path, f.Mode, info.Mode())
	}
	if !f.Append && string(b) != f.Content && !strings.HasPrefix(string(b), f.Content) || f.Append && !strings.HasSuffix(string(b), f.Content) {
		t.Errorf("%s: content %q, want %q", f.Path, f.Content, b)
	}
}

// What the real one refuses is refused.
func TestRefusesWhatConsulTemplateRefuses(t *testing.T) {
	env := environ(t)
	for _, text := range []string{
		`{{ nonesuch }}`, `{{ key "a" `, `{{ parseInt "x" }}`, `{{ parseBool "maybe" }}`, `{{ parseFloat "x" }}`, `{{ parseUint "-1" }}`, `{{ parseJSON "{" }}`, `{{ parseYAML "a: b: c" }}`,
		`{{ base64Decode "?" }}`, `{{ base64URLDecode "+/" }}`, `{{ mustEnv "ORACLE_UNSET" }}`, `{{ mustEnv "ORACLE_EMPTY" }}`, `{{ regexMatch "(" "a" }}`, `{{ regexReplaceAll "(" "a" "b" }}`,
		`{{ indent -1 "x" }}`, `{{ loop }}`, `{{ loop 1 2 3 }}`, `{{ loop "x" }}`, `{{ loop 1.5 }}`, `{{ timestamp "a" "b" }}`, `{{ add 1 "2" }}`, `{{ add nil 1 }}`, `{{ modulo 1.5 2 }}`, `{{ divide 0 1 }}`, `{{ modulo 0 1 }}`,
		`{{ executeTemplate "none" }}`, `{{ executeTemplate "a" 1 2 }}`, `{{ byTag "x" }}`, `{{ byPort 1 }}`, `{{ explode "x" }}`, `{{ scratch.Set "a" 1 }}{{ scratch.MapSet "a" "b" 1 }}`,
		`{{ scratch.MapSet "m" "a" 1 }}{{ scratch.MapSet "m" "a/b" 2 }}{{ scratch.Get "m" | explodeMap }}`, `{{ toJSON (parseYAML "a: 1") }}`, `{{ parseYAML "a: 1" | toTOML }}`,
		`{{ sockaddr "Nonesuch" }}`, `{{ "x" | writeToFile "/a" "" "" "9" }}`, `{{ service "a|b" }}`, `{{ service ".a" }}`, `{{ key "a@" }}`, `{{ key "a?x=y" }}`, `{{ nodes "x" }}`, `{{ services "x" }}`, `{{ node "@dc" }}`,
		`{{ secret "a" "b" }}`, `{{ (parseJSON "[1]").x }}`, `{{ index (split "," "a") 3 }}`, `{{ containsAll (split "," "a") (split "," "a") }}`,
	} {
		if out, err := consultemplate.Once(t, consultemplate.Job{Templates: map[string]string{"x": text}, Dir: t.TempDir(), Env: env}); err == nil {
			t.Errorf("%s: the real one takes it: %s", text, out)
		}
		tmpl, err := Parse("x", text, Options{Env: lookup(env)})
		if err == nil {
			_, err = tmpl.Execute(localData{})
		}
		if err == nil {
			t.Errorf("%s: there is no error", text)
		}
	}
}

// Options do the same.
func TestSameOptions(t *testing.T) {
	env, box := environ(t), t.TempDir()
	if err := os.WriteFile(filepath.Join(box, "in"), []byte("inside"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text, options string
		opt           Options
		fails         bool
	}{
		{"<< toUpper \"x\" >> {{ }}", "left_delimiter = \"<<\"\nright_delimiter = \">>\"", Options{LeftDelim: "<<", RightDelim: ">>"}, false},
		{`{{ (parseJSON "{}").a }}`, "error_on_missing_key = true", Options{ErrorOnMissing: true}, true},
		{`{{ (parseJSON "{}").a }}`, "", Options{}, false},
		{`{{ env "ORACLE_SET" }}`, `function_denylist = ["env"]`, Options{Deny: []string{"env"}}, true},
		{`{{ if false }}{{ env "ORACLE_SET" }}{{ end }}{{ toUpper "x" }}`, `function_denylist = ["env", "sprig_*"]`, Options{Deny: []string{"env", "sprig_*"}}, false},
		{`{{ sprig_upper "x" }}`, `function_denylist = ["sprig_*"]`, Options{Deny: []string{"sprig_*"}}, true},
		{`{{ file "` + box + `/in" }}`, `sandbox_path = "` + box + `"`, Options{Sandbox: box}, false},
		{`{{ file "/etc/hostname" }}`, `sandbox_path = "` + box + `"`, Options{Sandbox: box}, true},
	} {
		dir := t.TempDir()
		_, theirs := consultemplate.Once(t, consultemplate.Job{Templates: map[string]string{"x": c.text}, Dir: dir, Env: env, Options: c.options})
		c.opt.Env = lookup(env)
		tmpl, err := Parse("x", c.text, c.opt)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tmpl.Execute(localData{})
		if (theirs != nil) != c.fails || (err != nil) != c.fails {
			t.Errorf("%s with %s: %v, theirs %v", c.text, c.options, err, theirs)
		}
		if want, err := os.ReadFile(filepath.Join(dir, "x")); !c.fails && (err != nil || !bytes.Equal(want, got.Output)) {
			t.Errorf("%s with %s: %q, want %q, %v", c.text, c.options, got.Output, want, err)
		}
	}
}
