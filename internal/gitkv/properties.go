package gitkv

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// properties are names and values in the order of a file.
type properties struct {
	names  []string
	values map[string]string
}

func (m mapping) expandProperties(data []byte, shared properties) ([]pair, error) {
	all, err := parseProperties(data, shared.values)
	if err != nil {
		return nil, err
	}
	f := flatten{}
	for _, name := range all.names {
		if err := f.add(escape(name), []byte(all.values[name])); err != nil {
			return nil, err
		}
	}
	return f.made, nil
}

// parseProperties reads a file as java.util.Properties does, and puts values in the place of ${name}: of
// names above in the file, else of the shared ones. A name that is nowhere is an error.
func parseProperties(data []byte, shared map[string]string) (properties, error) {
	all := properties{values: map[string]string{}}
	if !utf8.Valid(data) {
		return all, errors.New("it is not UTF-8")
	}
	text := strings.TrimPrefix(string(data), "\ufeff")
	size := 0
	for _, line := range logicalLines(text) {
		name, raw := splitProperty(line)
		key, err := unescape(name, nil)
		if err != nil {
			return all, err
		}
		v, err := unescape(raw, func(name string) (string, error) {
			for _, from := range []map[string]string{all.values, shared} {
				if v, ok := from[name]; ok {
					return v, nil
				}
			}
			return "", fmt.Errorf("${%s} is nowhere", name)
		})
		if err != nil {
			return all, err
		}
		if size += len(key) + len(v); size > maxExpandBytes {
			return all, errTooMany
		}
		if _, ok := all.values[key]; !ok {
			all.names = append(all.names, key)
		}
		all.values[key] = v
	}
	return all, nil
}

const propertySpace = " \t\f"

// logicalLines are the lines that say something, those that a backslash ends joined with the next.
func logicalLines(text string) []string {
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text)
	var lines []string
	var line strings.Builder
	open := false
	for natural := range strings.SplitSeq(text, "\n") {
		natural = strings.TrimLeft(natural, propertySpace)
		if !open && (natural == "" || natural[0] == '#' || natural[0] == '!') {
			continue
		}
		end := strings.TrimRight(natural, `\`)
		open = (len(natural)-len(end))%2 == 1
		line.WriteString(natural[:len(natural)-btoi(open)])
		if !open {
			lines = append(lines, line.String())
			line.Reset()
		}
	}
	if line.Len() > 0 {
		lines = append(lines, line.String())
	}
	return lines
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// splitProperty cuts a line at the first =, : or space that no backslash is before.
func splitProperty(line string) (name, v string) {
	i := 0
	for i < len(line) && !strings.ContainsRune("=:"+propertySpace, rune(line[i])) {
		if line[i] == '\\' {
			i++
		}
		i++
	}
	i = min(i, len(line))
	name, v = line[:i], strings.TrimLeft(line[i:], propertySpace)
	if v != "" && (v[0] == '=' || v[0] == ':') {
		v = strings.TrimLeft(v[1:], propertySpace)
	}
	return name, v
}

// unescape undoes backslashes, and asks variable, if there is one, for what ${name} stands for.
func unescape(s string, variable func(string) (string, error)) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			if s[i] != 'u' {
				b.WriteString(plainEscape(s[i]))
				continue
			}
			r, n, err := unicodeEscape(s[i-1:])
			if err != nil {
				return "", err
			}
			b.WriteRune(r)
			i += n - 2
		case variable != nil && strings.HasPrefix(s[i:], "${"):
			end := strings.IndexByte(s[i:], '}')
			if end < 0 {
				return "", errors.New("a ${ without its }")
			}
			v, err := variable(s[i+2 : i+end])
			if err != nil {
				return "", err
			}
			b.WriteString(v)
			if i += end; b.Len() > maxExpandBytes {
				return "", errTooMany
			}
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), nil
}

func plainEscape(c byte) string {
	switch c {
	case 't':
		return "\t"
	case 'n':
		return "\n"
	case 'r':
		return "\r"
	case 'f':
		return "\f"
	}
	return string([]byte{c})
}

// unicodeEscape reads \uXXXX, or two of them that are one character; n is how many bytes it took.
func unicodeEscape(s string) (r rune, n int, err error) {
	one := func(s string) (rune, error) {
		if len(s) < 6 || s[:2] != `\u` {
			return 0, errors.New(`a \u without four digits`)
		}
		v, err := strconv.ParseUint(s[2:6], 16, 16)
		if err != nil {
			return 0, errors.New(`a \u without four digits`)
		}
		return rune(v), nil
	}
	if r, err = one(s); err != nil {
		return 0, 0, err
	}
	if !utf16.IsSurrogate(r) {
		return r, 6, nil
	}
	low, bad := one(s[6:])
	if bad != nil {
		return utf8.RuneError, 6, nil //nolint:nilerr // half of a pair
	}
	return utf16.DecodeRune(r, low), 12, nil
}
