package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/volume/protocol"
)

// cloneKey holds, while a clone is under way, what the new repository is made of. A
// prefix with it and without a head is no volume yet: an agent refuses to begin there.
const cloneKey = "drover/clone"

// CloneOptions of Clone.
type CloneOptions struct {
	Name     string // of the new volume
	Password string // of its repository
	TTL      time.Duration
	Instance string // who makes it, for people
	Version  string // of drover
	Repo     repo.Options
	Log      *slog.Logger
	Progress func(path string, bytes uint64) // after each file
}

// CloneStats is what a clone copied.
type CloneStats struct {
	Snapshot string // the new one
	Stored   int64  // bytes that were not there yet
}

// Clone makes a new volume in st (its own, empty prefix) whose history begins with
// the snapshot id of v; v is only read, and a lock of the caller's keeps its blobs.
// The head is written last: a clone that was killed has none, and the next one goes
// on with what is there. Of two at once one succeeds.
//
// Errors: repo.ErrWrongPassword if what is there was begun with another one;
// ErrIncomplete, with the path, if v lacks a blob; any, if st is not empty.
func (v *Volume) Clone(ctx context.Context, id format.ID, st objstore.Store, opt CloneOptions) (CloneStats, error) {
	sn, err := v.Repo.LoadSnapshot(ctx, id)
	if err != nil {
		return CloneStats{}, err
	}
	begun, err := v.beginClone(ctx, st, opt)
	if err != nil {
		return CloneStats{}, fmt.Errorf("begin clone: %w", err)
	}
	r, err := repo.Open(ctx, st, opt.Password, opt.Repo)
	if errors.Is(err, repo.ErrWrongPassword) {
		return CloneStats{}, fmt.Errorf("go on with the clone that was begun there: %w; give the one that it was begun with, or remove all objects of the volume %q and begin anew", err, opt.Name)
	}
	if err != nil {
		return CloneStats{}, fmt.Errorf("open the new volume: %w", err)
	}
	to := &Volume{Name: opt.Name, Repo: r, st: st}
	stillborn, err := to.snapshotIDs(ctx)
	if err != nil {
		return CloneStats{}, err
	}
	if err := loadIndexes(ctx, v, to); err != nil {
		return CloneStats{}, err
	}
	stats, err := v.copyTo(ctx, to, sn, cloned(id, sn, opt), copyOptions{tell: opt.Progress})
	if err != nil {
		return CloneStats{}, fmt.Errorf("copy snapshot %s: %w", id.Short(), err)
	}
	if err := to.createClonedHead(ctx, sn, stats.Snapshot, opt); err != nil {
		return CloneStats{}, err
	}
	if err := to.endClone(ctx, begun, stillborn); err != nil {
		opt.Log.Warn("the clone is complete, but what a former attempt left is not removed", "err", err)
	}
	return stats, nil
}

func loadIndexes(ctx context.Context, volumes ...*Volume) error {
	for _, v := range volumes {
		if err := v.Repo.LoadIndex(ctx); err != nil {
			return err
		}
	}
	return nil
}

// beginClone makes key and config of the new repository, or finds those of a clone
// that was begun. It returns what drover/init is to hold.
func (v *Volume) beginClone(ctx context.Context, st objstore.Store, opt CloneOptions) ([]byte, error) {
	switch _, err := st.Head(ctx, headKey); {
	case err == nil:
		return nil, fmt.Errorf("volume %q is there already: choose another one, or an empty store", opt.Name)
	case !errors.Is(err, objstore.ErrNotFound):
		return nil, fmt.Errorf("look for volume: %w", err)
	}
	data, _, err := st.Get(ctx, cloneKey, 0, -1)
	if errors.Is(err, objstore.ErrNotFound) {
		data, err = v.createClone(ctx, st, opt)
	}
	if err != nil {
		return nil, err
	}
	var b birth
	if err := json.Unmarshal(data, &b); err != nil {
		return nil, fmt.Errorf("decode %s: %w", cloneKey, err)
	}
	if b.Version > birthVersion {
		return nil, fmt.Errorf("decode %s: %w: upgrade this drover", cloneKey, ErrNewer)
	}
	if b.Bundle == nil || b.Volume != opt.Name {
		return nil, fmt.Errorf("decode %s: it is of volume %q, not of %q: %w", cloneKey, b.Volume, opt.Name, ErrForeign)
	}
	return data, materialise(ctx, st, b.Bundle, opt.Name)
}

