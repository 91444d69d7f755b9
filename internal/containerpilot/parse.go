package containerpilot

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// kind is what a node is.
type kind int

const (
	object kind = iota
	list
	text // in quotes
	word // a number, true, false, null, or an action that stands alone
)

// node is a value of the source.
type node struct {
	kind    kind
	at, end int    // offsets
	text    string // of a text without its escapes, of a word as it stands; actions as they stand
	entries []entry
}

// entry is a member of an object, an item of a list, or an action between them.
type entry struct {
	at       int
	action   string // {{ if … }}, {{ end }} and the like; "": a member or an item
	key      string // of a member
	value    *node
	comments []string
}

// get is the value of a key, actions aside; nil if it is not there.
func (n *node) get(key string) *node {
	if n == nil || n.kind != object {
		return nil
	}
	for _, e := range n.entries {
		if e.action == "" && e.key == key {
			return e.value
		}
	}
	return nil
}

// conditional says whether actions stand between the entries.
func (n *node) conditional() bool {
	for _, e := range n.entries {
		if e.action != "" {
			return true
		}
	}
	return false
}

// maxDepth is far above what a configuration needs.
const maxDepth = 64

// parser reads JSON5, and JSON of a hand that forgot a comma, in which actions of
// text/template stand: in a text, in the place of a word, or between entries.
type parser struct {
	source   string
	at       int
	depth    int
	comments []string // met since the last entry
}

// parse reads a source: its object, and the actions before it.
func parse(source string) (root *node, before []entry, err error) {
	p := &parser{source: source}
	defer func() {
		switch bad := recover().(type) {
		case nil:
		case *Error:
			root, before, err = nil, nil, bad
		default:
			panic(bad)
		}
	}()
	if !utf8.ValidString(source) || strings.ContainsRune(source, 0) {
		p.fail("not a text in UTF-8", "")
	}
	for p.space(nil); p.rest("{{"); p.space(nil) {
		before = append(before, entry{at: p.at, action: p.action()})
	}
	if !p.rest("{") {
		p.fail("the file must begin with {", "is it a configuration of ContainerPilot?")
	}
	root = p.value()
	for p.space(nil); p.rest("{{"); p.space(nil) {
		p.balance(p.action())
	}
	if p.at < len(p.source) {
		p.fail("more after the end of the object", "")
	}
	return root, before, nil
}

// fail ends the parsing. It panics: only parse recovers.
func (p *parser) fail(what, hint string) { p.failAt(p.at, what, hint) }

func (p *parser) failAt(at int, what, hint string) {
	line, column := place(p.source, at)
	panic(&Error{Line: line, Column: column, What: what, Hint: hint})
}

// place is the line, and the column in characters, of an offset.
func place(text string, offset int) (line, column int) {
	before := text[:min(offset, len(text))]
	start := strings.LastIndexByte(before, '\n') + 1
	return 1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[start:])
}

func (p *parser) rest(prefix string) bool { return strings.HasPrefix(p.source[p.at:], prefix) }

// space skips blanks and comments. A comment on the line where last ended is last's.
func (p *parser) space(last *entry) {
	sameLine := last != nil
	for p.at < len(p.source) {
		r, size := utf8.DecodeRuneInString(p.source[p.at:])
		switch {
		case unicode.IsSpace(r) || r == '\uFEFF':
			sameLine = sameLine && r != '\n'
			p.at += size
		case p.rest("//"), p.rest("/*"):
			said := p.comment()
			if sameLine {
				last.comments = append(last.comments, said...)
			} else {
				p.comments = append(p.comments, said...)
			}
		default:
			return
		}
	}
}

// comment is the lines of a comment, without its marks.
func (p *parser) comment() []string {
	rest := p.source[p.at+2:]
	if p.rest("//") {
		said, _, _ := strings.Cut(rest, "\n")
		p.at += 2 + len(said)
		return trimmedLines(said)
	}
	said, _, closed := strings.Cut(rest, "*/")
	if !closed {
		p.fail("a comment without end", "write */")
	}
	p.at += 2 + len(said) + 2
	return trimmedLines(said)
}

func trimmedLines(said string) []string {
	var lines []string
	for line := range strings.Lines(said) {
		if line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "*")); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// value reads one.
func (p *parser) value() *node {
	if p.depth++; p.depth > maxDepth {
		p.fail("nested too deeply", fmt.Sprintf("at most %d levels", maxDepth))
	}
	defer func() { p.depth-- }()
	n := &node{at: p.at}
	switch {
	case p.rest("{{"):
		n.kind, n.text = word, p.word()
	case p.rest("{"):
		n.kind, n.entries = object, p.entries('}', true)
	case p.rest("["):
		n.kind, n.entries = list, p.entries(']', false)
	case p.rest(`"`), p.rest(`'`):
		n.kind, n.text = text, p.text()
	default:
		n.kind, n.text = word, p.word()
	}
	n.end = p.at
	return n
}

