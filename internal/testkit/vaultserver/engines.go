package vaultserver

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"drover/internal/testkit/postgresserver"
)

// Policy lets those who have it do everything below the paths, and what the default
// policy lets everyone do.
func (s *Server) Policy(name string, paths ...string) {
	s.t.Helper()
	var b strings.Builder
	for _, p := range paths {
		b.WriteString(`path "` + p + `" { capabilities = ["create", "read", "update", "delete", "list"] }` + "\n")
	}
	s.Do(http.MethodPut, "sys/policies/acl/"+name, map[string]any{"policy": b.String()})
}

// Token makes a token. The parameters are those of auth/token/create.
func (s *Server) Token(params map[string]any) string {
	s.t.Helper()
	return text(s.Do(http.MethodPost, "auth/token/create", params), "auth", "client_token")
}

// KV mounts a key-value engine of a version.
func (s *Server) KV(mount, version string) {
	s.t.Helper()
	s.Do(http.MethodPost, "sys/mounts/"+mount, map[string]any{"type": "kv", "options": map[string]any{"version": version}})
	if version != "2" {
		return
	}
	for { // the engine upgrades itself after the mount, and refuses everything meanwhile
		status, body, err := s.Request(s.t.Context(), http.MethodGet, mount+"/config", s.Root, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		if status == http.StatusOK {
			return
		}
		if !strings.Contains(string(body), "pgrad") {
			s.t.Fatalf("mount %s: %d\n%s", mount, status, body)
		}
	}
}

// Mount mounts an engine of a kind.
func (s *Server) Mount(mount, kind string) {
	s.t.Helper()
	s.Do(http.MethodPost, "sys/mounts/"+mount, map[string]any{"type": kind})
}

// Auth mounts a way to log in.
func (s *Server) Auth(mount, kind string) {
	s.t.Helper()
	s.Do(http.MethodPost, "sys/auth/"+mount, map[string]any{"type": kind})
}

// AppRole makes a role at auth/approle with the parameters and writes its ID to a file.
// The engine is to be mounted.
func (s *Server) AppRole(role string, params map[string]any) (roleIDFile string) {
	s.t.Helper()
	s.Do(http.MethodPost, "auth/approle/role/"+role, params)
	id := text(s.Do(http.MethodGet, "auth/approle/role/"+role+"/role-id", nil), "data", "role_id")
	return s.file("role-id-"+role, id)
}

// SecretID makes a secret-id of the role and writes it to a file; again to the same one.
// Wrapped: a token is written that unwraps it once.
func (s *Server) SecretID(role string, wrapped bool) (file string) {
	s.t.Helper()
	if !wrapped {
		return s.file("secret-id-"+role, text(s.Do(http.MethodPost, "auth/approle/role/"+role+"/secret-id", nil), "data", "secret_id"))
	}
	return s.file("secret-id-"+role, s.Wrap("auth/approle/role/"+role+"/secret-id", nil))
}

// Wrap makes a write whose answer is kept for whoever shows the returned token first.
func (s *Server) Wrap(path string, body any) string {
	s.t.Helper()
	content, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.Address+"/v1/"+path, strings.NewReader(string(content)))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", s.Root)
	req.Header.Set("X-Vault-Wrap-TTL", "10m")
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var answer map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		s.t.Fatal(err)
	}
	return text(answer, "wrap_info", "token")
}

// file writes a file of the server's folder, whole at once.
func (s *Server) file(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path+".part", []byte(content+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(path+".part", path); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// JWT is an issuer of tokens that auth/jwt trusts.
type JWT struct {
	s   *Server
	key *rsa.PrivateKey
}

// JWT mounts auth/jwt with a new key pair and makes a role with the policies whose
// tokens last for ttl.
func (s *Server) JWT(role string, ttl time.Duration, policies ...string) *JWT {
	s.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		s.t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		s.t.Fatal(err)
	}
	s.Auth("jwt", "jwt")
	s.Do(http.MethodPost, "auth/jwt/config", map[string]any{
		"jwt_validation_pubkeys": []string{string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}, "bound_issuer": "drover-test",
	})
	s.Do(http.MethodPost, "auth/jwt/role/"+role, map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"}, "token_policies": policies, "token_ttl": ttl.String(),
	})
	return &JWT{s: s, key: key}
}

// Token is a new token for a subject.
func (j *JWT) Token(subject string, lasts time.Duration) string {
	j.s.t.Helper()
	part := func(v any) string {
		content, err := json.Marshal(v)
		if err != nil {
			j.s.t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(content)
	}
	now := time.Now()
	signed := part(map[string]any{"alg": "RS256", "typ": "JWT"}) + "." + part(map[string]any{
		"iss": "drover-test", "sub": subject, "aud": "vault", "iat": now.Unix(), "nbf": now.Unix() - 10, "exp": now.Add(lasts).Unix(),
	})
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, j.key, crypto.SHA256, digest[:])
	if err != nil {
		j.s.t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// Postgres mounts the database engine at database, over a real server, with a role whose
// credentials last for ttl, and maxTTL if renewed. Its users may log in until the end of
// their lease, and not a second longer.
func (s *Server) Postgres(pg *postgresserver.Server, role string, ttl, maxTTL time.Duration) {
	s.t.Helper()
	s.Mount("database", "database")
	s.Do(http.MethodPost, "database/config/pg", map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "*",
		"connection_url": "postgresql://{{username}}:{{password}}@" + net.JoinHostPort(pg.Host, pg.Port) + "/postgres?sslmode=disable",
		"username":       pg.User, "password": pg.Password,
	})
	s.DatabaseRole(role, ttl, maxTTL)
}

// DatabaseRole is one more role there, or the role changed.
func (s *Server) DatabaseRole(role string, ttl, maxTTL time.Duration) {
	s.t.Helper()
	s.Do(http.MethodPost, "database/roles/"+role, map[string]any{
		"db_name": "pg", "default_ttl": ttl.String(), "max_ttl": maxTTL.String(),
		"creation_statements":   []string{`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`},
		"renew_statements":      []string{`ALTER ROLE "{{name}}" VALID UNTIL '{{expiration}}'`},
		"revocation_statements": []string{`DROP ROLE IF EXISTS "{{name}}"`},
	})
}

// PKI mounts an authority at pki and a role for names below example.com whose
// certificates last for ttl.
func (s *Server) PKI(role string, ttl time.Duration) {
	s.t.Helper()
	s.Mount("pki", "pki")
	s.Do(http.MethodPost, "pki/root/generate/internal", map[string]any{"common_name": "drover test", "ttl": "23h"})
	s.Do(http.MethodPost, "pki/roles/"+role, map[string]any{"allowed_domains": "example.com", "allow_subdomains": true, "ttl": ttl.String(), "max_ttl": ttl.String()})
}

// CertificateRole mounts auth/cert and trusts the certificate in the file.
func (s *Server) CertificateRole(name, certFile string, ttl time.Duration, policies ...string) {
	s.t.Helper()
	content, err := os.ReadFile(certFile)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Auth("cert", "cert")
	s.Do(http.MethodPost, "auth/cert/certs/"+name, map[string]any{"certificate": string(content), "token_policies": policies, "token_ttl": ttl.String()})
}

// text is a text inside of an answer; "" if there is none.
func text(answer map[string]any, keys ...string) string {
	var v any = answer
	for _, k := range keys {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	found, _ := v.(string)
	return found
}
