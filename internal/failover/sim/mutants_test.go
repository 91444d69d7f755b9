package sim

import (
	"context"
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
	quick bool // it is soon found, and so tried in the ordinary test
	told  bool // it takes so much to happen that a story tells it
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
		m.rule, m.told = strings.CutPrefix(m.rule, "story: ")
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
	for _, pattern := range []string{"../../../go.*", "../*.go", "*.go", "../testdata/*.txt"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("internal/failover/sim", name)
			write(path, m.apply(t, strings.TrimPrefix(filepath.ToSlash(path), "internal/failover/"), string(text)))
		}
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
	args := []string{"test", "-vet=off", "-count=1", "-timeout=30m", "-run=TestMutant$", "./internal/failover/sim"}
	if m.told {
		args = []string{"test", "-vet=off", "-count=1", "-run=TestScripts", "./internal/failover"}
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = scratch(t, m)
	cmd.Env = append(os.Environ(), "GOWORK=off", "DROVER_SEED=", "DROVER_MUTANT="+strconv.FormatUint(n, 10))
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "[build failed]") {
		t.Fatalf("%s", out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, " schedules: ") || m.told && told == "" && strings.HasPrefix(strings.TrimSpace(line), "+") {
			told = strings.TrimSpace(line)
		}
	}
	return told, err != nil && told != ""
}

// TestMutantsAreCaught holds that the simulator tells when a rule is broken: all of them within DROVER_SOAK
// schedules, or 3,000 if that is more; two within 100 in the ordinary test. DROVER_RULE names a part of one.
func TestMutantsAreCaught(t *testing.T) {
	n := min(number(t, "DROVER_SOAK", 0), 3000)
	only := os.Getenv("DROVER_RULE")
	for _, m := range mutants(t) {
		if n == 0 && only == "" && !m.quick {
			_ = scratch(t, m) // at least it is one
			continue
		}
		if !strings.Contains(m.rule, only) {
			continue
		}
		t.Run(strings.ReplaceAll(m.rule, " ", "_"), func(t *testing.T) {
			t.Parallel()
			told, ok := m.play(t.Context(), t, max(n, 100))
			if !ok {
				t.Errorf("it survives: %s", told)
			}
			t.Logf("%.200s", told)
		})
	}
}
