package gitkv

import (
	"bytes"
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/internal/testkit/gitserver"
)

const whsec = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

var forges = map[HookType][]string{
	GitHub: {"github"}, GitLab: {"gitlab"}, GitLabV2: {"gitlab-signed"},
	Bitbucket: {"bitbucket", "bitbucket-server"}, Gitea: {"gitea", "gogs"},
}

// hookLab is a syncer with a web hook of each kind.
func hookLab(t testing.TB) (*writer, string) {
	t.Helper()
	dir := t.TempDir()
	var hooks []Hook
	for kind := range forges {
		secret := "s3cret"
		if kind == GitLabV2 {
			secret = whsec
		}
		file := filepath.Join(dir, string(kind))
		if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		hooks = append(hooks, Hook{Type: kind, SecretFile: file})
	}
	return newLab(t, Repo{Hooks: hooks}).writer("a"), dir
}

func secretOf(kind HookType) string {
	if kind == GitLabV2 {
		return whsec
	}
	return "s3cret"
}

// send sends a call, changed by change, and returns the status and whether somebody was woken.
func send(t *testing.T, w *writer, h gitserver.Hook, change func(*http.Request)) (int, bool) {
	t.Helper()
	r, err := h.Request(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	answer := httptest.NewRecorder()
	w.s.Hook().ServeHTTP(answer, r)
	select {
	case <-w.s.workers[0].wake:
		return answer.Code, true
	default:
		return answer.Code, false
	}
}

func TestHooks(t *testing.T) {
	w, dir := hookLab(t)
	for kind, names := range forges {
		for _, forge := range names {
			good := gitserver.Hook{Forge: forge, URL: "http://h/app/" + string(kind), Secret: secretOf(kind), Body: []byte(`{"ref":"refs/heads/main"}`)}
			if status, woken := send(t, w, good, nil); status != http.StatusAccepted || !woken {
				t.Errorf("%s: %d, woken: %v", forge, status, woken)
			}
			refused := func(what string, status int, h gitserver.Hook, change func(*http.Request)) {
				t.Helper()
				if got, woken := send(t, w, h, change); got != status || woken {
					t.Errorf("%s, %s: %d, woken: %v; want %d", forge, what, got, woken, status)
				}
			}
			wrong := good
			wrong.Secret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("another"))
			refused("another secret", http.StatusUnauthorized, wrong, nil)
			refused("no header", http.StatusUnauthorized, good, func(r *http.Request) { r.Header = http.Header{} })
			refused("GET", http.StatusMethodNotAllowed, good, func(r *http.Request) { r.Method = http.MethodGet })
			refused("too long", http.StatusRequestEntityTooLarge, good, func(r *http.Request) { r.ContentLength = maxBody + 1 })
			if kind != GitLab { // whose token says nothing of the body
				refused("another body", http.StatusUnauthorized, good, func(r *http.Request) { r.Body = http.NoBody })
				endless := good
				endless.Body = bytes.Repeat([]byte("x"), maxBody+1)
				refused("too long, not said", http.StatusRequestEntityTooLarge, endless, func(r *http.Request) { r.ContentLength = -1 })
			}
			other := good
			other.URL = "http://h/app/none"
			refused("another path", http.StatusNotFound, other, nil)
			if kind == GitLabV2 {
				for _, age := range []time.Duration{-10 * time.Minute, 10 * time.Minute} {
					old := good
					old.Time = time.Now().Add(age)
					refused("old, or early", http.StatusUnauthorized, old, nil)
				}
				refused("a new time on an old signature", http.StatusUnauthorized, good, func(r *http.Request) {
					r.Header.Set("Webhook-Timestamp", "1")
				})
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "github"), []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := gitserver.Hook{Forge: "github", URL: "http://h/app/github", Secret: "new"}
	if status, _ := send(t, w, h, nil); status != http.StatusAccepted {
		t.Errorf("a new secret: %d", status)
	}
	if err := os.WriteFile(filepath.Join(dir, "github"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if h.Secret = ""; true {
		if status, woken := send(t, w, h, nil); status != http.StatusInternalServerError || woken {
			t.Errorf("an empty secret: %d", status)
		}
	}
}

// SHA-1, which GitHub and Bitbucket once had, is not enough.
func TestHookOfSHA1(t *testing.T) {
	w, _ := hookLab(t)
	h := gitserver.Hook{Forge: "github", URL: "http://h/app/github", Secret: "s3cret"}
	status, woken := send(t, w, h, func(r *http.Request) {
		r.Header.Set("X-Hub-Signature-256", "sha1="+strings.Repeat("0", 40))
	})
	if status != http.StatusUnauthorized || woken {
		t.Errorf("%d, woken: %v", status, woken)
	}
}

func FuzzHook(f *testing.F) {
	f.Add("github", "X-Hub-Signature-256", "sha256=00", "1", "x", []byte("{}"))
	f.Add("gitlab", "X-Gitlab-Token", "x", "1", "x", []byte("{}"))
	f.Add("gitlab-signed", "Webhook-Signature", "v1,AAAA v1,BBBB", "1700000000", "id", []byte("{}"))
	f.Add("bitbucket", "X-Hub-Signature", "sha256=", "", "", []byte(""))
	f.Add("gitea", "X-Gogs-Signature", strings.Repeat("0", 64), "", "", []byte(""))
	w, _ := hookLab(f)
	f.Fuzz(func(t *testing.T, kind, name, v, stamp, id string, body []byte) {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://h/", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.URL.Path = "/app/" + kind
		r.Header.Set(name, v)
		r.Header.Set("Webhook-Timestamp", stamp)
		r.Header.Set("Webhook-Id", id)
		answer := httptest.NewRecorder()
		w.s.Hook().ServeHTTP(answer, r)
		if answer.Code < 400 && v != "s3cret" {
			t.Errorf("%d", answer.Code)
		}
	})
}
