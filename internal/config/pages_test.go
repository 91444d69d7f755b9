package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPagesAreValid: what pages show as a whole configuration is one.
func TestPagesAreValid(t *testing.T) {
	for _, page := range []string{"discovery.md", "secrets.md"} {
		text, err := os.ReadFile(docs + page)
		if err != nil {
			t.Fatal(err)
		}
		blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
		if len(blocks) == 0 {
			t.Errorf("%s shows nothing", page)
		}
		for _, block := range blocks {
			file := filepath.Join(t.TempDir(), "drover.yaml")
			if err := os.WriteFile(file, []byte(block[1]), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(Sources{File: file, Env: func(string) (string, bool) { return "", false }}); err != nil {
				t.Errorf("%s: %v in\n%s", page, err, strings.TrimSpace(block[1]))
			}
		}
	}
}
