package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write drover.schema.json, here and in docs, and the table of docs/config.md anew")

const docs = "../../docs/"

// TestSchema holds drover.schema.json to the types: the one that the binary carries and the one for readers.
func TestSchema(t *testing.T) {
	got, err := schema()
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(got) {
		t.Fatal("not JSON")
	}
	for _, name := range []string{"drover.schema.json", docs + "drover.schema.json"} {
		golden(t, name, func([]byte) []byte { return got })
	}
}

// TestReference holds the table of keys in docs/config.md to the types.
func TestReference(t *testing.T) {
	const begin, end = "<!-- keys: made from the types by go test ./internal/config -update -->\n", "<!-- end of keys -->\n"
	golden(t, docs+"config.md", func(old []byte) []byte {
		head, rest, found := bytes.Cut(old, []byte(begin))
		_, tail, closed := bytes.Cut(rest, []byte(end))
		if !found || !closed {
			t.Fatalf("config.md has no place for the keys, between %q and %q", begin, end)
		}
		return bytes.Join([][]byte{head, []byte(begin), keyTable(t), []byte(end), tail}, nil)
	})
}

func keyTable(t *testing.T) []byte {
	var b bytes.Buffer
	b.WriteString("| Key | Value | Default | Flag | Variable | Meaning |\n|---|---|---|---|---|---|\n")
	code := func(s string) string {
		if s == "" {
			return ""
		}
		return "`" + s + "`"
	}
	for _, k := range allKeys() {
		if k.Doc == "" {
			t.Errorf("key %s says nothing of itself", k.Path)
		}
		flag := ""
		if k.Flag != "" {
			flag = "--" + k.Flag
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", k.Path, k.Type, code(k.Default), code(flag), code(k.Env), strings.ReplaceAll(k.Doc, "|", `\|`))
	}
	return b.Bytes()
}

// golden compares a file with what makes it from its former content.
func golden(t *testing.T, name string, made func(old []byte) []byte) {
	t.Helper()
	old, err := os.ReadFile(name)
	if err != nil && !*update {
		t.Fatal(err)
	}
	got := made(old)
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(got, old) {
		t.Errorf("%s is not what the types say: go test ./internal/config -update", name)
	}
}

// TestDocumentedExamples: every YAML example of the reference loads.
func TestDocumentedExamples(t *testing.T) {
	text, err := os.ReadFile(docs + "config.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := strings.Split(string(text), "```yaml\n")[1:]
	if len(examples) == 0 {
		t.Fatal("there is none")
	}
	for _, example := range examples {
		yaml, _, _ := strings.Cut(example, "```")
		c, err := Load(sources(t, yaml, nil, nil))
		if err == nil {
			err = c.CheckRun()
		}
		if err != nil {
			t.Errorf("%v\n%s", err, yaml)
		}
	}
}

// TestSettingsMatchKeys: every flag and variable is of a key that is there, and every
// default that a flag's help names is the default.
func TestSettingsMatchKeys(t *testing.T) {
	keys := map[string]keyDoc{}
	for _, k := range allKeys() {
		keys[k.Path] = k
	}
	seen := map[string]bool{}
	for _, s := range Settings() {
		k, ok := keys[s.Path]
		if !ok {
			t.Errorf("--%s fills %s, which is no key", s.Flag, s.Path)
		}
		if seen[s.Env] {
			t.Errorf("%s is there twice", s.Env)
		}
		seen[s.Env] = true
		_, says, found := strings.Cut(s.Help, "(default ")
		if word := strings.TrimSuffix(says, ")"); found && k.Default != "" && word != k.Default {
			t.Errorf("--%s says the default is %s, it is %s", s.Flag, word, k.Default)
		}
	}
}
