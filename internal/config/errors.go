package config

import (
	"fmt"
	"slices"
	"strings"
)

// Error is a configuration that cannot be used: one line that a user can act on.
type Error struct {
	Where string // "drover.yaml:3:5", "--every" or "DROVER_EVERY"; "" if nowhere
	What  string
	Hint  string // "" if there is nothing to add
}

// Error is the line.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Where != "" {
		b.WriteString(e.Where + ": ")
	}
	b.WriteString(e.What)
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// valueError is an Error whose place is not known yet.
type valueError struct{ what, hint string }

func (e valueError) Error() string { return (&Error{What: e.what, Hint: e.hint}).Error() }

// origins says where the value of a key stands, by the key's path.
type origins map[string]string

// of finds the place of path, or of what it is in.
func (o origins) of(path string) string {
	for {
		if where, ok := o[path]; ok {
			return where
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			return ""
		}
		path = path[:cut]
	}
}

// replace says that all of path stands at where, and nothing of it elsewhere.
func (o origins) replace(path, where string) {
	for other := range o {
		if rest, ok := strings.CutPrefix(other, path); ok && rest != "" && strings.ContainsAny(rest[:1], ".[") {
			delete(o, other)
		}
	}
	o[path] = where
}

// at makes an Error about the value of path.
func (o origins) at(path, what, hint string) *Error {
	return &Error{Where: o.of(path), What: what, Hint: hint}
}

// meant is the hint that names the word which was probably meant, or "".
func meant(word string, among []string) string {
	best, bestDistance := "", 1+max(1, len(word)/3)
	for _, w := range slices.Sorted(slices.Values(among)) {
		if d := distance(strings.ToLower(word), w); d < bestDistance {
			best, bestDistance = w, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", best)
}

// distance is how many letters must be put in, taken out, replaced or swapped with
// their neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
