package manta

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"drover/internal/objstore"
)

func FuzzReadEntries(f *testing.F) {
	for _, text := range []string{
		`{"name":"a","type":"object","etag":"e","size":1,"mtime":"2026-01-01T00:00:00.000Z"}` + "\n" + `{"name":"b","type":"directory","mtime":"2026-01-01T00:00:00Z"}` + "\n",
		`{"name":"a/b","type":"object"}`, `{"name":"a","type":"object","size":1e99}`, `{"name":"a"`, "\n\n", `null`, `"x"`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := readEntries(bytes.NewReader(text))
		if err != nil && (list != nil || !errors.Is(err, objstore.ErrUnavailable)) {
			t.Errorf("%q: %d entries and %v", text, len(list), err)
		}
		for _, e := range list {
			if e.Name == "" || strings.Contains(e.Name, "/") || e.Size < 0 || e.Type != "object" && e.Type != "directory" {
				t.Errorf("%q: an entry %+v", text, e)
			}
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	for _, text := range []string{`{"code":"ResourceNotFound","message":"m"}`, `{"code":1}`, `{"message":"m"}`, `[]`, `<html>`, ``} {
		f.Add([]byte(text), 404)
	}
	f.Fuzz(func(t *testing.T, text []byte, status int) {
		a := parseAnswer(text)
		a.status = status
		if a.Code == "" && (a.Message != "" || errors.Is(&a, objstore.ErrNotFound)) {
			t.Errorf("%q: is taken for Manta's: %+v", text, a)
		}
		if a.Error() == "" {
			t.Errorf("%q: says nothing", text)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	for _, password := range []string{"", "x"} {
		block, err := ssh.MarshalPrivateKey(private, "")
		if password != "" {
			block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(password))
		}
		if err != nil {
			f.Fatal(err)
		}
		f.Add(pem.EncodeToMemory(block))
	}
	for _, kind := range []string{"EC", "RSA", "ENCRYPTED", "OPENSSH"} {
		f.Add(pem.EncodeToMemory(&pem.Block{Type: kind + " PRIVATE KEY", Bytes: []byte("openssh-key-v1\x00")}))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := parseKey(text)
		if err != nil {
			return
		}
		if !k.is(k.md5) || !k.is(k.sha256) || k.is("") {
			t.Errorf("a key with the names %q and %q", k.md5, k.sha256)
		}
		_, _ = (&signer{key: k.private}).sign("now") // may fail, and not panic
	})
}

// TestSigned holds the form of the header against the text of the draft.
func TestSigned(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &signer{key: private, keyID: "/a/keys/aa:bb", algorithm: "ecdsa-sha256"}
	date := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Format(http.TimeFormat)
	header, err := s.sign(date)
	if err != nil {
		t.Fatal(err)
	}
	rest, found := strings.CutPrefix(header, `Signature keyId="/a/keys/aa:bb",algorithm="ecdsa-sha256",headers="date",signature="`)
	if !found {
		t.Fatalf("header %s", header)
	}
	signature, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(rest, `"`))
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("date: Fri, 02 Jan 2026 03:04:05 GMT"))
	if !ecdsa.VerifyASN1(&private.PublicKey, digest[:], signature) {
		t.Error("the signature is not of the date")
	}
}
