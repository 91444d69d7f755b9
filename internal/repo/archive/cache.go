package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"drover/internal/repo"
	"drover/internal/repo/format"
)

// TreeCache keeps copies of tree blobs, so that an incremental backup reads
// nothing from the store. Its methods may be called at once. Put does not keep data.
type TreeCache interface {
	Get(id format.ID) ([]byte, bool)
	Put(id format.ID, data []byte)
}

func loadTree(ctx context.Context, r *repo.Repository, cache TreeCache, id format.ID) ([]byte, error) {
	if cache != nil {
		if data, ok := cache.Get(id); ok {
			return data, nil
		}
	}
	data, err := r.LoadBlob(ctx, format.Handle{Type: format.TreeBlob, ID: id}, nil)
	if err == nil && cache != nil {
		cache.Put(id, data)
	}
	return data, err
}

// DirCache is a TreeCache of files in one directory, which is its own. It is
// only a cache: errors of the disk are misses. A file that was torn by a crash is
// found by its content, which is verified whenever it is read.
type DirCache struct {
	dir string
	max int64 // bytes

	mu    sync.Mutex
	sizes map[string]int64
	total int64
}

const linksSuffix = ".links"

// OpenDirCache opens or makes the cache in dir, bounded to max bytes (the sum of
// the files' sizes). Files in dir that are not the cache's are left alone.
func OpenDirCache(dir string, max int64) (*DirCache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open tree cache: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open tree cache: %w", err)
	}
	c := &DirCache{dir: dir, max: max, sizes: make(map[string]int64)}
	for _, e := range entries {
		info, err := e.Info()
		if _, idErr := format.ParseID(strings.TrimSuffix(e.Name(), linksSuffix)); err != nil || idErr != nil || !info.Mode().IsRegular() {
			continue
		}
		c.sizes[e.Name()] = info.Size()
		c.total += info.Size()
	}
	return c, nil
}

// Get returns a tree blob.
func (c *DirCache) Get(id format.ID) ([]byte, bool) {
	name := id.String()
	if !c.has(name) {
		return nil, false
	}
	data, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil || format.Hash(data) != id {
		c.drop(name)
		return nil, false
	}
	return data, true
}

// Put keeps a tree blob.
func (c *DirCache) Put(id format.ID, data []byte) {
	if name := id.String(); !c.has(name) {
		c.write(name, data)
	}
}

// GetLinks returns what PutLinks kept for the snapshot with that top tree.
func (c *DirCache) GetLinks(tree format.ID) ([]byte, bool) {
	name := tree.String() + linksSuffix
	if !c.has(name) {
		return nil, false
	}
	data, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil || len(data) < len(format.ID{}) {
		c.drop(name)
		return nil, false
	}
	sum := format.Hash(data[len(format.ID{}):])
	if !bytes.Equal(sum[:], data[:len(sum)]) {
		c.drop(name)
		return nil, false
	}
	return data[len(sum):], true
}

// PutLinks keeps data for the snapshot with that top tree.
func (c *DirCache) PutLinks(tree format.ID, data []byte) {
	sum := format.Hash(data)
	c.write(tree.String()+linksSuffix, append(sum[:], data...))
}

func (c *DirCache) has(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.sizes[name]
	return ok
}

func (c *DirCache) write(name string, data []byte) {
	if int64(len(data)) > c.max {
		return
	}
	if err := os.WriteFile(filepath.Join(c.dir, name), data, 0o600); err != nil {
		c.drop(name)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total += int64(len(data)) - c.sizes[name]
	c.sizes[name] = int64(len(data))
	if c.total > c.max {
		c.evict()
	}
}

func (c *DirCache) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := os.Remove(filepath.Join(c.dir, name)); err == nil || errors.Is(err, os.ErrNotExist) {
		c.total -= c.sizes[name]
		delete(c.sizes, name)
	}
}

// evict removes the files written longest ago until a quarter is free. A tree
// that is still in use is read from the store and written again.
func (c *DirCache) evict() {
	type aged struct {
		name string
		time int64
	}
	var all []aged
	for name := range c.sizes {
		var t int64
		if info, err := os.Stat(filepath.Join(c.dir, name)); err == nil {
			t = info.ModTime().UnixNano()
		}
		all = append(all, aged{name, t})
	}
	slices.SortFunc(all, func(a, b aged) int { return int(min(1, max(-1, a.time-b.time))) })
	for _, f := range all {
		if c.total <= c.max/4*3 {
			return
		}
		if err := os.Remove(filepath.Join(c.dir, f.name)); err == nil || errors.Is(err, os.ErrNotExist) {
			c.total -= c.sizes[f.name]
			delete(c.sizes, f.name)
		}
	}
}

func plainUTF8(s string) bool { return utf8.ValidString(s) }
