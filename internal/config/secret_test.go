package config

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const theSecret = "correct-horse-battery"

// TestSecretNeverPrinted: whichever way a Config is printed.
func TestSecretNeverPrinted(t *testing.T) {
	c, err := Load(sources(t, "", map[string]string{"DROVER_PASSWORD": theSecret}, nil))
	if err != nil {
		t.Fatal(err)
	}
	if c.Store.Password.Reveal() != theSecret {
		t.Fatal("the secret did not arrive")
	}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb, c)
		fmt.Fprintf(&out, verb, c.Store)
		fmt.Fprintf(&out, verb, c.Store.Password)
		fmt.Fprintf(&out, verb, &c.Store.Password)
	}
	if err := json.NewEncoder(&out).Encode(c); err != nil {
		t.Fatal(err)
	}
	for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))} {
		log.Info("config", "all", c, "store", c.Store, "password", c.Store.Password)
	}
	hex := fmt.Sprintf("%x", theSecret)
	if text := out.String(); strings.Contains(text, theSecret) || strings.Contains(text, hex) || !strings.Contains(text, hidden) {
		t.Errorf("printed: %s", text)
	}
}

// TestSecretNeverInErrors: files that are wrong right where the secret is.
func TestSecretNeverInErrors(t *testing.T) {
	for _, file := range []string{
		"store: {password: [" + theSecret + "]}",
		"store: {password: {" + theSecret + ": 1}}",
		"store: {password: \"" + theSecret,
		"store: {password: " + theSecret + ", password_file: /x}",
		"store: {url: \"s3://key:" + theSecret + "@bucket/x\"}",
		"store: {url: \"s3://key:" + theSecret + "@buc%zzket/x\"}",
		"store:\n  password: " + theSecret + "\n   url: x",
		"jobs: {a: {command: x, env: {TOKEN: [" + theSecret + "]}}}",
		"jobs: {a: {command: x, env: {TOKEN: \"" + theSecret + "\\0\"}}}",
	} {
		_, err := Load(sources(t, file, nil, nil))
		if err == nil {
			t.Errorf("%q: no error", file)
			continue
		}
		if strings.Contains(err.Error(), theSecret) {
			t.Errorf("%q: %v", file, err)
		}
	}
}

func TestReadPassword(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for _, test := range []struct {
		env        map[string]string
		want, fail string
	}{
		{map[string]string{"DROVER_PASSWORD": " p "}, " p ", ""},
		{map[string]string{"DROVER_PASSWORD_FILE": write("a", "from file\r\n")}, "from file", ""},
		{map[string]string{"DROVER_PASSWORD_COMMAND": "printf 'a b\\n'"}, "a b", ""},
		{map[string]string{"DROVER_PASSWORD_FILE": write("b", "\n")}, "", "DROVER_PASSWORD_FILE: password file " + dir + "/b is empty"},
		{map[string]string{"DROVER_PASSWORD_FILE": dir + "/none"}, "", "cannot read password file " + dir + "/none: no such file or directory"},
		{map[string]string{"DROVER_PASSWORD_COMMAND": "echo " + theSecret + "; echo sealed >&2; exit 3"}, "", "DROVER_PASSWORD_COMMAND: password command ended with exit status 3; sealed"},
		{map[string]string{"DROVER_PASSWORD_COMMAND": "true"}, "", "password command printed nothing"},
		{nil, "", "no store given"},
	} {
		c, err := Load(sources(t, "", test.env, nil))
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.ReadPassword(context.Background())
		switch {
		case test.fail == "" && (err != nil || got.Reveal() != test.want):
			t.Errorf("%v: got %q, %v", test.env, got.Reveal(), err)
		case test.fail != "" && (err == nil || !strings.Contains(err.Error(), test.fail) || strings.Contains(err.Error(), theSecret)):
			t.Errorf("%v: got %v, want %s", test.env, err, test.fail)
		}
	}
}
