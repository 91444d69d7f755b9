package coord

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxKey is the longest key in bytes. It stands in a URL with Consul.
const maxKey = 512

// CheckKey says whether every backend can keep key: slash-separated, without a leading
// slash, with no part that is empty (but the last), "." or "..", of printable characters
// (Consul cleans paths and refuses the others).
func CheckKey(key string) error {
	switch {
	case key == "":
		return errors.New("key is empty")
	case len(key) > maxKey:
		return fmt.Errorf("key of %d bytes is longer than %d", len(key), maxKey)
	case !utf8.ValidString(key):
		return fmt.Errorf("key %q is not UTF-8", key)
	}
	parts := strings.Split(key, "/")
	for i, part := range parts {
		if part == "." || part == ".." || part == "" && (i == 0 || i < len(parts)-1) {
			return fmt.Errorf("key %q has an element %q", key, part)
		}
	}
	for _, c := range key {
		if !unicode.IsPrint(c) {
			return fmt.Errorf("key %q has a character %q, which cannot be printed", key, c)
		}
	}
	return nil
}

// CheckPrefix says whether keys below prefix can be asked for.
func CheckPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	return CheckKey(prefix)
}

// CheckOps says whether ops is a batch as Apply takes it, of at most most steps. Errors:
// ErrTooLarge.
func CheckOps(ops []Op, most int) error {
	if len(ops) > most {
		return fmt.Errorf("batch of %d steps, of at most %d: %w", len(ops), most, ErrTooLarge)
	}
	seen := make(map[string]bool, len(ops))
	for _, op := range ops {
		if err := CheckKey(op.Key); err != nil {
			return err
		}
		if seen[op.Key] {
			return fmt.Errorf("batch has key %q twice", op.Key)
		}
		seen[op.Key] = true
	}
	return nil
}

// CheckRegistration says whether every catalog can keep r.
func CheckRegistration(r Registration) error {
	for _, s := range []string{r.ID, r.Name} {
		if err := CheckKey(s); err != nil {
			return fmt.Errorf("service %q, instance %q: %w", r.Name, r.ID, err)
		}
		if strings.Contains(s, "/") {
			return fmt.Errorf("service %q, instance %q: a slash is in it", r.Name, r.ID)
		}
	}
	if r.TTL <= 0 {
		return fmt.Errorf("instance %q: TTL %v is not positive", r.ID, r.TTL)
	}
	return nil
}

// Kind returns which kind of error err is, nil if it is none of them.
func Kind(err error) error {
	for _, kind := range []error{ErrNotFound, ErrConflict, ErrUnauthorized, ErrTooLarge, ErrUnsupported, ErrUnavailable} {
		if errors.Is(err, kind) {
			return kind
		}
	}
	return nil
}
