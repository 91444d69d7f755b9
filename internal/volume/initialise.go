package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/volume/protocol"
)

// OpenOptions of Open.
type OpenOptions struct {
	Name     string // of the volume
	Password string
	Create   bool             // initialise an empty prefix
	Like     *repo.Repository // a new one cuts files where this one does; nil: where it likes
	Repo     repo.Options
}

// birth is the content of drover/init: all that a new volume is made of, in one
// create-only object, so that of many racing instances one makes the keys and
// all others finish its work. Its key is always one that stays: see changeKeys.
type birth struct {
	Version int          `json:"version"`
	Volume  string       `json:"volume"`
	Bundle  *repo.Bundle `json:"bundle"`
	// Removed are key files that are gone, or are about to be, for good.
	Removed []format.ID `json:"removed,omitempty"`
}

const birthVersion = 1

// Open opens the volume in st (its own prefix, ending in the volume's name). With
// Create an empty prefix is initialised, which created reports; an initialisation
// that somebody began is finished either way.
//
// Errors: repo.ErrNoRepository (nothing here), ErrForeign (something else here),
// repo.ErrWrongPassword, repo.ErrVersion, ErrNewer, objstore's.
func Open(ctx context.Context, st objstore.Store, opt OpenOptions) (v *Volume, created bool, err error) {
	switch _, err := st.Head(ctx, headKey); {
	case errors.Is(err, objstore.ErrNotFound):
		created, err = initialise(ctx, st, opt)
		if err != nil {
			return nil, false, err
		}
	case err != nil:
		return nil, false, fmt.Errorf("look for volume: %w", err)
	}
	r, err := repo.Open(ctx, st, opt.Password, opt.Repo)
	if err != nil {
		return nil, false, err
	}
	v = &Volume{Name: opt.Name, Repo: r, st: st}
	if err := v.createHead(ctx); err != nil {
		return nil, false, err
	}
	return v, created, nil
}

// initialise makes sure that key and config of the one drover/init are stored.
func initialise(ctx context.Context, st objstore.Store, opt OpenOptions) (created bool, err error) {
	b, err := readBirth(ctx, st, opt.Name)
	if errors.Is(err, objstore.ErrNotFound) {
		b, created, err = beget(ctx, st, opt)
	}
	if err != nil {
		return false, err
	}
	if !created {
		if err := refuseOrphans(ctx, st); err != nil {
			return false, err
		}
	}
	return created, materialise(ctx, st, b.Bundle, opt.Name)
}

// materialise stores what a repository begins with. Its key may have been removed
// since the caller read it, and stands there again now: then it goes.
func materialise(ctx context.Context, st objstore.Store, b *repo.Bundle, name string) error {
	if err := repo.Materialise(ctx, st, b); err != nil {
		return err
	}
	now, err := readBirth(ctx, st, name)
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		return nil // of a clone under way
	case err != nil:
		return err
	case slices.Contains(now.Removed, b.KeyID):
		return repo.RemoveKey(ctx, st, b.KeyID)
	}
	return nil
}

// beget creates drover/init in a prefix that had none.
func beget(ctx context.Context, st objstore.Store, opt OpenOptions) (birth, bool, error) {
	if foreign := refuseForeign(ctx, st); foreign != nil {
		// A racer may have created it, and made key and config, since we looked.
		b, err := readBirth(ctx, st, opt.Name)
		if errors.Is(err, objstore.ErrNotFound) {
			err = foreign
		}
		return b, false, err
	}
	if !opt.Create {
		return birth{}, false, repo.ErrNoRepository
	}
	return writeBirth(ctx, st, opt)
}

func readBirth(ctx context.Context, st objstore.Store, name string) (birth, error) {
	data, _, err := st.Get(ctx, initKey, 0, -1)
	if err != nil {
		return birth{}, fmt.Errorf("read %s: %w", initKey, err)
	}
	return parseBirth(data, name)
}

// CheckInit makes sure that the object from which the volume is made anew, should its
// key or config be lost, is whole.
func (v *Volume) CheckInit(ctx context.Context) error {
	b, err := readBirth(ctx, v.st, v.Name)
	if err == nil {
		err = b.Bundle.Check(ctx, v.Repo)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", initKey, err)
	}
	return nil
}

