package repo

import (
	"encoding/json"
	"fmt"
	"strconv"

	"drover/internal/repo/crypto"
	"drover/internal/repo/format"
)

// NewBundleLike is NewBundle for a repository that is to cut files where r does: what
// is copied there from r need not be stored again when its files are read next. Key
// and id are its own.
func NewBundleLike(r *Repository, password string) (*Bundle, error) {
	key := crypto.NewRandomKey()
	file, err := encodeKeyFile(key, password)
	if err != nil {
		return nil, fmt.Errorf("make repository: %w", err)
	}
	config, err := json.Marshal(configJSON{
		Version: 2, ID: format.NewRandomID().String(), Polynomial: strconv.FormatUint(r.cfg.ChunkerPolynomial, 16),
	})
	if err != nil {
		return nil, fmt.Errorf("make repository: %w", err)
	}
	return &Bundle{Key: file, KeyID: format.Hash(file), Config: key.Seal(nil, config)}, nil
}
