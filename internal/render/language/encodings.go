package language

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"text/template"

	"github.com/BurntSushi/toml"
	"go.yaml.in/yaml/v2"
)

// encodings are the functions that read and write formats. YAML is that of version 2 of
// the library, whose line breaks, quotes and types of maps differ from later ones'.
func encodings() template.FuncMap {
	return template.FuncMap{
		"base64Encode":    func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"base64Decode":    func(s string) (string, error) { return decode(base64.StdEncoding, s) },
		"base64URLEncode": func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s)) },
		"base64URLDecode": func(s string) (string, error) { return decode(base64.URLEncoding, s) },

		"parseBool":  parsed(strconv.ParseBool),
		"parseFloat": parsed(func(s string) (float64, error) { return strconv.ParseFloat(s, 64) }),
		"parseInt":   parsed(func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }),
		"parseUint":  parsed(func(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) }),
		"parseJSON":  func(s string) (any, error) { return parseInto(json.Unmarshal, s) },
		"parseYAML":  func(s string) (any, error) { return parseInto(yaml.Unmarshal, s) },

		"toJSON":                func(v any) (string, error) { return toJSON(v, true, "") },
		"toJSONPretty":          func(v any) (string, error) { return toJSON(v, true, "  ") },
		"toUnescapedJSON":       func(v any) (string, error) { return toJSON(v, false, "") },
		"toUnescapedJSONPretty": func(v any) (string, error) { return toJSON(v, false, "  ") },
		"toTOML":                toTOML,
		"toYAML":                toYAML,
	}
}

func decode(encoding *base64.Encoding, s string) (string, error) {
	b, err := encoding.DecodeString(s)
	return string(b), err
}

// parsed makes a function that reads numbers take an empty string for zero.
func parsed[T any](parse func(string) (T, error)) func(string) (T, error) {
	return func(s string) (T, error) {
		if s == "" {
			var zero T
			return zero, nil
		}
		return parse(s)
	}
}

// parseInto reads a document; an empty one is an empty map.
func parseInto(unmarshal func([]byte, any) error, s string) (any, error) {
	if s == "" {
		return map[string]any{}, nil
	}
	var v any
	if err := unmarshal([]byte(s), &v); err != nil {
		return nil, err
	}
	return v, nil
}

func toJSON(v any, escape bool, indent string) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(escape)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return "", fmt.Errorf("write JSON: %w", err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

func toTOML(v any) (string, error) {
	var b bytes.Buffer
	if err := toml.NewEncoder(&b).Encode(v); err != nil {
		return "", fmt.Errorf("write TOML: %w", err)
	}
	return strings.TrimSpace(b.String()), nil
}

func toYAML(v any) (string, error) {
	b, err := yaml.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("write YAML: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
