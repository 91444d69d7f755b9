package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/client"
)

// rawClient speaks HTTP on the socket, as anything else than package client would.
func rawClient(t *testing.T, socket string) func(method, path, body string) (int, string) {
	t.Helper()
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }}
	t.Cleanup(transport.CloseIdleConnections)
	return func(method, path, body string) (int, string) {
		t.Helper()
		return request(t, &http.Client{Transport: transport}, method, "http://drover"+path, body)
	}
}

func request(t *testing.T, c *http.Client, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// TestAnswers makes every call with every outcome; what is answered is held to the
// description (checked), and no described status is left out.
func TestAnswers(t *testing.T) {
	a := newAgent()
	a.changed = client.Reload{Started: []string{"a"}, Kept: []string{"db"}}
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = io.WriteString(w, "up 1\n")
	})
	ask := rawClient(t, start(t, a, Options{Metrics: metrics}))
	bodies := map[string]string{
		"/v1/backup": `{"queue":true}`, "/v1/metrics": `{"orders":2.5}`, "/v1/takeover": `{"grace_seconds":60}`,
		"/v1/wal/push": `{"path":"/data/pg_wal/1"}`, "/v1/wal/fetch": `{"name":"1","path":"/data/pg_wal/1"}`,
		"/v1/jobs/{name}/signal": `{"signal":"HUP"}`, "/v1/maintenance": `{"on":true}`, "/v1/env": `{"A":"b=c","B":null}`,
		"/v1/database/switchover": `{"to":"m2","at":"2030-01-01T00:00:00Z","timeout_seconds":5}`, "/v1/database/pause": `{"on":true}`,
		"/v1/database/reinit": `{"member":"m2"}`, "/v1/database/restart": `{"all":true,"timeout_seconds":1.5}`,
		"/v1/database/upgrade": `{"version":"15.4","members":2}`,
	}
	expect := func(pattern, path, body string, want int) {
		t.Helper()
		method, _, _ := strings.Cut(pattern, " ")
		if got, text := ask(method, path, body); got != want {
			t.Errorf("%s with %s: got %d %s, want %d", pattern, body, got, text, want)
		}
	}
	for pattern, op := range operations() {
		method, path, _ := strings.Cut(pattern, " ")
		body := bodies[path]
		path = strings.ReplaceAll(path, "{name}", "db")
		ok := 200
		if path == "/v1/backup" {
			ok = 202
		}
		expect(pattern, path, body, ok)
		for status, err := range map[int]error{400: errInvalid, 404: errUnknown, 409: errBusy, 500: errFailed} {
			if at(op, "responses", fmt.Sprint(status)) == nil || method == http.MethodGet || path == "/v1/backup" || path == "/v1/takeover" {
				continue
			}
			a.refuse(err)
			expect(pattern, path, body, status)
			a.refuse(nil)
		}
		if method == http.MethodPost && !strings.HasPrefix(path, "/v1/webhook/") {
			expect(pattern, path, `{"surprise":`, 400)
			expect(pattern, path, `null`, 400)
		}
		if op["parameters"] != nil && method == http.MethodGet {
			expect(pattern, path+"?surprise=1", "", 400)
		}
	}
	for _, end := range []client.Backup{{Snapshot: "abc"}, {Kind: client.KindHeld}, {Kind: client.KindIncomplete}} {
		go func() { <-a.begun; a.done <- end }()
		want := map[string]int{"": 200, client.KindHeld: 409, client.KindIncomplete: 500}[end.Kind]
		expect("POST /v1/backup", "/v1/backup", "", want)
	}
	expect("POST /v1/takeover", "/v1/takeover", `{"grace_seconds":1}`, 409)
	expect("POST /v1/takeover", "/v1/takeover", `{"grace_seconds":2}`, 500)
	expect("GET /v1/logs", "/v1/logs?job=none", "", 404)
	for _, path := range []string{"/v1/database/members", "/v1/database/history"} {
		for status, err := range map[int]error{404: errUnknown, 409: errBusy} {
			a.refuse(err)
			expect("GET "+path, path, "", status)
			a.refuse(nil)
		}
	}
	a.unhealth = []string{"db: check web: connection refused"}
	expect("GET /v1/health", "/v1/health?level=alive", "", 503)
	none := rawClient(t, start(t, newAgent(), Options{}))
	if got, _ := none("GET", "/metrics", ""); got != 404 {
		t.Errorf("metrics of an agent that has none: %d", got)
	}
	for pattern, op := range operations() {
		for status := range at(op, "responses").(object) {
			if _, seen := answered.Load(pattern + " " + status); !seen && status != "403" { // TestPermissions has those
				t.Errorf("%s: nothing was answered with %s", pattern, status)
			}
		}
	}
}

