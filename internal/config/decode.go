package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	yaml "github.com/goccy/go-yaml"
)

// Bounds on a file, so that none can take the agent's memory or time: bytes, nodes after
// aliases are followed, and levels (the parser's time grows with their square).
const (
	maxFile   = 256 << 10
	maxNodes  = 100_000
	maxLevels = 64
)

// decoder fills values from one YAML document, strictly.
type decoder struct {
	file    string // as the user knows it
	origin  origins
	anchors map[string]ast.Node
	nodes   int // met so far
}

// decodeFile fills c from the text of a file.
func decodeFile(c *Config, name string, data []byte) error {
	if len(data) > maxFile {
		return &Error{Where: name, What: fmt.Sprintf("file of %d bytes is too large", len(data)), Hint: fmt.Sprintf("at most %d", maxFile)}
	}
	if line := tooDeep(data); line > 0 {
		return &Error{Where: fmt.Sprintf("%s:%d", name, line), What: "is nested too deeply", Hint: fmt.Sprintf("at most %d levels", maxLevels)}
	}
	doc, err := parse(name, data)
	if err != nil || doc == nil {
		return err
	}
	d := &decoder{file: name, origin: c.origin, anchors: map[string]ast.Node{}}
	return d.value(reflect.ValueOf(c).Elem(), doc, "")
}

// tooDeep returns the line where more levels are open than a configuration can need, 0
// if none: brackets on the way, and markers at the beginning of one line. It does not
// look at quotes, which cannot matter with a bound so far away.
func tooDeep(data []byte) int {
	open, number := 0, 0
	for line := range bytes.Lines(data) {
		number++
		markers := 0
		for _, word := range bytes.Fields(line) {
			if !bytes.ContainsRune([]byte("-?"), rune(word[0])) && !bytes.HasSuffix(word, []byte(":")) {
				break
			}
			markers++
		}
		for _, c := range line {
			switch c {
			case '[', '{':
				open++
			case ']', '}':
				open = max(0, open-1)
			}
			if open > maxLevels {
				return number
			}
		}
		if markers > maxLevels {
			return number
		}
	}
	return 0
}

// parse returns the only document of data, nil if there is none.
func parse(name string, data []byte) (body ast.Node, err error) {
	defer func() {
		// The parser is not ours, and the file comes from outside.
		if r := recover(); r != nil {
			body, err = nil, &Error{Where: name, What: "is not valid YAML"}
		}
	}()
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, syntaxError(name, err)
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			return nil, &Error{Where: position(name, doc.Body.GetToken()), What: "a second document", Hint: "keep one"}
		}
		body = doc.Body
	}
	return body, nil
}

func syntaxError(name string, err error) error {
	var at yaml.Error
	if !errors.As(err, &at) {
		return &Error{Where: name, What: "is not valid YAML"}
	}
	what := strings.Join(strings.Fields(at.GetMessage()), " ")
	return &Error{Where: position(name, at.GetToken()), What: "not valid YAML: " + what, Hint: "see the indentation and the quotes here"}
}

func position(file string, t *token.Token) string {
	if t == nil || t.Position == nil {
		return file
	}
	return fmt.Sprintf("%s:%d:%d", file, t.Position.Line, t.Position.Column)
}

func (d *decoder) where(n ast.Node) string { return position(d.file, n.GetToken()) }

func (d *decoder) errorAt(n ast.Node, what, hint string) error {
	return &Error{Where: d.where(n), What: what, Hint: hint}
}

// value fills v, the value of path, from n.
func (d *decoder) value(v reflect.Value, n ast.Node, path string) error {
	n, err := d.resolve(n)
	if err != nil {
		return err
	}
	if path != "" {
		d.origin[path] = d.where(n)
	}
	switch {
	case v.Kind() == reflect.Struct && isScalar(n) && shorthand(v) != "":
		field, _ := fieldByKey(v, shorthand(v))
		return d.scalar(field, n, path)
	case v.Type() == reflect.TypeFor[Cause]() && !isScalar(n):
		return d.cause(v, n, path)
	case v.Kind() == reflect.Slice && n.Type() == ast.SequenceType:
		return d.list(v, n, path)
	case isText(v) || v.Kind() == reflect.String || v.Kind() == reflect.Bool || v.Kind() == reflect.Int:
		return d.scalar(v, n, path)
	case v.Kind() == reflect.Struct:
		return d.fields(v, n, path)
	case v.Kind() == reflect.Map:
		return d.entries(v, n, path)
	case v.Kind() == reflect.Slice:
		return d.list(v, n, path)
	}
	return fmt.Errorf("decode %s: no rule for type %s", path, v.Type())
}

