package containerpilot

import "strings"

// peekAction is the action that source begins with, as far as its braces; "" if it has
// no end.
func peekAction(source string) string {
	at := 2
	if body := strings.TrimLeft(strings.TrimPrefix(source[at:], "-"), " \t\r\n"); strings.HasPrefix(body, "/*") {
		end := strings.Index(source, "*/")
		if end < 0 {
			return ""
		}
		at = end + 2
	}
	for at < len(source) {
		switch ch := source[at]; {
		case strings.HasPrefix(source[at:], "}}"):
			return source[:at+2]
		case ch == '"' || ch == '\'' || ch == '`':
			for at++; at < len(source) && source[at] != ch; at++ {
				if source[at] == '\\' && ch != '`' {
					at++
				}
			}
		}
		at++
	}
	return ""
}

// body is what stands between the braces of an action, without its trimming.
func body(action string) string {
	inner := strings.TrimSuffix(strings.TrimPrefix(action, "{{"), "}}")
	inner = strings.TrimSuffix(strings.TrimPrefix(inner, "- "), " -")
	return strings.TrimSpace(inner)
}

// keyword is the word that an action begins with.
func keyword(action string) string {
	first, _, _ := strings.Cut(strings.Join(strings.Fields(body(action)), " "), " ")
	return first
}

// isControl says whether an action prints nothing by itself.
func isControl(action string) bool {
	switch keyword(action) {
	case "if", "else", "end", "range", "with", "define", "block", "template", "break", "continue":
		return true
	}
	inner := body(action)
	return strings.HasPrefix(inner, "/*") || strings.HasPrefix(inner, "$") && strings.Contains(strings.SplitN(inner, `"`, 2)[0], "=")
}

// opens is 1 for an action that waits for its {{ end }}, -1 for {{ end }}.
func opens(action string) int {
	switch keyword(action) {
	case "if", "range", "with", "define", "block":
		return 1
	case "end":
		return -1
	}
	return 0
}

// part is a piece of a text: its own words, or an action.
type part struct {
	action bool
	text   string
}

// parts takes a text apart.
func parts(s string) []part {
	var all []part
	for {
		at := strings.Index(s, "{{")
		if at < 0 {
			break
		}
		action := peekAction(s[at:])
		if action == "" {
			break
		}
		if at > 0 {
			all = append(all, part{false, s[:at]})
		}
		all = append(all, part{true, action})
		s = s[at+len(action):]
	}
	if s != "" {
		all = append(all, part{false, s})
	}
	return all
}

// templated says whether a text holds actions.
func templated(s string) bool {
	for _, p := range parts(s) {
		if p.action {
			return true
		}
	}
	return false
}
