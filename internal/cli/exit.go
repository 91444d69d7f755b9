package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"drover/client"
	"drover/internal/app"
)

// The exit codes. `drover run` has the main job's status besides.
const (
	exitOK            = 0
	exitFailure       = 1
	exitUsage         = 2
	exitIncomplete    = 3
	exitNoRepository  = 10
	exitHeld          = 11
	exitWrongPassword = 12
	exitInterrupted   = 130
)

// exitTable says which code an error has: the first row that matches.
var exitTable = []struct {
	err  error
	code int
	hint string // added where the error has none
}{
	{errInterrupted, exitInterrupted, ""},
	{app.ErrNoRepository, exitNoRepository, ""},
	{app.ErrWrongPassword, exitWrongPassword, "check DROVER_PASSWORD or the password file"},
	{app.ErrHeld, exitHeld, ""},
	{app.ErrLocked, exitHeld, ""},
	{app.ErrDataDirInUse, exitHeld, ""},
	{app.ErrIncomplete, exitIncomplete, ""},
	{client.ErrNoAgent, exitFailure, "is `drover run` up, and DROVER_SOCKET its socket?"},
	{context.Canceled, exitInterrupted, ""},
}

// usageError is a command line that cannot be meant.
type usageError struct{ what, hint string }

func (e usageError) Error() string {
	if e.hint == "" {
		return e.what
	}
	return e.what + "; " + e.hint
}

// classify finds an error's exit code, and the hint that belongs to it.
func classify(err error) (code int, hint string) {
	var bad *app.ConfigError
	var usage usageError
	if errors.As(err, &bad) || errors.As(err, &usage) {
		return exitUsage, ""
	}
	for _, row := range exitTable {
		if errors.Is(err, row.err) {
			return row.code, row.hint
		}
	}
	var refusal *client.Error
	if errors.As(err, &refusal) {
		switch refusal.Kind {
		case client.KindHeld, client.KindBusy, client.KindUnsafe:
			return exitHeld, ""
		case client.KindInvalid:
			return exitUsage, ""
		case client.KindIncomplete:
			return exitIncomplete, ""
		}
	}
	return exitFailure, ""
}

// fail tells the error in one line and returns its exit code.
func (s *session) fail(err error) int {
	code, hint := classify(err)
	line := oneLine(err.Error())
	if hint != "" && !strings.Contains(line, "; ") {
		line += "; " + hint
	}
	_, _ = fmt.Fprintln(s.Err, "drover:", line)
	return code
}

// exitHelp is the part of a command's help about its exit codes.
func exitHelp(codes ...int) string {
	meaning := map[int]string{
		exitOK: "done", exitFailure: "failure", exitUsage: "wrong usage or configuration", exitIncomplete: "incomplete: the paths are named",
		exitNoRepository: "no repository", exitHeld: "locked, held by another, or refused as unsafe", exitWrongPassword: "wrong password", exitInterrupted: "interrupted",
	}
	var b strings.Builder
	b.WriteString("Exit codes:")
	for _, code := range codes {
		fmt.Fprintf(&b, "\n  %3d  %s", code, meaning[code])
	}
	return b.String()
}

// storeExits are the codes of every command that opens a store.
func storeExits(more ...int) string {
	return exitHelp(append(append([]int{exitOK, exitFailure, exitUsage}, more...), exitNoRepository, exitHeld, exitWrongPassword, exitInterrupted)...)
}

// oneLine keeps what is printed on the line that it belongs to: breaks become "; ",
// other control characters are written as in Go.
func oneLine(text string) string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	return printable(strings.Join(lines, "; "))
}

// printable escapes what would not show, or would disturb a terminal.
func printable(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := rune(text[i]), 1
		if r >= 0x80 {
			r, size = decodeRune(text[i:])
		}
		if r != unicode.ReplacementChar && unicode.IsPrint(r) {
			b.WriteString(text[i : i+size])
		} else {
			quoted := strconv.Quote(text[i : i+size])
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += size
	}
	return b.String()
}
