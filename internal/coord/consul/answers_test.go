package consul_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/internal/coord"
	"drover/internal/coord/consul"
)

// script answers one request after the other; when it has ended it answers none.
type script struct {
	mu      sync.Mutex
	answers []answer
	asked   []string // the queries
	tokens  []string
}

type answer struct {
	status int
	index  uint64 // 0: no header
	body   string
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r.URL.String())
	s.tokens = append(s.tokens, r.Header.Get("X-Consul-Token"))
	var a answer
	if len(s.answers) > 0 {
		a, s.answers = s.answers[0], s.answers[1:]
	}
	s.mu.Unlock()
	if a.status == 0 {
		<-r.Context().Done()
		return
	}
	if a.index != 0 {
		w.Header().Set("X-Consul-Index", fmt.Sprint(a.index))
		w.Header().Set("X-Consul-LastContact", "0")
	}
	w.WriteHeader(a.status)
	_, _ = w.Write([]byte(a.body))
}

func (s *script) queries() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.asked...)
}

func scripted(t *testing.T, answers ...answer) (*script, *consul.Coordinator) {
	s := &script{answers: answers}
	server := httptest.NewServer(s)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return s, open(t, consul.Options{Address: server.URL, Timeout: time.Second})
}

func pair(key, base64 string, index int) string {
	return fmt.Sprintf(`[{"Key": %q, "Value": %q, "ModifyIndex": %d}]`, key, base64, index)
}

// told records what a watch of the key a says, in short.
func told(t *testing.T, c coord.Coordinator) *record {
	r := newRecord(t)
	r.run(func() {
		c.Watch(r.ctx, "a", true, func(pairs []coord.Pair, err error) {
			switch {
			case err != nil:
				r.add(fmt.Sprint("error ", coord.Kind(err)))
			case len(pairs) == 0:
				r.add("none")
			default:
				r.add(string(pairs[0].Value))
			}
		})
	})
	return r
}

// TestOlderAnswers holds that an older state is believed only of a consistent read.
func TestOlderAnswers(t *testing.T) {
	s, c := scripted(t,
		answer{200, 100, pair("a", "b25l", 100)},   // "one"
		answer{200, 90, pair("a", "c3RhbGU=", 90)}, // "stale": of a leader that is none
		answer{200, 101, pair("a", "dHdv", 101)},   // "two", from a consistent read
		answer{404, 7, ""},                         // all was lost,
		answer{404, 7, ""},                         // indeed
		answer{200, 7, pair("a", "c3RhbGU=", 7)},   // "stale": nothing new, and too soon;
		answer{200, 7, pair("a", "b2xk", 7)},       // "old", indeed
	)
	told(t, c).await(10*time.Second, "one", "two", "none", "old")
	for i, wanted := range []string{"consistent", "index=100", "consistent", "index=101", "consistent", "index=7", "consistent"} {
		if q := s.queries()[i]; !strings.Contains(q, wanted) {
			t.Errorf("query %d is %s, want %s in it", i, q, wanted)
		}
	}
}

// TestAnswersOfOthers holds that what is not Consul's answer says nothing about keys.
func TestAnswersOfOthers(t *testing.T) {
	_, c := scripted(t,
		answer{404, 0, "no such page"}, // from a proxy, say
		answer{200, 0, "<html>"},
		answer{200, 5, pair("a", "b25l", 5)},
		answer{429, 0, ""},
		answer{500, 0, "No cluster leader"},
		answer{403, 0, "ACL not found"},
		answer{200, 5, pair("a", "b25l", 5)},
	)
	told(t, c).await(30*time.Second, "error unavailable", "one",
		"error unavailable", "error "+coord.ErrUnauthorized.Error(), "one")
}

