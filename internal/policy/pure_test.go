package policy

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// pure names what decides: a folder, or a file. Deciding code takes a state, an
// input and the time, and returns actions, so that scripts and simulators can
// replay it: no clock, no input or output, no goroutine, no lock.
var pure = []string{
	"internal/volume/protocol",
	"internal/volume/slots",
	"internal/volume/upkeep_plan.go",
	"internal/supervise/machine.go", "internal/supervise/decide.go", "internal/supervise/order.go",
	"internal/supervise/check/machine.go",
	"internal/doctor",
	"internal/failover",
	"internal/containerpilot",
	"internal/render/decide.go",
	"internal/secret/vault/lifetime",
}

// pureImports are the packages that cannot break that, with the names of them
// that may be used where not all may. A name ending in * is a beginning.
var pureImports = map[string][]string{
	"bytes": nil, "cmp": nil, "errors": nil, "fmt": {"Errorf", "Sprintf", "Sprint", "Stringer", "Append*"},
	"iter": nil, "maps": nil, "math": nil, "math/bits": nil, "slices": nil, "sort": nil, "strconv": nil, "strings": nil,
	"unicode": nil, "unicode/utf8": nil, "encoding/hex": nil, "encoding/json": nil, "path": nil, "regexp": nil, "net/url": nil, "net/netip": nil,
	"time": {
		"Duration", "Time", "ParseDuration", "Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour",
	},
	"golang.org/x/sys/unix":              {"Signal", "SIG*"},
	module + "/internal/render/language": {"Dependency", "Missing"},
	module + "/internal/volume/protocol": nil,                                                        // pure itself
	module + "/internal/repo":            {"LockInfo", "PackUse", "Policy", "SnapshotRef", "Survey"}, // what was found
	module + "/internal/repo/format":     {"ID", "Snapshot"},
}

func TestDecidingIsPure(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.test || !slices.Contains(pure, f.dir) && !slices.Contains(pure, f.path) {
			continue
		}
		names := map[string][]string{}
		for _, spec := range f.tree.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			allowed, ok := pureImports[p]
			if !ok {
				t.Errorf("%s imports %s: deciding code has no use for it", f.at(spec), p)
			}
			local := path.Base(p)
			if spec.Name != nil {
				local = spec.Name.Name
			}
			if allowed != nil {
				names[local] = allowed
			}
		}
		ast.Inspect(f.tree, func(n ast.Node) bool {
			if what := impure(n, names); what != "" {
				t.Errorf("%s: %s in deciding code", f.at(n), what)
			}
			return true
		})
	}
}

// impure says what is wrong with a node, if anything. names maps the local name
// of an import to what may be used of it.
func impure(n ast.Node, names map[string][]string) string {
	switch n := n.(type) {
	case *ast.GoStmt:
		return "a goroutine"
	case *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
		return "a channel"
	case *ast.SelectorExpr:
		pkg, ok := n.X.(*ast.Ident)
		if !ok {
			return ""
		}
		allowed, restricted := names[pkg.Name]
		fits := func(a string) bool {
			begin, wild := strings.CutSuffix(a, "*")
			return a == n.Sel.Name || wild && strings.HasPrefix(n.Sel.Name, begin)
		}
		if restricted && !slices.ContainsFunc(allowed, fits) {
			return pkg.Name + "." + n.Sel.Name
		}
	}
	return ""
}

// stateful are types whose variables are made to be changed.
var stateful = []string{"sync.", "atomic."}

// TestNoPackageState holds that what a package knows between calls belongs to
// somebody: no variable of a package is assigned to by its functions, and none
// is a lock or the like.
func TestNoPackageState(t *testing.T) {
	for dir, files := range byFolder(goFiles(t)) {
		vars := map[string]bool{}
		for _, f := range files {
			if f.test {
				continue
			}
			for _, spec := range packageVars(f) {
				for _, name := range spec.Names {
					vars[name.Name] = true
				}
				for _, s := range stateful {
					if strings.HasPrefix(strings.TrimLeft(typeText(spec), "*[]"), s) {
						t.Errorf("%s: a package-level %s: give it an owner", f.at(spec), typeText(spec))
					}
				}
			}
		}
		for _, f := range files {
			if f.test {
				continue
			}
			for _, where := range assignments(f, vars) {
				t.Errorf("%s: assigns to a variable of package %s: give it an owner", where, dir)
			}
		}
	}
}

// versions are the variables that the linker sets; nothing else may.
var versions = []string{"version"}

// packageVars returns the variables that a file declares outside of functions.
func packageVars(f *file) []*ast.ValueSpec {
	var specs []*ast.ValueSpec
	for _, d := range f.tree.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, s := range g.Specs {
			if v, ok := s.(*ast.ValueSpec); ok && v.Names[0].Name != "_" {
				specs = append(specs, v)
			}
		}
	}
	return specs
}

// typeText names a variable's type, if it is written there.
func typeText(v *ast.ValueSpec) string {
	expr := v.Type
	if expr == nil && len(v.Values) == 1 {
		if lit, ok := v.Values[0].(*ast.CompositeLit); ok {
			expr = lit.Type
		}
	}
	if s, ok := expr.(*ast.SelectorExpr); ok {
		if p, ok := s.X.(*ast.Ident); ok {
			return p.Name + "." + s.Sel.Name
		}
	}
	return ""
}

// assignments says where functions of a file assign to one of the variables. A
// local variable of the same name hides it within its function.
func assignments(f *file, vars map[string]bool) []string {
	var found []string
	for _, d := range f.tree.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		local := locals(fn)
		check := func(n ast.Node, e ast.Expr) {
			if id := base(e); id != nil && vars[id.Name] && !local[id.Name] && !slices.Contains(versions, id.Name) {
				found = append(found, f.at(n))
			}
		}
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, e := range n.Lhs {
						check(n, e)
					}
				}
			case *ast.IncDecStmt:
				check(n, n.X)
			}
			return true
		})
	}
	return found
}

// base returns the variable that an assignable expression is a part of.
func base(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// locals names what a function declares: receiver, parameters, results, variables.
func locals(fn *ast.FuncDecl) map[string]bool {
	names := map[string]bool{}
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			for _, id := range n.Names {
				names[id.Name] = true
			}
		case *ast.ValueSpec:
			for _, id := range n.Names {
				names[id.Name] = true
			}
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				for _, e := range n.Lhs {
					if id, ok := e.(*ast.Ident); ok {
						names[id.Name] = true
					}
				}
			}
		case *ast.RangeStmt:
			for _, e := range []ast.Expr{n.Key, n.Value} {
				if id, ok := e.(*ast.Ident); ok && n.Tok == token.DEFINE {
					names[id.Name] = true
				}
			}
		}
		return true
	})
	return names
}

// byFolder groups files.
func byFolder(files []*file) map[string][]*file {
	dirs := map[string][]*file{}
	for _, f := range files {
		dirs[f.dir] = append(dirs[f.dir], f)
	}
	return dirs
}
