package policy

import (
	"go/ast"
	"path"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for dir, files := range byFolder(goFiles(t)) {
		var docs, code int
		for _, f := range files {
			if f.test {
				continue
			}
			code++
			if f.tree.Doc == nil {
				continue
			}
			docs++
			begin := "Package " + f.tree.Name.Name + " "
			if f.tree.Name.Name == "main" {
				begin = "Command "
			}
			if text := f.tree.Doc.Text(); !strings.HasPrefix(text, begin) {
				t.Errorf("%s: the package's comment begins %.30q, want %q", f.path, text, begin)
			}
		}
		if code > 0 && docs != 1 {
			t.Errorf("%s has %d package comments, want one: what it is for, what it promises, what it leaves to others", dir, docs)
		}
	}
}

func TestMainIsShort(t *testing.T) {
	for _, f := range goFiles(t) {
		if strings.HasPrefix(f.path, "cmd/") && f.lines >= 30 {
			t.Errorf("%s has %d lines: main only calls the command line and returns its exit code", f.path, f.lines)
		}
	}
}

func TestFilesStayReadable(t *testing.T) {
	const most = 600
	for _, f := range goFiles(t) {
		if !f.test && f.lines > most && !ast.IsGenerated(f.tree) {
			t.Errorf("%s has %d lines, more than %d: it is two files", f.path, f.lines, most)
		}
	}
}

func TestPackagesAreNamedForWhatTheyDo(t *testing.T) {
	for dir := range byFolder(goFiles(t)) {
		switch name := path.Base(dir); name {
		case "util", "utils", "common", "helper", "helpers", "misc", "base", "types", "manager":
			t.Errorf("%s: %q says nothing about what is in it", dir, name)
		}
	}
}

// calls says which functions may be called only in some folders, and why.
// Tests are named apart.
var calls = []struct {
	pkg, name string
	where     []string
	inTests   bool
	because   string
}{
	{"os", "Exit", []string{"cmd/drover", "internal/testkit/leak", "bench/..."}, true,
		"only main ends the process: everything else has clean-up to do"},
	{"log", "Fatal", nil, false, "only main ends the process"},
	{"log", "Fatalf", nil, false, "only main ends the process"},
	{"time", "Sleep", []string{
		"internal/proctree",  // a pause between two looks at the process table, while killing
		"internal/supervise", // the same
	}, true, "a wait belongs to a context; the fence alone waits for nobody's leave"},
}

func TestForbiddenCalls(t *testing.T) {
	for _, f := range goFiles(t) {
		ast.Inspect(f.tree, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			id, ok := s.X.(*ast.Ident)
			if !ok {
				return true
			}
			for _, c := range calls {
				if id.Name == c.pkg && s.Sel.Name == c.name && !(c.inTests && f.test) && !matchesAny(c.where, f.dir) {
					t.Errorf("%s: %s.%s: %s", f.at(n), c.pkg, c.name, c.because)
				}
			}
			return true
		})
	}
}

// TestGoroutinesAreCounted holds that a package which starts goroutines has
// tests that fail if one is left.
func TestGoroutinesAreCounted(t *testing.T) {
	for dir, files := range byFolder(goFiles(t)) {
		if matches("bench/...", dir) || matches("internal/testkit/...", dir) || matches("e2e/...", dir) {
			continue
		}
		starts, checked := "", false
		for _, f := range files {
			if f.test {
				checked = checked || slices.ContainsFunc(f.imports(), func(p string) bool {
					return p == "go.uber.org/goleak" || p == module+"/internal/testkit/leak"
				})
				continue
			}
			ast.Inspect(f.tree, func(n ast.Node) bool {
				if g, ok := n.(*ast.GoStmt); ok {
					starts = f.at(g)
				}
				return true
			})
		}
		if starts != "" && !checked {
			t.Errorf("%s starts a goroutine, and no test of its package looks for what is left: use internal/testkit/leak", starts)
		}
	}
}

// sleeping are the tests that may call time.Sleep, and skipping those that may
// skip, each with its reason.
var (
	sleeping = map[string]string{
		"bench/agent_test.go":     "it measures an agent at rest, which takes time",
		"bench/supervise_test.go": "it measures supervisors at rest, which takes time",
		"bench/watch_test.go":     "it measures an agent at rest, which takes time",
		"bench/etcd_test.go":      "the same, of a thousand",
		"bench/proxy_test.go":     "the delay that it adds to each call is what it is for",
		"bench/consul_test.go":    "it measures agents at rest, which takes time",
		"bench/failover_test.go":  "Patroni tells nobody when it is done: it is asked again and again",
		"bench/herd_test.go":      "it measures agents at rest and in an outage, which take time",

		"internal/objstore/probe/probe_test.go": "a faulty server has a gap between its check and its write",
	}
	skipping = map[string]string{
		"internal/supervise/user_test.go":       "only root can become another user; continuous integration is root",
		"internal/supervise/check/exec_test.go": "the same",
	}
)

func TestTestsNeitherSleepNorSkip(t *testing.T) {
	for _, f := range goFiles(t) {
		if !f.test || f.dir == "internal/policy" {
			continue
		}
		bubble := slices.Contains(f.imports(), "testing/synctest") // sleeping there is the clock's way to go on
		ast.Inspect(f.tree, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			s, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, _ := s.X.(*ast.Ident)
			switch {
			case x != nil && x.Name == "time" && s.Sel.Name == "Sleep" && !bubble && sleeping[f.path] == "":
				t.Errorf("%s sleeps: wait for a condition instead", f.at(n))
			case slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, s.Sel.Name) && len(call.Args) < 3 && skipping[f.path] == "":
				if x != nil && slices.Contains([]string{"t", "tb", "f", "b"}, x.Name) {
					t.Errorf("%s skips: a test that needs something asks the testkit for it, and fails without", f.at(n))
				}
			}
			return true
		})
	}
}

// words may stand nowhere in the project. They are written in two pieces here,
// so that this file does not hold them either.
var words = []struct{ word, because string }{
	{"/wo" + "rk/", "a path of one machine"},
	{"/root/" + "go/", "a path of one machine"},
	{"/tmp/" + "plan", "a path of one machine"},
	{"deb." + "debian.org", "package registries are the machine's to name"},
	{"snapshot." + "debian.org", "package registries are the machine's to name"},
	{"proxy." + "golang.org", "package registries are the machine's to name"},
	{"sum." + "golang.org", "package registries are the machine's to name"},
	{"BEGIN RSA " + "PRIVATE KEY", "a secret"},
}

// marks are what unfinished code is marked with.
var marks = []string{"TO" + "DO", "FIX" + "ME", "XX" + "X:", "not " + "implemented", "un" + "implemented"}

func TestWordsThatMayNotStandHere(t *testing.T) {
	walk(t, func(name, text string) {
		if !utf8.ValidString(text) || strings.Contains(text, "\x00") {
			return
		}
		for _, w := range words {
			if i := strings.Index(text, w.word); i >= 0 {
				t.Errorf("%s:%d: %q: %s", name, 1+strings.Count(text[:i], "\n"), w.word, w.because)
			}
		}
		if path.Ext(name) != ".go" {
			return
		}
		for _, m := range marks {
			if i := strings.Index(text, m); i >= 0 {
				t.Errorf("%s:%d: %q: finish it, or say in words what is not promised", name, 1+strings.Count(text[:i], "\n"), m)
			}
		}
	})
}
