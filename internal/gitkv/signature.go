package gitkv

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// signature returns what the caller says the signature is (one of them must be it), and the hash that
// the body must be written to.
func (h *hook) signature(header http.Header, secret []byte, now time.Time) ([][]byte, hash.Hash, error) {
	if h.Type == GitLabV2 {
		return standard(header, secret, now)
	}
	var text string
	switch h.Type {
	case GitHub:
		text = prefixed(header.Get("X-Hub-Signature-256"))
	case Bitbucket:
		text = prefixed(header.Get("X-Hub-Signature"))
	case Gitea:
		for _, name := range []string{"X-Gitea-Signature", "X-Forgejo-Signature", "X-Gogs-Signature"} {
			if text = header.Get(name); text != "" {
				break
			}
		}
	}
	said, err := hex.DecodeString(text)
	if err != nil || len(said) != sha256.Size {
		return nil, nil, errUnsigned
	}
	return [][]byte{said}, hmac.New(sha256.New, secret), nil
}

// prefixed is a signature that says what it is. SHA-1, which old ones had, is none.
func prefixed(text string) string {
	sum, ok := strings.CutPrefix(text, "sha256=")
	if !ok {
		return ""
	}
	return sum
}

// standard is the form of standardwebhooks.com: id, time and body are signed, so that a call is worth
// nothing when it is old. That time and ours are two machines'; the form has no other.
func standard(header http.Header, secret []byte, now time.Time) ([][]byte, hash.Hash, error) {
	id, stamp := header.Get("Webhook-Id"), header.Get("Webhook-Timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if id == "" || err != nil {
		return nil, nil, errUnsigned
	}
	if age := now.Sub(time.Unix(seconds, 0)); age > maxSkew || age < -maxSkew {
		return nil, nil, errors.New("it is too old, or a clock is wrong")
	}
	if text, ok := strings.CutPrefix(string(secret), "whsec_"); ok {
		if secret, err = base64.StdEncoding.DecodeString(text); err != nil {
			return nil, nil, errors.New("the secret is not what follows whsec_")
		}
	}
	var said [][]byte
	for one := range strings.FieldsSeq(header.Get("Webhook-Signature")) { // several, while a secret is replaced
		text, ok := strings.CutPrefix(one, "v1,")
		sum, err := base64.StdEncoding.DecodeString(text)
		if ok && err == nil && len(sum) == sha256.Size && len(said) < 10 {
			said = append(said, sum)
		}
	}
	if len(said) == 0 {
		return nil, nil, errUnsigned
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id + "." + stamp + "."))
	return said, mac, nil
}
