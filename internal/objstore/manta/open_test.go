package manta_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"drover/internal/objstore/manta"
	"drover/internal/testkit/mantaserver"
)

func TestParseURL(t *testing.T) {
	for raw, want := range map[string]manta.Options{
		"manta://a/stor":           {Account: "a"},
		"manta://a/stor/":          {Account: "a"},
		"manta://a/stor/some/pre/": {Account: "a", Prefix: "some/pre"},
		"manta://a.B_c/stor/p?endpoint=https://h:1/&user=u&subuser=s&ca=/x.pem": {
			Account: "a.B_c", Prefix: "p", Endpoint: "https://h:1/", User: "u", Subuser: "s", CA: "/x.pem"},
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		got, err := manta.ParseURL(u)
		if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("%s: %+v, %v", raw, got, err)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	for raw, want := range map[string]string{
		"manta:///stor/p":              "manta://ACCOUNT",
		"manta:a":                      "manta://ACCOUNT",
		"manta://id:topsecret@a/stor":  "MANTA_KEY_PATH",
		"manta://h:443/stor":           "?endpoint=",
		"manta://a/stor#x":             "fragment",
		"manta://a":                    "manta://ACCOUNT/stor/PREFIX",
		"manta://a/public/p":           "private storage",
		"manta://a/storage":            "private storage",
		"manta://a/stor/a%20b":         "prefix",
		"manta://a/stor/a//b":          "prefix",
		"manta://a/stor/../b":          "prefix",
		"manta://../stor/b":            "account",
		"manta://a,b/stor/b":           "account",
		"manta://a/stor?endpoint=h":    "https://",
		"manta://a/stor?endpoint=h:1":  "https://",
		"manta://a/stor?user=a/b":      "not a login",
		"manta://a/stor?subuser=":      "not a login",
		"manta://a/stor?user=a%22":     "not a login",
		"manta://a/stor?ca=a&ca=b":     "2 times",
		"manta://a/stor?key=topsecret": "unknown parameter",
		"manta://a/stor?a=%zz":         "well-formed",

		"manta://a/stor?endpoint=http://h":               "https://",
		"manta://a/stor?endpoint=https://id:topsecret@h": "MANTA_KEY_PATH",
		"manta://a/stor?endpoint=https://h/path":         "more than a host",
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		_, err = manta.ParseURL(u)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%s: %v, want %q in it", raw, err, want)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, raw := range []string{"manta://a/stor/p?endpoint=https://h:1&user=u&subuser=s&ca=/x", "manta://a:1/stor#", "manta://u:p@a/stor", "manta:x"} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := url.Parse(raw)
		if err != nil {
			return
		}
		o, err := manta.ParseURL(u)
		if err == nil && (o.Account == "" || strings.ContainsAny(o.Account+o.User+o.Subuser, "/\"\n") || strings.Contains("/"+o.Prefix+"/", "/../")) {
			t.Errorf("%q: gives %+v", raw, o)
		}
	})
}

// keyFile writes a block to a file.
func keyFile(t *testing.T, block *pem.Block) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// forms are the ways in which a key may be written.
func forms(t *testing.T, key crypto.Signer) map[string]*pem.Block {
	t.Helper()
	openSSH, err := ssh.MarshalPrivateKey(key, "a comment")
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]*pem.Block{"OpenSSH": openSSH, "PKCS 8": {Type: "PRIVATE KEY", Bytes: pkcs8}}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		list["PKCS 1"] = &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		list["SEC 1"] = &pem.Block{Type: "EC PRIVATE KEY", Bytes: der}
	}
	return list
}

// newKeys are keys of the kinds that are taken.
func newKeys(t *testing.T) []crypto.Signer {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys := []crypto.Signer{r}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		e, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, e)
	}
	return keys
}

func TestFormsOfKeys(t *testing.T) {
	server := start(t, mantaserver.Options{})
	for _, key := range newKeys(t) {
		public, err := ssh.NewPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		bare := fmt.Sprintf("%x", md5.Sum(public.Marshal()))
		colons := strings.TrimSuffix(regexp.MustCompile("..").ReplaceAllString(bare, "$0:"), ":")
		sum := sha256.Sum256(public.Marshal())
		for form, block := range forms(t, key) {
			t.Setenv("MANTA_KEY_PATH", keyFile(t, block))
			for _, id := range []string{
				"", bare, colons, strings.ToUpper(colons), "MD5:" + colons,
				"SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:]), "SHA256:" + base64.StdEncoding.EncodeToString(sum[:]),
			} {
				t.Setenv("MANTA_KEY_ID", id)
				if _, err := tryOpen(t, server.URL("p")); err != nil {
					t.Errorf("%s, %s, fingerprint %q: %v", public.Type(), form, id, err)
				}
			}
			t.Setenv("MANTA_KEY_ID", server.KeyID)
			if _, err := tryOpen(t, server.URL("p")); err == nil || !strings.Contains(err.Error(), colons) {
				t.Errorf("%s, %s, with another's fingerprint: %v", public.Type(), form, err)
			}
		}
	}
}

