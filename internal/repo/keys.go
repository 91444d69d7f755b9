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

// RemoveKey deletes a key file, but not the one that opened this Repository: at
// least one password must be left that is known to work. Who has copied the
// removed file and knows its password still reads everything.
func (r *Repository) RemoveKey(ctx context.Context, id format.ID) error {
	if id == r.keyID {
		return fmt.Errorf("remove key %s: it is the one in use; open with another password to remove it", id.Short())
	}
	if err := r.removeFile(ctx, format.KeyFile, id); err != nil {
		return fmt.Errorf("remove key %s: %w", id.Short(), err)
	}
	return nil
}
