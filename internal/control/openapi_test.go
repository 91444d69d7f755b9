package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"drover/client"
)

const specFile = "../../docs/openapi.yaml"

type object = map[string]any

// spec is the description of the API, as it is in the file.
var spec = sync.OnceValue(func() object {
	text, err := os.ReadFile(specFile)
	if err != nil {
		panic(err)
	}
	var doc object
	if err := yaml.Unmarshal(text, &doc); err != nil {
		panic(err)
	}
	return doc
})

// at walks down into the description; it follows references.
func at(v any, path ...string) any {
	for _, name := range path {
		o, ok := deref(v).(object)
		if !ok {
			return nil
		}
		v = o[name]
	}
	return deref(v)
}

func deref(v any) any {
	o, ok := v.(object)
	if !ok {
		return v
	}
	ref, ok := o["$ref"].(string)
	if !ok {
		return v
	}
	return at(spec(), strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
}

// operations are the calls of the description, as "GET /v1/ping".
func operations() map[string]object {
	found := map[string]object{}
	for path, item := range at(spec(), "paths").(object) {
		for method, op := range item.(object) {
			found[strings.ToUpper(method)+" "+path] = op.(object)
		}
	}
	return found
}

// TestSpecRoutes: the same calls are in the file and in the table, for the same callers.
func TestSpecRoutes(t *testing.T) {
	left := operations()
	for _, r := range New(newAgent(), Options{}).routes() {
		op := left[r.pattern]
		delete(left, r.pattern)
		if op == nil {
			t.Errorf("%s is not in %s", r.pattern, specFile)
			continue
		}
		if op["x-who"] != string(r.who) || (op["x-tcp"] == true) != (r.public != nil) {
			t.Errorf("%s: in the table %s, over TCP %t; in the file %v, %v", r.pattern, r.who, r.public != nil, op["x-who"], op["x-tcp"])
		}
		if hasName := at(op, "parameters") != nil && strings.Contains(fmt.Sprint(op["parameters"]), "Name"); hasName != strings.Contains(r.pattern, "{name}") {
			t.Errorf("%s: the name is a parameter: %t", r.pattern, hasName)
		}
	}
	for pattern := range left {
		t.Errorf("%s is in %s only", pattern, specFile)
	}
}

// types are those of the schemas, by name.
var types = []any{
	client.Error{}, client.Status{}, client.Progress{}, client.RestoreTest{}, client.Upkeep{}, client.DamagedSnapshot{}, client.Mirror{}, client.Job{}, client.Check{}, client.Service{}, client.Watch{}, client.Template{}, client.Roll{}, client.Secrets{}, client.Git{}, client.GitRepository{}, client.GitTarget{},
	client.BackupRequest{}, client.Backup{}, client.TakeoverRequest{}, client.Takeover{}, client.WALPushRequest{}, client.WALFetchRequest{}, client.Event{}, client.Missed{}, client.LogLine{},
	client.SignalRequest{}, client.Reload{}, client.MaintenanceRequest{}, client.Health{},
	client.Database{}, client.DatabaseBackups{}, client.DatabaseSwitchover{}, client.DatabaseWithdrawn{}, client.DatabaseCluster{}, client.DatabaseMember{}, client.DatabaseHistory{}, client.DatabaseReign{}, client.DatabaseOutcome{}, client.UpgradeRequest{},
	client.SwitchoverRequest{}, client.FailoverRequest{}, client.PauseRequest{}, client.ReinitRequest{}, client.RestartRequest{},
}

// TestSpecSchemas: the same fields are in the file and in the client's types.
func TestSpecSchemas(t *testing.T) {
	left := maps.Clone(at(spec(), "components", "schemas").(object))
	delete(left, "Metrics") // maps, not structs
	delete(left, "Env")
	for _, v := range types {
		typ := reflect.TypeOf(v)
		schema, ok := left[typ.Name()].(object)
		if !ok {
			t.Errorf("no schema of client.%s", typ.Name())
			continue
		}
		delete(left, typ.Name())
		if schema["additionalProperties"] != false {
			t.Errorf("%s: fields that it does not name may be there", typ.Name())
		}
		compareFields(t, typ, schema)
	}
	for name := range left {
		t.Errorf("schema %s has no type in package client", name)
	}
}

func compareFields(t *testing.T, typ reflect.Type, schema object) {
	t.Helper()
	left := maps.Clone(schema["properties"].(object))
	var required []string
	for i := range typ.NumField() {
		name, options, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		if options == "" {
			required = append(required, name)
		}
		want, got := schemaOf(typ.Field(i).Type), plain(left[name])
		delete(left, name)
		if want != got {
			t.Errorf("%s.%s: the type makes %s, the file has %s", typ.Name(), name, want, got)
		}
	}
	for name := range left {
		t.Errorf("%s.%s is in the file only", typ.Name(), name)
	}
	if strings.HasSuffix(typ.Name(), "Request") {
		return // what is missing there is a refusal, or has a default
	}
	var said []string
	for _, name := range asList(schema["required"]) {
		said = append(said, name.(string))
	}
	slices.Sort(said)
	slices.Sort(required)
	if !slices.Equal(said, required) {
		t.Errorf("%s: always there are %v, the file says %v", typ.Name(), required, said)
	}
}

func asList(v any) []any { list, _ := v.([]any); return list }

// schemaOf is what plain says of the schema that belongs to a type.
func schemaOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.Slice:
		return "array of " + schemaOf(t.Elem())
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "integer"
	case reflect.Float64:
		return "number"
	}
	if t == reflect.TypeFor[time.Time]() {
		return "string as date-time"
	}
	return t.Name()
}

