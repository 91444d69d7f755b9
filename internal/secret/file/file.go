// Package file is the source of secrets in files: Docker's, Kubernetes', or anybody's.
//
// A file is one secret, whose Data has the content under "value"; a text's last line end
// does not count. It is read again every so often, and a new content is a newer state. A
// list is of the files in a directory. Who may read the files is left to their modes.
package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"drover/internal/secret"
	"drover/internal/secret/polling"
)

// Directory is where Docker and Podman put secrets.
const Directory = "/run/secrets"

// Every is how often a file is read again.
const Every = 2 * time.Second

const largest = 16 << 20 // bytes

// New returns a source of the files below a directory ("": Directory). A path that begins
// with a slash is taken as it is.
func New(dir string, every time.Duration) secret.Source {
	if dir == "" {
		dir = Directory
	}
	return polling.New(func(_ context.Context, r secret.Request) (*secret.Secret, error) {
		path := r.Path
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if r.Params != nil {
			return nil, fmt.Errorf("read %s: a file is not asked with parameters", path)
		}
		data, err := read(path, r.List)
		if err != nil {
			return nil, translate(err)
		}
		return &secret.Secret{Data: data}, nil
	}, every)
}

func read(path string, list bool) (map[string]any, error) {
	if list {
		return names(path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return nil, fmt.Errorf("read %s: it is a directory", path)
	}
	content, err := io.ReadAll(io.LimitReader(f, largest+1))
	if err != nil {
		return nil, err
	}
	if len(content) > largest {
		return nil, fmt.Errorf("read %s: it is larger than %d bytes", path, largest)
	}
	return map[string]any{"value": text(content)}, nil
}

// text is the content without its last line end, if it is a text.
func text(content []byte) string {
	if utf8.Valid(content) {
		content, _ = bytes.CutSuffix(content, []byte("\n"))
		content, _ = bytes.CutSuffix(content, []byte("\r"))
	}
	return string(content)
}

// names lists the files in a directory, without the hidden ones that Kubernetes keeps its
// versions in.
func names(dir string) (map[string]any, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	keys := []any{}
	for _, e := range entries {
		if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			keys = append(keys, e.Name())
		}
	}
	return map[string]any{"keys": keys}, nil
}

// translate adds the port's kind.
func translate(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", secret.ErrNotFound, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", secret.ErrUnauthorized, err)
	}
	return err
}
