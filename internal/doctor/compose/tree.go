package compose

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	yaml "github.com/goccy/go-yaml"
)

// Bounds on what is read, so that no file can take the memory or the time of who looks
// at it: bytes of a file, levels, values of all files together.
const (
	maxFile   = 1 << 20
	maxLevels = 64
	maxNodes  = 200_000
)

type kind int

const (
	null kind = iota
	scalar
	list
	mapping
)

// node is a value of a YAML file with its place. Aliases are followed and share their
// node, and merge keys are carried out.
type node struct {
	kind  kind
	text  string // of a scalar, without quotes
	items []*node
	keys  []entry // in the order of the file
	at    string  // file:line:column
	tag   string  // !reset or !override, of Compose
}

type entry struct {
	key   string
	at    string
	value *node
}

// get returns the value of a key; nil if there is none, or no mapping.
func (n *node) get(key string) *node {
	e := n.entry(key)
	if e == nil {
		return nil
	}
	return e.value
}

func (n *node) entry(key string) *entry {
	if n == nil {
		return nil
	}
	for i := range n.keys {
		if n.keys[i].key == key {
			return &n.keys[i]
		}
	}
	return nil
}

// path follows keys downwards.
func (n *node) path(keys ...string) *node {
	for _, key := range keys {
		n = n.get(key)
	}
	return n
}

// each returns the items of a list, or a single value as one.
func (n *node) each() []*node {
	switch {
	case n == nil || n.kind == null:
		return nil
	case n.kind == list:
		return n.items
	default:
		return []*node{n}
	}
}

// Error is a Compose file that cannot be used: one line that a user can act on.
type Error struct {
	Where string // file:line:column
	What  string
	Hint  string
}

// Error is the line.
func (e *Error) Error() string {
	line := e.Where + ": " + e.What
	if e.Hint != "" {
		line += "; " + e.Hint
	}
	return line
}

// builder makes nodes of one file.
type builder struct {
	file    string
	anchors map[string]*node
	nodes   *int // met so far, in all files
}

// parse reads one document. The result is nil for an empty one.
func parse(name string, data []byte, nodes *int) (*node, error) {
	if len(data) > maxFile {
		return nil, &Error{Where: name, What: fmt.Sprintf("file of more than %d bytes is too large", maxFile)}
	}
	if line := tooDeep(data); line > 0 {
		return nil, &Error{Where: fmt.Sprintf("%s:%d:1", name, line), What: fmt.Sprintf("is nested more than %d levels deep", maxLevels)}
	}
	doc, err := document(name, data)
	if err != nil || doc == nil {
		return nil, err
	}
	b := &builder{file: name, anchors: map[string]*node{}, nodes: nodes}
	return b.build(doc, 0)
}

func document(name string, data []byte) (body ast.Node, err error) {
	defer func() {
		// The parser is not ours, and the file comes from outside.
		if r := recover(); r != nil {
			body, err = nil, &Error{Where: name, What: "is not valid YAML"}
		}
	}()
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		var at yaml.Error
		if !errors.As(err, &at) {
			return nil, &Error{Where: name, What: "is not valid YAML"}
		}
		return nil, &Error{Where: position(name, at.GetToken()), What: "not valid YAML: " + strings.Join(strings.Fields(at.GetMessage()), " ")}
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			return nil, &Error{Where: position(name, doc.Body.GetToken()), What: "a second document", Hint: "look at one file at a time"}
		}
		body = doc.Body
	}
	return body, nil
}

