package template

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	texttemplate "text/template"
)

// yaml is text that is written as a value of YAML already.
type yaml string

// functions are those that a file may call, beside text/template's own. Their names
// and arguments are ContainerPilot's, from default to loop.
func (r *run) functions() texttemplate.FuncMap {
	return texttemplate.FuncMap{
		"default":         defaultTo,
		"env":             r.lookUp,
		"split":           r.split,
		"join":            r.join,
		"replaceAll":      r.replaceAll,
		"regexReplaceAll": r.regexReplaceAll,
		"loop":            r.loop,
		"toLower":         strings.ToLower,
		"toUpper":         strings.ToUpper,
		"quote":           quote,
		"json":            toJSON,
		// What could double a value with each turn of a loop.
		"print":   r.bounded(fmt.Sprint),
		"println": r.bounded(fmt.Sprintln),
		"printf": func(format string, args ...any) (string, error) {
			return r.bounded(sprintf)(append([]any{format}, args...)...)
		},
		"html":     r.bounded(texttemplate.HTMLEscaper),
		"js":       r.bounded(texttemplate.JSEscaper),
		"urlquery": r.bounded(texttemplate.URLQueryEscaper),
	}
}

// defaultTo is v, or the other if v is empty.
func defaultTo(other, v any) any {
	switch v := v.(type) {
	case nil:
	case string:
		if v != "" {
			return v
		}
	case []string:
		if len(v) > 0 {
			return v
		}
	default:
		return v
	}
	if list, ok := other.([]string); ok {
		return list
	}
	return fmt.Sprint(other)
}

func (r *run) lookUp(variable string) string {
	value, _ := r.env(variable)
	return value
}

// split cuts s, without blanks around it; nothing has no parts.
func (r *run) split(separator, s string) ([]string, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return []string{}, nil
	}
	return strings.Split(s, separator), r.spend(len(s))
}

// spend counts the bytes that functions make, of which a loop could need any number.
func (r *run) spend(bytes int) error {
	if r.spent += bytes; bytes > r.limit || r.spent > maxSpent {
		return r.tooLarge()
	}
	return nil
}

func (r *run) join(separator string, parts []string) (string, error) {
	size := len(separator) * len(parts)
	for _, part := range parts {
		size += len(part)
	}
	if err := r.spend(size); err != nil {
		return "", err
	}
	return strings.Join(parts, separator), nil
}

func (r *run) replaceAll(from, to, s string) (string, error) {
	if err := r.spend(len(s) + strings.Count(s, from)*len(to)); err != nil {
		return "", err
	}
	return strings.ReplaceAll(s, from, to), nil
}

func (r *run) regexReplaceAll(expression, to, s string) (string, error) {
	compiled, err := regexp.Compile(expression)
	if err != nil {
		return "", &Error{What: "the first argument of regexReplaceAll is not a regular expression"}
	}
	var made []byte
	last := 0
	for _, match := range compiled.FindAllStringSubmatchIndex(s, -1) {
		made = append(made, s[last:match[0]]...)
		made = compiled.ExpandString(made, to, s, match)
		last = match[1]
		if len(made) > r.limit {
			return "", r.tooLarge()
		}
	}
	made = append(made, s[last:]...)
	return string(made), r.spend(len(made))
}

// loop counts from 0 to a number, or from one to another, without the last; down if
// the second is smaller.
func (r *run) loop(bounds ...any) ([]int, error) {
	if len(bounds) != 1 && len(bounds) != 2 {
		return nil, &Error{What: fmt.Sprintf("loop has %d arguments", len(bounds)), Hint: "write loop TO or loop FROM TO"}
	}
	var numbers []int
	for _, bound := range bounds {
		n, ok := bound.(int)
		if s, text := bound.(string); text {
			var err error
			n, err = strconv.Atoi(s)
			ok = err == nil
		}
		if !ok || n > 1<<30 || n < -1<<30 {
			return nil, &Error{What: "an argument of loop is not a whole number"}
		}
		numbers = append(numbers, n)
	}
	from, to := 0, numbers[0]
	if len(numbers) == 2 {
		from, to = numbers[0], numbers[1]
	}
	step, count := 1, to-from
	if count < 0 {
		step, count = -1, -count
	}
	if count > maxLoop {
		return nil, &Error{What: fmt.Sprintf("loop makes more than %d numbers", maxLoop)}
	}
	list := make([]int, count)
	for i := range list {
		list[i] = from + i*step
	}
	return list, r.spend(count)
}

// quote writes v as a text of YAML in double quotes, whatever it holds.
func quote(v any) (yaml, error) { return toJSON(fmt.Sprint(v)) }

// toJSON writes v as JSON, which is YAML: a list as a list.
func toJSON(v any) (yaml, error) {
	var b strings.Builder
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false)
	if err := out.Encode(v); err != nil {
		return "", &Error{What: "the argument of json cannot be written as JSON"}
	}
	return yaml(strings.TrimSuffix(b.String(), "\n")), nil
}

func sprintf(args ...any) string { return fmt.Sprintf(args[0].(string), args[1:]...) }

// bounded keeps what fn gets and makes below the limit.
func (r *run) bounded(fn func(args ...any) string) func(args ...any) (string, error) {
	return func(args ...any) (string, error) {
		size := 0
		for _, arg := range args {
			if s, ok := arg.(string); ok {
				size += len(s)
			}
		}
		if size > r.limit {
			return "", r.tooLarge()
		}
		made := fn(args...)
		return made, r.spend(len(made))
	}
}
