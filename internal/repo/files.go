package repo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"
	"sync"

	"drover/internal/objstore"
	"drover/internal/repo/format"

	"golang.org/x/sync/errgroup"
)

// compressedVersion is the first byte of an unpacked file that is compressed.
const compressedVersion = 2

// identity is who we are in key files and locks.
func identity() (host, name string) {
	host, _ = os.Hostname() // "" says as much as an error
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return host, name
}

// listFiles calls fn for every file of type t, with its id. Objects whose names
// are not ids are not the repository's, and are passed over.
func listFiles(ctx context.Context, st objstore.Store, t format.FileType, fn func(format.ID, objstore.Info) error) error {
	return st.List(ctx, string(t)+"/", func(info objstore.Info) error {
		id, err := format.ParseID(info.Key[strings.LastIndexByte(info.Key, '/')+1:])
		if err != nil || t.Key(id) != info.Key {
			return nil //nolint:nilerr // not the repository's, see above
		}
		return fn(id, info)
	})
}

func listIDs(ctx context.Context, st objstore.Store, t format.FileType) ([]format.ID, error) {
	var ids []format.ID
	err := listFiles(ctx, st, t, func(id format.ID, _ objstore.Info) error {
		ids = append(ids, id)
		return nil
	})
	return ids, err
}

// listPacks returns the sizes of all stored packs.
func (r *Repository) listPacks(ctx context.Context) (map[format.ID]int64, error) {
	packs := make(map[format.ID]int64)
	err := listFiles(ctx, r.st, format.DataFile, func(id format.ID, info objstore.Info) error {
		packs[id] = info.Size
		return nil
	})
	return packs, err
}

// encodeFile makes the bytes of an index, a snapshot or a lock from its JSON.
func (r *Repository) encodeFile(plain []byte) (format.ID, []byte) {
	packed := r.zstd.all([]byte{compressedVersion}, plain)
	sealed := r.key.Seal(nil, packed)
	return format.Hash(sealed), sealed
}

// decodeFile opens the bytes of the file (t, id), in place.
func (r *Repository) decodeFile(t format.FileType, id format.ID, sealed []byte) ([]byte, error) {
	if format.Hash(sealed) != id {
		return nil, fmt.Errorf("%s: %w: its content has another id", t.Key(id), ErrDamaged)
	}
	plain, err := r.key.Open(sealed)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", t.Key(id), ErrDamaged, err)
	}
	plain, err = r.unpack(plain)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", t.Key(id), ErrDamaged, err)
	}
	return plain, nil
}

func (r *Repository) unpack(plain []byte) ([]byte, error) {
	if len(plain) == 0 {
		return nil, errors.New("it is empty")
	}
	switch plain[0] {
	case '{', '[': // JSON as it is, of a repository that once was of version 1
		return plain, nil
	case compressedVersion:
		return r.zstd.expand(plain[1:])
	}
	return nil, fmt.Errorf("unknown encoding %d", plain[0])
}

// saveFile stores the file of type t with the JSON plain.
func (r *Repository) saveFile(ctx context.Context, t format.FileType, plain []byte) (format.ID, error) {
	if err := r.writable(); err != nil {
		return format.ID{}, fmt.Errorf("store %s: %w", t, err)
	}
	id, sealed := r.encodeFile(plain)
	return id, r.st.Put(ctx, t.Key(id), sealed)
}

// loadFile reads the file (t, id) and returns its JSON.
func (r *Repository) loadFile(ctx context.Context, t format.FileType, id format.ID) ([]byte, error) {
	sealed, _, err := r.st.Get(ctx, t.Key(id), 0, -1)
	if err != nil {
		return nil, err
	}
	return r.decodeFile(t, id, sealed)
}

// loadFiles reads files in parallel and calls fn, one at a time, with each one's
// JSON or its error. An error of fn ends it.
func (r *Repository) loadFiles(ctx context.Context, t format.FileType, ids []format.ID, fn func(format.ID, []byte, error) error) error {
	var mu sync.Mutex
	return forEach(ctx, r.opt.Connections, ids, func(ctx context.Context, id format.ID) error {
		plain, err := r.loadFile(ctx, t, id)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		mu.Lock()
		defer mu.Unlock()
		return fn(id, plain, err)
	})
}

func (r *Repository) removeFile(ctx context.Context, t format.FileType, id format.ID) error {
	if err := r.writable(); err != nil {
		return fmt.Errorf("remove %s: %w", t.Key(id), err)
	}
	return r.st.Delete(ctx, t.Key(id))
}

// forEach calls fn for every item, limit at once, until one fails.
func forEach[T any](ctx context.Context, limit int, items []T, fn func(context.Context, T) error) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(limit)
	for _, item := range items {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if err := gctx.Err(); err != nil {
				return err
			}
			return fn(gctx, item)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}
