package language

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/davecgh/go-spew/spew"
)

// effects are the functions that know of the execution: its state, its other templates,
// the time, and what it leaves for later.
func (t *Template) effects() template.FuncMap {
	return template.FuncMap{
		"executeTemplate": t.executeTemplate,
		"loop":            t.loop,
		"scratch":         func() *Scratch { return &t.run.scratch },
		"timestamp":       t.timestamp,
		"writeToFile":     t.writeToFile,

		"spew_dump":    func(args ...any) string { return t.debug(spew.Sdump(args...)) },
		"spew_printf":  func(format string, args ...any) string { return t.debug(spew.Sprintf(format, args...)) },
		"spew_sdump":   spew.Sdump,
		"spew_sprintf": spew.Sprintf,
	}
}

func (t *Template) debug(text string) string {
	if t.opt.Debug != nil {
		_, _ = io.WriteString(t.opt.Debug, text) // for whoever looks
	}
	return ""
}

// executeTemplate renders a template that define has made, with its own dot.
func (t *Template) executeTemplate(name string, dot ...any) (string, error) {
	var data any
	switch len(dot) {
	case 0:
	case 1:
		data = dot[0]
	default:
		return "", fmt.Errorf("executeTemplate takes a name and one value at most, not %d", len(dot))
	}
	if t.run.depth++; t.run.depth > maxDepth {
		return "", fmt.Errorf("templates execute one another, %d deep", maxDepth)
	}
	defer func() { t.run.depth-- }()
	out := &bounded{Buffer: bytes.Buffer{}, left: maxOutput}
	if err := t.tmpl.ExecuteTemplate(out, name, data); err != nil {
		return "", err
	}
	return out.String(), nil
}

// loop counts from 0, or from the first of two numbers, up to but not including the last.
func (t *Template) loop(args ...any) ([]int64, error) {
	var ends [2]int64
	if len(args) < 1 || len(args) > 2 {
		return nil, fmt.Errorf("loop takes one number or two, not %d", len(args))
	}
	for i, arg := range args {
		n, err := whole(arg)
		if err != nil {
			return nil, err
		}
		ends[2-len(args)+i] = n
	}
	if ends[1] <= ends[0] {
		return nil, nil
	}
	turns := uint64(ends[1]) - uint64(ends[0])
	if turns > uint64(maxTurns-t.run.turns) {
		return nil, fmt.Errorf("loop from %d to %d: more than %d turns in one template", ends[0], ends[1], maxTurns)
	}
	t.run.turns += int(turns)
	list := make([]int64, turns)
	for i := range list {
		list[i] = ends[0] + int64(i)
	}
	return list, nil
}

func whole(v any) (int64, error) {
	switch rv := reflect.ValueOf(v); {
	case !rv.IsValid():
	case rv.CanInt():
		return rv.Int(), nil
	case rv.CanUint():
		return int64(rv.Uint()), nil
	case rv.Kind() == reflect.String && rv.String() == "":
		return 0, nil
	case rv.Kind() == reflect.String:
		return strconv.ParseInt(rv.String(), 10, 64)
	}
	return 0, fmt.Errorf("loop takes numbers, not %T", v)
}

// timestamp is now, in UTC: as RFC 3339 says, in seconds since 1970, or in Go's layout.
func (t *Template) timestamp(layout ...string) (string, error) {
	now := t.opt.Now().UTC()
	switch {
	case len(layout) == 0:
		return now.Format(time.RFC3339), nil
	case len(layout) > 1:
		return "", fmt.Errorf("timestamp takes one layout at most, not %d", len(layout))
	case layout[0] == "unix":
		return strconv.FormatInt(now.Unix(), 10), nil
	}
	return now.Format(layout[0]), nil
}

// writeToFile takes a path, user, group and mode, flags (append, newline) if it likes, and
// the content. The file is written when the template is whole, not before.
func (t *Template) writeToFile(path, user, group, mode string, rest ...string) (string, error) {
	if len(rest) == 0 {
		return "", fmt.Errorf("writeToFile %s: there is no content", path)
	}
	bits, err := strconv.ParseUint(mode, 8, 32)
	if err != nil {
		return "", fmt.Errorf("writeToFile %s: mode %q is no octal number", path, mode)
	}
	flags := ""
	if len(rest) == 2 {
		flags = rest[0]
	}
	f := File{
		Path: path, User: user, Group: group, Mode: uint32(bits),
		Append: strings.Contains(flags, "append"), Content: rest[len(rest)-1],
	}
	if strings.Contains(flags, "newline") {
		f.Content += "\n"
	}
	t.run.result.Files = append(t.run.result.Files, f)
	return "", nil
}

// Scratch keeps values during one execution.
type Scratch struct{ values map[string]any }

// Key says whether there is such a value.
func (s *Scratch) Key(key string) bool { _, ok := s.values[key]; return ok }

// Get returns a value, or nil.
func (s *Scratch) Get(key string) any { return s.values[key] }

// Set keeps a value.
func (s *Scratch) Set(key string, value any) string {
	if s.values == nil {
		s.values = map[string]any{}
	}
	s.values[key] = value
	return ""
}

// SetX keeps a value unless there is one.
func (s *Scratch) SetX(key string, value any) string {
	if s.Key(key) {
		return ""
	}
	return s.Set(key, value)
}

// MapSet keeps a value in the map of that name.
func (s *Scratch) MapSet(name, key string, value any) (string, error) {
	return s.mapSet(name, key, value, true)
}

// MapSetX keeps a value in the map of that name unless there is one.
func (s *Scratch) MapSetX(name, key string, value any) (string, error) {
	return s.mapSet(name, key, value, false)
}

func (s *Scratch) mapSet(name, key string, value any, replace bool) (string, error) {
	s.SetX(name, map[string]any{})
	m, ok := s.values[name].(map[string]any)
	if !ok {
		return "", fmt.Errorf("scratch: %q is no map", name)
	}
	if _, there := m[key]; replace || !there {
		m[key] = value
	}
	return "", nil
}

// MapValues returns the values of the map of that name, sorted by key.
func (s *Scratch) MapValues(name string) []any {
	m, ok := s.values[name].(map[string]any)
	if !ok {
		return nil
	}
	values := make([]any, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		values = append(values, m[key])
	}
	return values
}
