package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"drover/internal/objstore"
	"drover/internal/repo/crypto"
	"drover/internal/repo/format"
)

// Bundle is what makes a new repository: both objects, made before anything is
// stored. It holds no secret that the password does not protect.
type Bundle struct {
	Key    []byte    `json:"key"`    // the key file's bytes
	KeyID  format.ID `json:"key_id"` // its name
	Config []byte    `json:"config"` // the config object's bytes, sealed
}

// NewBundle makes a new repository's master key, its config, and a key file that
// opens with password. It stores nothing.
func NewBundle(password string) (*Bundle, error) {
	key := crypto.NewRandomKey()
	file, err := encodeKeyFile(key, password)
	if err != nil {
		return nil, fmt.Errorf("make repository: %w", err)
	}
	config, err := json.Marshal(configJSON{
		Version:    2,
		ID:         format.NewRandomID().String(),
		Polynomial: strconv.FormatUint(newPolynomial(), 16),
	})
	if err != nil {
		return nil, fmt.Errorf("make repository: %w", err)
	}
	// Neither a version byte nor compression: restic reads its config before it
	// knows that the repository is of version 2.
	return &Bundle{Key: file, KeyID: format.Hash(file), Config: key.Seal(nil, config)}, nil
}

func encodeKeyFile(key *crypto.Key, password string) ([]byte, error) {
	host, user := identity()
	file, err := crypto.NewKeyFile(key, password, host, user, time.Now())
	if err != nil {
		return nil, err
	}
	return file.Encode()
}

// Materialise stores the bundle's objects, the key first, each only if it is
// absent. It is idempotent, and fails if another repository is there.
func Materialise(ctx context.Context, st objstore.Store, b *Bundle) error {
	if format.Hash(b.Key) != b.KeyID {
		return fmt.Errorf("create repository: %w: the bundle's key has another id", ErrDamaged)
	}
	for _, o := range []struct {
		key  string
		data []byte
	}{{format.KeyFile.Key(b.KeyID), b.Key}, {format.ConfigFile.Key(format.ID{}), b.Config}} {
		if err := createExactly(ctx, st, o.key, o.data); err != nil {
			return fmt.Errorf("create repository: %w", err)
		}
	}
	return nil
}

// Check fails with ErrDamaged if the bundle is not what r, an opened repository, began with.
func (b *Bundle) Check(ctx context.Context, r *Repository) error {
	config, _, err := r.st.Get(ctx, format.ConfigFile.Key(format.ID{}), 0, -1)
	switch {
	case err != nil:
		return fmt.Errorf("read config: %w", err)
	case format.Hash(b.Key) != b.KeyID:
		return fmt.Errorf("%w: its key has another id", ErrDamaged)
	case !bytes.Equal(b.Config, config):
		return fmt.Errorf("%w: its config is not the repository's", ErrDamaged)
	}
	return nil
}

// createExactly stores data under key, or finds that exactly data is there.
// Conflict and unavailable both leave open what happened: the bytes decide.
func createExactly(ctx context.Context, st objstore.Store, key string, data []byte) error {
	_, putErr := st.PutIf(ctx, key, data, objstore.IfAbsent())
	if putErr == nil {
		return nil
	}
	if !errors.Is(putErr, objstore.ErrConflict) && !errors.Is(putErr, objstore.ErrUnavailable) {
		return putErr
	}
	have, _, err := st.Get(ctx, key, 0, -1)
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		return putErr
	case err != nil:
		return errors.Join(putErr, err)
	case !bytes.Equal(have, data):
		return fmt.Errorf("%s is that of another repository", key)
	}
	return nil
}
