package containerpilot

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// conversion is one source on its way.
type conversion struct {
	version int // of ContainerPilot
	source  string
	opt     Options
	out     yaml
	notes   []Note
	jobs    []*job          // those that get a place, in the order of the source
	watches []*watch        // the same
	catalog bool            // there is a coordinator to register in
	names   map[string]bool // taken
	told    map[string]bool // variables of which it was said that they must be set
}

// What is said of things that cannot be kept.
const (
	unknownKey = "is no key of ContainerPilot's"
	noTemplate = "cannot be kept as a template here"
	noBetween  = "holds actions between its keys, which cannot be kept here"
)

// shorten makes a stretch of the source readable on a line.
func shorten(s string) string {
	const most = 100
	r := []rune(oneLine(s))
	if len(r) > most {
		return string(r[:most]) + "…"
	}
	return string(r)
}

func (c *conversion) noteAt(at int, key, text, what string) {
	line, column := place(c.source, at)
	c.notes = append(c.notes, Note{Line: line, Column: column, Key: key, Text: shorten(text), What: what})
}

func (c *conversion) note(n *node, key, what string) {
	c.noteAt(n.at, key, c.source[n.at:n.end], what)
}

// leave keeps a value as a comment, and notes it.
func (c *conversion) leave(indent int, n *node, key, what string) {
	c.note(n, key, what)
	line, _ := place(c.source, n.at)
	c.out.comment(indent, fmt.Sprintf("containerpilot: line %d: %s: %s %s", line, key, shorten(c.source[n.at:n.end]), what))
}

