package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"drover/internal/secret"
)

// Login is a way to get a token, of one source. Its files are read at each login, so that they may be
// replaced at any time.
type Login interface {
	// login returns a token that Vault has granted, or that was given: then nothing is
	// known of it yet.
	login(ctx context.Context, c *client) (*session, error)
	// own says that the token is made by the login, and is nobody else's: to be revoked
	// when all is done.
	own() bool
}

// Token is a token that somebody else has made. It is renewed and cannot be replaced.
type Token struct{ Token string }

// TokenFile is a file with such a token. Who writes it may replace it.
type TokenFile struct{ Path string }

// AppRole logs in with a role-id and a secret-id.
type AppRole struct {
	Mount        string // "": approle
	RoleIDFile   string
	SecretIDFile string // "": the role asks for none
	// WrappedPath says that the file has a token which unwraps the secret-id, once, and
	// what that must have been made by: auth/approle/role/NAME/secret-id. A token that
	// is not of it was put there by somebody else and is not used.
	WrappedPath string

	unwrapped *unwrapped
	last      string // the secret-id of the last login, should its file be removed
}

// unwrapped is the secret-id of a token that can be shown only once.
type unwrapped struct {
	token [sha256.Size]byte
	id    string
}

// JWT logs in with a token of somebody else's: Kubernetes', a cloud's, a CI's.
type JWT struct {
	Mount string // "": jwt
	Role  string
	Path  string // of the file with the token
}

// Kubernetes is JWT with the service account's token of a pod.
func Kubernetes(role string) *JWT {
	return &JWT{Mount: "kubernetes", Role: role, Path: "/var/run/secrets/kubernetes.io/serviceaccount/token"}
}

// Certificate logs in with a TLS certificate.
type Certificate struct {
	Mount    string // "": cert
	Name     string // of the certificate's role; "": Vault finds one that fits
	CertFile string
	KeyFile  string
}

func (t *Token) own() bool       { return false }
func (t *TokenFile) own() bool   { return false }
func (a *AppRole) own() bool     { return true }
func (j *JWT) own() bool         { return true }
func (c *Certificate) own() bool { return true }

func (t *Token) login(context.Context, *client) (*session, error) {
	if t.Token == "" {
		return nil, errors.New("there is no token")
	}
	return &session{token: t.Token}, nil
}

func (t *TokenFile) login(context.Context, *client) (*session, error) {
	token, err := readCredential("token", t.Path)
	if err != nil {
		return nil, err
	}
	return &session{token: token}, nil
}

func (a *AppRole) login(ctx context.Context, c *client) (*session, error) {
	role, err := readCredential("role-id", a.RoleIDFile)
	if err != nil {
		return nil, err
	}
	body := map[string]any{"role_id": role}
	if a.SecretIDFile != "" {
		if body["secret_id"], err = a.secretID(ctx, c); err != nil {
			return nil, err
		}
	}
	return c.login(ctx, a.Mount, "approle", body)
}

// secretID reads the secret-id. A file that was read and then removed stays good: there are
// those who remove it for safety.
func (a *AppRole) secretID(ctx context.Context, c *client) (string, error) {
	id, err := readCredential("secret-id", a.SecretIDFile)
	if errors.Is(err, fs.ErrNotExist) && a.last != "" {
		return a.last, nil
	}
	if err == nil && a.WrappedPath != "" {
		id, err = a.unwrap(ctx, c, id)
	}
	if err == nil {
		a.last = id
	}
	return id, err
}

// unwrap exchanges a wrapping token for the secret-id. One that was exchanged is
// remembered: a later login has to go without the file being new.
func (a *AppRole) unwrap(ctx context.Context, c *client, token string) (string, error) {
	sum := sha256.Sum256([]byte(token))
	if a.unwrapped != nil && a.unwrapped.token == sum {
		return a.unwrapped.id, nil
	}
	found, err := c.do(ctx, call{method: http.MethodPut, path: "sys/wrapping/lookup", body: map[string]any{"token": token}})
	if err != nil {
		return "", usedUp(err)
	}
	if path, _ := found.Data["creation_path"].(string); path != a.WrappedPath {
		return "", fmt.Errorf("unwrap the secret-id: the token was made by %q and not by %q: somebody may have put it there: %w",
			path, a.WrappedPath, secret.ErrUnauthorized)
	}
	got, err := c.do(ctx, call{method: http.MethodPut, path: "sys/wrapping/unwrap", token: token})
	if err != nil {
		return "", usedUp(err)
	}
	id, _ := got.Data["secret_id"].(string)
	if id == "" {
		return "", fmt.Errorf("unwrap the secret-id: there is none: %w", secret.ErrUnauthorized)
	}
	a.unwrapped = &unwrapped{token: sum, id: id}
	return id, nil
}

// usedUp is the error of a wrapping token that is none: a thing to look into.
func usedUp(err error) error {
	var e *Error
	if errors.As(err, &e) && (e.Status == http.StatusBadRequest || e.Status == http.StatusForbidden) {
		return fmt.Errorf("unwrap the secret-id: the token has ended or was used before; if not by this agent, somebody else has the secret-id: %w: %w",
			secret.ErrUnauthorized, err)
	}
	return fmt.Errorf("unwrap the secret-id: %w", err)
}

func (j *JWT) login(ctx context.Context, c *client) (*session, error) {
	token, err := readCredential("token", j.Path)
	if err != nil {
		return nil, err
	}
	return c.login(ctx, j.Mount, "jwt", map[string]any{"role": j.Role, "jwt": token})
}

func (t *Certificate) login(ctx context.Context, c *client) (*session, error) {
	cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	with := c.withCertificate(cert)
	defer with.close()
	body := map[string]any{}
	if t.Name != "" {
		body["name"] = t.Name
	}
	return with.login(ctx, t.Mount, "cert", body)
}

// login exchanges credentials for a token.
func (c *client) login(ctx context.Context, mount, usual string, body map[string]any) (*session, error) {
	if mount = strings.Trim(mount, "/"); mount == "" {
		mount = usual
	}
	sent := time.Now()
	got, err := c.do(ctx, call{method: http.MethodPut, path: "auth/" + mount + "/login", body: body})
	if err != nil {
		return nil, err
	}
	if got.Auth == nil || got.Auth.ClientToken == "" {
		return nil, fmt.Errorf("auth/%s/login: no token was granted", mount)
	}
	return got.Auth.session(sent), nil
}

// readCredential reads a small file that has one thing in it.
func readCredential(what, path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the %s: %w", what, err)
	}
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return "", fmt.Errorf("read the %s: %s is empty", what, path)
	}
	if len(text) > 64<<10 || bytes.ContainsAny(text, "\r\n\x00") {
		return "", fmt.Errorf("read the %s: %s has more than that in it", what, path)
	}
	return string(text), nil
}
