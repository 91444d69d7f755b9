package repo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"drover/internal/objstore"
	"drover/internal/repo/crypto"
	"drover/internal/repo/format"
)

// KeyInfo describes one key file.
type KeyInfo struct {
	ID       format.ID
	Created  time.Time
	Hostname string
	Username string
	Current  bool // it opened this Repository
}

// AddKey stores a key file with which password opens the repository, too.
func (r *Repository) AddKey(ctx context.Context, password string) (format.ID, error) {
	if err := r.writable(); err != nil {
		return format.ID{}, fmt.Errorf("add key: %w", err)
	}
	data, err := encodeKeyFile(r.key, password)
	if err != nil {
		return format.ID{}, fmt.Errorf("add key: %w", err)
	}
	id := format.Hash(data)
	if err := r.st.Put(ctx, format.KeyFile.Key(id), data); err != nil {
		return format.ID{}, fmt.Errorf("add key: %w", err)
	}
	return id, nil
}

// ListKeys describes all key files.
func (r *Repository) ListKeys(ctx context.Context) ([]KeyInfo, error) {
	ids, err := listIDs(ctx, r.st, format.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	var keys []KeyInfo
	for _, id := range ids {
		name := format.KeyFile.Key(id)
		data, _, err := r.st.Get(ctx, name, 0, -1)
		if errors.Is(err, objstore.ErrNotFound) {
			continue // removed since the listing
		}
		if err != nil {
			return nil, fmt.Errorf("list keys: %w", err)
		}
		file, err := crypto.ParseKeyFile(data)
		if err != nil {
			return nil, fmt.Errorf("list keys: %s: %w", name, err)
		}
		keys = append(keys, KeyInfo{id, file.Created, file.Hostname, file.Username, id == r.keyID})
	}
	return keys, nil
}

// RemoveKey deletes a key file. That another one is left is the caller's to see to.
// Who has copied the removed file and knows its password still reads everything.
func RemoveKey(ctx context.Context, st objstore.Store, id format.ID) error {
	if err := st.Delete(ctx, format.KeyFile.Key(id)); err != nil {
		return fmt.Errorf("remove key %s: %w", id.Short(), err)
	}
	return nil
}

// CurrentKey is the id of the key file that opened this Repository.
func (r *Repository) CurrentKey() format.ID { return r.keyID }

// KeyFor finds the key file that password opens. Errors: ErrWrongPassword if none does.
func (r *Repository) KeyFor(ctx context.Context, password string) (format.ID, error) {
	ids, err := listIDs(ctx, r.st, format.KeyFile)
	if err != nil {
		return format.ID{}, fmt.Errorf("find key: %w", err)
	}
	_, id, err := findKey(ctx, r.st, ids, password)
	return id, err
}

// BundleOf is what makes this same repository anew, with the key file id.
func (r *Repository) BundleOf(ctx context.Context, id format.ID) (*Bundle, error) {
	b := &Bundle{KeyID: id}
	var err error
	if b.Key, _, err = r.st.Get(ctx, format.KeyFile.Key(id), 0, -1); err != nil {
		return nil, fmt.Errorf("read key %s: %w", id.Short(), err)
	}
	if format.Hash(b.Key) != id {
		return nil, fmt.Errorf("read key %s: %w: its content has another id", id.Short(), ErrDamaged)
	}
	if b.Config, _, err = r.st.Get(ctx, format.ConfigFile.Key(format.ID{}), 0, -1); err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	return b, nil
}
