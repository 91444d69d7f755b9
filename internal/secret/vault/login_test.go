package vault_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/internal/secret"
	"drover/internal/secret/vault"
	"drover/internal/testkit/certificate"
	"drover/internal/testkit/vaultserver"
)

// serve is a server with a secret at secret/data/app that the policy app may read.
func serve(t *testing.T, o vaultserver.Options) *vaultserver.Server {
	t.Helper()
	s := vaultserver.Start(t, o)
	s.KV("secret", "2")
	s.Policy("app", "secret/*")
	put(s, "secret/data/app", "a", canary)
	return s
}

// canary is what may stand nowhere but in what is given.
const canary = "canary-7a1d0c"

var app = secret.Request{Path: "secret/data/app"}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, w *watched) {
	t.Helper()
	if got := text(w.state(1), "data", "a"); got != canary {
		t.Errorf("got %q", got)
	}
}

func TestLoginWithToken(t *testing.T) {
	t.Parallel()
	s := serve(t, vaultserver.Options{})
	token := s.Token(map[string]any{"policies": []string{"app"}, "ttl": "1h"})
	expect(t, open(t, vault.Options{Address: s.Address, Login: &vault.Token{Token: token}}).watch(t, app))

	file := filepath.Join(t.TempDir(), "token")
	src := open(t, vault.Options{Address: s.Address, Login: &vault.TokenFile{Path: file}})
	w := src.watch(t, app)
	if err := w.failure(1); !strings.Contains(err.Error(), "log in: read the token") {
		t.Errorf("without the file: %v", err)
	}
	write(t, file, token+"\n") // it is read again
	expect(t, w)
	if got := src.Health(); got.Err != nil {
		t.Errorf("health: %v", got.Err)
	}
}

// A token without the policy default cannot ask about itself, nor renew itself.
func TestLoginWithTokenThatKnowsNothingOfItself(t *testing.T) {
	t.Parallel()
	s := serve(t, vaultserver.Options{})
	token := s.Token(map[string]any{"policies": []string{"app"}, "ttl": "1h", "no_default_policy": true})
	w := open(t, vault.Options{Address: s.Address, Login: &vault.Token{Token: token}}).watch(t, app)
	if err := w.failure(1); !errors.Is(err, secret.ErrUnauthorized) || !strings.Contains(err.Error(), "policy default") {
		t.Errorf("got %v", err)
	}
}

func TestLoginWithAppRole(t *testing.T) {
	t.Parallel()
	s := serve(t, vaultserver.Options{})
	role := approle(t, s, time.Hour, time.Hour)
	expect(t, open(t, vault.Options{Address: s.Address, Login: role}).watch(t, app))

	// A secret-id that is none, until the file is replaced.
	good, err := os.ReadFile(role.SecretIDFile)
	if err != nil {
		t.Fatal(err)
	}
	write(t, role.SecretIDFile, "11111111-2222-3333-4444-555555555555")
	src := open(t, vault.Options{Address: s.Address, Login: role})
	w := src.watch(t, app)
	w.failure(1)
	if src.Health().Err == nil {
		t.Error("health says that all is well")
	}
	write(t, role.SecretIDFile, string(good))
	expect(t, w)
}

func TestLoginWithWrappedSecretID(t *testing.T) {
	t.Parallel()
	s := serve(t, vaultserver.Options{})
	role := approle(t, s, 4*time.Second, 8*time.Second)
	role.SecretIDFile, role.WrappedPath = s.SecretID("app", true), "auth/approle/role/app/secret-id"
	src := open(t, vault.Options{Address: s.Address, Login: role, Poll: time.Second})
	expect(t, src.watch(t, app))
	// Past the token's maximum the secret-id is used again, though its token is used up.
	eventually(t, 30*time.Second, "a second login", func() bool { return strings.Count(src.log.String(), "logged in") >= 2 })
	// And if its file was removed.
	used := read(t, role.SecretIDFile)
	if err := os.Remove(role.SecretIDFile); err != nil {
		t.Fatal(err)
	}
	n := strings.Count(src.log.String(), "logged in")
	eventually(t, 30*time.Second, "a login without the file", func() bool { return strings.Count(src.log.String(), "logged in") > n })
	write(t, role.SecretIDFile, used)

	// Another one with the same file: the token was used.
	late := open(t, vault.Options{Address: s.Address, Login: &vault.AppRole{RoleIDFile: role.RoleIDFile, SecretIDFile: role.SecretIDFile, WrappedPath: role.WrappedPath}})
	if err := late.watch(t, app).failure(1); !errors.Is(err, secret.ErrUnauthorized) || !strings.Contains(err.Error(), "somebody else") {
		t.Errorf("a used token: %v", err)
	}
}

