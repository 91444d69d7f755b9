package vault

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"drover/internal/secret"
	"drover/internal/secret/vault/lifetime"
)

const hidden = "canary-9f3e"

// answering is a client of a server that always answers alike.
func answering(t *testing.T, status int, body string) *client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	return connect(t, s.URL)
}

func connect(t *testing.T, address string) *client {
	t.Helper()
	c, err := newClient(Options{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

func TestWhatAnswersMean(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		kind   error
		means  lifetime.Failure
	}{
		{200, `{"data": {"a": 1}}`, nil, lifetime.None},
		{204, ``, nil, lifetime.None},
		{404, `{"errors":[]}`, secret.ErrNotFound, lifetime.Missing},
		{403, `{"errors":["permission denied"]}`, secret.ErrUnauthorized, lifetime.Refused},
		{400, `{"errors":["lease not found"]}`, nil, lifetime.Invalid},
		{500, `{"errors":["internal error"]}`, secret.ErrUnavailable, lifetime.Broken},
		{503, `{"errors":["Vault is sealed"]}`, secret.ErrUnavailable, lifetime.Away},
		{473, `{}`, secret.ErrUnavailable, lifetime.Away},
		{429, `{"errors":["request path over its limit"]}`, secret.ErrUnavailable, lifetime.Away},
		// What is not Vault's says nothing of secrets or rights: a proxy's page, a wrong address.
		{404, `<html>` + hidden, secret.ErrUnavailable, lifetime.Broken},
		{404, ``, secret.ErrUnavailable, lifetime.Broken},
		{404, `{"message": "` + hidden + `"}`, secret.ErrUnavailable, lifetime.Broken},
		{403, `<html>` + hidden, secret.ErrUnavailable, lifetime.Broken},
		{200, `<html>` + hidden, secret.ErrUnavailable, lifetime.Broken},
		{502, `<html>` + hidden, secret.ErrUnavailable, lifetime.Away},
		// Vault may say what it was sent.
		{400, `{"errors":["no such thing as ` + hidden + `, ` + hidden + `-more"]}`, nil, lifetime.Invalid},
	} {
		_, err := answering(t, c.status, c.body).do(t.Context(), call{
			method: http.MethodPut, path: "a/b", token: "token-" + hidden, body: map[string]any{"x": []any{hidden}, "y": map[string]any{"z": hidden + "-more"}},
		})
		if got := failureOf(err); got != c.means || secret.Kind(err) != c.kind {
			t.Errorf("%d %s: %v, %v, want %v", c.status, c.body, got, err, c.means)
		}
		if err != nil && (strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "-more")) {
			t.Errorf("%d %s: a secret is in the error %q", c.status, c.body, err)
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	s := httptest.NewServer(nil)
	s.Close()
	_, err := connect(t, s.URL).do(t.Context(), call{method: http.MethodGet, path: "a", token: hidden})
	if failureOf(err) != lifetime.Away || !errors.Is(err, secret.ErrUnavailable) || strings.Contains(err.Error(), hidden) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := connect(t, s.URL).do(ctx, call{method: http.MethodGet, path: "a"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A standby sends its clients to the active node, but never from TLS to none.
func TestRedirections(t *testing.T) {
	var got http.Header
	var body map[string]any
	active := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		_ = json.NewDecoder(r.Body).Decode(&body)
		_, _ = w.Write([]byte(`{"data":{"a":"b"}}`))
	}))
	defer active.Close()
	away := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, active.URL+r.URL.Path, http.StatusTemporaryRedirect)
	})
	standby, secure := httptest.NewServer(away), httptest.NewTLSServer(away)
	defer standby.Close()
	defer secure.Close()
	in := call{method: http.MethodPut, path: "a", token: hidden, body: map[string]any{"x": "y"}}
	if _, err := connect(t, standby.URL).do(t.Context(), in); err != nil || got.Get("X-Vault-Token") != hidden || body["x"] != "y" {
		t.Errorf("%v: %v, %v", err, got, body)
	}
	got = nil
	c := connect(t, secure.URL)
	c.http.Transport = secure.Client().Transport
	if _, err := c.do(t.Context(), in); err == nil || got != nil {
		t.Errorf("the token went over a connection without TLS: %v", err)
	}
}

func TestOptions(t *testing.T) {
	for what, o := range map[string]Options{
		"no address":          {Login: &Token{}},
		"no scheme":           {Address: "vault:8200", Login: &Token{}},
		"a password in it":    {Address: "https://a:" + hidden + "@vault:8200", Login: &Token{}},
		"not a URL":           {Address: "https://" + hidden + "\x7f", Login: &Token{}},
		"no login":            {Address: "https://vault:8200"},
		"no certificates":     {Address: "https://vault:8200", CAFile: "/dev/null", Login: &Token{}},
		"keeps a given token": {Address: "https://vault:8200", Login: &Token{}, TokenCache: "/dev/shm/x"},
	} {
		s, err := Open(o)
		if err == nil || strings.Contains(err.Error(), hidden) {
			t.Errorf("%s: %v", what, err)
		}
		if s != nil {
			_ = s.Close(t.Context())
		}
	}
}

