// Package template makes the text of a configuration file out of one that holds
// {{ actions }}: Go's text/template over the environment, with the functions that
// ContainerPilot has.
//
// It promises: an error names a place in the file and holds nothing that a variable
// says; every place in the text that was made leads back to one in the file; the
// outputs of actions are known, so that the reader of the text can see whether one was
// read as more than text; no file takes unbounded steps or memory.
//
// It leaves to others: the format of the text, and finding out how it was read.
package template

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	texttemplate "text/template"
)

// Error is a template that cannot be carried out.
type Error struct {
	Line, Column int // from 1; 0: not known
	What, Hint   string
}

// Error is the sentence without the place.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.What
	}
	return e.What + "; " + e.Hint
}

// Is says whether text is a template.
func Is(text []byte) bool { return bytes.Contains(text, []byte("{{")) }

// name is what text/template calls the file in its errors.
const name = "line"

// environment is what the dot is: nothing of it can be printed or listed, so that no
// action shows all variables.
type environment struct{}

// Bounds: text nodes and actions that are carried out, elements that one loop makes, and
// bytes that all functions make.
const (
	maxSteps = 100_000
	maxLoop  = 10_000
	maxSpent = 16 << 20
)

// run is one rendering.
type run struct {
	source  string
	env     func(string) (string, bool)
	limit   int // bytes of output, and of any value on the way
	texts   []span
	actions []action
	out     strings.Builder
	pieces  []piece
	steps   int
	spent   int // bytes that functions made
}

// span is a stretch of the file's own text.
type span struct {
	at   int
	text string
}

// action is {{ what prints }}.
type action struct {
	at   int // of its braces
	text string
}

// Render carries out the template source. Made gets at most limit bytes.
func Render(source string, env func(string) (string, bool), limit int) (*Text, error) {
	r := &run{source: source, env: env, limit: limit}
	t, err := texttemplate.New(name).Funcs(r.functions()).Parse(source)
	if err != nil {
		return nil, parseError(err)
	}
	for _, part := range t.Templates() {
		if part.Tree != nil {
			r.rewrite(part.Tree)
		}
	}
	t.Funcs(r.hidden())
	if err := t.Execute(r, environment{}); err != nil {
		return nil, r.failed(err)
	}
	return &Text{Made: r.out.String(), source: source, pieces: r.pieces}, nil
}

// Write takes what the template prints.
func (r *run) Write(p []byte) (int, error) {
	if r.out.Len()+len(p) > r.limit {
		return 0, r.tooLarge()
	}
	return r.out.Write(p)
}

func (r *run) tooLarge() error {
	return &Error{What: fmt.Sprintf("the template makes more than %d bytes", r.limit), Hint: "see its loops"}
}

var (
	parseFailed = regexp.MustCompile(`(?s)^template: ` + name + `:(\d+): (.*)$`)
	runFailed   = regexp.MustCompile(`(?s)^template: ` + name + `:(\d+):(\d+): executing "[^"]*" at <.*?>: (.*)$`)
	// harmless are the ends of errors that hold no value of a variable. Others are left
	// out, whatever they say: the text may be of a later Go than this list.
	harmless = regexp.MustCompile(`^(wrong number of args for \w+: want .*|wrong type for value; expected [\w.\[\]]+; got [\w.\[\]]+|can't evaluate field \w+ in type [\w.\[\]]+|exceeded maximum template depth.*|error calling \w+: wrong type of argument)$`)
)

// parseError tells of a template that is none. Nothing of the environment was read yet.
func parseError(err error) error {
	said := parseFailed.FindStringSubmatch(err.Error())
	if said == nil {
		return &Error{What: "not a valid template"}
	}
	line, _ := strconv.Atoi(said[1])
	return &Error{Line: line, What: "not a valid template: " + strings.Join(strings.Fields(said[2]), " "), Hint: `for two braces that are meant write {{"{{"}}`}
}

// failed tells of a template that could not be carried out.
func (r *run) failed(err error) error {
	at, why := -1, ""
	if said := runFailed.FindStringSubmatch(err.Error()); said != nil {
		line, _ := strconv.Atoi(said[1])
		column, _ := strconv.Atoi(said[2])
		at, why = r.actionStart(lineStart(r.source, line)+column), said[3]
	}
	var mine *Error
	if errors.As(err, &mine) {
		told := *mine
		if told.Line == 0 && at >= 0 {
			told.Line, told.Column = place(r.source, at)
		}
		return &told
	}
	if at < 0 {
		return &Error{What: "the template cannot be carried out"}
	}
	told := &Error{What: "cannot carry out " + r.actionAt(at)}
	told.Line, told.Column = place(r.source, at)
	if harmless.MatchString(why) {
		told.What += ": " + strings.TrimPrefix(why, "error calling ")
	}
	return told
}

// actionStart is where the braces of the action that holds offset are.
func (r *run) actionStart(offset int) int {
	offset = min(max(offset, 0), len(r.source))
	return max(0, strings.LastIndex(r.source[:offset], "{{"))
}

// actionAt is the action that begins at offset, on one line and not too long.
func (r *run) actionAt(offset int) string {
	text := r.source[offset:]
	if end := strings.Index(text, "}}"); end >= 0 {
		text = text[:end+2]
	}
	text = strings.Join(strings.Fields(text), " ")
	if long := 60; len([]rune(text)) > long {
		text = string([]rune(text)[:long]) + "…"
	}
	return text
}

// lineStart is the offset of a line, which counts from 1.
func lineStart(text string, line int) int {
	at := 0
	for ; line > 1; line-- {
		next := strings.IndexByte(text[at:], '\n')
		if next < 0 {
			return len(text)
		}
		at += next + 1
	}
	return at
}

// place is the line, and the column in characters, of an offset.
func place(text string, offset int) (line, column int) {
	before := text[:min(offset, len(text))]
	start := strings.LastIndexByte(before, '\n') + 1
	return 1 + strings.Count(before, "\n"), 1 + len([]rune(before[start:]))
}
