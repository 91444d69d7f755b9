package gitkv

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// What bounds a file that is expanded: aliases of YAML make much out of little.
const (
	maxExpandKeys  = 100_000
	maxExpandBytes = 64 << 20
	maxExpandDepth = 100
)

var (
	errNoObject = errors.New("it is no table of names and values")
	errTooDeep  = fmt.Errorf("it is more than %d levels deep", maxExpandDepth)
	errTooMany  = errors.New("it expands to too much")
)

// value is a document, whatever it was written in: a table, a list or a scalar.
type value struct {
	scalar string
	table  []entry // if not nil
	list   []value // if not nil
	raw    any     // a scalar, for a list that stays JSON
}

type entry struct {
	name  string
	value value
}

// flatten makes keys of a document.
type flatten struct {
	arrays Arrays
	made   []pair
	bytes  int
}

func (f *flatten) add(key string, v []byte) error {
	f.made = append(f.made, pair{key, v})
	if f.bytes += len(key) + len(v); len(f.made) > maxExpandKeys || f.bytes > maxExpandBytes {
		return errTooMany
	}
	return nil
}

func (f *flatten) walk(prefix string, v value) error {
	switch {
	case v.table != nil:
		for _, e := range v.table {
			if err := f.walk(below(prefix, escape(e.name)), e.value); err != nil {
				return err
			}
		}
		return nil
	case v.list != nil && f.arrays == ArraysIgnore:
		return nil
	case v.list != nil && f.arrays == ArraysIndex:
		for i, e := range v.list {
			if err := f.walk(below(prefix, strconv.Itoa(i)), e); err != nil {
				return err
			}
		}
		return nil
	case v.list != nil:
		text, err := asJSON(v)
		if err != nil {
			return err
		}
		return f.add(prefix, text)
	}
	return f.add(prefix, []byte(v.scalar))
}

// asJSON writes a document as JSON, names in their order.
func asJSON(v value) ([]byte, error) {
	var b bytes.Buffer
	err := writeJSON(&b, v)
	return b.Bytes(), err
}

func writeJSON(b *bytes.Buffer, v value) error {
	if b.Len() > maxExpandBytes {
		return errTooMany
	}
	switch {
	case v.table != nil:
		b.WriteByte('{')
		for i, e := range v.table {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeScalar(b, e.name); err != nil {
				return err
			}
			b.WriteByte(':')
			if err := writeJSON(b, e.value); err != nil {
				return err
			}
		}
		b.WriteByte('}')
		return nil
	case v.list != nil:
		b.WriteByte('[')
		for i, e := range v.list {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeJSON(b, e); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	}
	return writeScalar(b, v.raw)
}

func writeScalar(b *bytes.Buffer, v any) error {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // its line end
	return nil
}

func (m mapping) flat(v value) ([]pair, error) {
	if v.table == nil {
		return nil, errNoObject
	}
	f := flatten{arrays: m.Arrays}
	if err := f.walk("", v); err != nil {
		return nil, err
	}
	return f.made, nil
}

func (m mapping) expandJSON(data []byte, _ properties) ([]pair, error) {
	dec := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(data, []byte("\ufeff"))))
	dec.UseNumber() // as it was written: a float would change long numbers
	v, err := readJSON(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more follows the first value")
	}
	return m.flat(v)
}

func readJSON(dec *json.Decoder, depth int) (value, error) {
	if depth > maxExpandDepth {
		return value{}, errTooDeep
	}
	t, err := dec.Token()
	if err != nil {
		return value{}, err
	}
	switch t := t.(type) {
	case json.Delim:
		if t == '{' {
			return readTable(dec, depth)
		}
		v := value{list: []value{}}
		for dec.More() {
			e, err := readJSON(dec, depth+1)
			if err != nil {
				return value{}, err
			}
			v.list = append(v.list, e)
		}
		_, err := dec.Token()
		return v, err
	case nil:
		return value{}, nil
	case bool:
		return value{scalar: strconv.FormatBool(t), raw: t}, nil
	case json.Number:
		return value{scalar: t.String(), raw: t}, nil
	case string:
		return value{scalar: t, raw: t}, nil
	}
	return value{}, fmt.Errorf("unexpected %v", t)
}