func plain(schema any) string {
	o, ok := schema.(object)
	if !ok {
		return "nothing"
	}
	if ref, ok := o["$ref"].(string); ok {
		return ref[strings.LastIndex(ref, "/")+1:]
	}
	text := fmt.Sprint(o["type"])
	if text == "array" {
		text += " of " + plain(o["items"])
	}
	if f, ok := o["format"].(string); ok {
		text += " as " + f
	}
	return text
}

// mismatch says how a value differs from a schema; "": it does not. It knows what the
// file uses, and refuses the rest.
func mismatch(schema, v any) string {
	o := deref(schema).(object)
	for key := range o {
		if !slices.Contains([]string{"type", "format", "enum", "properties", "required", "additionalProperties", "minProperties", "items", "oneOf", "description", "default", "minimum", "maximum", "exclusiveMinimum"}, key) {
			return "the test does not know " + key
		}
	}
	if options := asList(o["oneOf"]); options != nil {
		var fits int
		var why []string
		for _, option := range options {
			if bad := mismatch(option, v); bad == "" {
				fits++
			} else {
				why = append(why, bad)
			}
		}
		if fits != 1 {
			return fmt.Sprintf("%d of the alternatives fit: %v", fits, why)
		}
		return ""
	}
	if got := typeOf(v); got != o["type"] && (got != "integer" || o["type"] != "number") && !slices.Contains(asList(o["type"]), any(got)) {
		return fmt.Sprintf("%v is %s, not %v", v, got, o["type"])
	}
	if enum := asList(o["enum"]); enum != nil && !slices.Contains(enum, v) {
		return fmt.Sprintf("%v is none of %v", v, enum)
	}
	switch v := v.(type) {
	case string:
		if _, err := time.Parse(time.RFC3339Nano, v); o["format"] == "date-time" && err != nil {
			return err.Error()
		}
	case []any:
		for i, item := range v {
			if bad := mismatch(o["items"], item); bad != "" {
				return fmt.Sprintf("%d: %s", i, bad)
			}
		}
	case object:
		return mismatchOfObject(o, v)
	}
	return ""
}

func mismatchOfObject(schema, v object) string {
	for _, name := range asList(schema["required"]) {
		if _, ok := v[name.(string)]; !ok {
			return fmt.Sprintf("%s is missing", name)
		}
	}
	properties, _ := schema["properties"].(object)
	for name, field := range v {
		below := properties[name]
		if below == nil {
			if below = schema["additionalProperties"]; below == false || below == nil {
				return name + " is not expected"
			}
		}
		if bad := mismatch(below, field); bad != "" {
			return name + ": " + bad
		}
	}
	return ""
}

func typeOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case float64:
		if v == math.Trunc(v) {
			return "integer"
		}
		return "number"
	case []any:
		return "array"
	}
	return "object"
}

// answered are the statuses that the tests have seen, by call.
var answered sync.Map

// checked holds each answer of a handler to the description.
func checked(t *testing.T, next http.Handler) http.Handler {
	return checkedFor(t, next, func(*http.Request, object) bool { return true })
}

// checkedPublic is checked for what answers over TCP.
func checkedPublic(t *testing.T, next http.Handler) http.Handler {
	return checkedFor(t, next, func(r *http.Request, op object) bool { return op["x-tcp"] == true && r.Method == http.MethodGet })
}

func checkedFor(t *testing.T, next http.Handler, counts func(*http.Request, object) bool) http.Handler {
	mux := http.NewServeMux() // which call is it?
	for pattern := range operations() {
		mux.Handle(pattern, http.NotFoundHandler())
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kept := &keeper{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(kept, r)
		_, pattern := mux.Handler(r)
		if pattern == "" || !counts(r, operations()[pattern]) {
			if kept.status != http.StatusNotFound && kept.status != http.StatusMethodNotAllowed {
				t.Errorf("%s %s is not described: %d", r.Method, r.URL, kept.status)
			}
			return
		}
		if kept.written {
			answered.Store(fmt.Sprintf("%s %d", pattern, kept.status), true)
			if bad := badAnswer(pattern, kept); bad != "" {
				t.Errorf("%s: answer %d %q: %s", pattern, kept.status, kept.body.String(), bad)
			}
		}
	})
}

// keeper keeps what is written.
type keeper struct {
	http.ResponseWriter
	status  int
	written bool
	body    bytes.Buffer
}

func (k *keeper) Unwrap() http.ResponseWriter { return k.ResponseWriter }

func (k *keeper) WriteHeader(status int) {
	k.status, k.written = status, true
	k.ResponseWriter.WriteHeader(status)
}

func (k *keeper) Write(text []byte) (int, error) {
	k.written = true
	n, err := k.ResponseWriter.Write(text)
	k.body.Write(text[:n])
	return n, err
}

func badAnswer(pattern string, kept *keeper) string {
	content, ok := at(operations()[pattern], "responses", fmt.Sprint(kept.status), "content").(object)
	if !ok {
		return "this status is not described"
	}
	kind, _, _ := strings.Cut(kept.Header().Get("Content-Type"), ";")
	schema := at(content, kind, "schema")
	if schema == nil {
		return "not described: " + kind
	}
	switch kind {
	case "application/json":
		return mismatchOfText(schema, kept.body.Bytes())
	case "application/x-ndjson":
		for lines := bufio.NewScanner(&kept.body); lines.Scan(); {
			if bad := mismatchOfText(schema, lines.Bytes()); bad != "" {
				return bad
			}
		}
	}
	return ""
}

func mismatchOfText(schema any, text []byte) string {
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return err.Error()
	}
	return mismatch(schema, v)
}

// TestMismatch: the check of answers finds what is wrong.
func TestMismatch(t *testing.T) {
	for text, want := range map[string]string{
		`{"name":"a","state":"running","restarts":0}`:                                "",
		`{"name":"a","state":"running","restarts":0,"since":"2026-01-01T00:00:00Z"}`: "",
		`{"name":"a","state":"running"}`:                                             "restarts is missing",
		`{"name":"a","state":"flying","restarts":0}`:                                 "none of",
		`{"name":1,"state":"running","restarts":0}`:                                  "not string",
		`{"name":"a","state":"running","restarts":0.5}`:                              "not integer",
		`{"name":"a","state":"running","restarts":0,"x":1}`:                          "x is not expected",
		`{"name":"a","state":"running","restarts":0,"since":"today"}`:                "since: ",
		`{"name":"a","state":"running","restarts":0,"checks":[{"name":"b"}]}`:        "checks: 0: ",
		`[]`: "not object",
	} {
		got := mismatchOfText(at(spec(), "components", "schemas", "Job"), []byte(text))
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}
