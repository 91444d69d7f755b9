package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"drover/internal/objstore"
	"drover/internal/repo/format"
)

func decodeSnapshot(plain []byte) (*format.Snapshot, error) {
	sn := new(format.Snapshot)
	if err := json.Unmarshal(plain, sn); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if sn.Tree == nil || sn.Tree.IsZero() {
		return nil, fmt.Errorf("%w: snapshot without a tree", ErrDamaged)
	}
	return sn, nil
}

// LoadSnapshot reads the snapshot object id. Errors: ErrSnapshotNotFound, ErrDamaged.
func (r *Repository) LoadSnapshot(ctx context.Context, id format.ID) (*format.Snapshot, error) {
	plain, err := r.loadFile(ctx, format.SnapshotFile, id)
	if errors.Is(err, objstore.ErrNotFound) {
		return nil, fmt.Errorf("load snapshot %s: %w: %w", id.Short(), ErrSnapshotNotFound, err)
	}
	if err != nil {
		return nil, fmt.Errorf("load snapshot %s: %w", id.Short(), err)
	}
	sn, err := decodeSnapshot(plain)
	if err != nil {
		return nil, fmt.Errorf("load snapshot %s: %w", id.Short(), err)
	}
	return sn, nil
}

func encodeSnapshot(sn *format.Snapshot) ([]byte, error) {
	if sn.Tree == nil || sn.Tree.IsZero() {
		return nil, errors.New("encode snapshot: it has no tree")
	}
	plain, err := json.Marshal(sn)
	if err != nil {
		return nil, fmt.Errorf("encode snapshot: %w", err)
	}
	return plain, nil
}

// SaveSnapshot stores sn, whose blobs are stored and indexed.
func (r *Repository) SaveSnapshot(ctx context.Context, sn *format.Snapshot) (format.ID, error) {
	plain, err := encodeSnapshot(sn)
	if err != nil {
		return format.ID{}, err
	}
	id, err := r.saveFile(ctx, format.SnapshotFile, plain)
	if err != nil {
		return format.ID{}, fmt.Errorf("save snapshot: %w", err)
	}
	return id, nil
}

// Snapshots calls fn for every snapshot object, one at a time, in no promised
// order. One that cannot be read is an error: the rest is not the whole. One
// that was removed since the listing is passed over.
func (r *Repository) Snapshots(ctx context.Context, fn func(format.ID, *format.Snapshot) error) error {
	return r.eachSnapshot(ctx, func(id format.ID, sn *format.Snapshot, err error) error {
		if err != nil {
			return fmt.Errorf("load snapshot %s: %w", id.Short(), err)
		}
		return fn(id, sn)
	})
}

// eachSnapshot is Snapshots for who wants to know of those that cannot be read.
func (r *Repository) eachSnapshot(ctx context.Context, fn func(format.ID, *format.Snapshot, error) error) error {
	ids, err := listIDs(ctx, r.st, format.SnapshotFile)
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	return r.loadFiles(ctx, format.SnapshotFile, ids, func(id format.ID, plain []byte, err error) error {
		if errors.Is(err, objstore.ErrNotFound) {
			return nil
		}
		var sn *format.Snapshot
		if err == nil {
			sn, err = decodeSnapshot(plain)
		}
		return fn(id, sn, err)
	})
}

// FindSnapshot loads the one snapshot whose id begins with prefix.
func (r *Repository) FindSnapshot(ctx context.Context, prefix string) (format.ID, *format.Snapshot, error) {
	if prefix == "" || strings.Trim(prefix, "0123456789abcdef") != "" || len(prefix) > 2*len(format.ID{}) {
		return format.ID{}, nil, fmt.Errorf("find snapshot %.80q: %w: an id has hexadecimal digits", prefix, ErrSnapshotNotFound)
	}
	var found []format.ID
	err := r.st.List(ctx, string(format.SnapshotFile)+"/"+prefix, func(info objstore.Info) error {
		if id, err := format.ParseID(strings.TrimPrefix(info.Key, string(format.SnapshotFile)+"/")); err == nil {
			found = append(found, id)
		}
		return nil
	})
	switch {
	case err != nil:
		return format.ID{}, nil, fmt.Errorf("find snapshot %s: %w", prefix, err)
	case len(found) == 0:
		return format.ID{}, nil, fmt.Errorf("find snapshot %s: %w", prefix, ErrSnapshotNotFound)
	case len(found) > 1:
		return format.ID{}, nil, fmt.Errorf("find snapshot %s: %w: %d ids begin so", prefix, ErrSnapshotNotFound, len(found))
	}
	sn, err := r.LoadSnapshot(ctx, found[0])
	return found[0], sn, err
}

// RemoveSnapshot deletes the snapshot object id; its blobs stay.
func (r *Repository) RemoveSnapshot(ctx context.Context, id format.ID) error {
	if err := r.removeFile(ctx, format.SnapshotFile, id); err != nil {
		return fmt.Errorf("remove snapshot %s: %w", id.Short(), err)
	}
	return nil
}
