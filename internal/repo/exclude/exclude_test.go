package exclude

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		patterns string // separated by spaces
		path     string
		want     bool
	}{
		{"", "/a", false},
		{"*.o", "/a/b.o", true},
		{"*.o", "/a/b.o/c", true},
		{"*.o", "/a/b.oo", false},
		{"b/c", "/a/b/c", true},
		{"b/c", "/b/c/d", true},
		{"b/c", "/a/b/x/c", false},
		{"/a/b", "/a/b", true},
		{"/a/b", "/a/b/c", true},
		{"/a/b", "/x/a/b", false},
		{"/a/b", "/a/bc", false},
		{"/a/**/z", "/a/z", true},
		{"/a/**/z", "/a/b/c/z", true},
		{"/a/**/z", "/a/b/c/z/y", true},
		{"/a/**/z", "/a/b/c", false},
		{"/a/**/b/**/c", "/a/x/b/c", true},
		{"/a/**/b/**/c", "/a/b/b/x/c", true},
		{"/a/**/b/**/c", "/a/x/c", false},
		{"**/x", "/a/b/x", true},
		{"**", "/a", true},
		{"/", "/a", true},
		{"/**", "/a/b", true},
		{"/a/**", "/a", true},
		{"/a/**", "/b", false},
		{"a?c", "/abc", true},
		{"a[b-d]c", "/acc", true},
		{`a\*c`, "/a*c", true},
		{`a\*c`, "/abc", false},
		{"* !keep", "/keep", false},
		{"* !keep", "/drop", true},
		{"*.log !x.log x.log", "/x.log", true},
		{"!a", "/a", false},
		{"a/", "/x/a", true},
		{"./a", "/x/a", true},
	} {
		s, err := New(strings.Fields(c.patterns))
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Match(c.path); got != c.want {
			t.Errorf("%q excludes %q: %v, want %v", c.patterns, c.path, got, c.want)
		}
	}
}

func TestMatchAny(t *testing.T) {
	s, err := New([]string{"/a/*", "!/a/b/c"})
	if err != nil {
		t.Fatal(err)
	}
	if !s.MatchAny("/a/b/c") { // /a/b is never entered
		t.Error("a file in an excluded directory is not excluded")
	}
	if s.MatchAny("/b/a") {
		t.Error("/b/a is excluded")
	}
}

func TestMalformedPattern(t *testing.T) {
	if _, err := New([]string{"a/[b"}); err == nil {
		t.Error("no error")
	}
}

// slowMatch is the definition of a pattern, by trying all that "**" can be.
func slowMatch(pattern, path []string) bool {
	if len(pattern) == 0 {
		return true
	}
	if pattern[0] == "**" {
		for i := 0; i <= len(path); i++ {
			if slowMatch(pattern[1:], path[i:]) {
				return true
			}
		}
		return false
	}
	if len(path) == 0 {
		return false
	}
	ok, err := filepath.Match(pattern[0], path[0])
	return err == nil && ok && slowMatch(pattern[1:], path[1:])
}

func FuzzMatch(f *testing.F) {
	f.Add("/a/**/b/**/*c", "/a/b/x/y/c")
	f.Add("**/a*", "/x/ab/c")
	f.Add("!x", "/x")
	f.Fuzz(func(t *testing.T, text, path string) {
		if strings.Count(text, "**") > 3 || len(path) > 200 || len(text) > 200 {
			return // the definition is exponential
		}
		s, err := New([]string{"/**", text})
		if err != nil {
			return
		}
		s.MatchAny(path) // whatever it says, it returns
		if strings.HasPrefix(text, "!") || text == "" || !strings.HasPrefix(path, "/") || path != filepath.Clean(path) || path == "/" {
			return
		}
		s, err = New([]string{text})
		if err != nil {
			t.Fatal(err)
		}
		clean := filepath.Clean(text)
		rest, rooted := strings.CutPrefix(clean, "/")
		elements, names := strings.Split(rest, "/"), strings.Split(path[1:], "/")
		want := rest == "" || slowMatch(elements, names)
		for i := range names {
			want = want || !rooted && slowMatch(elements, names[i:])
		}
		if got := s.Match(path); got != want {
			t.Fatalf("%q excludes %q: %v, want %v", text, path, got, want)
		}
	})
}
