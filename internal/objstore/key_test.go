package objstore_test

import (
	"path"
	"strings"
	"testing"

	"drover/internal/objstore"
)

func TestCheckKey(t *testing.T) {
	for _, key := range []string{"a", "config", "vol/data/ab/abcdef", "A-Z_0.9/x", ".hidden", "a/..b", strings.Repeat("k", 900)} {
		if err := objstore.CheckKey(key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
	for _, key := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "a/.", "a/../b", "a b", "a\n", "ä", "a\x00", "a\\b", "a:b",
		"a%2fb", strings.Repeat("k", 901)} {
		if objstore.CheckKey(key) == nil {
			t.Errorf("%q is accepted", key)
		}
	}
}

// FuzzCheckKey: a key that is accepted stays where it was put.
func FuzzCheckKey(f *testing.F) {
	for _, key := range []string{"a/b", "../a", "a/./b", "a//b", "\xff"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if objstore.CheckKey(key) == nil && (path.Clean(key) != key || path.IsAbs(key) || strings.HasPrefix(key, "../")) {
			t.Errorf("%q is accepted, and is the path %q", key, path.Clean(key))
		}
	})
}