func TestKindsOfAnswers(t *testing.T) {
	for status, kind := range map[int]error{
		301: nil, 400: nil, 404: coord.ErrUnavailable, 401: coord.ErrUnauthorized, 403: coord.ErrUnauthorized, 413: coord.ErrTooLarge,
		429: coord.ErrUnavailable, 500: coord.ErrUnavailable, 503: coord.ErrUnavailable,
	} {
		_, c := scripted(t, answer{status, 0, "words"}, answer{status, 0, "words"})
		if _, err := c.Get(t.Context(), "a"); err == nil || coord.Kind(err) != kind {
			t.Errorf("%d: get: %v, want %v", status, err, kind)
		}
		if status == 404 {
			continue // a transaction has no such answer
		}
		if _, err := c.Put(t.Context(), "a", nil); err == nil || coord.Kind(err) != kind {
			t.Errorf("%d: put: %v, want %v", status, err, kind)
		}
	}
}

// TestHidden: newer versions say that access control hid something.
func TestHidden(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Consul-Index", "7")
		w.Header().Set("X-Consul-LastContact", "0")
		w.Header().Set("X-Consul-Results-Filtered-By-ACLs", "true")
		w.WriteHeader(http.StatusNotFound)
	}))
	defer server.Close()
	c := open(t, consul.Options{Address: server.URL})
	if pairs, err := c.List(t.Context(), "a"); coord.Kind(err) != coord.ErrUnauthorized {
		t.Errorf("%v, %v", pairs, err)
	}
}

func TestTokenFileIsReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	s := &script{}
	server := httptest.NewServer(s)
	defer server.Close()
	t.Setenv("CONSUL_HTTP_TOKEN", "of the environment")
	t.Setenv("CONSUL_HTTP_TOKEN_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("CONSUL_NAMESPACE", "elsewhere")
	t.Setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
	t.Setenv("CONSUL_HTTP_AUTH", "user:password")
	c := open(t, consul.Options{Address: server.URL, TokenFile: file})
	ask := func() error {
		s.mu.Lock()
		s.answers = []answer{{404, 7, ""}}
		s.mu.Unlock()
		_, err := c.Get(t.Context(), "a")
		return err
	}
	if err := ask(); coord.Kind(err) != coord.ErrUnauthorized {
		t.Errorf("without a file: %v", err)
	}
	for _, token := range []string{"first\n", "second", ""} {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ask(); coord.Kind(err) != coord.ErrNotFound {
			t.Errorf("with a file: %v", err)
		}
	}
	if got := strings.Join(s.tokens, ","); got != "first,second,second" {
		t.Errorf("tokens were %s", got)
	}
	bare := open(t, consul.Options{Address: server.URL})
	s.answers = []answer{{404, 7, ""}}
	_, _ = bare.Get(t.Context(), "a")
	if got := s.tokens[len(s.tokens)-1]; got != "" {
		t.Errorf("without a token one is sent: %s", got)
	}
	for _, q := range s.queries() {
		if strings.Contains(q, "elsewhere") {
			t.Errorf("the environment is in %s", q)
		}
	}
}

func TestOptions(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for name, o := range map[string]consul.Options{
		"scheme":     {Address: "ftp://host"},
		"no scheme":  {Address: "127.0.0.1:8500"},
		"secret":     {Address: "http://user:secret@host:8500"},
		"no host":    {Address: "http://"},
		"path":       {Address: "http://host/secret"},
		"two tokens": {Token: "secret", TokenFile: none},
		"CA":         {CAFile: none},
		"own":        {CertFile: none, KeyFile: none},
		"no folder":  {LeasePrefix: "leases"},
		"bad folder": {LeasePrefix: "/leases/"},
	} {
		c, err := consul.New(o)
		if err == nil {
			_ = c.Close()
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "secret@") {
			t.Errorf("%s: the error shows a secret: %v", name, err)
		}
	}
	for _, address := range []string{"", "http://[::1]:8500", "https://consul.example/", "unix:///run/consul.sock"} {
		c, err := consul.New(consul.Options{Address: address})
		if err != nil {
			t.Errorf("%q: %v", address, err)
			continue
		}
		_ = c.Close()
	}
}
