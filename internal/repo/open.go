package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"drover/internal/objstore"
	"drover/internal/repo/crypto"
	"drover/internal/repo/format"

	"golang.org/x/sync/errgroup"
)

// configJSON is the plain text of the config object.
type configJSON struct {
	Version    uint   `json:"version"`
	ID         string `json:"id"`
	Polynomial string `json:"chunker_polynomial"`
}

// Open opens the repository in st with any of its passwords. It reads the key
// files and the config; LoadIndex comes before the first blob.
//
// Errors: ErrNoRepository, ErrWrongPassword, ErrVersion, ErrDamaged, those of the store.
func Open(ctx context.Context, st objstore.Store, password string, opt Options) (*Repository, error) {
	opt = opt.withDefaults()
	var config []byte
	var keys []format.ID
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		config, _, err = st.Get(gctx, format.ConfigFile.Key(format.ID{}), 0, -1)
		if errors.Is(err, objstore.ErrNotFound) {
			return fmt.Errorf("%w: %s has no config object", ErrNoRepository, describe(st))
		}
		return err
	})
	g.Go(func() (err error) {
		keys, err = listIDs(gctx, st, format.KeyFile)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("open repository: %w", err)
	}
	key, keyID, err := findKey(ctx, st, keys, password)
	if err != nil {
		return nil, fmt.Errorf("open repository in %s: %w", describe(st), err)
	}
	cfg, err := openConfig(key, config)
	if err != nil {
		return nil, fmt.Errorf("open repository in %s: %w", describe(st), err)
	}
	return newRepository(st, opt, key, keyID, cfg), nil
}

func newRepository(st objstore.Store, opt Options, key *crypto.Key, keyID format.ID, cfg Config) *Repository {
	return &Repository{
		st: st, opt: opt, key: key, keyID: keyID, cfg: cfg,
		zstd: newCompressor(opt.Compression), index: newMemIndex(), buried: make(map[format.ID]struct{}), crew: newCrew(),
	}
}

func describe(st objstore.Store) string {
	if d, ok := st.(objstore.Describer); ok {
		return d.Describe()
	}
	return "the store"
}

// findKey tries the password on every key file. One that cannot be read or is
// not a key file hides no other; it is named if no key opens.
func findKey(ctx context.Context, st objstore.Store, ids []format.ID, password string) (*crypto.Key, format.ID, error) {
	if len(ids) == 0 {
		return nil, format.ID{}, fmt.Errorf("%w: it has no key files", ErrNoRepository)
	}
	var broken []error
	for _, id := range ids {
		key, err := openKey(ctx, st, id, password)
		switch {
		case err == nil:
			return key, id, nil
		case errors.Is(err, crypto.ErrAuthentication):
		case errors.Is(err, crypto.ErrKeyFile), errors.Is(err, ErrDamaged), errors.Is(err, objstore.ErrNotFound):
			broken = append(broken, err)
		default:
			return nil, format.ID{}, err
		}
	}
	if len(broken) == len(ids) {
		kind := ErrNoRepository
		if errors.Is(errors.Join(broken...), ErrDamaged) {
			kind = ErrDamaged // there was one
		}
		return nil, format.ID{}, fmt.Errorf("%w: no usable key file: %w", kind, errors.Join(broken...))
	}
	return nil, format.ID{}, errors.Join(append([]error{ErrWrongPassword}, broken...)...)
}

func openKey(ctx context.Context, st objstore.Store, id format.ID, password string) (*crypto.Key, error) {
	name := format.KeyFile.Key(id)
	data, _, err := st.Get(ctx, name, 0, -1)
	if err != nil {
		return nil, err
	}
	if format.Hash(data) != id {
		return nil, fmt.Errorf("%s: %w: its content has another id", name, ErrDamaged)
	}
	file, err := crypto.ParseKeyFile(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	key, err := file.Open(password)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return key, nil
}

func openConfig(key *crypto.Key, sealed []byte) (Config, error) {
	plain, err := key.Open(sealed)
	if err != nil {
		return Config{}, fmt.Errorf("config: %w: %w", ErrDamaged, err)
	}
	return decodeConfig(plain)
}

func decodeConfig(plain []byte) (Config, error) {
	var in configJSON
	if err := json.Unmarshal(plain, &in); err != nil {
		return Config{}, fmt.Errorf("config: %w: %w", ErrDamaged, err)
	}
	switch {
	case in.Version == 1:
		return Config{}, fmt.Errorf("%w: it is 1 and Drover needs 2; convert it with `restic migrate upgrade_repo_v2`", ErrVersion)
	case in.Version != 2:
		return Config{}, fmt.Errorf("%w: it is %d and Drover knows 2", ErrVersion, in.Version)
	}
	if _, err := format.ParseID(in.ID); err != nil {
		return Config{}, fmt.Errorf("config: %w: %w", ErrDamaged, err)
	}
	pol, err := strconv.ParseUint(in.Polynomial, 16, 64)
	if err != nil {
		return Config{}, fmt.Errorf("config: %w: chunker polynomial: %w", ErrDamaged, err)
	}
	return Config{Version: in.Version, ID: in.ID, ChunkerPolynomial: pol}, nil
}
