package wal

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"drover/internal/objstore"
)

// noteFolder is beside the timelines of a stream.
const noteFolder = "backups/"

func (a *Archive) noteKey(name string) string { return root + a.stream + "/" + noteFolder + name }

// AddNote stores what somebody has to say about a part of the log, sealed and create-only as
// its files are. Errors: as of Push.
func (a *Archive) AddNote(ctx context.Context, name string, content []byte) error {
	key := a.noteKey(name)
	if err := objstore.CheckKey(key); err != nil || strings.Contains(name, "/") {
		return fmt.Errorf("note %q: %w", name, errors.Join(ErrName, err))
	}
	_, err := a.create(ctx, key, content)
	return err
}

// Notes calls fn for all of them, in no promised order, with ErrDamaged for one that cannot be
// opened. One that was removed since the listing is passed over.
func (a *Archive) Notes(ctx context.Context, fn func(name string, content []byte, err error) error) error {
	folder := a.noteKey("")
	var names []string
	err := a.st.List(ctx, folder, func(i objstore.Info) error {
		names = append(names, strings.TrimPrefix(i.Key, folder))
		return nil
	})
	if err != nil {
		return fmt.Errorf("list notes of the log archive: %w", err)
	}
	for _, name := range names {
		content, err := a.open(ctx, a.noteKey(name))
		if errors.Is(err, objstore.ErrNotFound) {
			continue
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			return fmt.Errorf("read note %s: %w", name, err)
		}
		if err := fn(name, content, err); err != nil {
			return err
		}
	}
	return nil
}

// RemoveNote removes one; one that is not there is no error.
func (a *Archive) RemoveNote(ctx context.Context, name string) error {
	if err := a.st.Delete(ctx, a.noteKey(name)); err != nil {
		return fmt.Errorf("remove note %s: %w", name, err)
	}
	return nil
}