// createClone stores drover/clone in an empty prefix, or reads another's.
func (v *Volume) createClone(ctx context.Context, st objstore.Store, opt CloneOptions) ([]byte, error) {
	key, err := anyKey(ctx, st, "")
	if err != nil {
		return nil, fmt.Errorf("look for volume: %w", err)
	}
	if key != "" { // another clone's, since we looked, or in the way
		data, _, err := st.Get(ctx, cloneKey, 0, -1)
		if errors.Is(err, objstore.ErrNotFound) {
			err = fmt.Errorf("there is %s, and a clone needs a place without objects: choose another volume or store, or remove all objects of volume %q", key, opt.Name)
		}
		return data, err
	}
	bundle, err := repo.NewBundleLike(v.Repo, opt.Password)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(birth{Version: birthVersion, Volume: opt.Name, Bundle: bundle})
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", cloneKey, err)
	}
	_, putErr := st.PutIf(ctx, cloneKey, data, objstore.IfAbsent())
	if putErr == nil {
		return data, nil
	}
	// Refused or unclear: what is there now decides.
	if data, _, err = st.Get(ctx, cloneKey, 0, -1); errors.Is(err, objstore.ErrNotFound) {
		return nil, fmt.Errorf("create %s: %w", cloneKey, putErr)
	}
	return data, err
}

// cloned is the snapshot object of the new volume: the state, and the time, of the old one.
func cloned(id format.ID, old *format.Snapshot, opt CloneOptions) *format.Snapshot {
	sn := *old
	sn.Parent, sn.Original = nil, nil
	sn.ProgramVersion = "drover " + opt.Version
	sn.Tags = []string{"epoch:1", "seq:1", "instance:" + opt.Instance, "clone:" + id.Short()}
	if slices.Contains(old.Tags, "fuzzy") {
		sn.Tags = append(sn.Tags, "fuzzy")
	}
	if old.Summary != nil {
		sn.Summary = &format.Summary{
			BackupStart: old.Time, BackupEnd: old.Time,
			TotalFilesProcessed: old.Summary.TotalFilesProcessed, TotalBytesProcessed: old.Summary.TotalBytesProcessed,
		}
	}
	return &sn
}

// createClonedHead makes the clone a volume. One attempt: the store's answer, or the
// bytes that are there then, decide.
func (v *Volume) createClonedHead(ctx context.Context, sn *format.Snapshot, snapshot string, opt CloneOptions) error {
	sealed, err := v.encodeHead(protocol.Head{
		Version: protocol.HeadVersion, Volume: v.Name, Epoch: 1, Claim: newID(), Write: newID(),
		Holder: protocol.Holder{ID: opt.Instance}, State: protocol.Released, TTL: protocol.Duration(opt.TTL),
		Seq: 1, Snapshot: snapshot, Tree: sn.Tree.String(), Paths: sn.Paths, Time: sn.Time,
	})
	if err != nil {
		return err
	}
	_, putErr := v.st.PutIf(ctx, headKey, sealed, objstore.IfAbsent())
	if putErr == nil {
		return nil
	}
	have, _, err := v.st.Get(ctx, headKey, 0, -1)
	switch {
	case err == nil && string(have) == string(sealed):
		return nil
	case err == nil:
		return fmt.Errorf("create head: somebody made volume %q meanwhile", v.Name)
	}
	return fmt.Errorf("create head: %w; the same command goes on from here", errors.Join(putErr, err))
}

// endClone leaves what a volume has: drover/init, and no trace of former attempts.
// Their snapshot objects are older than the head, so they are in nobody's history.
func (v *Volume) endClone(ctx context.Context, begun []byte, stillborn []format.ID) error {
	var errs []error
	for _, id := range stillborn {
		errs = append(errs, v.Repo.RemoveSnapshot(ctx, id))
	}
	_, err := v.st.PutIf(ctx, initKey, begun, objstore.IfAbsent())
	errs = append(errs, err)
	if errors.Join(errs...) == nil {
		errs = append(errs, v.st.Delete(ctx, cloneKey))
	}
	return errors.Join(errs...)
}

// snapshotIDs lists the snapshot objects.
func (v *Volume) snapshotIDs(ctx context.Context) (ids []format.ID, err error) {
	err = v.st.List(ctx, string(format.SnapshotFile)+"/", func(i objstore.Info) error {
		if id, err := format.ParseID(strings.TrimPrefix(i.Key, string(format.SnapshotFile)+"/")); err == nil {
			ids = append(ids, id)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	return ids, nil
}
