package volume

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"drover/internal/objstore"
	"drover/internal/repo/format"
)

// shelf has the bytes of snapshot objects in a file, as the store has them: sealed, each
// after its length. An object never changes, and its id is the hash of its bytes: what
// does not have the right one counts for nothing, so the file may be anything at all.
type shelf struct {
	path string

	mu   sync.Mutex
	file *os.File
	size int64
	at   map[format.ID]span
}

type span struct {
	offset int64
	length uint32
}

// mostShelved bounds one object: a snapshot's are some hundred bytes, and a long list of paths.
const mostShelved = 1 << 20

// openShelf reads the file, or makes it.
func openShelf(path string) (*shelf, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open kept snapshots: %w", err)
	}
	h := &shelf{path: path, file: file, at: map[format.ID]span{}}
	if err := h.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("read kept snapshots: %w", err), file.Close())
	}
	return h, nil
}

// load stops at what is no record; the next one is written over it.
func (h *shelf) load() error {
	const lengthBytes = 4
	in := io.NewSectionReader(h.file, 0, 1<<62)
	var head [lengthBytes]byte
	for {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return ended(err)
		}
		n := binary.LittleEndian.Uint32(head[:])
		if n == 0 || n > mostShelved {
			return nil
		}
		data := make([]byte, n)
		if _, err := io.ReadFull(in, data); err != nil {
			return ended(err)
		}
		h.at[format.Hash(data)] = span{h.size + lengthBytes, n}
		h.size += lengthBytes + int64(n)
	}
}

func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

func (h *shelf) get(id format.ID) ([]byte, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok := h.at[id]
	if !ok {
		return nil, false
	}
	data := make([]byte, s.length)
	if _, err := h.file.ReadAt(data, s.offset); err != nil || format.Hash(data) != id {
		delete(h.at, id)
		return nil, false
	}
	return data, true
}

// put keeps an object's bytes, if it can: what is not kept is read from the store again.
func (h *shelf) put(id format.ID, data []byte) {
	if len(data) == 0 || len(data) > mostShelved || format.Hash(data) != id {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.at[id]; ok {
		return
	}
	record := append(binary.LittleEndian.AppendUint32(nil, uint32(len(data))), data...)
	if _, err := h.file.WriteAt(record, h.size); err != nil {
		return
	}
	h.at[id] = span{h.size + int64(len(record)-len(data)), uint32(len(data))}
	h.size += int64(len(record))
}

// tidy begins the file anew when most of it is of objects that are gone.
func (h *shelf) tidy(there func(format.ID) bool) error {
	h.mu.Lock()
	var live int64
	ids := make([]format.ID, 0, len(h.at))
	for id, s := range h.at {
		if there(id) {
			live += int64(s.length)
			ids = append(ids, id)
		}
	}
	wasteful := h.size > mostShelved && live < h.size/2
	h.mu.Unlock()
	if !wasteful {
		return nil
	}
	if err := os.Remove(h.path + ".new"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("tidy kept snapshots: %w", err)
	}
	next, err := openShelf(h.path + ".new")
	if err != nil {
		return err
	}
	for _, id := range ids {
		if data, ok := h.get(id); ok {
			next.put(id, data)
		}
	}
	if err := os.Rename(next.path, h.path); err != nil {
		return errors.Join(fmt.Errorf("tidy kept snapshots: %w", err), next.close())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.file
	h.file, h.size, h.at = next.file, next.size, next.at
	return old.Close()
}

func (h *shelf) close() error { return h.file.Close() }

// through is a store whose snapshot objects are read once.
func (h *shelf) through(st objstore.Store) objstore.Store { return shelved{st, h} }

type shelved struct {
	objstore.Store
	shelf *shelf
}

// Get implements objstore.Store. An object that is gone may be found still: a listing
// says what there is.
func (s shelved) Get(ctx context.Context, key string, offset, length int64) ([]byte, objstore.Info, error) {
	name, ok := strings.CutPrefix(key, string(format.SnapshotFile)+"/")
	id, err := format.ParseID(name)
	if !ok || err != nil || offset != 0 || length >= 0 {
		return s.Store.Get(ctx, key, offset, length)
	}
	if data, ok := s.shelf.get(id); ok {
		return data, objstore.Info{Key: key, Size: int64(len(data))}, nil
	}
	data, info, err := s.Store.Get(ctx, key, offset, length)
	if err == nil {
		s.shelf.put(id, data)
	}
	return data, info, err
}

// Describe implements objstore.Describer.
func (s shelved) Describe() string {
	if d, ok := s.Store.(objstore.Describer); ok {
		return d.Describe()
	}
	return ""
}
