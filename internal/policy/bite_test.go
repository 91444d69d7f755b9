package policy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"testing"
)

// source parses a piece of code as a file of the project.
func source(t *testing.T, text string) *file {
	t.Helper()
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, "a.go", "package a\n"+text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return &file{path: "internal/a/a.go", dir: "internal/a", tree: tree, set: set}
}

func TestImpureSeesWhatBreaksReplay(t *testing.T) {
	names := map[string][]string{"time": pureImports["time"], "unix": pureImports["golang.org/x/sys/unix"]}
	for text, want := range map[string]bool{
		"func f() { go f() }":                          true,
		"func f(c chan int) {}":                        true,
		"func f() { select {} }":                       true,
		`import "time"; var t = time.Now()`:            true,
		`import "time"; func f() { time.Sleep(1) }`:    true,
		`import "time"; const d = 3 * time.Second`:     false,
		`import "x/unix"; const s = unix.SIGTERM`:      false,
		`import "x/unix"; func f() { unix.Kill(1, 2)}`: true,
		"func f(a, b int) int { return a + b }":        false,
	} {
		got := false
		ast.Inspect(source(t, text).tree, func(n ast.Node) bool {
			got = got || impure(n, names) != ""
			return true
		})
		if got != want {
			t.Errorf("%s: impure %v, want %v", text, got, want)
		}
	}
}

func TestAssignmentsSeesPackageState(t *testing.T) {
	for text, want := range map[string]int{
		"var n int; func f() { n = 1 }":              1,
		"var n int; func f() { n++ }":                1,
		"var m map[int]int; func f() { m[1] = 2 }":   1,
		"var s struct{ a int }; func f() { s.a = 1}": 1,
		"var n int; func f() { n := 1; n = 2 }":      0,
		"var n int; func f(n int) { n = 2 }":         0,
		"var n int; func f() int { return n }":       0,
	} {
		f := source(t, text)
		vars := map[string]bool{}
		for _, spec := range packageVars(f) {
			vars[spec.Names[0].Name] = true
		}
		if got := len(assignments(f, vars)); got != want {
			t.Errorf("%s: %d assignments, want %d", text, got, want)
		}
	}
}

func TestRulesKeepFoldersApart(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"internal/supervise", "internal/volume", false},
		{"internal/volume", "internal/objstore", true},
		{"internal/volume", "internal/objstore/s3", false},
		{"internal/volume/protocol", "internal/objstore", false},
		{"internal/cli", "internal/config", false},
		{"internal/app", "internal/objstore/s3", true},
		{"client", "internal/volume", false},
		{"internal/coord/object", "internal/objstore", true},
		{"internal/coord/consul", "internal/objstore", false},
	} {
		r, ok := ruleOf(c.from)
		if !ok {
			t.Fatalf("no rule for %s", c.from)
		}
		if got := matchesAny(r.may, c.to); got != c.want {
			t.Errorf("%s imports %s: allowed %v, want %v", c.from, c.to, got, c.want)
		}
	}
	if home, ok := homeOf("github.com/minio/minio-go/v7/pkg/credentials"); !ok || matchesAny(home.may, "internal/app") {
		t.Error("minio's packages may leave their backend")
	}
}
