package policy

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// named are the forms in which a document names what shows something; the parts are where, and what.
var (
	namedTest  = regexp.MustCompile("`((?:internal|e2e|bench|client)[a-z0-9/]*)\\.(Test[A-Za-z0-9]+)(?:/([^`]+))?`")
	namedStory = regexp.MustCompile("`((?:internal|e2e)[a-z0-9/]*(?:\\.txt)?): ([^`]+)`")
)

// TestNamedTestsExist: each test, part of one or story that docs/failures.md names is there, and each rule has some.
func TestNamedTestsExist(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "failures.md"))
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]string{}
	for _, f := range goFiles(t) {
		sources[f.dir] += f.text
	}
	rules := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| **") {
			continue
		}
		rules++
		rule, _, _ := strings.Cut(line, "**.")
		cells := strings.Split(strings.TrimSuffix(strings.TrimSpace(line), "|"), "|")
		shown := cells[len(cells)-1]
		for part := range strings.SplitSeq(shown, "`, `") {
			if why := missing(sources, "`"+strings.Trim(strings.TrimSpace(part), "`")+"`"); why != "" {
				t.Errorf("%.60s: %s", rule, why)
			}
		}
	}
	if rules != 10 {
		t.Errorf("%d rules, want all 10", rules)
	}
}

// missing is why a name names nothing; empty: it does.
func missing(sources map[string]string, name string) string {
	if m := namedTest.FindStringSubmatch(name); m != nil {
		source := sources[m[1]]
		switch {
		case !strings.Contains(source, "func "+m[2]+"("):
			return fmt.Sprintf("%s has no %s", m[1], m[2])
		case m[3] != "" && !strings.Contains(source, `"`+m[3]+`"`):
			return fmt.Sprintf("%s has no part %q", m[1], m[3])
		}
		return ""
	}
	m := namedStory.FindStringSubmatch(name)
	switch {
	case m == nil:
		return name + " is no name of a test"
	case path.Ext(m[1]) == ".txt":
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(m[1])))
		if err != nil || !strings.Contains("\n"+string(text), "\n# "+m[2]) {
			return fmt.Sprintf("%s has no story %q (%v)", m[1], m[2], err)
		}
	case !regexp.MustCompile(`func (\([^)]*\) )?` + regexp.QuoteMeta(m[2]) + `\(`).MatchString(sources[m[1]]):
		return fmt.Sprintf("%s has no function %q", m[1], m[2])
	}
	return ""
}

func TestMissingSeesWhatIsNotThere(t *testing.T) {
	sources := map[string]string{"internal/a": `func TestThere(t *testing.T) { part("a part") }` + "\nfunc (c *cluster) story() {}"}
	for name, want := range map[string]bool{
		"`internal/a.TestThere`":        false,
		"`internal/a.TestThere/a part`": false,
		"`internal/a: story`":           false,
		"`internal/a.TestNot`":          true,
		"`internal/a.TestThere/part`":   true,
		"`internal/b.TestThere`":        true,
		"`internal/a: stor`":            true,
		"`internal/failover/testdata/failover.txt: Only its server dies`": false,
		"`internal/failover/testdata/failover.txt: its server dies`":      true,
		"`something`": true,
	} {
		if got := missing(sources, name); (got != "") != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