func TestWrappedByAnotherPathIsNotUsed(t *testing.T) {
	t.Parallel()
	s := serve(t, vaultserver.Options{})
	role := approle(t, s, time.Hour, time.Hour)
	role.WrappedPath = "auth/approle/role/app/secret-id"
	token := s.Wrap("sys/wrapping/wrap", map[string]any{"secret_id": "of an attacker"})
	write(t, role.SecretIDFile, token)
	w := open(t, vault.Options{Address: s.Address, Login: role}).watch(t, app)
	if err := w.failure(1); !errors.Is(err, secret.ErrUnauthorized) || !strings.Contains(err.Error(), "sys/wrapping/wrap") {
		t.Errorf("got %v", err)
	}
	if got := s.Do(http.MethodPut, "sys/wrapping/lookup", map[string]any{"token": token}); got["data"] == nil {
		t.Error("the token was used")
	}
}

func TestLoginWithJWT(t *testing.T) {
	t.Parallel()
	s := serve(t, vaultserver.Options{})
	issuer := s.JWT("app", 4*time.Second, "app")
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, issuer.Token("ann", 5*time.Minute))
	s.Do(http.MethodPost, "auth/jwt/role/app", map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"}, "token_policies": "app",
		"token_ttl": "3s", "token_max_ttl": "6s",
	})
	login := vault.Kubernetes("app")
	login.Mount, login.Path = "jwt", file
	src := open(t, vault.Options{Address: s.Address, Login: login, Poll: time.Second})
	w := src.watch(t, app)
	expect(t, w)
	// The token in the file is read again at the next login, as Kubernetes replaces it.
	write(t, file, issuer.Token("ben", 5*time.Minute))
	eventually(t, 30*time.Second, "a login with the new token", func() bool {
		audit, err := os.ReadFile(s.Audit)
		return err == nil && strings.Contains(string(audit), "jwt-ben")
	})
	put(s, "secret/data/app", "a", "after")
	if got := text(w.state(2), "data", "a"); got != "after" {
		t.Errorf("got %q", got)
	}
}

func TestLoginWithCertificate(t *testing.T) {
	t.Parallel()
	s := serve(t, vaultserver.Options{TLS: true})
	cert, key := certificate.SelfSigned(t, t.TempDir(), "app", pkix.Name{CommonName: "app"})
	other, otherKey := certificate.SelfSigned(t, t.TempDir(), "other", pkix.Name{CommonName: "other"})
	s.CertificateRole("app", cert, time.Hour, "app")
	expect(t, open(t, vault.Options{Address: s.Address, CAFile: s.CA, Login: &vault.Certificate{Name: "app", CertFile: cert, KeyFile: key}}).watch(t, app))
	expect(t, open(t, vault.Options{Address: s.Address, CAFile: s.CA, Login: &vault.Certificate{CertFile: cert, KeyFile: key}}).watch(t, app))
	wrong := open(t, vault.Options{Address: s.Address, CAFile: s.CA, Login: &vault.Certificate{CertFile: other, KeyFile: otherKey}})
	wrong.watch(t, app).failure(1)
	if err := wrong.Health().Err; err == nil {
		t.Error("a certificate that is not trusted is let in")
	}
	// A server that is not trusted is sent nothing.
	stranger := open(t, vault.Options{Address: s.Address, CAFile: other, Login: &vault.Certificate{CertFile: cert, KeyFile: key}})
	if err := stranger.watch(t, app).failure(1); !errors.Is(err, secret.ErrUnavailable) {
		t.Errorf("a server that is not trusted: %v", err)
	}
}

// A start after a crash uses the token that is kept, and needs no login.
func TestKeptToken(t *testing.T) {
	t.Parallel()
	s := serve(t, vaultserver.Options{})
	dir, err := os.MkdirTemp("/dev/shm", "drover-test-") //nolint:usetesting // in memory
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	kept := filepath.Join(dir, "token")
	role := approle(t, s, time.Hour, time.Hour)
	o := vault.Options{Address: s.Address, Login: role, TokenCache: kept}
	first := open(t, o) // it is not closed before the second is at work, as after a crash
	expect(t, first.watch(t, app))
	if st, err := os.Stat(kept); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("the kept token: %v, %v", st, err)
	}

	write(t, role.SecretIDFile, "no more")
	second := open(t, o)
	expect(t, second.watch(t, app))

	// One that is none any more is not used.
	s.Do(http.MethodPut, "auth/token/revoke", map[string]any{"token": strings.TrimSpace(read(t, kept))})
	third := open(t, o)
	third.watch(t, app).failure(1)
	if err := third.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := second.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(kept); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the kept token is not removed: %v", err)
	}
}