func parseBirth(data []byte, name string) (birth, error) {
	var b birth
	if err := json.Unmarshal(data, &b); err != nil {
		return birth{}, fmt.Errorf("decode %s: %w", initKey, err)
	}
	if b.Version > birthVersion {
		return birth{}, fmt.Errorf("decode %s: %w: upgrade this drover", initKey, ErrNewer)
	}
	if b.Bundle == nil || b.Volume != name {
		return birth{}, fmt.Errorf("decode %s: it is of volume %q, not of %q: %w", initKey, b.Volume, name, ErrForeign)
	}
	return b, nil
}

// writeBirth creates drover/init, or reads the one that was created first.
func writeBirth(ctx context.Context, st objstore.Store, opt OpenOptions) (birth, bool, error) {
	bundle, err := newBundle(opt)
	if err != nil {
		return birth{}, false, err
	}
	mine := birth{Version: birthVersion, Volume: opt.Name, Bundle: bundle}
	data, err := json.Marshal(mine)
	if err != nil {
		return birth{}, false, fmt.Errorf("encode %s: %w", initKey, err)
	}
	_, putErr := st.PutIf(ctx, initKey, data, objstore.IfAbsent())
	if putErr == nil {
		return mine, true, nil
	}
	// Refused or unclear: what is there now decides.
	b, err := readBirth(ctx, st, opt.Name)
	if errors.Is(err, objstore.ErrNotFound) {
		return birth{}, false, fmt.Errorf("create %s: %w", initKey, putErr)
	}
	return b, err == nil && b.Bundle.KeyID == bundle.KeyID, err
}

func newBundle(opt OpenOptions) (*repo.Bundle, error) {
	if opt.Like != nil {
		return repo.NewBundleLike(opt.Like, opt.Password)
	}
	return repo.NewBundle(opt.Password)
}

// refuseForeign fails if anything of a repository is below the prefix.
func refuseForeign(ctx context.Context, st objstore.Store) error {
	for _, prefix := range []string{"config", "keys/", "snapshots/", "data/", "index/"} {
		key, err := anyKey(ctx, st, prefix)
		if err != nil {
			return fmt.Errorf("look for volume: %w", err)
		}
		if key != "" {
			return fmt.Errorf("%w: there is %s but neither %s nor %s: use an empty prefix, or another --volume",
				ErrForeign, key, headKey, initKey)
		}
	}
	return nil
}

// refuseOrphans fails if there are snapshots without a head: that is a head
// lost, never a first start.
func refuseOrphans(ctx context.Context, st objstore.Store) error {
	key, err := anyKey(ctx, st, "snapshots/")
	if err != nil {
		return fmt.Errorf("look for snapshots: %w", err)
	}
	if key != "" {
		// A racer may have finished the same initialisation and committed since.
		if _, err := st.Head(ctx, headKey); !errors.Is(err, objstore.ErrNotFound) {
			return err
		}
		return fmt.Errorf("%w: snapshots without %s: its head was deleted; put the newest version of that object back", ErrForeign, headKey)
	}
	return nil
}

var errFound = errors.New("found")

func anyKey(ctx context.Context, st objstore.Store, prefix string) (string, error) {
	var key string
	err := st.List(ctx, prefix, func(i objstore.Info) error {
		key = i.Key
		return errFound
	})
	if err != nil && !errors.Is(err, errFound) {
		return "", err
	}
	return key, nil
}

// createHead stores the first head if there is none.
func (v *Volume) createHead(ctx context.Context) error {
	_, err := v.ReadHead(ctx)
	if !errors.Is(err, objstore.ErrNotFound) {
		return err
	}
	sealed, err := v.encodeHead(protocol.Head{
		Version: protocol.HeadVersion, Volume: v.Name, Write: newID(), State: protocol.Free,
	})
	if err != nil {
		return err
	}
	_, putErr := v.st.PutIf(ctx, headKey, sealed, objstore.IfAbsent())
	if putErr == nil {
		return nil
	}
	if _, err := v.ReadHead(ctx); err != nil {
		return fmt.Errorf("create head: %w", errors.Join(putErr, err))
	}
	return nil
}
