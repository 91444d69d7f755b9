package objstore

import (
	"context"
	"strings"
)

// FolderLister is implemented by stores that need not list every object to know the
// folders at their root.
type FolderLister interface {
	// Folders calls fn for the first element of every key that has more than one, in
	// no promised order, each once. Some may hold nothing any more. Errors, also of
	// fn, as those of List; safe to repeat.
	Folders(ctx context.Context, fn func(name string) error) error
}

// Folders does what FolderLister says, of any store.
func Folders(ctx context.Context, s Store, fn func(name string) error) error {
	if l, ok := s.(FolderLister); ok {
		return l.Folders(ctx, fn)
	}
	told := map[string]bool{}
	return s.List(ctx, "", func(i Info) error {
		name, _, below := strings.Cut(i.Key, "/")
		if !below || told[name] {
			return nil
		}
		told[name] = true
		return fn(name)
	})
}
