package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"drover/internal/config/template"
)

// Rendered is the configuration file as Load reads it, with what is secret by its key
// hidden. Other values stand as the template made them. The text is there even if it is
// not a valid configuration; an error is about the file or the template.
func Rendered(src Sources) (text string, err error) {
	src = src.withDefaults()
	name, data, err := src.findFile()
	switch {
	case err != nil:
		return "", err
	case name == "":
		return "", &Error{What: "there is no configuration file", Hint: "name one with -c, or write " + strings.Join(src.Files, " or ")}
	case len(data) > maxFile:
		return "", &Error{Where: name, What: fmt.Sprintf("file of %d bytes is too large", len(data)), Hint: fmt.Sprintf("at most %d", maxFile)}
	}
	text = string(data)
	if template.Is(data) {
		made, err := template.Render(text, src.Env, maxFile)
		if err != nil {
			return "", templateError(name, err)
		}
		text = made.Made
	}
	return mask(text), nil
}

// mask hides the values of secret keys.
func mask(text string) string {
	var doc ast.Node
	err := error(&Error{})
	if tooDeep([]byte(text)) == 0 {
		doc, err = parse("", []byte(text))
	}
	if err != nil {
		return maskLines(text)
	}
	type hole struct{ from, to int }
	var holes []hole
	var secrets []string
	for _, value := range secretNodes(doc, reflect.TypeFor[Config]()) {
		first, last := edges(value)
		from, to := offsetOf(text, first), len(text)
		if last.Next != nil {
			to = offsetOf(text, last.Next)
		}
		if from >= to {
			return maskLines(text)
		}
		holes = append(holes, hole{from, to})
		if value = followed(doc, value); value != nil && isScalar(value) {
			secrets = append(secrets, plainOf(value))
		}
	}
	slices.SortFunc(holes, func(a, b hole) int { return b.from - a.from })
	for _, h := range holes {
		was := text[h.from:h.to]
		text = text[:h.from] + hidden + was[len(strings.TrimRight(was, " \n")):] + text[h.to:]
	}
	for _, s := range secrets { // an anchor, say, or a comment
		if len(s) >= 4 {
			text = strings.ReplaceAll(text, s, hidden)
		}
	}
	return text
}

// followed is the value that n has, wherever it stands.
func followed(doc, n ast.Node) ast.Node {
	switch t := n.(type) {
	case *ast.AnchorNode:
		return t.Value
	case *ast.AliasNode:
		v := &anchorFinder{name: t.Value.GetToken().Value}
		ast.Walk(v, doc)
		return v.found
	}
	return n
}

type anchorFinder struct {
	name  string
	found ast.Node
}

// Visit looks for the anchor's value.
func (v *anchorFinder) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok && a.Name.GetToken().Value == v.name {
		v.found = a.Value
	}
	return v
}

func plainOf(n ast.Node) string { return strings.TrimSpace(text(n)) }

// secretNodes are the values of the keys of struct t that are secret, in n or below it.
func secretNodes(n ast.Node, t reflect.Type) []ast.Node {
	mapping, ok := n.(ast.MapNode)
	if !ok {
		return nil
	}
	var found []ast.Node
	for entries := mapping.MapRange(); entries.Next(); {
		key := strings.TrimSpace(entries.Key().GetToken().Value)
		for field := range t.Fields() {
			value := entries.Value()
			switch {
			case field.Tag.Get("yaml") != key || value == nil || value.Type() == ast.NullType:
			case field.Type == reflect.TypeFor[Secret]():
				found = append(found, value)
			case field.Type.Kind() == reflect.Struct:
				found = append(found, secretNodes(value, field.Type)...)
			}
		}
	}
	return found
}

// edges are the first and the last token of a value.
func edges(n ast.Node) (first, last *token.Token) {
	v := &edgeFinder{}
	ast.Walk(v, n)
	return v.first, v.last
}

type edgeFinder struct{ first, last *token.Token }

// Visit looks at every token below.
func (v *edgeFinder) Visit(n ast.Node) ast.Visitor {
	tokens := []*token.Token{n.GetToken()}
	switch t := n.(type) {
	case *ast.SequenceNode:
		tokens = append(tokens, t.Start, t.End)
	case *ast.MappingNode:
		tokens = append(tokens, t.Start, t.End)
	}
	for _, t := range tokens {
		if t == nil || t.Position == nil {
			continue
		}
		if v.first == nil || before(t, v.first) {
			v.first = t
		}
		if v.last == nil || before(v.last, t) {
			v.last = t
		}
	}
	return v
}

func before(a, b *token.Token) bool {
	if a.Position.Line != b.Position.Line {
		return a.Position.Line < b.Position.Line
	}
	return a.Position.Column < b.Position.Column
}

// offsetOf is where a token begins in text.
func offsetOf(text string, t *token.Token) int {
	at := 0
	for line := 1; line < t.Position.Line; line++ {
		next := strings.IndexByte(text[at:], '\n')
		if next < 0 {
			return len(text)
		}
		at += next + 1
	}
	for range t.Position.Column - 1 {
		if at >= len(text) {
			break
		}
		at += len(string([]rune(text[at:min(len(text), at+4)])[:1]))
	}
	return min(at, len(text))
}

// maskLines hides what may be secret in a text that is no YAML: from a key of a secret
// to the end of its line, and the lines below that are further in.
func maskLines(text string) string {
	var b strings.Builder
	deep := -1
	for line := range strings.Lines(text) {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		if deep >= 0 && indent > deep && strings.TrimSpace(line) != "" {
			continue
		}
		deep = -1
		if at := strings.Index(line, "password"); at >= 0 && !strings.HasPrefix(line[at:], "password_") {
			line, deep = line[:at]+"password: "+hidden+"\n", indent
		}
		b.WriteString(line)
	}
	return b.String()
}
