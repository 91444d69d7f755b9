// Package file is a catalog that stands in a file, for services that are registered
// nowhere: YAML, or JSON, which is YAML.
//
//	services:
//	  db:
//	    - {address: 10.0.0.5, port: 5432, tags: [primary], meta: {zone: a}}
//
// The file is read again and again, and told when it says something else and has held still
// for a moment, since who writes it may not be done. One that is missing, empty or wrong is a failure, told
// with its line, and what it said last stays. It can only be read: an instance has the status that stands there.
package file

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"drover/internal/coord"
)

// still is how long new contents must have stayed the same before they are believed.
const still = 200 * time.Millisecond

// Options are the limits; zero values mean the defaults given here.
type Options struct {
	Interval time.Duration // between two looks at the file; 2 s
}

// Catalog is the catalog in one file. Use New.
type Catalog struct {
	path string
	opt  Options

	mu   sync.Mutex
	read bool // the two below are what the file was
	data []byte
	said services
	err  error
}

var _ coord.Catalog = (*Catalog)(nil)

// New returns the catalog in the file at path. It does not look at it.
func New(path string, opt Options) *Catalog {
	opt.Interval = cmp.Or(opt.Interval, 2*time.Second)
	return &Catalog{path: path, opt: opt}
}

// load reads the file, and parses it if it is not what it was.
func (c *Catalog) load(ctx context.Context) (services, error) {
	data, err := readFile(c.path)
	for err == nil {
		if said, wrong, known := c.known(data); known {
			return said, wrong
		}
		coord.Wait(ctx, still)
		var again []byte
		if again, err = readFile(c.path); err == nil && bytes.Equal(again, data) {
			return c.keep(data)
		}
		data = again
		if err == nil {
			err = ctx.Err()
		}
	}
	return nil, err
}

func (c *Catalog) known(data []byte) (services, error, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said, c.err, c.read && bytes.Equal(c.data, data)
}

func (c *Catalog) keep(data []byte) (services, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said, c.err = parse(c.path, data)
	c.data, c.read = data, true
	return c.said, c.err
}

// readFile reads no more than a byte over the limit. Errors: ErrUnavailable, ErrUnauthorized.
func readFile(path string) ([]byte, error) {
	kind := coord.ErrUnavailable
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		kind = coord.ErrUnauthorized
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kind, err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", path, coord.ErrUnavailable, err)
	}
	return data, nil
}

// watch tells what is picked from the file, until ctx ends.
func watch[T any](ctx context.Context, c *Catalog, equal func(a, b T) bool, fn func(T, error), pick func(services) T) {
	tell := coord.NewTeller(fn, equal)
	for ctx.Err() == nil {
		if said, err := c.load(ctx); err != nil {
			tell.Failed(ctx, err)
		} else {
			tell.State(pick(said))
		}
		coord.Wait(ctx, c.opt.Interval)
	}
}

// WatchService implements coord.Catalog. There are no distances: Near changes nothing.
func (c *Catalog) WatchService(ctx context.Context, q coord.Query, fn func([]coord.Instance, error)) {
	if q.Datacenter != "" {
		coord.Refuse(ctx, fn, fmt.Errorf("watch service %s: datacenter %q: %w", q.Name, q.Datacenter, coord.ErrUnsupported))
		return
	}
	watch(ctx, c, coord.EqualInstances, fn, func(said services) (found []coord.Instance) {
		for _, i := range said[q.Name] {
			if q.Wants(i.Status, i.Tags) {
				i.Tags, i.Meta = slices.Clone(i.Tags), maps.Clone(i.Meta)
				found = append(found, i)
			}
		}
		return found
	})
}

// WatchServices implements coord.Catalog.
func (c *Catalog) WatchServices(ctx context.Context, datacenter string, fn func(map[string][]string, error)) {
	if datacenter != "" {
		coord.Refuse(ctx, fn, fmt.Errorf("watch services: datacenter %q: %w", datacenter, coord.ErrUnsupported))
		return
	}
	watch(ctx, c, coord.EqualServices, fn, func(said services) map[string][]string {
		all := map[string][]string{}
		for name, list := range said {
			var tags []string
			for _, i := range list {
				tags = append(tags, i.Tags...)
			}
			slices.Sort(tags)
			all[name] = slices.Compact(tags)
		}
		return all
	})
}
