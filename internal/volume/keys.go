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
)

// ErrKeyInUse: a key cannot be removed by whoever opened the volume with it; nor may
// anything be removed with a key that is being removed itself.
var ErrKeyInUse = errors.New("key is in use")

// Keys changes the key files of a volume: which passwords open it. The order of every
// change is: the key that stays is stored and was read back; drover/init is replaced,
// by compare-and-swap, by one that holds a key which stays and names those that go;
// then those are deleted. So at each moment a password opens that is known; of two who
// would remove each other's key only one succeeds; and no key that was removed comes
// back from drover/init.

// AddKey makes password open the volume, too. One that does already is left as it is.
func (v *Volume) AddKey(ctx context.Context, password string) (format.ID, error) {
	if err := v.changeKeys(ctx, v.Repo.CurrentKey(), nil); err != nil {
		return format.ID{}, err
	}
	return v.ensureKey(ctx, password)
}

// RemoveKey makes the password of the key id open nothing any more.
// Errors: ErrKeyInUse.
func (v *Volume) RemoveKey(ctx context.Context, id format.ID) error {
	if id == v.Repo.CurrentKey() {
		return fmt.Errorf("remove key %s: %w: this password is its own; open with another one, or replace it with `drover key passwd`", id.Short(), ErrKeyInUse)
	}
	return v.changeKeys(ctx, v.Repo.CurrentKey(), []format.ID{id})
}

// ReplaceKey makes password open the volume, and the one that opened v not any more.
// Interrupted, it leaves one of the two or both, and the same again goes on.
func (v *Volume) ReplaceKey(ctx context.Context, password string) (format.ID, error) {
	old := v.Repo.CurrentKey()
	id, err := v.Repo.KeyFor(ctx, password)
	if errors.Is(err, repo.ErrWrongPassword) {
		if err = v.changeKeys(ctx, old, nil); err == nil {
			id, err = v.ensureKey(ctx, password)
		}
	}
	if err != nil {
		return format.ID{}, err
	}
	if id == old {
		return id, nil // it is the password in use
	}
	return id, v.changeKeys(ctx, id, []format.ID{old})
}

// ensureKey stores a key file for password if there is none, and opens it.
func (v *Volume) ensureKey(ctx context.Context, password string) (format.ID, error) {
	id, err := v.Repo.KeyFor(ctx, password)
	if !errors.Is(err, repo.ErrWrongPassword) {
		return id, err
	}
	if _, err = v.Repo.AddKey(ctx, password); err != nil {
		return format.ID{}, err
	}
	if id, err = v.Repo.KeyFor(ctx, password); err != nil {
		return format.ID{}, fmt.Errorf("read new key back: %w", err)
	}
	return id, nil
}

// changeKeys removes keys, and what earlier removals left. stays is one that does.
func (v *Volume) changeKeys(ctx context.Context, stays format.ID, remove []format.ID) error {
	gone, err := v.renewBirth(ctx, stays, remove)
	if err != nil {
		return err
	}
	// Of a clone that has ended and could not tidy up: the first key is in there, too.
	if err := v.st.Delete(ctx, cloneKey); err != nil {
		return fmt.Errorf("remove %s: %w", cloneKey, err)
	}
	for _, id := range gone {
		if err := repo.RemoveKey(ctx, v.st, id); err != nil {
			return err
		}
	}
	return nil
}

// renewBirth makes drover/init hold the key stays, and returns all that are to go.
// One attempt for each state that it finds there.
func (v *Volume) renewBirth(ctx context.Context, stays format.ID, remove []format.ID) (gone []format.ID, err error) {
	bundle, err := v.Repo.BundleOf(ctx, stays)
	if errors.Is(err, objstore.ErrNotFound) {
		return nil, fmt.Errorf("%w: it was removed meanwhile; open with another password: %w", ErrKeyInUse, err)
	}
	if err != nil {
		return nil, err
	}
	var refused error
	for range birthAttempts {
		b, cond, err := v.birthNow(ctx)
		if err != nil {
			return nil, err
		}
		if slices.Contains(b.Removed, stays) {
			return nil, fmt.Errorf("%w: key %s is being removed: open with another password", ErrKeyInUse, stays.Short())
		}
		made := birth{Version: birthVersion, Volume: v.Name, Bundle: bundle, Removed: slices.Clone(b.Removed)}
		for _, id := range remove {
			if !slices.Contains(made.Removed, id) {
				made.Removed = append(made.Removed, id)
			}
		}
		if b.Bundle != nil && len(made.Removed) == len(b.Removed) && b.Bundle.KeyID == stays {
			return made.Removed, nil
		}
		data, err := json.Marshal(made)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", initKey, err)
		}
		if _, refused = v.st.PutIf(ctx, initKey, data, cond); refused == nil {
			return made.Removed, nil
		}
		if !errors.Is(refused, objstore.ErrConflict) && !errors.Is(refused, objstore.ErrUnavailable) {
			break
		}
	}
	return nil, fmt.Errorf("replace %s: %w", initKey, refused)
}

// birthAttempts bounds how often a change of the keys meets another one, or no answer.
const birthAttempts = 5

// birthNow reads drover/init, and says upon what it may be replaced. None is no error:
// a clone may have ended before it made one.
func (v *Volume) birthNow(ctx context.Context) (birth, objstore.Condition, error) {
	data, info, err := v.st.Get(ctx, initKey, 0, -1)
	if errors.Is(err, objstore.ErrNotFound) {
		return birth{}, objstore.IfAbsent(), nil
	}
	if err != nil {
		return birth{}, objstore.Condition{}, fmt.Errorf("read %s: %w", initKey, err)
	}
	b, err := parseBirth(data, v.Name)
	return b, objstore.IfMatch(info.ETag), err
}