// encrypted are the forms of a key with a passphrase.
func encrypted(t *testing.T) map[string]*pem.Block {
	t.Helper()
	key := newKeys(t)[0].(*rsa.PrivateKey)
	openSSH, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("topsecret"))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*pem.Block{
		"OpenSSH": openSSH,
		"PKCS 8":  {Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("whatever")},
		"PKCS 1": {Type: "RSA PRIVATE KEY", Bytes: []byte("whatever"), Headers: map[string]string{
			"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00112233445566778899AABBCCDDEEFF"}},
	}
}

func tryOpen(t *testing.T, raw string) (*manta.Store, error) {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	o, err := manta.ParseURL(u)
	if err != nil {
		t.Fatal(err)
	}
	return manta.Open(t.Context(), o)
}

func TestOpenRefuses(t *testing.T) {
	server := start(t, mantaserver.Options{})
	nothing := filepath.Join(t.TempDir(), "nothing")
	if err := os.WriteFile(nothing, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	locked := encrypted(t)
	for name, c := range map[string]struct {
		env  map[string]string
		want string
	}{
		"no key":            {map[string]string{"MANTA_KEY_PATH": ""}, "set MANTA_KEY_PATH"},
		"no such file":      {map[string]string{"MANTA_KEY_PATH": nothing + "x"}, "no such file"},
		"not a key":         {map[string]string{"MANTA_KEY_PATH": nothing}, "no private key"},
		"a certificate":     {map[string]string{"MANTA_KEY_PATH": server.CA}, "key"},
		"ed25519":           {map[string]string{"MANTA_KEY_PATH": keyFile(t, forms(t, private)["OpenSSH"]), "MANTA_KEY_ID": ""}, "neither an RSA nor an ECDSA key"},
		"encrypted":         {map[string]string{"MANTA_KEY_PATH": keyFile(t, locked["OpenSSH"])}, "is encrypted"},
		"encrypted, PKCS 1": {map[string]string{"MANTA_KEY_PATH": keyFile(t, locked["PKCS 1"])}, "is encrypted"},
		"encrypted, PKCS 8": {map[string]string{"MANTA_KEY_PATH": keyFile(t, locked["PKCS 8"])}, "is encrypted"},
		"a strange user":    {map[string]string{"MANTA_USER": "a/b"}, "not a login"},
		"insecure":          {map[string]string{"MANTA_TLS_INSECURE": "1"}, "MANTA_TLS_INSECURE"},
		"unclear":           {map[string]string{"MANTA_TLS_INSECURE": "perhaps"}, "MANTA_TLS_INSECURE"},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			if _, err := tryOpen(t, server.URL("p")); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %q in one line", err, c.want)
			}
		})
	}
}

// TestEnvironment has the server, and who signs, come from variables, and the
// URL have its way over them.
func TestEnvironment(t *testing.T) {
	server := start(t, mantaserver.Options{Subuser: "backup"})
	if _, err := tryOpen(t, "manta://"+server.Account+"/stor/p"); err == nil || !strings.Contains(err.Error(), "MANTA_URL") {
		t.Errorf("without a server: %v", err)
	}
	t.Setenv("MANTA_TLS_INSECURE", "0")
	t.Setenv("MANTA_URL", server.Endpoint)
	put(t, open(t, "manta://"+server.Account+"/stor/p?ca="+server.CA), "a", "x")
	t.Setenv("MANTA_URL", "https://127.0.0.1:1")
	t.Setenv("MANTA_USER", "somebody")
	t.Setenv("MANTA_SUBUSER", "nobody")
	s := open(t, server.URL("p")+"&user="+server.Account+"&subuser=backup")
	put(t, s, "a", "x")
	if got := s.Describe(); got != "manta://"+server.Account+"/stor/p" {
		t.Errorf("describes itself as %s", got)
	}
}
