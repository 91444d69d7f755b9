package language

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// Whatever is asked for, there is a dependency or an error, and the text of a dependency
// asks for itself.
func FuzzQueries(f *testing.F) {
	for _, text := range []string{"a", "/a/b@dc", "tag.web?ns=default@dc~_agent|passing,any", "@dc~near", "a|", "?=&", "v1.2.a", "~", "a@b@c", "..", "|,"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, kind := range []Kind{Key, Tree} {
			if d, err := parseKey(kind, text); err == nil {
				if strings.HasPrefix(d.Name, "/") || strings.ContainsAny(d.Name, "@?") || kind == Key && d.Name == "" {
					t.Errorf("%q is %+v", text, d)
				}
			}
		}
		if d, err := parseService(text); err == nil {
			again, err := parseService(strings.TrimSuffix(strings.TrimPrefix(d.String(), "service("), ")"))
			if d.Filter != "none" && (err != nil || again != d) {
				t.Errorf("%q is %+v, and that is %+v, %v", text, d, again, err)
			}
		}
		for kind, marks := range map[Kind]string{Services: "?@", NodeOf: "?@", Nodes: "?@~"} {
			if d, err := parseCatalog(kind, text, marks, kind == NodeOf); err == nil && kind != NodeOf && d.Name != "" {
				t.Errorf("%q is %+v", text, d)
			}
		}
		if d, err := parseSecret(Secret, []string{text, "k=" + text}); err == nil && utf8.ValidString(text) && d.Written()["k"] != strings.TrimSpace(text) {
			t.Errorf("%q writes %+v", text, d.Written())
		}
	})
}

// No template makes the program fall or run for ever. What Go's own language can do
// without us (range over a number) is left out, and so is sprig.
func FuzzTemplates(f *testing.F) {
	for _, text := range []string{
		`{{ key "a" }}`, `{{ range ls "a" }}{{ .Key }}{{ end }}`, `{{ range service "a" | byTag }}{{ . }}{{ end }}`, `{{ with secret "a" "b=c" }}{{ .Data.x }}{{ end }}`,
		`{{ range loop 1 5 }}{{ . }}{{ end }}`, `{{ add 1 2.5 | divide 0 }}`, `{{ parseJSON "[1]" | toYAML | indent 3 }}`, `{{ parseYAML "a: [1]" | toTOML }}`,
		`{{ define "a" }}{{ . }}{{ end }}{{ executeTemplate "a" 1 }}`, `{{ scratch.MapSet "a" "b" 1 }}{{ scratch.MapValues "a" }}`, `{{ in nil nil }}{{ contains 1 nil }}`,
		`{{ mergeMap (parseJSON "{}") (parseJSON "{\"a\":1}") }}`, `{{ explodeMap (parseJSON "{\"a/b\":1,\"a\":2}") }}`, `{{ sockaddr "GetPrivateIP" }}`, `{{ "x" | writeToFile "/a" "" "" "0600" "append" }}`,
		`{{ byKey (tree "a") }}{{ explode (ls "a") }}{{ byMeta "a|int,b" (service "a") }}{{ byPort (service "a") }}`, `{{ regexReplaceAll "(" "$1" "x" }}`, `{{ splitToMap "" "" "ab" }}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "range") && strings.ContainsAny(text, "0123456789") {
			return
		}
		tmpl, err := Parse("fuzz", text, Options{Deny: []string{"sprig_*", "sockaddr"}})
		if err != nil {
			return
		}
		for _, data := range []Data{table{}, everything{}} {
			_, _ = tmpl.Execute(data)
		}
	})
}

// everything has an answer to whatever is asked.
type everything struct{}

func (everything) Value(d Dependency) (any, bool) {
	switch d.Kind {
	case Key:
		return KeyState{Value: "1", Exists: true, Seen: true}, true
	case Tree:
		return []*KeyPair{{Path: d.Name + "a/b", Key: "a/b", Value: "1"}, {Path: d.Name + "a", Key: "a", Value: "x"}, {Key: "c/"}}, true
	case Health:
		return []*Service{{ID: "1", Tags: Tags{"a"}, Port: 1, ServiceMeta: map[string]string{"a": "x"}}}, true
	case Services:
		return []*ServiceName{{Name: "a", Tags: Tags{"b"}}}, true
	case NodeOf:
		return &NodeServices{}, true
	case Nodes:
		return []*Node{{}}, true
	case Datacenters, SecretNames:
		return []string{"a"}, true
	case FileContent:
		return "content", true
	case Secret:
		return &SecretValue{Data: map[string]any{"a": "b", "c": nil}}, true
	}
	return PEM{}, true
}
