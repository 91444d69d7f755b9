package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/invopop/jsonschema"
)

// schema is the JSON Schema (draft 2020-12) of the configuration file, for editors.
func schema() ([]byte, error) {
	r := &jsonschema.Reflector{
		FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true, ExpandedStruct: true, Anonymous: true,
		LookupComment: func(t reflect.Type, name string) string {
			if t.Kind() != reflect.Struct {
				return ""
			}
			field, _ := t.FieldByName(name)
			return field.Tag.Get("doc")
		},
		Mapper: scalarSchema,
	}
	s := r.Reflect(&Config{})
	s.Title = "drover.yaml"
	s.Description = "Configuration of one Drover agent."
	for _, t := range []reflect.Type{reflect.TypeFor[StatePath](), reflect.TypeFor[Restart](), reflect.TypeFor[HTTPCheck](), reflect.TypeFor[GRPCCheck]()} {
		short, _ := fieldByKey(reflect.New(t).Elem(), shorthand(reflect.New(t).Elem()))
		one := scalarSchema(short.Type())
		if one == nil {
			one = &jsonschema.Schema{Type: "string"}
		}
		s.Definitions[t.Name()] = &jsonschema.Schema{OneOf: []*jsonschema.Schema{one, s.Definitions[t.Name()]}}
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write schema: %w", err)
	}
	return append(text, '\n'), nil
}

// scalarSchema is the schema of what stands in the file as a single value; nil for
// everything else.
func scalarSchema(t reflect.Type) *jsonschema.Schema {
	if c, ok := reflect.New(t).Elem().Interface().(choice); ok {
		s := &jsonschema.Schema{Type: "string"}
		for _, word := range c.choices() {
			s.Enum = append(s.Enum, word)
		}
		return s
	}
	switch t {
	case reflect.TypeFor[Secret](), reflect.TypeFor[Signal](), reflect.TypeFor[Pattern](), reflect.TypeFor[Turn](), reflect.TypeFor[Cause]():
		return &jsonschema.Schema{Type: "string"}
	case reflect.TypeFor[Limit]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "integer", Minimum: "0"}, {Const: "unlimited"}}}
	case reflect.TypeFor[Number]():
		return &jsonschema.Schema{Type: "number"}
	case reflect.TypeFor[Signals]():
		return &jsonschema.Schema{Type: "object", AdditionalProperties: &jsonschema.Schema{Type: "string"}}
	case reflect.TypeFor[Names](), reflect.TypeFor[Causes]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
			{Type: "string"},
			{Type: "array", Items: verbatimSchema()},
		}}
	case reflect.TypeFor[Duration]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
			{Type: "string", Pattern: `^([0-9]+w)?([0-9]+d)?([0-9.]+(ns|us|µs|ms|s|m|h))*$`, Examples: []any{"500ms", "2s", "1h30m", "1d"}},
			{Const: 0},
		}}
	case reflect.TypeFor[Size]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
			{Type: "string", Pattern: `^[0-9.]+ *([KMGT]iB|[kKMGT]B|B)?(/s)?$`, Examples: []any{"512KiB", "10MB", "1GiB"}},
			{Type: "integer", Minimum: "0"},
		}}
	case reflect.TypeFor[Command]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
			{Type: "string"},
			{Type: "array", Items: verbatimSchema(), MinItems: new(uint64(1))},
		}}
	case reflect.TypeFor[map[string]string]():
		return &jsonschema.Schema{Type: "object", AdditionalProperties: verbatimSchema()}
	}
	return nil
}

// verbatimSchema is that of a text which is taken as it is written: 80, true.
func verbatimSchema() *jsonschema.Schema {
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string"}, {Type: "number"}, {Type: "boolean"}}}
}

// keyDoc describes one key of the file.
type keyDoc struct {
	Path    string // as in "backup.every"; a job's name is *
	Type    string
	Default string // "" if there is none
	Flag    string
	Env     string
	Doc     string
}

// allKeys lists every key of the file, in the order of the types.
func allKeys() []keyDoc {
	settings := map[string]Setting{}
	for _, s := range Settings() {
		settings[s.Path] = s
	}
	var keys []keyDoc
	walk(reflect.ValueOf(*Default()), "", func(path string, field reflect.StructField, v reflect.Value) {
		s := settings[path]
		keys = append(keys, keyDoc{Path: path, Type: typeName(field.Type), Default: defaultText(v), Flag: s.Flag, Env: s.Env, Doc: field.Tag.Get("doc")})
	})
	return keys
}

// walk calls fn for every key of a struct and of what is below it, outer ones first.
func walk(v reflect.Value, path string, fn func(path string, field reflect.StructField, v reflect.Value)) {
	for field, value := range v.Fields() {
		key := field.Tag.Get("yaml")
		if key == "" {
			continue
		}
		at := join(path, key)
		fn(at, field, value)
		switch {
		case field.Type == reflect.TypeFor[map[string]Job]():
			walk(reflect.ValueOf(DefaultJob()), at+".*", fn)
		case field.Type == reflect.TypeFor[map[string]Check]():
			walk(reflect.ValueOf(DefaultHealth()), at+".*", fn)
		case field.Type == reflect.TypeFor[map[string]Metric]():
			walk(reflect.ValueOf(DefaultMetric()), at+".*", fn)
		case field.Type == reflect.TypeFor[[]StatePath]():
			walk(reflect.ValueOf(StatePath{}), at+"[]", fn)
		case field.Type.Kind() == reflect.Struct && scalarSchema(field.Type) == nil:
			walk(value, at, fn)
		}
	}
}

// typeName is the type of a key in a word or two.
func typeName(t reflect.Type) string {
	if c, ok := reflect.New(t).Elem().Interface().(choice); ok {
		name := ""
		for i, word := range c.choices() {
			if i > 0 {
				name += ", "
			}
			name += word
		}
		return name
	}
	names := map[reflect.Type]string{
		reflect.TypeFor[Duration](): "time", reflect.TypeFor[Size](): "size", reflect.TypeFor[Command](): "list or text",
		reflect.TypeFor[Signal](): "signal", reflect.TypeFor[Turn](): "time or cron", reflect.TypeFor[Names](): "list or text", reflect.TypeFor[Causes](): "list of events",
		reflect.TypeFor[Limit](): "number or unlimited", reflect.TypeFor[Pattern](): "regular expression", reflect.TypeFor[Secret](): "text", reflect.TypeFor[[]StatePath](): "list",
	}
	if name, ok := names[t]; ok {
		return name
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "number"
	case reflect.Slice:
		return "list"
	case reflect.Map, reflect.Struct:
		return "mapping"
	default:
		return "text"
	}
}

// defaultText is the default as it would stand in the file.
func defaultText(v reflect.Value) string {
	if slices.Contains([]reflect.Kind{reflect.Struct, reflect.Map, reflect.Slice}, v.Kind()) || v.Kind() == reflect.String && v.Len() == 0 {
		return ""
	}
	return fmt.Sprint(v.Interface())
}
