package file

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	yaml "github.com/goccy/go-yaml"

	"drover/internal/coord"
)

// Bounds, so that no file can take the agent's memory or time. The format has six levels.
const (
	maxBytes  = 4 << 20
	maxLevels = 16
)

// services are the instances by the name of their service, each sorted by node and ID.
type services map[string][]coord.Instance

// Error says what is wrong with a catalog, and where.
type Error struct {
	File         string
	Line, Column int // from 1; 0: not known
	What         string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.What
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.What)
}

// Check says whether data is a catalog; name is the file's, for the error. Errors: *Error.
func Check(name string, data []byte) error {
	_, err := parse(name, data)
	return err
}

func parse(name string, data []byte) (services, error) {
	r := &reader{file: name, found: services{}, ids: map[string]bool{}}
	if len(data) > maxBytes {
		return nil, &Error{File: name, What: fmt.Sprintf("it has %d bytes, of at most %d", len(data), maxBytes)}
	}
	if line := tooDeep(data); line > 0 {
		return nil, &Error{name, line, 1, "it is nested too deeply"}
	}
	tree, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, r.syntax(err)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, &Error{name, 1, 1, "it is empty; of no services it says services: {}"}
	}
	for i, doc := range tree.Docs {
		if doc.Body == nil {
			continue
		}
		if i > 0 {
			return nil, r.wrong(doc.Body, "it has more than one document")
		}
		if err := r.root(doc.Body); err != nil {
			return nil, err
		}
	}
	for _, list := range r.found {
		slices.SortFunc(list, func(a, b coord.Instance) int {
			if c := strings.Compare(a.Node, b.Node); c != 0 {
				return c
			}
			return strings.Compare(a.ID, b.ID)
		})
	}
	return r.found, nil
}

// tooDeep returns the line at which more levels are open than a catalog has, 0 if none. The
// parser's time grows with their square.
func tooDeep(data []byte) int {
	open, number := 0, 0
	for line := range bytes.Lines(data) {
		number++
		open = max(0, open+bytes.Count(line, []byte("["))+bytes.Count(line, []byte("{"))-bytes.Count(line, []byte("]"))-bytes.Count(line, []byte("}")))
		markers := 0
		for _, word := range bytes.Fields(line) {
			if len(word) != 1 || !bytes.ContainsAny(word, "-?:") {
				break
			}
			markers++
		}
		most := max(bytes.Count(line, []byte("[")), bytes.Count(line, []byte("{")))
		if open > maxLevels || markers > maxLevels || most > 50*maxLevels || indent(line) > 40*maxLevels {
			return number
		}
	}
	return 0
}

func indent(line []byte) int { return len(line) - len(bytes.TrimLeft(line, " ")) }

// reader walks over the tree of one file.
type reader struct {
	file  string
	found services
	ids   map[string]bool
}

func (r *reader) syntax(err error) error {
	var y yaml.Error
	if errors.As(err, &y) {
		return r.at(y.GetToken(), y.GetMessage())
	}
	return &Error{File: r.file, What: "it is no YAML: " + err.Error()}
}

func (r *reader) at(t *token.Token, what string) error {
	if t == nil || t.Position == nil {
		return &Error{File: r.file, What: what}
	}
	return &Error{r.file, t.Position.Line, t.Position.Column, what}
}

func (r *reader) wrong(n ast.Node, format string, args ...any) error {
	return r.at(n.GetToken(), fmt.Sprintf(format, args...))
}

// fields calls fn for each entry of a mapping.
func (r *reader) fields(n ast.Node, what string, fn func(key string, value ast.Node) error) error {
	var values []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	default:
		return r.wrong(n, "%s is no mapping", what)
	}
	seen := map[string]bool{}
	for _, v := range values {
		key, err := r.text(v.Key, "a key")
		if err != nil {
			return err
		}
		if seen[key] {
			return r.wrong(v.Key, "%q is twice there", key)
		}
		seen[key] = true
		if v.Value == nil {
			return r.wrong(v.Key, "%q has no value", key)
		}
		if err := fn(key, v.Value); err != nil {
			return err
		}
	}
	return nil
}

