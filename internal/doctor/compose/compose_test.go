package compose

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"drover/internal/doctor"
)

// files is a file system of texts by name.
type files map[string]string

func (f files) open(name string) ([]byte, error) {
	text, ok := f[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return []byte(text), nil
}

// TestCompose plays testdata: files, and what is found in them. `-rewrite` writes down
// what is found now; read the diff.
//
//	file name=NAME                                 a file beside compose.yaml
//	judge [notes] [name=NAME] [env=(A=B,…)] [state=/a] [store=URL] [took=DURATION]
//
// A judge line is a finding: severity, service, ID, where, what. Notes that every
// service has which says nothing are left out, but for `judge notes`.
func TestCompose(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		all := files{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			name := "compose.yaml"
			d.MaybeScanArgs(t, "name", &name)
			if d.Cmd == "file" {
				all[name] = d.Input + "\n"
				return ""
			}
			all[name] = d.Input + "\n"
			facts, err := newReader(optionsOf(t, d), all.open).read(name)
			if d.HasArg("last") {
				all = files{}
			}
			if err != nil {
				return "error: " + err.Error() + "\n"
			}
			return report(facts, d.HasArg("notes"))
		})
	})
}

func optionsOf(t *testing.T, d *datadriven.TestData) Options {
	t.Helper()
	env := map[string]string{}
	opt := Options{Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }}
	for _, arg := range d.CmdArgs {
		for _, val := range arg.Vals {
			switch arg.Key {
			case "env":
				name, value, _ := strings.Cut(val, "=")
				env[name] = value
			case "state":
				opt.State = append(opt.State, val)
			case "store":
				opt.Store = val
			case "took":
				took, err := time.ParseDuration(val)
				if err != nil {
					d.Fatalf(t, "%v", err)
				}
				opt.Took = took
			}
		}
	}
	return opt
}

