package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"drover/internal/repo/exclude"
)

// clearPaths makes the paths what a volume without a snapshot has: nothing, markers
// and what is excluded aside. A path that is a file is emptied, not removed: its marker
// is on it. Running it again after it was interrupted ends in the same state.
func clearPaths(ctx context.Context, paths, excluded []string) error {
	set, err := exclude.New(excluded)
	if err != nil {
		return fmt.Errorf("clear the paths: %w", err)
	}
	for _, p := range paths {
		if err := clearPath(ctx, p, func(name string) bool { return IsMarker(paths, name) || set.Match(name) }); err != nil {
			return fmt.Errorf("clear %s: %w", p, err)
		}
	}
	return nil
}

func clearPath(ctx context.Context, p string, keep func(string) bool) error {
	fi, err := os.Stat(p)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !fi.IsDir():
		return os.Truncate(p, 0)
	}
	root, err := os.OpenRoot(p)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return clearDir(ctx, root, p, ".", keep)
}

// clearDir removes what is in the directory name of root; a directory that holds
// something to keep stays.
func clearDir(ctx context.Context, root *os.Root, base, name string, keep func(string) bool) error {
	dir, err := root.Open(name)
	if err != nil {
		return err
	}
	entries, err := dir.ReadDir(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return err
	}
	for _, e := range entries {
		child := path.Join(name, e.Name())
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if keep(filepath.Join(base, child)) {
			continue
		}
		if e.IsDir() {
			if err := clearDir(ctx, root, base, child, keep); err != nil {
				return err
			}
		}
		if err := root.Remove(child); err != nil && !(e.IsDir() && errors.Is(err, unix.ENOTEMPTY)) {
			return err
		}
	}
	return nil
}
