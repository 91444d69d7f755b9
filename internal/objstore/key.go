package objstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// CheckKey says whether key is one that every backend can store.
func CheckKey(key string) error {
	if key == "" {
		return errors.New("key is empty")
	}
	if len(key) > 900 {
		return fmt.Errorf("key of %d bytes is too long", len(key))
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("key %q has an element %q", key, part)
		}
	}
	for i := range len(key) {
		c := key[i]
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			c == '/' || c == '.' || c == '_' || c == '-'
		if !ok {
			return fmt.Errorf("key %q has a byte %q that not every store keeps", key, c)
		}
	}
	return nil
}

// WithPrefix returns a view of s in which every key is below prefix (no slash
// at its end). An empty prefix returns s itself.
func WithPrefix(s Store, prefix string) Store {
	if prefix == "" {
		return s
	}
	return &prefixed{s, prefix + "/"}
}

type prefixed struct {
	under  Store
	prefix string // ends in a slash
}

func (p *prefixed) Describe() string {
	if d, ok := p.under.(Describer); ok {
		return strings.TrimSuffix(d.Describe(), "/") + "/" + strings.TrimSuffix(p.prefix, "/")
	}
	return strings.TrimSuffix(p.prefix, "/")
}

func (p *prefixed) strip(i Info) Info {
	i.Key = strings.TrimPrefix(i.Key, p.prefix)
	return i
}

func (p *prefixed) Get(ctx context.Context, key string, offset, length int64) ([]byte, Info, error) {
	b, i, err := p.under.Get(ctx, p.prefix+key, offset, length)
	return b, p.strip(i), err
}

func (p *prefixed) Head(ctx context.Context, key string) (Info, error) {
	i, err := p.under.Head(ctx, p.prefix+key)
	return p.strip(i), err
}

func (p *prefixed) Put(ctx context.Context, key string, data []byte) error {
	return p.under.Put(ctx, p.prefix+key, data)
}

func (p *prefixed) PutIf(ctx context.Context, key string, data []byte, cond Condition) (ETag, error) {
	return p.under.PutIf(ctx, p.prefix+key, data, cond)
}

func (p *prefixed) List(ctx context.Context, prefix string, fn func(Info) error) error {
	return p.under.List(ctx, p.prefix+prefix, func(i Info) error { return fn(p.strip(i)) })
}

func (p *prefixed) Delete(ctx context.Context, key string) error {
	return p.under.Delete(ctx, p.prefix+key)
}