func report(facts []doctor.Facts, notes bool) string {
	usual := map[string]bool{doctor.IDNoHealthCheck: true, doctor.IDNoRestart: true, doctor.IDNoMemoryLimit: true, doctor.IDStateless: true}
	var b strings.Builder
	for _, f := range facts {
		for _, one := range doctor.Judge(f) {
			if notes || one.Severity != doctor.Note || !usual[one.ID] {
				fmt.Fprintf(&b, "%-4s %s %s %s: %s\n", one.Severity, one.Service, one.ID, one.Where, one.What)
			}
		}
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}

// TestExamples: the project follows its own advice.
func TestExamples(t *testing.T) {
	found := 0
	err := filepath.WalkDir("../../../examples", func(path string, d fs.DirEntry, err error) error {
		name := filepath.Base(path)
		if err != nil || d.IsDir() || !strings.Contains(name, "compose") || filepath.Ext(name) != ".yaml" {
			return err
		}
		found++
		facts, err := Read(path, Options{Env: func(string) (string, bool) { return "", false }})
		if err != nil {
			return err
		}
		for _, f := range facts {
			for _, one := range doctor.Judge(f) {
				if one.Severity == doctor.Pet {
					t.Errorf("%s: %s: %s", one.Where, one.ID, one.What)
				}
			}
		}
		return nil
	})
	if err != nil || found == 0 {
		t.Errorf("%d Compose files in the examples, %v", found, err)
	}
}

// TestNoSecretComesOut: the values of an environment are in no fact and no finding.
func TestNoSecretComesOut(t *testing.T) {
	const value = "xyzzy0815"
	all := files{
		"compose.yaml": `
services:
  a:
    build: .
    env_file: a.env
    command: ["drover", "run", "--store", "s3://u:` + value + `@b?endpoint=http://u:` + value + `@s3"]
    environment:
      A_PASSWORD: ` + value + `
      B_TOKEN: ${B_TOKEN:-` + value + `}
      C_KEY: ${C}
      URL: postgres://u:` + value + `@db/x
      DROVER_PASSWORD: ` + value + `
      DROVER_STORE: s3://u:` + value + `@bucket?endpoint=http://u:` + value + `@s3
  b:
    environment: [A_SECRET=` + value + `]
`,
		"a.env":      "E_PASSWORD=" + value + "\n",
		"Dockerfile": "FROM x\nENV D_PASSWORD=" + value + "\n",
		".env":       "C=" + value + "\n",
	}
	facts, err := newReader(Options{}, all.open).read("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, f := range facts {
		for _, s := range f.Secrets {
			names[s.Name] = true
		}
		for _, v := range []any{f, doctor.Judge(f)} {
			text, err := json.Marshal(v)
			if err != nil || strings.Contains(string(text), value) {
				t.Errorf("%v: the secret is in %s", err, text)
			}
		}
	}
	for _, name := range []string{"A_PASSWORD", "B_TOKEN", "C_KEY", "URL", "DROVER_PASSWORD", "A_SECRET", "E_PASSWORD", "D_PASSWORD"} {
		if !names[name] {
			t.Errorf("%s went unseen", name)
		}
	}
}

// TestRead reads real files: a directory, one that is not there, and one that is no file.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	var bad *Error
	if _, err := Read(dir, Options{}); !errors.As(err, &bad) || !strings.Contains(err.Error(), "holds no Compose file") {
		t.Errorf("an empty directory: %v", err)
	}
	name := filepath.Join(dir, "docker-compose.yml")
	if _, err := Read(name, Options{}); !errors.As(err, &bad) || err.Error() != name+": cannot be read: no such file or directory" {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(name, []byte("services: {a: {image: b, volumes: [v:/v]}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	facts, err := Read(dir, Options{})
	if err != nil || len(facts) != 1 || facts[0].Mounts[0].Where != name+":1:36" {
		t.Errorf("a directory: %+v, %v", facts, err)
	}
	if _, err := Read("/dev/zero", Options{}); !errors.As(err, &bad) {
		t.Errorf("a device: %v", err)
	}
	if err := os.WriteFile(name, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(name, Options{}); !errors.As(err, &bad) || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a large file: %v", err)
	}
}

// TestBounds: files made to take time or memory end at once, with an error.
func TestBounds(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("services:\n  a: &a {extends: b, x: &x0 {k: v}}\nx-1:\n")
	for i := range 40 {
		fmt.Fprintf(&bomb, "  y%d: &x%d {a: *x%d, b: *x%d}\n", i, i+1, i, i)
	}
	fmt.Fprintf(&bomb, "  z: &z {deploy: *x40}\n")
	var wide strings.Builder
	wide.WriteString("x: &x\n")
	for i := range 1000 {
		fmt.Fprintf(&wide, "  k%d: 1\n", i)
	}
	wide.WriteString("services:\n")
	for i := range 400 {
		fmt.Fprintf(&wide, "  s%d: {<<: *x}\n", i)
	}
	for name, text := range map[string]string{
		"brackets": "services: " + strings.Repeat("[", 1e5),
		"marks":    strings.Repeat("- ", 1e5),
		"indent":   strings.Repeat(" ", 1e5) + "a: b",
		"itself":   "services: &a {b: *a}",
		"wide":     wide.String(),
		"merged":   strings.Replace(bomb.String(), "x-1:", "  b: {deploy: {}}\nx-1:", 1) + "  w: {services: 1}\n",
		"braces":   "services: {a: {image: \"" + strings.Repeat("${A:-", 1e5) + "\"}}",
	} {
		began := time.Now()
		_, err := newReader(Options{}, files{"compose.yaml": text}.open).read("compose.yaml")
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s took %v", name, took)
		}
		if name != "merged" && name != "braces" && err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	deep := files{"compose.yaml": "services: {s: {extends: {service: s, file: b.yaml}, deploy: " + aliases("a") + "}}", "b.yaml": "services: {s: {deploy: " + aliases("b") + "}}"}
	if _, err := newReader(Options{}, deep.open).read("compose.yaml"); err == nil || !strings.Contains(err.Error(), "too many values") {
		t.Errorf("two trees of aliases, merged: %v", err)
	}
}

// aliases is a value that is small to write and large to walk through.
func aliases(name string) string {
	text := "{m0: &" + name + "0 {k: v}"
	for i := range 30 {
		text += fmt.Sprintf(", m%d: &%s%d {l: *%s%d, r: *%s%d}", i+1, name, i+1, name, i, name, i)
	}
	return text + "}"
}

func TestExpand(t *testing.T) {
	set := map[string]string{"A": "a", "E": ""}
	x := expander{func(name string) (string, bool) { v, ok := set[name]; return v, ok }}
	for in, want := range map[string]value{
		"plain":          {"plain", true, doctor.Literal},
		"$$A":            {"$A", true, doctor.Literal},
		"$A-${A}":        {"a-a", true, doctor.Referred},
		"${X}":           {"${X}", false, doctor.Referred},
		"${X:-d}":        {"d", true, doctor.Fallback},
		"${X-d}":         {"d", true, doctor.Fallback},
		"${E:-d}":        {"d", true, doctor.Fallback},
		"${E-d}":         {"", true, doctor.Referred},
		"${X:-}":         {"", true, doctor.Referred},
		"${X:-${A}}":     {"a", true, doctor.Referred},
		"${X:-${Y:-d}}":  {"d", true, doctor.Fallback},
		"${X:?what}":     {"${X}", false, doctor.Referred},
		"${A:?what}":     {"a", true, doctor.Referred},
		"${A:+b}${X:+c}": {"b", true, doctor.Referred},
		"${A":            {"${A", false, doctor.Literal},
		"$":              {"$", true, doctor.Literal},
		"5$ and $1":      {"5$ and $1", true, doctor.Literal},
		"a${X:-:}b":      {"a:b", true, doctor.Fallback},
	} {
		if got := x.expand(in); got != want {
			t.Errorf("%q: got %+v, want %+v", in, got, want)
		}
	}
}

func TestSplit(t *testing.T) {
	for in, want := range map[string]string{
		"a b  c":           "a|b|c",
		`sh -c "a b; 'c'"`: "sh|-c|a b; 'c'",
		`a 'b c' d\ e ""`:  "a|b c|d e|",
		"":                 "",
	} {
		if got := strings.Join(split(in), "|"); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzRead: whatever stands in a Compose file, what comes of it are findings of the
// catalogue with a place in the file, or one error.
func FuzzRead(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		f.Fatal(paths, err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for part := range strings.SplitSeq(string(text), "\n----\n") {
			if _, in, ok := strings.Cut(part, "\njudge"); ok {
				_, in, _ = strings.Cut(in, "\n")
				f.Add(in, "FROM a AS b\nENV A=b\nVOLUME /v\nENTRYPOINT a", "A=b")
			}
		}
	}
	known := map[string]bool{}
	for _, kind := range doctor.Catalogue() {
		known[kind.ID] = true
	}
	f.Fuzz(func(t *testing.T, text, dockerfile, env string) {
		all := files{"compose.yaml": text, "Dockerfile": dockerfile, ".env": env, "other.yaml": text}
		facts, err := newReader(Options{Env: func(string) (string, bool) { return "", false }}, all.open).read("compose.yaml")
		if err != nil {
			var bad *Error
			if !errors.As(err, &bad) || bad.Where == "" {
				t.Fatalf("%v", err)
			}
			return
		}
		for _, fact := range facts {
			for _, one := range doctor.Judge(fact) {
				if !known[one.ID] || one.What == "" || one.Reason == "" || one.Mend == "" || !strings.Contains(one.Where, ":") {
					t.Fatalf("%+v", one)
				}
			}
		}
	})
}
