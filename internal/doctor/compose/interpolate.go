package compose

import (
	"strings"

	"drover/internal/doctor"
)

// maxNesting bounds defaults within defaults.
const maxNesting = 16

// value is a text with its variables filled in.
type value struct {
	text   string
	whole  bool // every variable in it is known; else it stands there as it is written
	origin doctor.Origin
}

// expander fills in variables as Compose does: $NAME, ${NAME}, with -, :-, +, :+, ? or :?
// and a word that may hold variables itself; $$ is a dollar sign.
type expander struct {
	lookup func(name string) (string, bool)
}

func (x expander) expand(text string) value {
	v := value{whole: true, origin: doctor.Literal}
	if !strings.Contains(text, "$") {
		v.text = text
		return v
	}
	v.text = x.fill(text, 0, &v)
	return v
}

// fill returns text with its variables filled in, and notes in v what they were.
func (x expander) fill(text string, depth int, v *value) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(text, "$")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		switch {
		case strings.HasPrefix(after, "$"):
			out.WriteByte('$')
			text = after[1:]
		case strings.HasPrefix(after, "{"):
			inside, rest, ok := braces(after)
			if !ok || depth >= maxNesting {
				v.whole = false
				out.WriteString("$" + after)
				return out.String()
			}
			out.WriteString(x.variable(inside, depth, v))
			text = rest
		default:
			name := nameOf(after)
			if name == "" {
				out.WriteByte('$')
			} else {
				out.WriteString(x.variable(name, depth, v))
			}
			text = after[len(name):]
		}
	}
}

// braces takes {…} off the beginning of text.
func braces(text string) (inside, rest string, ok bool) {
	depth := 0
	for i := range len(text) {
		switch {
		case text[i] == '{' && (i == 0 || text[i-1] == '$'):
			depth++
		case text[i] == '}':
			depth--
		}
		if depth == 0 {
			return text[1:i], text[i+1:], true
		}
	}
	return "", "", false
}

// nameOf returns the name at the beginning of text.
func nameOf(text string) string {
	for i := range len(text) {
		c := text[i]
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return text[:i]
		}
	}
	return text
}

// variable is what stands for what was between the braces.
func (x expander) variable(inside string, depth int, v *value) string {
	name := nameOf(inside)
	operator, word := inside[len(name):], ""
	if n := len(operator) - len(strings.TrimLeft(operator, ":")); operator != "" {
		n = min(n+1, len(operator))
		operator, word = operator[:n], operator[n:]
	}
	set, ok := x.lookup(name)
	missing := !ok || strings.HasPrefix(operator, ":") && set == ""
	if v.origin == doctor.Literal {
		v.origin = doctor.Referred
	}
	switch strings.TrimPrefix(operator, ":") {
	case "+":
		if missing {
			return ""
		}
		return x.fill(word, depth+1, v)
	case "-":
		if missing {
			if word != "" && !strings.HasPrefix(word, "$") {
				v.origin = doctor.Fallback
			}
			return x.fill(word, depth+1, v)
		}
	}
	if missing {
		v.whole = false
		return "${" + name + "}"
	}
	return set
}