func TestNamespaceAndQueryAreSent(t *testing.T) {
	var got *http.Request
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		_, _ = w.Write([]byte(`{"data":{"type":"kv","path":"kv/","options":{"version":"2"}}}`))
	}))
	defer s.Close()
	c, err := newClient(Options{Address: s.URL + "/prefix/", Namespace: "/team/a/"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if _, _, err := c.read(t.Context(), secret.Request{Path: "/kv/app?version=3"}, "t", nil); err != nil {
		t.Fatal(err)
	}
	if got.URL.String() != "/prefix/v1/kv/data/app?version=3" || got.Header.Get("X-Vault-Namespace") != "team/a" || got.Header.Get("X-Vault-Request") != "true" {
		t.Errorf("%s, %v", got.URL, got.Header)
	}
}

func TestKV2Path(t *testing.T) {
	for _, c := range []struct {
		path       string
		read, list string
	}{
		{"secret/app", "secret/data/app", "secret/metadata/app"},
		{"secret/data/app", "secret/data/app", "secret/metadata/app"},
		{"secret/metadata/app", "secret/metadata/app", "secret/metadata/app"},
		{"secret", "secret/data", "secret/metadata"},
		{"secret/config", "secret/config", "secret/metadata/config"},
		{"secret/database/x", "secret/data/database/x", "secret/metadata/database/x"},
		{"secrets/app", "secrets/app", "secrets/app"},
	} {
		if got := kv2Path("secret/", c.path, false); got != c.read {
			t.Errorf("read %s: %s, want %s", c.path, got, c.read)
		}
		if got := kv2Path("secret/", c.path, true); got != c.list {
			t.Errorf("list %s: %s, want %s", c.path, got, c.list)
		}
	}
}

func TestSeconds(t *testing.T) {
	for v, want := range map[any]time.Duration{
		json.Number("90"): 90 * time.Second, "1h": time.Hour, "60": time.Minute, float64(1.5): 1500 * time.Millisecond,
		json.Number("-1"): 0, json.Number("1e300"): 100 * 365 * 24 * time.Hour, "": 0, "NaN": 0, true: 0, nil: 0,
	} {
		if got := seconds(v); got != want {
			t.Errorf("%v: %v, want %v", v, got, want)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"lease_id":"a/b","lease_duration":60,"renewable":true,"data":{"password":"x"}}`), true)
	f.Add([]byte(`{"data":{"ttl":"1h","rotation_period":"1h"}}`), false)
	f.Add([]byte(`{"data":{"certificate":"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----","private_key":"x"}}`), true)
	f.Add([]byte(`{"data":null,"errors":["a"],"auth":{"lease_duration":-1}}`), false)
	now := time.Unix(1_700_000_000, 0)
	f.Fuzz(func(t *testing.T, text []byte, write bool) {
		got, err := decode(text)
		if err != nil {
			if len(text) > 20 && strings.Contains(err.Error(), string(text)) {
				t.Error("the error has the answer in it")
			}
			return
		}
		r := secret.Request{Path: "a"}
		if write {
			r.Params = map[string]any{}
		}
		in := life(r, got, now)
		s := state(r, got, in, now)
		if in.TTL < 0 || s.Data == nil || s.LeaseDuration < 0 && in.TTL > 0 {
			t.Errorf("%+v, %+v", in, s)
		}
		unchanged(in.Life, s.Data, s.Data)
		r.Known = s
		reusable(r, now)
		if got.Auth != nil {
			got.Auth.session(now).end()
		}
	})
}

func FuzzErrorsSayNothingThatWasSent(f *testing.F) {
	f.Add("no such thing as abcdef", "abcdef", "def0")
	f.Add("a\nb  c", "a b c", "x")
	f.Fuzz(func(t *testing.T, vault, one, two string) {
		text := said(&answer{Errors: []string{vault}}, texts(map[string]any{"a": one, "b": []any{two}}))
		for _, s := range []string{one, two} {
			// What is left of a secret that another one overlaps in Vault's text is none.
			if len(s) > 3 && strings.Contains(text, s) && !strings.Contains(s, "…") {
				t.Errorf("%q is in %q", s, text)
			}
		}
	})
}

func FuzzKV2Path(f *testing.F) {
	f.Add("secret/", "secret/app", false)
	f.Add("a/b", "a/b/data/x", true)
	f.Fuzz(func(t *testing.T, mount, path string, list bool) {
		path = strings.Trim(path, "/")
		got := kv2Path(mount, path, list)
		if again := kv2Path(mount, got, list); again != got {
			t.Errorf("%q, then %q", got, again)
		}
	})
}
