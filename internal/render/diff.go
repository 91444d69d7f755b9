package render

import (
	"fmt"
	"slices"
	"strings"
)

// contextLines is how many lines that stay are shown around those that differ.
const contextLines = 3

// Diff shows what becomes of the file, as diff -u does, in one piece from the first line that
// differs to the last; empty if nothing does. It shows secrets, if there are any.
func (r Result) Diff() string {
	if !r.Changes() {
		return ""
	}
	from, to := lines(r.Old), lines(r.Output)
	head := 0
	for head < min(len(from), len(to)) && from[head] == to[head] {
		head++
	}
	tail := 0
	for tail < min(len(from), len(to))-head && from[len(from)-1-tail] == to[len(to)-1-tail] {
		tail++
	}
	before := max(0, head-contextLines)
	after := min(tail, contextLines)
	oldName := r.Destination
	if r.Old == nil {
		oldName = "/dev/null"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n+++ %s\n@@ -%s +%s @@\n", oldName, r.Destination,
		span(before, len(from)-tail+after), span(before, len(to)-tail+after))
	for _, part := range []struct {
		mark string
		list []string
	}{
		{" ", from[before:head]}, {"-", from[head : len(from)-tail]}, {"+", to[head : len(to)-tail]}, {" ", from[len(from)-tail : len(from)-tail+after]},
	} {
		for _, line := range part.list {
			b.WriteString(part.mark + line)
			if !strings.HasSuffix(line, "\n") {
				b.WriteString("\n\\ No newline at end of file\n")
			}
		}
	}
	return b.String()
}

func lines(text []byte) []string { return slices.Collect(strings.Lines(string(text))) }

// span is a range of lines as diff writes it: the first counts from 1, and of none it is
// the one before.
func span(from, to int) string {
	if from == to {
		return fmt.Sprintf("%d,0", from)
	}
	return fmt.Sprintf("%d,%d", from+1, to-from)
}
