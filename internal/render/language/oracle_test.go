package language

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/internal/testkit/gotool"
)

// sections reads a corpus: templates by name, in order.
func sections(t *testing.T, file string) (names []string, texts map[string]string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	texts = map[string]string{}
	name := ""
	for line := range strings.Lines(string(b)) {
		if next, found := strings.CutPrefix(line, "=== "); found {
			name = strings.TrimSpace(next)
			names = append(names, name)
			continue
		}
		if name != "" {
			texts[name] += line
		}
	}
	return names, texts
}

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

// consulTemplate renders texts with the real one, each to the file of its name in dir. The
// options are lines of the template block of its configuration.
func consulTemplate(t *testing.T, dir string, env []string, texts map[string]string, options ...string) (string, error) {
	t.Helper()
	var cfg strings.Builder
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		source := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(source, []byte(texts[name]), 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&cfg, "template {\n source = %q\n destination = %q\n%s\n}\n", source, filepath.Join(dir, name), strings.Join(options, "\n"))
	}
	file := filepath.Join(t.TempDir(), "config.hcl")
	if err := os.WriteFile(file, []byte(cfg.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, gotool.Path(t, "consul-template"), "-once", "-config", file)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// The same templates on the same data render the same bytes.
func TestSameAsConsulTemplate(t *testing.T) {
	names, texts := sections(t, "testdata/corpus.txt")
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
	if out, err := consulTemplate(t, theirs, env, place(filepath.Join(theirs, "out"))); err != nil {
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
