package control

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"drover/client"
)

// invalid is the refusal of a request that cannot be meant.
func invalid(format string, args ...any) error {
	return &client.Error{Kind: client.KindInvalid, Message: "request is not understood: " + fmt.Sprintf(format, args...)}
}

// readBody decodes a bounded body in bounded time; an empty one leaves v as it is.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, v any) error {
	conn := http.NewResponseController(w)
	if err := conn.SetReadDeadline(time.Now().Add(s.opt.readTimeout)); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return invalid("%s", err)
	}
	// The wait that follows has no limit: only the caller's leaving ends it.
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	return decode(body, v)
}

// decode reads one JSON object; an empty body leaves v as it is.
func decode(body []byte, v any) error {
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return nil
	}
	if body[0] != '{' {
		return invalid("it is no JSON object")
	}
	in := json.NewDecoder(bytes.NewReader(body))
	in.DisallowUnknownFields()
	if err := in.Decode(v); err != nil {
		return invalid("%s", explain(err, v))
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return invalid("there is more than one JSON object")
	}
	return nil
}

// explain says for people what is wrong with a request's JSON.
func explain(err error, v any) string {
	var bad *json.UnmarshalTypeError
	if errors.As(err, &bad) {
		wanted := "a " + strings.TrimPrefix(bad.Type.String(), "*")
		switch bad.Type.Kind() {
		case reflect.Bool:
			wanted = "true or false"
		case reflect.Float64:
			wanted = "a number"
		case reflect.Struct, reflect.Map:
			wanted = "an object"
		}
		return fmt.Sprintf("%s is a %s and should be %s", cmp.Or(bad.Field, "the body"), bad.Value, wanted)
	}
	text := strings.TrimPrefix(err.Error(), "json: ")
	if strings.HasPrefix(text, "unknown field") {
		if names := fieldsOf(reflect.TypeOf(v).Elem()); len(names) > 0 {
			return text + "; it takes " + strings.Join(names, ", ")
		}
		return text + "; it takes none"
	}
	return text
}

// fieldsOf names the JSON fields of a struct.
func fieldsOf(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// checkEnv refuses what no environment can hold.
func checkEnv(change map[string]*string) error {
	if len(change) == 0 {
		return invalid("no variable is given")
	}
	for name, value := range change {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return invalid("%q is no name of a variable", name)
		}
		if value != nil && strings.ContainsRune(*value, 0) {
			return invalid("the value of %s has a zero byte", name)
		}
	}
	return nil
}

// checkMetrics refuses what is no number.
func checkMetrics(given map[string]*float64) (map[string]float64, error) {
	if len(given) == 0 {
		return nil, invalid("no metric is given")
	}
	values := make(map[string]float64, len(given))
	for name, value := range given {
		if value == nil {
			return nil, invalid("%s has no number", name)
		}
		values[name] = *value
	}
	return values, nil
}

// query reads the parameters of a URL. What is not asked for is an error, so that a
// misspelt one is not passed over.
type query struct {
	left url.Values
	err  error
}

func queryOf(r *http.Request) *query {
	values, err := url.ParseQuery(r.URL.RawQuery)
	q := &query{left: values}
	if err != nil {
		q.err = invalid("%s", err)
	}
	return q
}

// text is a parameter's value; "": it is not given.
func (q *query) text(name string) string {
	values := q.left[name]
	delete(q.left, name)
	if len(values) > 1 {
		q.fail("%s is given twice", name)
	}
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// word is one of a few words; the first one if it is not given.
func (q *query) word(name string, words ...string) string {
	text := cmp.Or(q.text(name), words[0])
	if !slices.Contains(words, text) {
		q.fail("%s is %q and should be one of %s", name, text, strings.Join(words, ", "))
	}
	return text
}

func (q *query) flag(name string) bool { return q.word(name, "false", "true") == "true" }

// maxCount bounds what is asked for by number.
const maxCount = 1_000_000

func (q *query) count(name string, preset int) int {
	text := q.text(name)
	if text == "" {
		return preset
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > maxCount {
		q.fail("%s is %q and should be a number from 0 to %d", name, text, maxCount)
		return preset
	}
	return n
}

func (q *query) fail(format string, args ...any) {
	if q.err == nil {
		q.err = invalid(format, args...)
	}
}

// end is the first thing that was wrong.
func (q *query) end() error {
	for name := range q.left {
		q.fail("unknown parameter %q", name)
	}
	return q.err
}

func (s *Server) done(w http.ResponseWriter) { s.answer(w, http.StatusOK, struct{}{}) }

func (s *Server) answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.opt.Log.Debug("answer of the control API not delivered", "error", err)
	}
}