func (c *conversion) sortNotes() {
	slices.SortStableFunc(c.notes, func(a, b Note) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if c.notes == nil {
		c.notes = []Note{}
	}
}

// control keeps an action, and the comments before it, where it stands.
func (c *conversion) control(indent int, e entry) {
	c.comments(indent, e)
	c.out.control(indent, e.action)
}

// comments keeps those of the source.
func (c *conversion) comments(indent int, e entry) {
	for _, said := range e.comments {
		c.out.comment(indent, said)
	}
}

// each calls fn for every member of n, and keeps the actions between them at indent.
func (c *conversion) each(indent int, n *node, fn func(e entry)) {
	for _, e := range n.entries {
		if e.action != "" {
			c.control(indent, e)
			continue
		}
		fn(e)
	}
}

// scalar writes a value's text, and says of variables that must be set now.
func (c *conversion) scalar(n *node, s, key string) string {
	c.mustBeSet(n, s, key)
	return scalar(s)
}

// mustBeSet says of a text's variables that an empty one is an error now, but for those
// that stand where a condition found them set.
func (c *conversion) mustBeSet(n *node, s, key string) {
	var found []string // what the conditions around ask for; "": another thing
	for _, p := range parts(s) {
		if !p.action {
			continue
		}
		inner := body(p.text)
		switch asked, _ := strings.CutPrefix(inner, "if "); {
		case opens(p.text) > 0:
			found = append(found, strings.TrimSpace(asked))
		case len(found) > 0 && keyword(p.text) == "else":
			found[len(found)-1] = ""
		case len(found) > 0 && opens(p.text) < 0:
			found = found[:len(found)-1]
		}
		name, ok := strings.CutPrefix(inner, ".")
		if ok && isVariable.MatchString(name) && !c.told[name] && !contains(found, inner) {
			c.told[name] = true
			c.noteAt(n.at, key, p.text, fmt.Sprintf(`was empty if %s is not set, and is an error now: write {{ .%s | default "" }} if that may be`, name, name))
		}
	}
}

var isVariable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// single is the text of a value that is no list and no object.
func single(n *node) (string, bool) {
	if n == nil || n.kind != text && n.kind != word || n.kind == word && n.text == "null" {
		return "", false
	}
	return n.text, true
}

// texts is a list of texts, or a single one; ok is false if it holds anything else.
func texts(n *node) (all []string, ok bool) {
	if s, ok := single(n); ok {
		return []string{s}, true
	}
	if n == nil || n.kind != list || n.conditional() {
		return nil, false
	}
	for _, e := range n.entries {
		s, ok := single(e.value)
		if !ok {
			return nil, false
		}
		all = append(all, s)
	}
	return all, true
}

var wholeNumber = regexp.MustCompile(`^[0-9]{1,9}$`)

// duration writes a length of time: a number is seconds. ok is false if it is none.
func (c *conversion) duration(n *node, key string) (string, bool) {
	s, ok := single(n)
	switch {
	case !ok || s == "":
		return "", false
	case wholeNumber.MatchString(s):
		return wholeSeconds(s)
	case printsOnly(s):
		c.mustBeSet(n, s, key)
		return scalar("{{ " + body(s) + ` | regexReplaceAll "^([0-9]+)$" "${1}s" }}`), true
	case templated(s):
		if all := parts(s); all[len(all)-1].action {
			c.note(n, key, "meant seconds if it makes a number without a unit, which Drover needs now")
		}
		return c.scalar(n, s, key), true
	}
	d, err := time.ParseDuration(s)
	return s, err == nil && d > 0
}

// printsOnly says whether a text is one action that prints, and nothing else.
func printsOnly(s string) bool {
	all := parts(s)
	return len(all) == 1 && all[0].action && !isControl(s)
}

func wholeSeconds(s string) (string, bool) {
	n, err := strconv.Atoi(s)
	return fmt.Sprintf("%ds", n), err == nil && n > 0
}

// seconds writes a number of seconds.
func (c *conversion) seconds(n *node, key string) (string, bool) {
	s, ok := single(n)
	switch {
	case !ok:
		return "", false
	case wholeNumber.MatchString(s):
		return wholeSeconds(s)
	case templated(s):
		return c.scalar(n, s+"s", key), true
	}
	f, err := strconv.ParseFloat(s, 64)
	return fmt.Sprintf("%ds", int(f)), err == nil && f >= 1 && f < 1e9
}

// time writes a key with a length of time, or leaves it as a comment.
func (c *conversion) time(indent int, key string, n *node, from string, read func(*node, string) (string, bool)) {
	if d, ok := read(n, from); ok {
		c.out.add(indent, key+": "+d)
		return
	}
	c.leave(indent, n, from, "is no length of time")
}

// command writes one. ContainerPilot cuts a text at its blanks, without a shell.
func (c *conversion) command(indent int, key string, n *node, from string) {
	s, isText := single(n)
	if n.kind == list {
		c.argumentList(indent, key, n, from)
		return
	}
	if !isText || strings.TrimSpace(s) == "" {
		c.leave(indent, n, from, "is no command")
		c.out.add(indent, key+": [\"false\"]")
		return
	}
	if s = strings.TrimSpace(s); printsOnly(s) {
		c.mustBeSet(n, s, from)
		c.out.add(indent, key+": {{ "+body(s)+` | split " " | json }}`)
		return
	}
	words, whole := cut(s)
	if !whole {
		c.note(n, from, "was cut at blanks, and has an action across them: it is run by /bin/sh now; see to its quotes")
		c.out.add(indent, key+": "+c.scalar(n, s, from))
		return
	}
	items := make([]string, len(words))
	for i, w := range words {
		if contains([]string{"&&", "||", "|", ";", "&", ">", ">>", "<"}, w) {
			c.note(n, from, "has "+strconv.Quote(w)+" as an argument, as ever: write the command as a text, not a list, to have a shell")
		}
		if templated(w) && !c.told["blanks"] {
			c.told["blanks"] = true
			c.note(n, from, "was cut at blanks after its template: a value with blanks is one argument now")
		}
		items[i] = c.scalar(n, w, from)
	}
	c.items(indent, key, items)
}

// items writes a list.
func (c *conversion) items(indent int, key string, items []string) {
	if line, ok := flow(items); ok {
		c.out.add(indent, key+": "+line)
		return
	}
	c.out.add(indent, key+":")
	for _, item := range items {
		c.out.add(indent+2, "- "+item)
	}
}

func (c *conversion) argumentList(indent int, key string, n *node, from string) {
	if all, ok := texts(n); ok && len(all) > 0 && all[0] != "" {
		items := make([]string, len(all))
		for i, s := range all {
			items[i] = c.scalar(n, s, from)
		}
		c.items(indent, key, items)
		return
	}
	if first, ok := firstText(n); !ok || first == "" {
		c.leave(indent, n, from, "is no command")
		c.out.add(indent, key+": [\"false\"]")
		return
	}
	c.out.add(indent, key+":")
	c.each(indent+2, n, func(e entry) {
		c.comments(indent+2, e)
		if s, ok := single(e.value); ok {
			c.out.add(indent+2, "- "+c.scalar(e.value, s, from))
			return
		}
		c.leave(indent+2, e.value, from, "is no argument")
	})
}

// firstText is the first item of a list that is a text.
func firstText(n *node) (string, bool) {
	for _, e := range n.entries {
		if e.action == "" {
			return single(e.value)
		}
	}
	return "", false
}

// cut takes a command line apart at its blanks. Whole is false if an action that
// chooses stands across one.
func cut(s string) (words []string, whole bool) {
	open, current := 0, ""
	for _, p := range parts(s) {
		if p.action {
			open += opens(p.text)
			current += p.text
			continue
		}
		if open > 0 && strings.Contains(p.text, " ") {
			return nil, false
		}
		pieces := strings.Split(p.text, " ")
		for _, piece := range pieces[:len(pieces)-1] {
			words = append(words, current+piece)
			current = ""
		}
		current += pieces[len(pieces)-1]
	}
	return append(words, current), true
}