// entries reads those of an object or a list, to its end.
func (p *parser) entries(end byte, keyed bool) []entry {
	begin := p.at
	p.at++
	entries := []entry{}
	open := 0 // actions that wait for their {{ end }}
	for {
		if len(entries) > 0 {
			p.space(&entries[len(entries)-1])
		} else {
			p.space(nil)
		}
		e := entry{at: p.at}
		switch {
		case p.at >= len(p.source):
			p.failAt(begin, fmt.Sprintf("no %c ends what begins here", end), "")
		case p.source[p.at] == end:
			if open > 0 {
				p.fail(fmt.Sprintf("%c before the {{ end }} of an action that began inside", end), "carry the template out first, with containerpilot -template")
			}
			p.at++
			p.unique(entries)
			return entries
		case p.source[p.at] == ',':
			p.at++
			continue
		case p.rest("{{") && (keyed || isControl(peekAction(p.source[p.at:]))):
			e.action = p.action()
			if open += opens(e.action); open < 0 || !isControl(e.action) {
				p.failAt(e.at, "an action that is no part of a value", "carry the template out first, with containerpilot -template")
			}
		case keyed:
			e.key = p.key()
			if p.space(nil); !p.rest(":") {
				p.fail("no colon after the key "+strconv.Quote(e.key), "")
			}
			p.at++
			p.space(nil)
			fallthrough
		default:
			e.value = p.value()
		}
		e.comments, p.comments = p.comments, nil
		entries = append(entries, e)
	}
}

// unique refuses a key that is there twice, if no action can choose between them.
func (p *parser) unique(entries []entry) {
	seen := map[string]bool{}
	for _, e := range entries {
		if e.action != "" {
			return
		}
	}
	for _, e := range entries {
		if e.key != "" && seen[e.key] {
			p.failAt(e.at, "key "+strconv.Quote(e.key)+" is there twice", "keep one")
		}
		seen[e.key] = true
	}
}

// key reads a member's name.
func (p *parser) key() string {
	if p.rest(`"`) || p.rest(`'`) {
		return p.text()
	}
	begin := p.at
	for p.at < len(p.source) {
		r, size := utf8.DecodeRuneInString(p.source[p.at:])
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_$-", r) {
			break
		}
		p.at += size
	}
	if p.at == begin {
		p.fail("a key is missing", "")
	}
	return p.source[begin:p.at]
}

// word reads a value without quotes.
func (p *parser) word() string {
	begin, open := p.at, 0
	for p.at < len(p.source) {
		r, size := utf8.DecodeRuneInString(p.source[p.at:])
		switch {
		case p.rest("{{"):
			if open += opens(p.action()); open < 0 {
				p.failAt(begin, "an {{ end }} of nothing", "")
			}
			continue
		case open > 0 && strings.ContainsRune("[]{}\"'", r):
			p.fail("an action chooses between values with quotes or brackets", "put the quotes around the action, or carry the template out first, with containerpilot -template")
		case open == 0 && (unicode.IsSpace(r) || strings.ContainsRune(",[]{}\"'", r) || p.rest("//") || p.rest("/*")):
			return p.wordFrom(begin)
		}
		p.at += size
	}
	return p.wordFrom(begin)
}

func (p *parser) wordFrom(begin int) string {
	if begin == p.at {
		p.fail("a value is missing", "")
	}
	return strings.TrimSpace(p.source[begin:p.at])
}

// text reads what is in quotes.
func (p *parser) text() string {
	begin, quote := p.at, p.source[p.at]
	p.at++
	var b strings.Builder
	for p.at < len(p.source) {
		switch ch := p.source[p.at]; {
		case ch == quote:
			p.at++
			return b.String()
		case p.rest("{{"):
			b.WriteString(p.action())
		case ch == '\n':
			p.failAt(begin, "a text without end", "close its quotes")
		case ch == '\\':
			p.escape(&b)
		default:
			b.WriteByte(ch)
			p.at++
		}
	}
	p.failAt(begin, "a text without end", "close its quotes")
	return ""
}

// escape reads a backslash and what it means.
func (p *parser) escape(b *strings.Builder) {
	if p.at++; p.at >= len(p.source) {
		return
	}
	ch := p.source[p.at]
	p.at++
	switch ch {
	case 'n':
		b.WriteByte('\n')
	case 't':
		b.WriteByte('\t')
	case 'r':
		b.WriteByte('\r')
	case 'b':
		b.WriteByte('\b')
	case 'f':
		b.WriteByte('\f')
	case 'v':
		b.WriteByte('\v')
	case '\n': // the line goes on
	case '\r':
		if p.rest("\n") {
			p.at++
		}
	case 'x':
		b.WriteRune(p.hex(2))
	case 'u':
		r := p.hex(4)
		if r >= 0xd800 && r < 0xdc00 && p.rest(`\u`) {
			p.at += 2
			r = (r-0xd800)<<10 + (p.hex(4) - 0xdc00) + 0x10000
		}
		b.WriteRune(r)
	case '0':
		p.fail("a zero byte", "no argument can hold one")
	default:
		b.WriteByte(ch)
	}
}

func (p *parser) hex(digits int) rune {
	if p.at+digits > len(p.source) {
		p.fail("an escape without its digits", "")
	}
	n, err := strconv.ParseUint(p.source[p.at:p.at+digits], 16, 32)
	if err != nil || n == 0 {
		p.fail("an escape without its digits", "")
	}
	p.at += digits
	return rune(n)
}

// action reads one, with its braces.
func (p *parser) action() string {
	said := peekAction(p.source[p.at:])
	if said == "" {
		p.fail("an action without end", "close it with }}")
	}
	p.at += len(said)
	return said
}

// balance refuses an action that belongs to something inside.
func (p *parser) balance(action string) {
	if isControl(action) && opens(action) != 0 {
		p.fail("an action that began inside ends here", "carry the template out first, with containerpilot -template")
	}
}