// elements calls fn for each entry of a list. Nothing is an empty one.
func (r *reader) elements(n ast.Node, what string, fn func(ast.Node) error) error {
	if _, ok := n.(*ast.NullNode); ok {
		return nil
	}
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		return r.wrong(n, "%s is no list", what)
	}
	for _, v := range list.Values {
		if v == nil {
			return r.wrong(n, "%s has an empty entry", what)
		}
		if err := fn(v); err != nil {
			return err
		}
	}
	return nil
}

// text is a scalar as it is written: 8080 and yes are text, too.
func (r *reader) text(n ast.Node, what string) (string, error) {
	switch s := n.(type) {
	case *ast.StringNode:
		return s.Value, nil
	case *ast.LiteralNode:
		return s.Value.Value, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, nil
	case nil:
		return "", &Error{File: r.file, What: what + " is missing"}
	}
	return "", r.wrong(n, "%s is no plain text (anchors and tags are not for catalogues)", what)
}

func (r *reader) number(n ast.Node, what string, least, most int) (int, error) {
	text, err := r.text(n, what)
	if err != nil {
		return 0, err
	}
	i, err := strconv.Atoi(text)
	if err != nil || i < least || i > most {
		return 0, r.wrong(n, "%s is %q, not a number from %d to %d", what, text, least, most)
	}
	return i, nil
}

func (r *reader) root(n ast.Node) error {
	if _, ok := n.(*ast.NullNode); ok {
		return nil
	}
	return r.fields(n, "the catalog", func(key string, value ast.Node) error {
		if key != "services" {
			return r.wrong(value, "%q is not known here, only services", key)
		}
		if _, ok := value.(*ast.NullNode); ok {
			return nil
		}
		return r.fields(value, "services", func(name string, list ast.Node) error {
			if err := coord.CheckKey(name); err != nil || strings.Contains(name, "/") {
				return r.wrong(list, "%q cannot be the name of a service", name)
			}
			r.found[name] = nil
			return r.elements(list, name, func(n ast.Node) error { return r.instance(name, n) })
		})
	})
}

func (r *reader) instance(name string, n ast.Node) error {
	i := coord.Instance{Status: coord.Passing, Weight: 1}
	i.Name = name
	err := r.fields(n, "an instance", func(key string, v ast.Node) (err error) {
		switch key {
		case "id":
			i.ID, err = r.text(v, key)
		case "address":
			i.Address, err = r.text(v, key)
		case "port":
			i.Port, err = r.number(v, key, 0, 65535)
		case "weight":
			i.Weight, err = r.number(v, key, 0, 65535)
		case "node":
			i.Node, err = r.text(v, key)
		case "status":
			err = r.status(v, &i.Status)
		case "tags":
			err = r.elements(v, key, func(n ast.Node) error {
				tag, err := r.text(n, "a tag")
				i.Tags = append(i.Tags, tag)
				return err
			})
		case "meta":
			i.Meta = map[string]string{}
			err = r.fields(v, key, func(k string, n ast.Node) (err error) {
				i.Meta[k], err = r.text(n, k)
				return err
			})
		default:
			err = r.wrong(v, "%q is not known of an instance", key)
		}
		return err
	})
	if err != nil {
		return err
	}
	return r.add(n, i)
}

func (r *reader) status(n ast.Node, s *coord.Status) error {
	text, err := r.text(n, "status")
	*s = coord.Status(text)
	if err == nil && !slices.Contains([]coord.Status{coord.Passing, coord.Warning, coord.Critical, coord.Maintenance}, *s) {
		err = r.wrong(n, "status is %q, not passing, warning, critical or maintenance", text)
	}
	return err
}

func (r *reader) add(n ast.Node, i coord.Instance) error {
	if i.Address == "" {
		return r.wrong(n, "an instance of %s has no address", i.Name)
	}
	if i.ID == "" {
		i.ID = fmt.Sprintf("%s-%s-%d", i.Name, i.Address, i.Port)
	}
	if r.ids[i.ID] {
		return r.wrong(n, "id %q is twice there", i.ID)
	}
	r.ids[i.ID] = true
	r.found[i.Name] = append(r.found[i.Name], i)
	return nil
}
