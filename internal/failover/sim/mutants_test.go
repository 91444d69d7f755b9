package sim

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// mutant is one rule that is broken.
type mutant struct {
	rule  string
	quick bool
	edits []edit
}

type edit struct{ file, old, new string }

func mutants(t *testing.T) []mutant {
	t.Helper()
	text, err := os.ReadFile("testdata/mutants.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []mutant
	for block := range strings.SplitSeq(string(text), "\n\n") {
		if strings.HasPrefix(block, "#") {
			continue
		}
		rule, edits, _ := strings.Cut(strings.TrimSpace(block), "\n")
		m := mutant{rule: rule}
		m.rule, m.quick = strings.CutPrefix(m.rule, "quick: ")
		for line := range strings.Lines(edits) {
			switch last := len(m.edits) - 1; line[0] {
			case '-':
				m.edits[last].old += line[1:]
			case '+':
				m.edits[last].new += line[1:]
			default:
				m.edits = append(m.edits, edit{file: strings.TrimSpace(line)})
			}
		}
		all = append(all, m)
	}
	return all
}

// scratch is a module that has failover and its simulator, with a rule broken.
func scratch(t *testing.T, m mutant) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module drover\n\ngo 1.26\n")
	sources, _ := filepath.Glob("../*.go")
	own, _ := filepath.Glob("*.go")
	for _, name := range append(sources, own...) {
		base := filepath.Base(name)
		if strings.HasSuffix(base, "_test.go") && base != "sim_test.go" {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("internal/failover/sim", name)
		write(path, m.apply(t, strings.TrimPrefix(filepath.ToSlash(path), "internal/failover/"), string(text)))
	}
	return dir
}

// apply breaks the rule in one file, if it is there.
func (m mutant) apply(t *testing.T, file, text string) string {
	t.Helper()
	for _, e := range m.edits {
		if e.file != file {
			continue
		}
		old := strings.TrimSuffix(e.old, "\n")
		if strings.Count(text, old) != 1 {
			t.Fatalf("%s has %d times: %s", file, strings.Count(text, old), old)
		}
		text = strings.Replace(text, old, strings.TrimSuffix(e.new, "\n"), 1)
	}
	return text
}

// play plays a mutant until a promise is broken, or n schedules are over.
func (m mutant) play(ctx context.Context, t *testing.T, n uint64) (told string, caught bool) {
	t.Helper()
	cmd := exec.CommandContext(ctx, "go", "test", "-vet=off", "-count=1", "-timeout=30m", "-run=TestMutant$", "./internal/failover/sim")
	cmd.Dir = scratch(t, m)
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "DROVER_SEED=", "DROVER_MUTANT="+strconv.FormatUint(n, 10))
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "[build failed]") {
		t.Fatalf("%s", out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, " schedules: ") {
			told = strings.TrimSpace(line)
		}
	}
	return told, err != nil && told != ""
}

// TestMutantsAreCaught holds that the simulator tells when a rule is broken: all of them within DROVER_SOAK
// schedules, or 3,000 if that is more; a few within 400 in the ordinary test.
func TestMutantsAreCaught(t *testing.T) {
	n := min(number(t, "DROVER_SOAK", 0), 3000)
	soak := n != 0
	caught := 0
	for i, m := range mutants(t) {
		if len(m.edits) == 0 {
			t.Fatalf("mutant %d has no edit: %s", i, m.rule)
		}
		if !soak && !m.quick {
			_ = scratch(t, m) // at least it is one
			continue
		}
		if !soak {
			n = 400
		}
		told, ok := m.play(t.Context(), t, n)
		if !ok {
			t.Errorf("survives %d schedules: %s", n, m.rule)
			continue
		}
		caught++
		t.Log(fmt.Sprintf("%s: %.160s", m.rule, told))
	}
	t.Logf("%d mutants are caught", caught)
}
