package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"drover/internal/config/template"
)

// made is a file that was a template.
type made struct {
	name string
	*template.Text
}

// decode fills c from the text of a file, which may be a template over the environment.
//
// What an action prints is text: if YAML would read any of it as more (a key, a list,
// a comment, an escape), the file is refused, however well it reads. Otherwise a value
// of the environment could set keys that nobody wrote.
func (s Sources) decode(c *Config, name string, data []byte) error {
	if !template.Is(data) || len(data) > maxFile {
		return decodeFile(c, name, data)
	}
	text, err := template.Render(string(data), s.Env, maxFile)
	if err != nil {
		return templateError(name, err)
	}
	c.made = &made{name, text}
	err = decodeFile(c, name, []byte(text.Made))
	if more := c.made.checkText(); more != nil {
		return more
	}
	for path, where := range c.origin {
		c.origin[path], _ = c.made.leadBack(where)
	}
	return c.made.tell(err)
}

func templateError(name string, err error) error {
	var bad *template.Error
	if !errors.As(err, &bad) {
		return err
	}
	where := name
	if bad.Line > 0 {
		where = fmt.Sprintf("%s:%d", where, bad.Line)
	}
	if bad.Column > 0 {
		where = fmt.Sprintf("%s:%d", where, bad.Column)
	}
	return &Error{Where: where, What: bad.What, Hint: bad.Hint}
}

// leadBack makes a place in the text that was made one in the file, and says which
// action printed what is there, if one did.
func (m *made) leadBack(where string) (string, string) {
	var line, column int
	rest, ok := strings.CutPrefix(where, m.name+":")
	if !ok {
		return where, ""
	}
	if n, _ := fmt.Sscanf(rest, "%d:%d", &line, &column); n == 2 {
		var action string
		line, column, action = m.Source(line, column)
		return fmt.Sprintf("%s:%d:%d", m.name, line, column), action
	}
	line, _, _ = m.Source(line, 1)
	return fmt.Sprintf("%s:%d", m.name, line), ""
}

// tell makes err, about the text that was made, one about the file.
func (m *made) tell(err error) error {
	var bad *Error
	if !errors.As(err, &bad) {
		return err
	}
	told := *bad
	var action string
	if told.Where, action = m.leadBack(bad.Where); action != "" && told.Hint == "" {
		told.Hint = "see what " + action + " makes, with drover config render"
	}
	return &told
}

// hide takes values of the environment out of err.
func (m *made) hide(err error) error {
	var bad *Error
	if m == nil || !errors.As(err, &bad) {
		return err
	}
	told := *bad
	var hid, more bool
	told.What, hid = m.Hide(bad.What)
	told.Hint, more = m.Hide(bad.Hint)
	if (hid || more) && !strings.Contains(told.Hint, "config render") {
		told.Hint = strings.TrimPrefix(told.Hint+"; drover config render shows the value", "; ")
	}
	return &told
}

// checkText says whether an action printed what is read as more than text. What is not
// valid YAML at all is not its business.
func (m *made) checkText() error {
	probe := m.Probe()
	got, ok := readings(m.Made)
	if !ok {
		return nil
	}
	want, _ := readings(probe.Text)
	for i := range max(len(got), len(want)) {
		if i < len(got) && i < len(want) && got[i].like(want[i], probe) {
			continue
		}
		return m.moreThanText(probe, want, i)
	}
	return nil
}

// moreThanText blames the action nearest to the reading that differs: its own, else the
// last before, else the first after it.
func (m *made) moreThanText(probe *template.Probe, want []reading, differs int) error {
	const what, hint = "prints what YAML reads as more than text", "write | quote at its end, and no quotes around it; | json for a list"
	order := make([]reading, 0, len(want))
	for i := min(differs, len(want)-1); i >= 0; i-- {
		order = append(order, want[i])
	}
	order = append(order, want[min(differs+1, len(want)):]...)
	for _, r := range order {
		if line, column, action, ok := probe.Action(r.text); ok {
			return &Error{Where: fmt.Sprintf("%s:%d:%d", m.name, line, column), What: action + " " + what, Hint: hint}
		}
	}
	return &Error{Where: m.name, What: "an action " + what, Hint: hint}
}

// reading is one thing that was read in a file: a bracket, a key or a value.
type reading struct {
	kind string
	text string
}

// like says whether r is what was read where probe has its words.
func (r reading) like(other reading, probe *template.Probe) bool {
	return r.kind == other.kind && plain(r.text) == plain(probe.Restore(other.text))
}

// plain is a text without what YAML takes off it, and "" for what YAML reads as nothing.
func plain(text string) string {
	text = strings.TrimSpace(text)
	if slices.Contains([]string{"null", "Null", "NULL", "~"}, text) {
		return ""
	}
	return text
}

// readings lists what a text is read as; ok is false if it is not one document of YAML.
func readings(text string) (list []reading, ok bool) {
	if tooDeep([]byte(text)) > 0 {
		return nil, false
	}
	doc, err := parse("", []byte(text))
	if err != nil {
		return nil, false
	}
	if doc != nil {
		list = appendReadings(nil, doc)
	}
	return list, true
}

func appendReadings(list []reading, n ast.Node) []reading {
	switch t := n.(type) {
	case ast.MapNode:
		list = append(list, reading{"{", ""})
		for entries := t.MapRange(); entries.Next(); {
			list = appendReadings(appendReadings(list, entries.Key()), entries.Value())
		}
		return append(list, reading{"}", ""})
	case *ast.SequenceNode:
		list = append(list, reading{"[", ""})
		for _, item := range t.Values {
			list = appendReadings(list, item)
		}
		return append(list, reading{"]", ""})
	case *ast.AnchorNode:
		return appendReadings(append(list, reading{"&", t.Name.GetToken().Value}), t.Value)
	case *ast.AliasNode:
		return append(list, reading{"*", t.Value.GetToken().Value})
	case *ast.TagNode:
		return appendReadings(append(list, reading{"!", t.Start.Value}), t.Value)
	case *ast.MappingKeyNode:
		return appendReadings(list, t.Value)
	case *ast.NullNode, nil:
		return append(list, reading{"text", ""})
	}
	return append(list, reading{"text", text(n)})
}
