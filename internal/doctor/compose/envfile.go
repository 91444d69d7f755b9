package compose

import (
	"bytes"
	"fmt"
	"strings"
)

// variable is one of an environment.
type variable struct {
	name  string
	value value
	set   bool // else it is passed on from who starts Compose
	at    string
}

// parseEnv reads the lines NAME=VALUE of an environment file.
func parseEnv(name string, data []byte, x expander) []variable {
	var all []variable
	number := 0
	for raw := range bytes.Lines(data) {
		number++
		line := strings.TrimSpace(string(raw))
		line = strings.TrimPrefix(line, "export ")
		if line == "" || line[0] == '#' {
			continue
		}
		key, text, set := strings.Cut(line, "=")
		if key = strings.TrimSpace(key); key == "" || strings.ContainsAny(key, " \t") {
			continue
		}
		text = strings.TrimSpace(text)
		v := value{text: text, whole: true}
		switch {
		case len(text) > 1 && text[0] == '\'' && text[len(text)-1] == '\'':
			v.text = text[1 : len(text)-1]
		case len(text) > 1 && text[0] == '"' && text[len(text)-1] == '"':
			v = x.expand(text[1 : len(text)-1])
		default:
			if i := strings.Index(text, " #"); i >= 0 {
				text = strings.TrimSpace(text[:i])
			}
			v = x.expand(text)
		}
		all = append(all, variable{key, v, set, fmt.Sprintf("%s:%d:1", name, number)})
	}
	return all
}