// readTable reads an object; of two values of one name the last counts, as everywhere.
func readTable(dec *json.Decoder, depth int) (value, error) {
	v := value{table: []entry{}}
	at := map[string]int{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return value{}, err
		}
		name, ok := t.(string)
		if !ok {
			return value{}, fmt.Errorf("%v is no name", t)
		}
		e, err := readJSON(dec, depth+1)
		if err != nil {
			return value{}, err
		}
		if i, ok := at[name]; ok {
			v.table[i].value = e
			continue
		}
		at[name] = len(v.table)
		v.table = append(v.table, entry{name, e})
	}
	_, err := dec.Token()
	return v, err
}

func (m mapping) expandYAML(data []byte, _ properties) ([]pair, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		return nil, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("it has several documents")
	}
	if len(doc.Content) == 0 {
		return nil, errNoObject
	}
	r := yamlReader{left: maxExpandKeys}
	v, err := r.read(doc.Content[0], 0)
	if err != nil {
		return nil, err
	}
	return m.flat(v)
}

// yamlReader follows aliases, as long as there are not too many nodes.
type yamlReader struct{ left int }

func (r *yamlReader) read(n *yaml.Node, depth int) (value, error) {
	if r.left--; r.left < 0 {
		return value{}, errTooMany
	}
	if depth > maxExpandDepth {
		return value{}, errTooDeep
	}
	switch n.Kind {
	case yaml.AliasNode:
		return r.read(n.Alias, depth+1)
	case yaml.SequenceNode:
		v := value{list: []value{}}
		for _, c := range n.Content {
			e, err := r.read(c, depth+1)
			if err != nil {
				return value{}, err
			}
			v.list = append(v.list, e)
		}
		return v, nil
	case yaml.MappingNode:
		return r.table(n, depth)
	case yaml.ScalarNode:
		return scalar(n), nil
	}
	return value{}, errNoObject
}

// scalar keeps what was written: 1.0 stays 1.0. Nothing, in any spelling, is empty.
func scalar(n *yaml.Node) value {
	switch n.ShortTag() {
	case "!!null":
		return value{}
	case "!!bool":
		text := strings.ToLower(n.Value)
		return value{scalar: text, raw: text == "true"}
	case "!!int", "!!float":
		if json.Valid([]byte(n.Value)) {
			return value{scalar: n.Value, raw: json.Number(n.Value)}
		}
	}
	return value{scalar: n.Value, raw: n.Value}
}

func (r *yamlReader) table(n *yaml.Node, depth int) (value, error) {
	v := value{table: []entry{}}
	at := map[string]bool{}
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.ShortTag() == "!!merge" {
			merged = append(merged, n.Content[i+1])
			continue
		}
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.Kind != yaml.ScalarNode {
			return value{}, errors.New("a name in it is no text")
		}
		if at[k.Value] {
			return value{}, fmt.Errorf("%q is there twice", k.Value)
		}
		at[k.Value] = true
		e, err := r.read(n.Content[i+1], depth+1)
		if err != nil {
			return value{}, err
		}
		v.table = append(v.table, entry{k.Value, e})
	}
	for _, other := range merged {
		if err := r.merge(&v, at, other, depth); err != nil {
			return value{}, err
		}
	}
	return v, nil
}

// merge adds what a table does not have yet from another, or from each of a list.
func (r *yamlReader) merge(v *value, at map[string]bool, n *yaml.Node, depth int) error {
	from, err := r.read(n, depth+1)
	if err != nil {
		return err
	}
	tables := from.list
	if from.table != nil {
		tables = []value{from}
	}
	for _, t := range tables {
		if t.table == nil {
			return errNoObject
		}
		for _, e := range t.table {
			if !at[e.name] {
				at[e.name] = true
				v.table = append(v.table, e)
			}
		}
	}
	return nil
}
