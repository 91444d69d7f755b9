// Package consultemplate runs the real consul-template for tests that compare with it, and
// reads the corpora of templates that they are held to.
//
// The program is built once, at a pinned version (gotool). It sees no environment but what
// the caller gives it. What the outputs mean is the tests'.
package consultemplate

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

// patience is how long one run over a corpus may take.
const patience = time.Minute

// Corpus reads a file of templates. Each begins with a line "=== NAME"; what stands before
// the first is for people.
func Corpus(t testing.TB, file string) (names []string, texts map[string]string) {
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

// Job is what to render.
type Job struct {
	Templates map[string]string // by name, which is that of the file in Dir, too
	Dir       string            // where to render to
	Env       []string          // all of the environment
	Settings  string            // lines of its configuration
	Options   string            // lines for each template
}

// Once renders each template once, and returns what the program said.
func Once(t testing.TB, j Job) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out bytes.Buffer
	cmd := Command(ctx, t, j, "-once")
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// Command is the program, ready to be started, with its configuration written.
func Command(ctx context.Context, t testing.TB, j Job, args ...string) *exec.Cmd {
	t.Helper()
	sources := t.TempDir()
	config := strings.Builder{}
	fmt.Fprintln(&config, j.Settings)
	for _, name := range slices.Sorted(maps.Keys(j.Templates)) {
		source := filepath.Join(sources, name+".ctmpl")
		if err := os.WriteFile(source, []byte(j.Templates[name]), 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&config, "template {\n source = %q\n destination = %q\n%s\n}\n", source, filepath.Join(j.Dir, name), j.Options)
	}
	file := filepath.Join(sources, "config.hcl")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, gotool.Path(t, "consul-template"), append(args, "-config", file)...)
	cmd.Env = append([]string{}, j.Env...)
	return cmd
}