func TestKeptTokenStaysInMemory(t *testing.T) {
	t.Parallel()
	s := serve(t, vaultserver.Options{})
	disk, err := os.MkdirTemp("/var/tmp", "drover-test-") //nolint:usetesting // on a disk
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(disk) })
	src := open(t, vault.Options{Address: s.Address, Login: approle(t, s, time.Hour, time.Hour), TokenCache: filepath.Join(disk, "token")})
	expect(t, src.watch(t, app))
	if left, err := os.ReadDir(disk); err != nil || len(left) > 0 {
		t.Errorf("on the disk: %v, %v", left, err)
	}
	if !strings.Contains(src.log.String(), "not in memory") {
		t.Error("nothing is said about it")
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestPKI(t *testing.T) {
	t.Parallel()
	s := vaultserver.Start(t, vaultserver.Options{})
	s.PKI("app", 10*time.Second)
	s.Policy("app", "pki/*")
	role := approle(t, s, time.Hour, time.Hour)
	src := open(t, vault.Options{Address: s.Address, Login: role})
	issue := secret.Request{Path: "pki/issue/app", Params: map[string]any{"common_name": "a.example.com"}}
	w := src.watch(t, issue)
	one, two := w.state(1), w.state(2)
	// The certificate begins half a minute before it is issued, as the server has it.
	if left := time.Until(one.Expires); left < 0 || left > 9*time.Second {
		t.Errorf("replaced when it had %v to go", left)
	}
	if !parse(t, one).NotAfter.Equal(one.Expires) || parse(t, two).SerialNumber.Cmp(parse(t, one).SerialNumber) == 0 {
		t.Error("not the certificate's end, or the same certificate")
	}

	// A later run goes on with a certificate that is good for a while.
	s.Do(http.MethodPost, "pki/roles/app", map[string]any{"allowed_domains": "example.com", "allow_subdomains": true, "ttl": "1h", "max_ttl": "1h"})
	three := w.state(3)
	issue.Known = &secret.Secret{Data: three.Data}
	later := open(t, vault.Options{Address: s.Address, Login: role})
	if got := later.watch(t, issue).state(1); text(got, "certificate") != text(three, "certificate") {
		t.Error("another certificate, though there was a good one")
	}
	other := issue
	other.Params = map[string]any{"common_name": "b.example.com"}
	if got := later.watch(t, other).state(1); parse(t, got).Subject.CommonName != "b.example.com" {
		t.Error("a certificate for another name is used")
	}
}

func parse(t *testing.T, s *secret.Secret) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text(s, "certificate")))
	if block == nil {
		t.Fatal("no certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestTransit(t *testing.T) {
	t.Parallel()
	s := vaultserver.Start(t, vaultserver.Options{})
	s.Mount("transit", "transit")
	s.Do(http.MethodPost, "transit/keys/app", nil)
	s.Policy("app", "transit/*")
	src := open(t, vault.Options{Address: s.Address, Login: approle(t, s, time.Hour, time.Hour), Poll: 100 * time.Millisecond})
	sealed := src.watch(t, secret.Request{Path: "transit/encrypt/app", Params: map[string]any{"plaintext": "aGVsbG8="}})
	cipher := text(sealed.state(1), "ciphertext")
	clear := src.watch(t, secret.Request{Path: "transit/decrypt/app", Params: map[string]any{"ciphertext": cipher}})
	if got := text(clear.state(1), "plaintext"); got != "aGVsbG8=" {
		t.Errorf("got %q", got)
	}
	wrong := src.watch(t, secret.Request{Path: "transit/decrypt/app", Params: map[string]any{"ciphertext": "vault:v1:" + canary}})
	if err := wrong.failure(1); strings.Contains(err.Error(), canary) {
		t.Errorf("the error has what was sent: %v", err)
	}
	if sealed.last() != sealed.state(1) {
		t.Error("it was encrypted again")
	}
}
