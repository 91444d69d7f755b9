package policy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "drover"
)

// file is one Go file of the project.
type file struct {
	path  string // from the project's root
	dir   string
	test  bool
	lines int
	text  string
	tree  *ast.File
	set   *token.FileSet
}

// imports lists what the file imports.
func (f *file) imports() []string {
	var list []string
	for _, spec := range f.tree.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			list = append(list, p)
		}
	}
	return list
}

// at says where a node stands.
func (f *file) at(n ast.Node) string {
	return f.path + ":" + strconv.Itoa(f.set.Position(n.Pos()).Line)
}

// walk calls visit with every file of the project that somebody wrote.
func walk(t *testing.T, visit func(name, text string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.ToSlash(p[min(len(root)+1, len(p)):])
		if d.IsDir() {
			if slices.Contains([]string{".git", "bin", "dist", ".cache"}, name) {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || name == ".git" { // of a linked work tree it is a file
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		visit(name, string(text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// goFiles parses every Go file of the project but those under testdata.
func goFiles(t *testing.T) []*file {
	t.Helper()
	var files []*file
	set := token.NewFileSet()
	walk(t, func(name, text string) {
		if path.Ext(name) != ".go" || strings.Contains("/"+name, "/testdata/") {
			return
		}
		tree, err := parser.ParseFile(set, name, text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, &file{
			path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"),
			lines: strings.Count(text, "\n"), text: text, tree: tree, set: set,
		})
	})
	if len(files) == 0 {
		t.Fatal("found no Go files: the tests of this package would say nothing")
	}
	return files
}

// matches tells whether a folder is meant by a pattern: itself, or with "/..."
// at the end everything below it too.
func matches(pattern, dir string) bool {
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return dir == below || strings.HasPrefix(dir, below+"/")
	}
	return dir == pattern
}

// matchesAny tells whether a folder is meant by one of the patterns.
func matchesAny(patterns []string, dir string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, dir) })
}
