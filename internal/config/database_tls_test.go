package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover/internal/testkit/certificate"
)

// TestDatabaseTLS: files that cannot be used are told of by their place in the configuration, and nothing of a key is.
func TestDatabaseTLS(t *testing.T) {
	dir := t.TempDir()
	ca := certificate.NewAuthority(t, dir)
	cert, key := ca.Leaf("member")
	_, others := ca.Leaf("other")
	stranger := certificate.NewAuthority(t, t.TempDir())
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ tls, loading, reading string }{
		{"ca: " + ca.File + "\n    cert: " + cert + "\n    key: " + key, "", ""},
		{"ca: " + ca.File, "drover.yaml:6:7: the database's TLS has no cert; give ca, cert and key, or none of them", ""},
		{"verify: full", "drover.yaml:6:11: the database's TLS has no certificates; add ca, cert and key", ""},
		{"verify: name", "drover.yaml:6:13: ", ""},
		{"ca: " + ca.File + "\n    cert: " + cert + "\n    key: " + dir + "/gone", "", "drover.yaml:8:10: cannot read " + dir + "/gone: no such file or directory"},
		{"ca: " + empty + "\n    cert: " + cert + "\n    key: " + key, "", "drover.yaml:6:9: " + empty + " has no certificate in PEM form"},
		{"ca: " + ca.File + "\n    cert: " + cert + "\n    key: " + others, "", "drover.yaml:7:11: " + cert + " and " + others + " are no pair: "},
		{"ca: " + stranger.File + "\n    cert: " + cert + "\n    key: " + key, "", "drover.yaml:7:11: " + cert + " is not signed by " + stranger.File + ": "},
	} {
		c, err := loadText(fmt.Appendf(nil, "store: {url: 'file:///s'}\ndatabase:\n  engine: postgres\n  password_file: /secret\n  tls:\n    %s\n", test.tls))
		if !begins(err, test.loading) {
			t.Errorf("%s: loading says %v, want %q", test.tls, err, test.loading)
		}
		if err != nil {
			continue
		}
		read, err := c.ReadDatabaseTLS()
		if !begins(err, test.reading) {
			t.Errorf("%s: reading says %v, want %q", test.tls, err, test.reading)
		}
		if err == nil && (len(read.CA) == 0 || !strings.Contains(string(read.Pair), "PRIVATE KEY")) {
			t.Errorf("%s: %d bytes of the CA, and %d of the pair", test.tls, len(read.CA), len(read.Pair))
		}
	}
	_, err := loadText(fmt.Appendf(nil, "store: {url: 'file:///s'}\ndatabase: {engine: postgres, password_file: /s, tls: {ca: a, cert: b, key: c}, parameters: {ssl: 'off'}}\n"))
	if !begins(err, "drover.yaml:2:") || !strings.Contains(err.Error(), "the parameter ssl is set by database.tls") {
		t.Error(err)
	}
}

// begins says whether an error begins so; "": there is none.
func begins(err error, with string) bool {
	if err == nil || with == "" {
		return err == nil && with == ""
	}
	return strings.HasPrefix(err.Error(), with)
}
