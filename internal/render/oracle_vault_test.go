package render

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/internal/secret/vault"
	"drover/internal/testkit/consultemplate"
	"drover/internal/testkit/vaultserver"
)

func openVault(t *testing.T, s *vaultserver.Server) *vault.Source {
	t.Helper()
	source, err := vault.Open(vault.Options{Address: s.Address, Login: &vault.Token{Token: s.Root}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := source.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return source
}

// The same templates on the same Vault render the same bytes.
func TestSameAsConsulTemplateOnVault(t *testing.T) {
	s := vaultserver.Start(t, vaultserver.Options{})
	s.KV("old", "1")
	s.KV("new", "2")
	s.Mount("transit", "transit")
	s.Do(http.MethodPost, "transit/keys/key", nil)
	app := map[string]any{
		"user": "ann", "port": 5432, "nested": map[string]any{"a": "b"}, "list": []any{"x", 1}, "text": `{"j": true}`, "encoded": "aGVsbG8=", "big": 12345678901234567, "part": 1.5,
	}
	s.Do(http.MethodPost, "old/app", app)
	s.Do(http.MethodPost, "old/other", map[string]any{"user": "bob"})
	s.Do(http.MethodPost, "old/folder/x", map[string]any{"user": "eve"})
	s.Do(http.MethodPost, "new/data/app", map[string]any{"data": map[string]any{"user": "first"}})
	s.Do(http.MethodPost, "new/data/app", map[string]any{"data": app})
	names, texts := consultemplate.Corpus(t, "testdata/vault/corpus.txt")
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	settings := fmt.Sprintf("vault {\n address = %q\n token = %q\n renew_token = false\n}\n", s.Address, s.Root)
	compare(t, names, texts, settings, env, Sources{Secrets: openVault(t, s)})
}

// pkiCert gives a certificate, its key and the authority, and takes the one that is in
// place while it is good.
func TestCertificates(t *testing.T) {
	s := vaultserver.Start(t, vaultserver.Options{})
	s.Mount("pki", "pki")
	s.Do(http.MethodPost, "pki/root/generate/internal", map[string]any{"common_name": "root", "ttl": "24h"})
	s.Do(http.MethodPost, "pki/roles/web", map[string]any{"allow_any_name": true, "max_ttl": "1h"})
	text := `{{ with pkiCert "pki/issue/web" "common_name=a.example" "ttl=1h" }}{{ .Data.Key }}{{ .Data.Cert }}{{ .Data.CA }}{{ len .CAChain }}{{ end }}`
	source := openVault(t, s)
	dir := t.TempDir()
	render := func() string {
		t.Helper()
		e, err := New(Config{Sources: Sources{Secrets: source}, Templates: []Template{{Content: text, Destination: filepath.Join(dir, "cert"), OnDisk: true}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := e.Once(ctx, false); err != nil {
			t.Fatal(err)
		}
		return content(filepath.Join(dir, "cert"))
	}
	first := render()
	if strings.Count(first, "BEGIN CERTIFICATE") != 2 || strings.Count(first, "PRIVATE KEY") != 2 || !strings.HasSuffix(first, "1") {
		t.Errorf("got %d certificates", strings.Count(first, "BEGIN CERTIFICATE"))
	}
	if again := render(); again != first {
		t.Error("a certificate that is good was replaced")
	}
	// The real one takes it, too, from what was rendered.
	dirs := consultemplate.Job{
		Templates: map[string]string{"cert": text}, Dir: dir, Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()},
		Settings: fmt.Sprintf("vault {\n address = %q\n token = %q\n renew_token = false\n}\n", s.Address, s.Root),
	}
	if out, err := consultemplate.Once(t, dirs); err != nil || content(filepath.Join(dir, "cert")) != first {
		t.Errorf("%v: it is not what the real one renders\n%s", err, out)
	}
	if err := os.Remove(filepath.Join(dir, "cert")); err != nil {
		t.Fatal(err)
	}
	source = openVault(t, s) // the other one has it yet
	if anew := render(); anew == first {
		t.Error("a certificate that is lost came back")
	}
}