// TestArguments: what is sent arrives, through package client.
func TestArguments(t *testing.T) {
	a := newAgent()
	a.changed = client.Reload{Changed: []string{"db"}}
	c := dial(t, start(t, a, Options{}))
	ctx := t.Context()
	value := "x=y=z"
	for want, do := range map[string]func() (any, error){
		"start db":                 func() (any, error) { return c.StartJob(ctx, "db") },
		"stop db":                  func() (any, error) { return c.StopJob(ctx, "db") },
		"restart db":               func() (any, error) { return c.RestartJob(ctx, "db") },
		"signal a/b? HUP":          func() (any, error) { return nil, c.SignalJob(ctx, "a/b?", "HUP") },
		"reload":                   func() (any, error) { return c.Reload(ctx) },
		"maintenance false":        func() (any, error) { return nil, c.Maintenance(ctx, false) },
		"env map[A:x=y=z B:(out)]": func() (any, error) { return nil, c.PutEnv(ctx, map[string]*string{"A": &value, "B": nil}) },
		"metrics map[orders:-0.5]": func() (any, error) { return nil, c.PutMetrics(ctx, map[string]float64{"orders": -0.5}) },
		"push /data/pg_wal/1":      func() (any, error) { return nil, c.PushWAL(ctx, "/data/pg_wal/1") },
		"fetch 1 /data/pg_wal/2":   func() (any, error) { return nil, c.FetchWAL(ctx, "1", "/data/pg_wal/2") },
		"webhook ci/cd":            func() (any, error) { return nil, c.Webhook(ctx, "ci/cd") },
	} {
		a.called()
		answer, err := do()
		if got := a.called(); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("got %q, %v; want %s", got, err, want)
		}
		switch answer := answer.(type) {
		case client.Job:
			if answer.Name != "db" || answer.State != "running" {
				t.Errorf("%s: answered %+v", want, answer)
			}
		case client.Reload:
			if !reflect.DeepEqual(answer, a.changed) {
				t.Errorf("%s: answered %+v", want, answer)
			}
		}
		a.refuse(errBusy)
		_, err = do()
		a.refuse(nil)
		var refusal *client.Error
		if !errors.As(err, &refusal) || refusal.Kind != client.KindBusy || refusal.Message != errBusy.Message {
			t.Errorf("%s: refused with %v", want, err)
		}
	}
	if h, err := c.Health(ctx, client.LevelAlive); err != nil || !h.Healthy || h.Level != client.LevelAlive {
		t.Errorf("healthy: %+v, %v", h, err)
	}
	a.unhealth = []string{"db"}
	if h, err := c.Health(ctx, client.LevelReady); err != nil || h.Healthy || !slices.Equal(h.Failing, a.unhealth) {
		t.Errorf("unhealthy: %+v, %v", h, err)
	}
	if _, err := c.Health(ctx, "well"); err == nil || !strings.Contains(err.Error(), `level is "well"`) {
		t.Errorf("no level: %v", err)
	}
}