// resolve counts the node and follows anchors and aliases.
func (d *decoder) resolve(n ast.Node) (ast.Node, error) {
	for {
		if d.nodes++; d.nodes > maxNodes {
			return nil, &Error{Where: d.file, What: "has too many values", Hint: "aliases that repeat aliases make them"}
		}
		switch t := n.(type) {
		case *ast.AnchorNode:
			// Known only after its content: an alias inside would never end.
			name := t.Name.GetToken().Value
			defer func() { d.anchors[name] = t.Value }()
			n = t.Value
		case *ast.AliasNode:
			target, ok := d.anchors[t.Value.GetToken().Value]
			if !ok {
				return nil, d.errorAt(n, "alias of an anchor that is not above", "")
			}
			n = target
		case *ast.TagNode:
			return nil, d.errorAt(n, fmt.Sprintf("tag %s is not supported", t.Start.Value), "write the plain value")
		default:
			return n, nil
		}
	}
}

// cause reads an event that the parser took for a mapping: name:source in brackets.
func (d *decoder) cause(v reflect.Value, n ast.Node, path string) error {
	word := ""
	err := d.each(n, path, func(key string, _, value ast.Node) error {
		value, err := d.resolve(value)
		if err == nil && (word != "" || !isScalar(value)) {
			err = d.wrongType(n, path, "an event, name or name:source")
		}
		if err == nil {
			word = key + ":" + text(value)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := setText(v, word); err != nil {
		return placed(d.where(n), path, err)
	}
	return nil
}

// shorthand is the key of a struct that a single value stands for; "": none.
func shorthand(v reflect.Value) string {
	if s, ok := v.Interface().(interface{ short() string }); ok {
		return s.short()
	}
	return ""
}

func isText(v reflect.Value) bool {
	return v.CanAddr() && v.Addr().Type().Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func isScalar(n ast.Node) bool {
	_, ok := n.(ast.ScalarNode)
	return ok && n.Type() != ast.NullType
}

// fields fills a struct from a mapping.
func (d *decoder) fields(v reflect.Value, n ast.Node, path string) error {
	return d.each(n, path, func(key string, keyNode, value ast.Node) error {
		field, ok := fieldByKey(v, key)
		if !ok {
			return d.unknown(v.Type(), key, keyNode, path)
		}
		return d.value(field, value, join(path, key))
	})
}

// entries fills a map of named values.
func (d *decoder) entries(v reflect.Value, n ast.Node, path string) error {
	v.Set(reflect.MakeMap(v.Type()))
	return d.each(n, path, func(key string, keyNode, value ast.Node) error {
		item := reflect.New(v.Type().Elem()).Elem()
		if filled, ok := entryDefault(item.Type()); ok {
			item.Set(filled)
		}
		if err := d.value(item, value, join(path, key)); err != nil {
			return err
		}
		name := reflect.New(v.Type().Key()).Elem()
		if err := setText(name, key); err != nil {
			return placed(d.where(keyNode), path, err)
		}
		if v.MapIndex(name).IsValid() {
			return d.errorAt(keyNode, fmt.Sprintf("key %q is here twice", key), "keep one")
		}
		v.SetMapIndex(name, item)
		return nil
	})
}

// entryDefault is what an entry of a map of this type begins with.
func entryDefault(t reflect.Type) (reflect.Value, bool) {
	switch t {
	case reflect.TypeFor[Job]():
		return reflect.ValueOf(DefaultJob()), true
	case reflect.TypeFor[Check]():
		return reflect.ValueOf(DefaultHealth()), true
	case reflect.TypeFor[Metric]():
		return reflect.ValueOf(DefaultMetric()), true
	case reflect.TypeFor[SecretCommand]():
		return reflect.ValueOf(DefaultSecretCommand()), true
	case reflect.TypeFor[GitRepo]():
		return reflect.ValueOf(DefaultGit()), true
	case reflect.TypeFor[Template]():
		return reflect.ValueOf(DefaultTemplate()), true
	}
	return reflect.Value{}, false
}

// each calls fn for every entry of a mapping. Nothing at all is an empty one.
func (d *decoder) each(n ast.Node, path string, fn func(key string, keyNode, value ast.Node) error) error {
	if n.Type() == ast.NullType {
		return nil
	}
	mapping, ok := n.(ast.MapNode)
	if !ok {
		return d.wrongType(n, path, "a mapping of keys to values")
	}
	seen := map[string]bool{}
	for entries := mapping.MapRange(); entries.Next(); {
		keyNode, value := ast.Node(entries.Key()), entries.Value()
		if keyNode.Type() == ast.MergeKeyType {
			return d.errorAt(keyNode, "merge keys are not supported", "write the keys out")
		}
		inner, err := d.resolve(keyNode)
		if err != nil {
			return err
		}
		if !isScalar(inner) {
			return d.errorAt(keyNode, "a key that is not a word", "")
		}
		key := text(inner)
		if seen[key] {
			return d.errorAt(keyNode, fmt.Sprintf("key %q is here twice", key), "keep one")
		}
		seen[key] = true
		d.origin[join(path, key)] = d.where(keyNode)
		if err := fn(key, keyNode, value); err != nil {
			return err
		}
	}
	return nil
}

// list fills a slice from a sequence; of strings, a single one will do.
func (d *decoder) list(v reflect.Value, n ast.Node, path string) error {
	items, ok := n.(*ast.SequenceNode)
	switch {
	case ok:
	case n.Type() == ast.NullType:
		return d.noValue(n, path)
	default:
		return d.wrongType(n, path, "a list")
	}
	v.Set(reflect.MakeSlice(v.Type(), len(items.Values), len(items.Values)))
	for i, item := range items.Values {
		if err := d.value(v.Index(i), item, fmt.Sprintf("%s[%d]", path, i)); err != nil {
			return err
		}
	}
	return nil
}

// scalar fills a single value.
func (d *decoder) scalar(v reflect.Value, n ast.Node, path string) error {
	if n.Type() == ast.NullType {
		return d.noValue(n, path)
	}
	if !isScalar(n) {
		return d.wrongType(n, path, "a single value"+orList(v))
	}
	if v.Kind() == reflect.String && !isText(v) && n.Type() == ast.BoolType && !verbatim(path) {
		return d.errorAt(n, fmt.Sprintf("%s is a text, not true or false", path), "write it in quotes if it is meant")
	}
	if err := setText(v, text(n)); err != nil {
		return placed(d.where(n), path, err)
	}
	return nil
}

// verbatim says whether any scalar of path is taken as it is written: arguments and
// variables, which often look like numbers and booleans.
func verbatim(path string) bool {
	return strings.HasPrefix(path, "jobs.") || strings.HasPrefix(path, "store.password_command") ||
		strings.HasPrefix(path, "backup.quiesce.command") || strings.HasPrefix(path, "backup.resume.command")
}

func orList(v reflect.Value) string {
	if v.Kind() == reflect.Slice {
		return " or a list"
	}
	return ""
}

// text is a scalar as it stands in the file, without quotes.
func text(n ast.Node) string {
	switch t := n.(type) {
	case *ast.StringNode:
		return t.Value
	case *ast.LiteralNode:
		return t.Value.Value
	default:
		return strings.TrimSpace(n.GetToken().Value)
	}
}

// setText fills a single value from its text.
func setText(v reflect.Value, s string) error {
	if v.CanAddr() {
		if t, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
			return t.UnmarshalText([]byte(s))
		}
	}
	switch {
	case v.Kind() == reflect.String:
		v.SetString(s)
	case v.Kind() == reflect.Bool:
		if s != "true" && s != "false" {
			return valueError{fmt.Sprintf("%q is not true or false", s), ""}
		}
		v.SetBool(s == "true")
	case v.Kind() == reflect.Int:
		n, err := strconv.Atoi(s)
		if err != nil {
			return valueError{fmt.Sprintf("%q is not a whole number", s), ""}
		}
		v.SetInt(int64(n))
	}
	return nil
}

// placed makes err, which setText returned, an Error about path at where.
func placed(where, path string, err error) error {
	var bad valueError
	if !errors.As(err, &bad) {
		return fmt.Errorf("set %s: %w", path, err)
	}
	return &Error{Where: where, What: path + ": " + bad.what, Hint: bad.hint}
}

func (d *decoder) noValue(n ast.Node, path string) error {
	return d.errorAt(n, path+" has no value", "give it one or take the line out")
}

func (d *decoder) wrongType(n ast.Node, path, want string) error {
	what := "the file"
	if path != "" {
		what = path
	}
	got := "a single value"
	switch {
	case n.Type() == ast.SequenceType:
		got = "a list"
	case n.Type() == ast.MappingType || n.Type() == ast.MappingValueType:
		got = "a mapping"
	}
	return d.errorAt(n, fmt.Sprintf("%s must be %s, not %s", what, want, got), "")
}

// unknown is the error for a key that a struct does not have.
func (d *decoder) unknown(t reflect.Type, key string, at ast.Node, path string) error {
	what := fmt.Sprintf("unknown key %q", key)
	if path != "" {
		what += " in " + path
	}
	known := keysOf(t)
	if hint := meant(key, known); hint != "" {
		return d.errorAt(at, what, hint)
	}
	if home, ok := homeOf(key); ok {
		return d.errorAt(at, what, "it belongs to "+home)
	}
	slices.Sort(known)
	return d.errorAt(at, what, "known here: "+strings.Join(known, ", "))
}

// homeOf finds the section that has the key.
func homeOf(key string) (string, bool) {
	root := reflect.TypeFor[Config]()
	if slices.Contains(keysOf(root), key) {
		return "the top of the file", true
	}
	for field := range root.Fields() {
		if field.Type.Kind() == reflect.Struct && slices.Contains(keysOf(field.Type), key) {
			return field.Tag.Get("yaml"), true
		}
	}
	return "", false
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for field := range t.Fields() {
		if key := field.Tag.Get("yaml"); key != "" {
			keys = append(keys, key)
		}
	}
	return keys
}

func fieldByKey(v reflect.Value, key string) (reflect.Value, bool) {
	for field, value := range v.Fields() {
		if field.Tag.Get("yaml") == key && key != "" {
			return value, true
		}
	}
	return reflect.Value{}, false
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
