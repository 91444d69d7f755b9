package config

import (
	"errors"
	"strings"
	"testing"
)

// FuzzLoad: whatever the file holds, it is a Config that holds its own rules, or one
// line that says where it is wrong.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		designExample, "", "{}", "---\n---\n", "a: &a [*a]", "a: &a {b: *a}", "<<: {volume: a}", "? [a]\n: b", "volume: |\n  a\n", "jobs: {a: {command: [x, 5, null]}}",
		"state:\n- /a\n- path: /b\n", "\"volume\": 'a'", "volume: !!str a", "limits: {memory: .inf}", "%YAML 1.2\n---\nvolume: a", "volume: a # b\n", "a: b: c", "\xff\xfe", "key: [",
		"lease: {ttl: 1h0m}", "jobs: &j {a: &c {command: x}, b: *c}\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := loadText(text)
		if err != nil {
			var bad *Error
			if !errors.As(err, &bad) {
				t.Fatalf("not an Error: %v", err)
			}
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("more than a line: %q", err)
			}
			return
		}
		if err := c.check(); err != nil {
			t.Fatalf("loaded against its own rules: %v", err)
		}
		for i, a := range c.State {
			for _, b := range c.State[:i] {
				if overlap(a.Path, b.Path) {
					t.Fatalf("paths overlap: %q, %q", a.Path, b.Path)
				}
			}
		}
	})
}

// loadText is Load of a file's text alone, without the disk.
func loadText(text []byte) (*Config, error) {
	src := Sources{
		Env: func(string) (string, bool) { return "", false }, UID: func() int { return 0 },
		Hostname: func() (string, error) { return "host", nil },
	}
	c := Default()
	if err := decodeFile(c, "drover.yaml", text); err != nil {
		return nil, err
	}
	if err := errors.Join(src.addCommand(c), src.fillIn(c)); err != nil {
		return nil, err
	}
	return c, c.check()
}
