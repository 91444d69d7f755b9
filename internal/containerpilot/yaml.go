package containerpilot

import (
	"encoding/json"
	"regexp"
	"strings"
)

// yaml is the text of a drover.yaml on the way, line by line.
type yaml struct{ lines []line }

type line struct {
	indent int
	text   string
	action string // a line that is an action between others
}

func (y *yaml) add(indent int, text string) {
	y.lines = append(y.lines, line{indent: indent, text: text})
}

// comment writes text so that no template carries it out.
func (y *yaml) comment(indent int, text string) {
	text = oneLine(text)
	if strings.Contains(text, "{{") {
		if !strings.Contains(text, "*/") {
			text = "{{/* " + text + " */}}"
		} else {
			text = strings.NewReplacer("{{", "{ {", "}}", "} }").Replace(text)
		}
	}
	y.add(indent, "# "+text)
}

// control writes an action on a line of its own. Its trimming of blanks, which was made
// for JSON, would take the indentation.
func (y *yaml) control(indent int, action string) {
	y.lines = append(y.lines, line{indent: indent, text: "{{ " + oneLine(body(action)) + " }}", action: action})
}

// text is the whole, without conditions on nothing.
func (y *yaml) text() string {
	lines := y.lines
	for changed := true; changed; {
		changed = false
		for i := 0; i+1 < len(lines); i++ {
			if lines[i+1].action == "" || opens(lines[i+1].action) >= 0 {
				continue
			}
			if lines[i].action != "" && keyword(lines[i].action) == "else" {
				lines = append(append([]line{}, lines[:i]...), lines[i+1:]...)
				changed = true
				break
			}
			if lines[i].action != "" && opens(lines[i].action) > 0 && keyword(lines[i].action) != "define" {
				lines = append(append([]line{}, lines[:i]...), lines[i+2:]...)
				changed = true
				break
			}
		}
	}
	var b strings.Builder
	for _, l := range lines {
		if l.text != "" {
			b.WriteString(strings.Repeat(" ", l.indent) + l.text)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// oneLine makes a stretch of the source one line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

var (
	plainText = regexp.MustCompile(`^([A-Za-z_./]|--?[A-Za-z])[A-Za-z0-9_./@%+=-]*$`)
	notAText  = regexp.MustCompile(`(?i)^(true|false|null|yes|no|on|off|\.+|\.(inf|nan|[0-9].*))$`)
)

// scalar writes a text with its actions.
func scalar(s string) string {
	if !templated(s) {
		if plainText.MatchString(s) && !notAText.MatchString(s) {
			return s
		}
		return doubleQuoted(s)
	}
	single := true
	for _, p := range parts(s) {
		if p.action && strings.Contains(p.text, "'") || !p.action && strings.ContainsFunc(p.text, func(r rune) bool {
			return r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 || r == 0xFEFF
		}) {
			single = false
		}
	}
	var b strings.Builder
	for _, p := range parts(s) {
		switch quoted := doubleQuoted(p.text); {
		case p.action:
			b.WriteString(p.text)
		case single:
			b.WriteString(strings.ReplaceAll(p.text, "'", "''"))
		default:
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	if single {
		return "'" + b.String() + "'"
	}
	return `"` + b.String() + `"`
}

func doubleQuoted(s string) string {
	var b strings.Builder
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false)
	_ = out.Encode(s) // a string always can be
	return strings.TrimSuffix(b.String(), "\n")
}

// wide is how long a list may be on one line.
const wide = 90

// flow writes a list on one line; ok is false if it would be too long.
func flow(items []string) (text string, ok bool) {
	text = "[" + strings.Join(items, ", ") + "]"
	return text, len(text) <= wide
}