// tooDeep returns the line where more levels are open than a Compose file can need: the
// parser recurses, and its time grows with their square.
func tooDeep(data []byte) int {
	open, number := 0, 0
	for line := range bytes.Lines(data) {
		number++
		indent := len(line) - len(bytes.TrimLeft(line, " "))
		marks := 0
		for _, word := range bytes.Fields(line) {
			if word[0] != '-' && word[0] != '?' && !bytes.HasSuffix(word, []byte(":")) {
				break
			}
			marks++
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
		if marks > maxLevels || indent > 16*maxLevels {
			return number
		}
	}
	return 0
}

func position(file string, t *token.Token) string {
	if t == nil || t.Position == nil {
		return file
	}
	return fmt.Sprintf("%s:%d:%d", file, t.Position.Line, t.Position.Column)
}

func (b *builder) errorAt(n ast.Node, what string) error {
	return &Error{Where: position(b.file, n.GetToken()), What: what}
}

func (b *builder) build(n ast.Node, depth int) (*node, error) {
	if *b.nodes++; *b.nodes > maxNodes {
		return nil, b.errorAt(n, "too many values")
	}
	if depth > maxLevels {
		return nil, b.errorAt(n, fmt.Sprintf("is nested more than %d levels deep", maxLevels))
	}
	out := &node{at: position(b.file, n.GetToken())}
	switch t := n.(type) {
	case *ast.AnchorNode:
		value, err := b.build(t.Value, depth+1)
		if err == nil { // known only now: an alias inside would never end
			b.anchors[t.Name.GetToken().Value] = value
		}
		return value, err
	case *ast.AliasNode:
		target, ok := b.anchors[t.Value.GetToken().Value]
		if !ok {
			return nil, b.errorAt(n, "alias of an anchor that is not above")
		}
		return target, nil
	case *ast.TagNode:
		return b.tagged(t, depth)
	case *ast.SequenceNode:
		out.kind = list
		for _, item := range t.Values {
			value, err := b.build(item, depth+1)
			if err != nil {
				return nil, err
			}
			out.items = append(out.items, value)
		}
	case ast.MapNode:
		out.kind = mapping
		return out, b.fill(out, t, depth)
	case *ast.NullNode:
	case *ast.StringNode:
		out.kind, out.text = scalar, t.Value
	case *ast.LiteralNode:
		out.kind, out.text = scalar, t.Value.Value
	case ast.ScalarNode:
		out.kind, out.text = scalar, strings.TrimSpace(n.GetToken().Value)
	default:
		return nil, b.errorAt(n, "is of no known kind")
	}
	return out, nil
}

// tagged keeps Compose's own tags in mind; YAML's say what is plain anyway.
func (b *builder) tagged(t *ast.TagNode, depth int) (*node, error) {
	out := &node{at: position(b.file, t.GetToken())}
	if t.Value != nil {
		value, err := b.build(t.Value, depth+1)
		if err != nil {
			return nil, err
		}
		plain := *value // an alias's own node is not tagged
		out = &plain
	}
	if name := t.Start.Value; name == "!reset" || name == "!override" {
		out.tag = name
	}
	return out, nil
}

// fill adds the entries of a mapping, and those of what it merges: its own win.
func (b *builder) fill(out *node, m ast.MapNode, depth int) error {
	var merged []*node
	seen := map[string]bool{}
	for entries := m.MapRange(); entries.Next(); {
		keyNode := ast.Node(entries.Key())
		if entries.Value() == nil {
			return b.errorAt(keyNode, "a key without a value")
		}
		value, err := b.build(entries.Value(), depth+1)
		if err != nil {
			return err
		}
		if keyNode.Type() == ast.MergeKeyType {
			merged = append(merged, value.each()...)
			continue
		}
		key, err := b.build(keyNode, depth+1)
		if err != nil {
			return err
		}
		if key.kind != scalar {
			return b.errorAt(keyNode, "a key that is not a word")
		}
		if seen[key.text] {
			return b.errorAt(keyNode, fmt.Sprintf("key %q is here twice", key.text))
		}
		seen[key.text] = true
		out.keys = append(out.keys, entry{key.text, key.at, value})
	}
	for _, from := range merged {
		for _, e := range from.keys {
			if *b.nodes++; *b.nodes > maxNodes {
				return &Error{Where: out.at, What: "too many values"}
			}
			if !seen[e.key] {
				seen[e.key] = true
				out.keys = append(out.keys, e)
			}
		}
	}
	return nil
}
