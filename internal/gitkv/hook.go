package gitkv

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// HookType is who calls.
type HookType string

// The forges that are known. Bitbucket is both in the cloud and at one's own (Stash once); Gitea is Forgejo and Gogs, too.
const (
	GitHub    HookType = "github"
	GitLab    HookType = "gitlab"        // with the secret token
	GitLabV2  HookType = "gitlab-signed" // with the signing token
	Bitbucket HookType = "bitbucket"
	Gitea     HookType = "gitea"
)

// Hook is a web hook of a repository.
type Hook struct {
	Type       HookType
	SecretFile string // read at each call; white space around it does not count
	Path       string // empty: /<repository>/<type>
}

func (h Hook) check() error {
	switch {
	case !slices.Contains([]HookType{GitHub, GitLab, GitLabV2, Bitbucket, Gitea}, h.Type):
		return fmt.Errorf("there are no web hooks of %q", h.Type)
	case h.SecretFile == "":
		return errors.New("a web hook needs a secret: without it anybody could call")
	case !strings.HasPrefix(h.Path, "/"):
		return fmt.Errorf("the path of a web hook begins with a slash: %q", h.Path)
	}
	return nil
}

// maxBody is what GitHub sends at most, in bytes. It goes through a hash and is not kept.
const maxBody = 25 << 20

// maxSkew is how old a call may be, if it says when it was made.
const maxSkew = 5 * time.Minute

type hook struct {
	Hook
	worker *worker
}

// Hook serves the web hooks of all repositories. A call says only that it is worth looking: what is in it
// is hashed and not read, and what is there is asked of the repository. So a call that is played
// again changes nothing, and costs one look a second at most.
func (s *Syncer) Hook() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := s.hooks[r.URL.Path]
		if h == nil {
			http.NotFound(w, r)
			return
		}
		status, err := h.accept(r, time.Now())
		if err != nil {
			s.o.Log.Warn("a web hook was refused", "repository", h.worker.repo.Name, "type", h.Type, "error", err)
			http.Error(w, http.StatusText(status), status)
			return
		}
		s.called(h.worker)
		w.WriteHeader(http.StatusAccepted)
	})
}

var errUnsigned = errors.New("the signature is missing or wrong")

// accept says whether a call is what it says, or which status refuses it.
func (h *hook) accept(r *http.Request, now time.Time) (int, error) {
	if r.Method != http.MethodPost {
		return http.StatusMethodNotAllowed, errors.New("it is no POST")
	}
	if r.ContentLength > maxBody {
		return http.StatusRequestEntityTooLarge, errors.New("it is too large")
	}
	secret, err := readSecret(h.SecretFile)
	if err != nil {
		return http.StatusInternalServerError, err
	}
	status := http.StatusUnauthorized
	if h.Type == GitLab { // a token needs no body
		return status, same([]byte(r.Header.Get("X-Gitlab-Token")), secret)
	}
	said, mac, err := h.signature(r.Header, secret, now)
	if err != nil {
		return status, err
	}
	n, err := io.Copy(mac, io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return http.StatusBadRequest, fmt.Errorf("read the call: %w", err)
	}
	if n > maxBody {
		return http.StatusRequestEntityTooLarge, errors.New("it is too large")
	}
	sum := mac.Sum(nil)
	for _, one := range said {
		if hmac.Equal(one, sum) {
			return http.StatusAccepted, nil
		}
	}
	return status, errUnsigned
}

// same compares in a time that tells neither content nor length.
func same(a, b []byte) error {
	x, y := sha256.Sum256(a), sha256.Sum256(b)
	if subtle.ConstantTimeCompare(x[:], y[:]) != 1 {
		return errUnsigned
	}
	return nil
}

func readSecret(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read the secret of a web hook: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("read the secret of a web hook: %w", err)
	}
	secret := strings.TrimSpace(string(data))
	if secret == "" {
		return nil, fmt.Errorf("read the secret of a web hook: %s is empty", file)
	}
	return []byte(secret), nil
}