// TestClearLines: what is wrong with a request is said so that it can be mended.
func TestClearLines(t *testing.T) {
	ask := rawClient(t, start(t, newAgent(), Options{}))
	for _, test := range []struct{ path, body, want string }{
		{"/v1/backup", `{"quue":true}`, `unknown field \"quue\"; it takes queue`},
		{"/v1/backup", `{"queue":"yes"}`, `queue is a string and should be true or false`},
		{"/v1/backup", `{"queue":true} {}`, `more than one JSON object`},
		{"/v1/backup", `[1]`, `it is no JSON object`},
		{"/v1/reload", `{"file":"x"}`, `unknown field \"file\"; it takes none`},
		{"/v1/maintenance", ``, `on is missing`},
		{"/v1/maintenance", `{"on":null}`, `on is missing`},
		{"/v1/jobs/db/signal", `{}`, `signal is missing`},
		{"/v1/wal/push", `{}`, `path is missing`},
		{"/v1/wal/fetch", `{"path":"x"}`, `name or path is missing`},
		{"/v1/metrics", `{}`, `no metric is given`},
		{"/v1/metrics", `{"orders":null}`, `orders has no number`},
		{"/v1/metrics", `{"orders":"many"}`, `is a string and should be a number`},
		{"/v1/metrics", `{"orders":1e999}`, `number`},
		{"/v1/env", `{}`, `no variable is given`},
		{"/v1/env", `{"A":1}`, `is a number and should be a string`},
		{"/v1/env", `{"A=B":"c"}`, `is no name of a variable`},
		{"/v1/env", `{"A":"\u0000"}`, `the value of A has a zero byte`},
		{"/v1/env", `{"A":"` + strings.Repeat("x", maxBody) + `"}`, `too large`},
		{"/v1/events?folow=true", "", `unknown parameter \"folow\"`},
		{"/v1/events?follow=yes", "", `should be one of false, true`},
		{"/v1/events?recent=-1", "", `should be a number from 0`},
		{"/v1/logs?lines=1&lines=2", "", `lines is given twice`},
		{"/v1/health?level=%zz", "", `invalid URL escape`},
	} {
		method := http.MethodPost
		if strings.Contains(test.path, "?") {
			method = http.MethodGet
		}
		if status, text := ask(method, test.path, test.body); status != 400 || !strings.Contains(text, test.want) || !strings.Contains(text, `"kind":"invalid"`) {
			t.Errorf("%s %.60s: got %d %s, want %s", test.path, test.body, status, text, test.want)
		}
	}
}

// patient is a recorder that lets a handler say how long it waits for the body.
type patient struct{ *httptest.ResponseRecorder }

func (patient) SetReadDeadline(time.Time) error { return nil }

// TestPermissions: who may make which call, all of them.
func TestPermissions(t *testing.T) {
	const jobUser, stranger = 12345, 12346
	jobs := strings.Fields("ping status backup health metrics push fetch")
	s := New(newAgent(), Options{JobUIDs: func() []uint32 { return []uint32{jobUser} }})
	handler := checked(t, s.http.Handler)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	ask := func(pattern string, peer any) int {
		method, path, _ := strings.Cut(pattern, " ")
		ctx := gone // no stream follows, no backup waits
		if uid, ok := peer.(int); ok {
			ctx = context.WithValue(ctx, peerKey{}, uint32(uid))
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(patient{w}, httptest.NewRequestWithContext(ctx, method, strings.ReplaceAll(path, "{name}", "db"), nil))
		return w.Code
	}
	for pattern := range operations() {
		for _, of := range []struct {
			peer any
			may  bool
		}{
			{0, true}, {os.Geteuid(), true}, {stranger, false}, {nil, false},
			{jobUser, slices.Contains(jobs, pattern[strings.LastIndex(pattern, "/")+1:]) && strings.Contains(pattern, " /v1/")},
		} {
			if got := ask(pattern, of.peer); (got != http.StatusForbidden) != of.may {
				t.Errorf("%s by user %v: got %d, may: %t", pattern, of.peer, got, of.may)
			}
		}
	}
}

// FuzzBodies: whatever a body holds, it is understood or refused, and what was
// understood can be sent again.
func FuzzBodies(f *testing.F) {
	for _, seed := range []string{`{"A":"b"}`, `{"A":null}`, `{"a":1.5}`, `{"on":true}`, `{"queue":true}`, `{"signal":"HUP"}`, `{"grace_seconds":1}`, "null", "{}{}", "{", "", `{"A":{"b":[]}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var env map[string]*string
		var numbers map[string]*float64
		for _, v := range []any{&env, &numbers, &client.BackupRequest{}, &client.TakeoverRequest{}, &client.WALPushRequest{}, &client.WALFetchRequest{}, &client.SignalRequest{}, &client.MaintenanceRequest{}, &struct{}{}} {
			var refusal *client.Error
			if err := decode(body, v); err != nil && (!errors.As(err, &refusal) || refusal.Kind != client.KindInvalid || strings.TrimSpace(refusal.Message) == "") {
				t.Errorf("%q into %T: %v", body, v, err)
			}
		}
		if checkEnv(env) == nil {
			for name, value := range env {
				if name == "" || strings.ContainsAny(name, "=\x00") || value != nil && strings.Contains(*value, "\x00") {
					t.Errorf("%q gave variable %q", body, name)
				}
			}
		}
		if values, err := checkMetrics(numbers); err == nil && len(values) != len(numbers) {
			t.Errorf("%q: %d of %d numbers", body, len(values), len(numbers))
		}
	})
}
