package manta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"drover/internal/objstore"
)

const (
	// pageSize is how many entries one answer may have. Manta's documents give
	// 1000 and 1024 as the most.
	pageSize = 1000
	// maxWalkers is how many directories are listed at once. A repository has
	// 256 of them, and each takes two round trips.
	maxWalkers = 8
)

var (
	// errNotListed is that something may be missing from a listing.
	errNotListed = errors.New("the listing is not one of Manta's")
	// errNotDirectory is that an object has the name of a directory.
	errNotDirectory = errors.New("it is an object, and no directory")
)

// List implements objstore.Store. It lists the directory that prefix names, and
// those below it.
func (s *Store) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("list %s: %w", prefix, err)
	}
	dir, begin := "", prefix
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir, begin = prefix[:i], prefix[i+1:]
		if !isKey(dir) {
			return nil // no key begins so
		}
	}
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(maxWalkers)
	w := &walk{store: s, group: group, fn: fn}
	group.Go(func() error { return w.directory(within, dir, begin) })
	err := group.Wait()
	switch {
	case w.failed != nil:
		return w.failed
	case err != nil:
		return wrap(ctx, "list", prefix, err)
	}
	return nil
}

// Folders implements objstore.FolderLister.
func (s *Store) Folders(ctx context.Context, fn func(string) error) error {
	var refused error
	err := s.entries(ctx, s.path(""), func(e entry) error {
		if e.Type == "object" || !isKey(e.Name) {
			return nil
		}
		refused = fn(e.Name)
		return refused
	})
	switch {
	case refused != nil:
		return refused
	case err != nil:
		return wrap(ctx, "list", "", err)
	}
	return ctx.Err()
}

func isKey(s string) bool { return objstore.CheckKey(s) == nil }

// walk is one List: several directories are read at once, and fn is called
// from one goroutine at a time.
type walk struct {
	store *Store
	group *errgroup.Group

	mu     sync.Mutex
	fn     func(objstore.Info) error
	failed error // what fn returned; it is not called again
}

// directory lists what is in dir, a key or "", and has names that start with begin.
func (w *walk) directory(ctx context.Context, dir, begin string) error {
	return w.store.entries(ctx, w.store.path(dir), func(e entry) error {
		key := e.Name
		if dir != "" {
			key = dir + "/" + e.Name
		}
		if !strings.HasPrefix(e.Name, begin) || !isKey(key) {
			return nil // the latter: another program's
		}
		if e.Type == "object" {
			return w.tell(objstore.Info{Key: key, Size: e.Size, ETag: objstore.ETag(e.ETag), ModTime: e.ModTime})
		}
		below := func() error { return w.directory(ctx, key, "") }
		if w.group.TryGo(below) {
			return nil
		}
		return below()
	})
}

func (w *walk) tell(i objstore.Info) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed == nil {
		w.failed = w.fn(i)
	}
	return w.failed
}

// entries calls fn for each entry of a directory; none if there is no such.
//
// A server that fails in the middle of a listing ends its answer as if it were
// complete. So a page that is short says nothing: a listing is at its end when
// an answer has nothing but the entry that it was asked to begin with.
func (s *Store) entries(ctx context.Context, dir string, fn func(entry) error) error {
	marker := ""
	for {
		page, err := s.page(ctx, dir, marker, pageSize)
		if errors.Is(err, objstore.ErrNotFound) || errors.Is(err, errNotDirectory) {
			return nil // perhaps no longer: then it was empty
		}
		if err != nil {
			return err
		}
		if len(page) > 0 && page[0].Name == marker {
			page = page[1:]
		}
		if len(page) == 0 {
			return nil
		}
		last := page[len(page)-1].Name
		if last == marker {
			return fmt.Errorf("%w: %w: asked to go on after %q, it ends there again", objstore.ErrUnsupported, errNotListed, marker)
		}
		for _, e := range page {
			if err := fn(e); err != nil {
				return err
			}
		}
		marker = last
	}
}

// page returns up to limit entries of a directory from marker on; "" is the
// beginning. It is ErrNotFound if nothing has the name, errNotDirectory if an
// object has it.
func (s *Store) page(ctx context.Context, dir, marker string, limit int) ([]entry, error) {
	query := url.Values{"limit": {strconv.Itoa(limit)}}
	if marker != "" {
		query.Set("marker", marker)
	}
	resp, err := s.do(ctx, request{method: http.MethodGet, path: dir, query: query})
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if isDirectory(resp.Header) {
		return readEntries(resp.Body)
	}
	if _, err := etagOf(resp.Header); err != nil {
		return nil, fmt.Errorf("%w: %w: it has the type %q", objstore.ErrUnavailable, errNotListed, resp.Header.Get("Content-Type"))
	}
	return nil, fmt.Errorf("list directory %s: %w", dir, errNotDirectory)
}

// entry is one line of a listing ("ListDirectory" of Manta's REST API).
type entry struct {
	Name    string    `json:"name"`
	Type    string    `json:"type"` // object or directory
	ETag    string    `json:"etag"`
	Size    int64     `json:"size"` // bytes
	ModTime time.Time `json:"mtime"`
}

// readEntries reads a listing, and nothing of one that is not whole.
func readEntries(r io.Reader) ([]entry, error) {
	var list []entry
	decoder := json.NewDecoder(r)
	for {
		var e entry
		err := decoder.Decode(&e)
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w: %w", objstore.ErrUnavailable, errNotListed, err)
		}
		known := e.Type == "object" || e.Type == "directory"
		if !known || e.Name == "" || strings.Contains(e.Name, "/") || e.Size < 0 {
			return nil, fmt.Errorf("%w: %w: it has an entry %+v", objstore.ErrUnavailable, errNotListed, e)
		}
		list = append(list, e)
	}
}
