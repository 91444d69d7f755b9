// Package exclude decides which paths a backup leaves out, by restic's pattern
// rules (restic backup --exclude).
//
// A pattern is a path whose elements are patterns of path/filepath.Match; "**"
// stands for any number of elements. A pattern that begins with a slash must
// match from the root on, another one anywhere; what matches a directory
// matches all below it. "!" before a pattern includes again what an earlier one
// excluded (but nothing below an excluded directory, since that is never
// entered). The package does no I/O.
package exclude

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Set is a list of patterns. The nil Set excludes nothing.
type Set struct {
	patterns []pattern
}

type pattern struct {
	elements []element
	rooted   bool
	include  bool
	total    int // elements that are not "**"
}

type element struct {
	text    string
	literal bool
	any     bool // "**"
}

// New parses patterns, in the order in which they apply. Empty ones are ignored.
func New(patterns []string) (*Set, error) {
	s := new(Set)
	for _, text := range patterns {
		if text == "" {
			continue
		}
		p, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("parse exclude pattern %q: %w", text, err)
		}
		s.patterns = append(s.patterns, p)
	}
	return s, nil
}

func parse(text string) (pattern, error) {
	var p pattern
	text, p.include = strings.CutPrefix(text, "!")
	text = filepath.Clean(text)
	text, p.rooted = strings.CutPrefix(text, "/")
	if text == "" { // the root itself: everything
		text = "**"
	}
	for part := range strings.SplitSeq(text, "/") {
		e := element{text: part, literal: !strings.ContainsAny(part, `\[]*?`), any: part == "**"}
		if _, err := filepath.Match(part, part); err != nil {
			return pattern{}, err
		}
		if !e.any {
			p.total++
		}
		p.elements = append(p.elements, e)
	}
	return p, nil
}

// Empty reports whether no path can be excluded.
func (s *Set) Empty() bool { return s == nil || len(s.patterns) == 0 }

// Match reports whether the absolute path is excluded by itself; that one of
// its parents may be is for the caller, who does not enter it.
func (s *Set) Match(path string) bool {
	if s.Empty() {
		return false
	}
	elements := strings.Split(strings.TrimPrefix(path, "/"), "/")
	excluded := false
	for i := range s.patterns {
		p := &s.patterns[i]
		if p.include == excluded && p.match(elements) { // else it changes nothing
			excluded = !p.include
		}
	}
	return excluded
}

// MatchAny is Match for a path whose parents may be excluded too.
func (s *Set) MatchAny(path string) bool {
	if s.Empty() {
		return false
	}
	for i := 1; i < len(path); i++ {
		if path[i] == '/' && s.Match(path[:i]) {
			return true
		}
	}
	return s.Match(path)
}

func (p *pattern) match(path []string) bool {
	if p.rooted {
		return matchPrefix(p.elements, p.total, path)
	}
	for ; len(path) > 0; path = path[1:] {
		if matchPrefix(p.elements, p.total, path) {
			return true
		}
	}
	return false
}

// matchPrefix reports whether the elements match some beginning of path that is
// not empty. total is the number of elements that are not "**". Going back to
// the last "**" only is enough, since a prefix need not reach path's end.
func matchPrefix(elements []element, total int, path []string) bool {
	if total == 0 {
		return len(path) > 0
	}
	if total > len(path) {
		return false
	}
	e, at := 0, 0
	lastAny, anyAt := -1, 0
	for e < len(elements) {
		switch {
		case elements[e].any:
			lastAny, anyAt = e, at
			e++
		case at < len(path) && elements[e].match(path[at]):
			e++
			at++
		case lastAny >= 0 && anyAt < len(path):
			anyAt++
			e, at = lastAny+1, anyAt
		default:
			return false
		}
	}
	return true
}

func (e *element) match(name string) bool {
	if e.literal {
		return e.text == name
	}
	ok, _ := filepath.Match(e.text, name) // New refused a malformed pattern
	return ok
}
