package cli

import (
	"os"
	"strings"
	"unicode/utf8"
)

// pageWidth is how wide what is shown on a terminal may be.
const pageWidth = 80

// colour is how a text is shown on a terminal.
type colour string

const (
	plainText colour = ""
	bold      colour = "1"
	dim       colour = "2"
	red       colour = "31"
	green     colour = "32"
	yellow    colour = "33"
)

// painter colours texts, if it is on.
type painter bool

// painter is on for a terminal, unless NO_COLOR (no-color.org) or the terminal says no.
func (s *session) painter() painter {
	env := s.Env
	if env == nil {
		env = os.LookupEnv
	}
	no, _ := env("NO_COLOR")
	kind, _ := env("TERM")
	return painter(s.OutTerm && no == "" && kind != "dumb")
}

func (p painter) paint(c colour, text string) string {
	if !p || c == plainText || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// cell is a text in a table.
type cell struct {
	text   string
	colour colour
	right  bool // it ends where the column does
}

// columns lays rows out, two spaces apart; columns that are empty but for the first
// row, which is the head, are left out.
func columns(rows [][]cell, p painter) []string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows[1:] {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for i, head := range rows[0] {
		if widths[i] > 0 {
			widths[i] = max(widths[i], utf8.RuneCountInString(head.text))
		}
	}
	lines := make([]string, 0, len(rows))
	for _, row := range rows {
		var line strings.Builder
		gap := 0 // spaces that are due before the next text
		for i, c := range row {
			if widths[i] == 0 {
				continue
			}
			free := widths[i] - utf8.RuneCountInString(c.text)
			if c.right {
				gap, free = gap+free, 0
			}
			if c.text != "" {
				line.WriteString(strings.Repeat(" ", gap) + p.paint(c.colour, c.text))
				gap = 0
			}
			gap += free + 2
		}
		lines = append(lines, line.String())
	}
	return lines
}

// cut shortens a text to so many characters.
func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:width-1]) + "…"
}

// wrap breaks a text into lines, between words where it can; width 0: it does not.
func wrap(text string, width int) []string {
	var lines []string
	rest := []rune(text)
	for width > 0 && len(rest) > width {
		at, skip := width, 0
		for i := width; i > 0; i-- {
			if rest[i] == ' ' {
				at, skip = i, 1
				break
			}
		}
		lines = append(lines, string(rest[:at]))
		rest = rest[at+skip:]
	}
	return append(lines, string(rest))
}
