package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

// printJSON prints v as one indented document.
func (s *session) printJSON(v any) error {
	out := json.NewEncoder(s.Out)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	return out.Encode(v)
}

// say prints one line of a result.
func (s *session) say(format string, args ...any) error {
	_, err := fmt.Fprintf(s.Out, format+"\n", args...)
	return err
}

// table prints rows in aligned columns; the first row is the head.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		if _, err := fmt.Fprintln(t, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}

// size writes a number of bytes for people.
func size(n int64) string {
	const step = 1024
	if n < step {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, unit := float64(n), -1
	for v >= step && unit < 4 {
		v /= step
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTP"[unit])
}

// count writes a number of things, as in "1 file" and "2 files".
func count(n int64, thing string) string {
	switch {
	case n == 1:
		return "1 " + thing
	case strings.HasSuffix(thing, "y") && !strings.HasSuffix(thing, "ey"):
		return strconv.FormatInt(n, 10) + " " + strings.TrimSuffix(thing, "y") + "ies"
	default:
		return strconv.FormatInt(n, 10) + " " + thing + "s"
	}
}

// seconds writes a length of time with three digits that matter.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(10 * time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}

// shortID is the part of an id that people read.
func shortID(id string) string { return id[:min(8, len(id))] }

// quoted shows a word that a user gave.
func quoted(word string) string { return strconv.Quote(word) }

func decodeRune(s string) (rune, int) { return utf8.DecodeRuneInString(s) }
