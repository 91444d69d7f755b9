package gitserver

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"
)

// Hook is a push as one of the forges tells of it.
type Hook struct {
	Forge  string // github, gitlab, gitlab-signed, bitbucket, bitbucket-server, gitea or gogs
	URL    string
	Secret string
	Body   []byte
	Time   time.Time // of gitlab-signed; zero: now
}

// Request makes the request that the forge would send.
func (h Hook) Request(ctx context.Context) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(h.Body))
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, []byte(h.Secret))
	mac.Write(h.Body)
	sum, id := hex.EncodeToString(mac.Sum(nil)), rand.Text()
	set := func(pairs ...string) {
		for i := 0; i < len(pairs); i += 2 {
			r.Header.Set(pairs[i], pairs[i+1])
		}
	}
	set("Content-Type", "application/json")
	switch h.Forge {
	case "github":
		set("X-GitHub-Event", "push", "X-GitHub-Delivery", id, "X-Hub-Signature-256", "sha256="+sum)
	case "gitlab":
		set("X-Gitlab-Event", "Push Hook", "X-Gitlab-Event-UUID", id, "X-Gitlab-Token", h.Secret)
	case "gitlab-signed":
		set("X-Gitlab-Event", "Push Hook")
		h.standard(set, id)
	case "bitbucket":
		set("X-Event-Key", "repo:push", "X-Request-UUID", id, "X-Hub-Signature", "sha256="+sum)
	case "bitbucket-server":
		set("X-Event-Key", "repo:refs_changed", "X-Request-Id", id, "X-Hub-Signature", "sha256="+sum)
	case "gitea":
		set("X-Gitea-Event", "push", "X-Gitea-Delivery", id, "X-Gitea-Signature", sum)
	case "gogs":
		set("X-Gogs-Event", "push", "X-Gogs-Delivery", id, "X-Gogs-Signature", sum)
	}
	return r, nil
}

// standard signs as standardwebhooks.com has it.
func (h Hook) standard(set func(...string), id string) {
	at := h.Time
	if at.IsZero() {
		at = time.Now()
	}
	stamp := strconv.FormatInt(at.Unix(), 10)
	key, err := base64.StdEncoding.DecodeString(h.Secret[len("whsec_"):])
	if err != nil {
		panic(err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + stamp + "."))
	mac.Write(h.Body)
	set("webhook-id", id, "webhook-timestamp", stamp, "webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}
