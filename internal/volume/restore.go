package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/repo/archive"
	"drover/internal/repo/format"
	"drover/internal/repo/restore"
	"drover/internal/volume/protocol"
)

// RestoreStats is what a restore did.
type RestoreStats = restore.Result

// headSnapshot loads the snapshot object of h. If it is gone (restic's tag and
// rewrite make new ids) the one that was made of it, with the same tree, stands in.
func (v *Volume) headSnapshot(ctx context.Context, h protocol.Head) (*format.Snapshot, error) {
	if h.Snapshot == "" {
		return nil, ErrNoSnapshot
	}
	id, err := format.ParseID(h.Snapshot)
	if err != nil {
		return nil, fmt.Errorf("read head: %w", err)
	}
	sn, err := v.Repo.LoadSnapshot(ctx, id)
	if !errors.Is(err, objstore.ErrNotFound) && !errors.Is(err, repo.ErrSnapshotNotFound) {
		return sn, err
	}
	var heir *format.Snapshot
	err = v.Repo.Snapshots(ctx, func(_ format.ID, s *format.Snapshot) error {
		if s.Original != nil && *s.Original == id && s.Tree != nil && s.Tree.String() == h.Tree {
			heir = s
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for the head's snapshot: %w", err)
	}
	if heir == nil {
		return nil, fmt.Errorf("%w: the head names %s, whose object was removed; `drover snapshots` lists what is left, and `drover restore SNAPSHOT --target DIR` reads it",
			ErrNoSnapshot, id.Short())
	}
	return heir, nil
}

func (r *Runtime) headSnapshot(ctx context.Context, h protocol.Head) (*format.Snapshot, error) {
	return r.v.headSnapshot(ctx, h)
}

// restore makes the paths exactly the head's snapshot.
func (r *Runtime) restore(ctx context.Context, a protocol.Restore) (untouched bool, err error) {
	start := time.Now()
	if err := r.checkPaths(a.Head); err != nil {
		return true, err
	}
	if a.Head.Snapshot == "" {
		return r.restoreNothing(ctx, a)
	}
	sn, err := r.headSnapshot(ctx, a.Head)
	if err != nil {
		return true, err
	}
	if a.Follow {
		err = r.mayFollow()
	} else {
		err = r.keepLateFiles(ctx, a.Head)
	}
	if err != nil {
		return true, err
	}
	if err := r.v.Repo.LoadIndex(ctx); err != nil {
		return true, fmt.Errorf("load index: %w", err)
	}
	files, bytes := sn.Totals()
	defer r.begin(Restoring, files, bytes)()
	res, err := restore.Run(ctx, r.v.Repo, sn, restore.Options{
		Delete: true, StrictMetadata: r.opt.Tree.StrictMetadata,
		Keep: r.keep, Base: r.base(ctx, a.Base), Progress: r.passed,
	})
	if err != nil {
		return res.Changes == 0, err
	}
	if !a.Follow {
		r.mu.Lock()
		r.stats.Restore, r.stats.Restored = time.Since(start), *res
		r.mu.Unlock()
	}
	return false, nil
}

// restoreNothing makes the paths what a volume without a commit has.
func (r *Runtime) restoreNothing(ctx context.Context, a protocol.Restore) (untouched bool, err error) {
	if err := r.keepLateFiles(ctx, a.Head); err != nil {
		return true, err
	}
	return false, clearPaths(ctx, r.opt.Tree.Paths, r.opt.Tree.Exclude)
}

// base loads the snapshot that a standby's files are; nil if it was forgotten
// meanwhile, or cannot be had: then everything is compared.
func (r *Runtime) base(ctx context.Context, snapshot string) *format.Snapshot {
	id, err := format.ParseID(snapshot)
	if err != nil {
		return nil
	}
	sn, err := r.v.Repo.LoadSnapshot(ctx, id)
	if err != nil {
		return nil
	}
	return sn
}

// mayFollow refuses what a standby must not touch: files that somebody put below the
// paths before it brought any (the claim keeps them first), and the directory of an
// instance that runs beside it.
func (r *Runtime) mayFollow() error {
	rec, err := r.opt.DataDir.load(r.v.Name)
	if err != nil {
		return err
	}
	if rec == nil || !markersMatch(r.opt.Tree.Paths, rec.Markers) {
		return errMarked
	}
	if r.filled {
		return nil
	}
	present, err := anyFile(r.opt.Tree.Paths)
	if err == nil && present {
		err = errors.New("files appeared while this instance stood by")
	}
	r.filled = err == nil
	return err
}

// keepLateFiles saves files that somebody put below the paths after this process
// had found none there, before the first restore removes them.
func (r *Runtime) keepLateFiles(ctx context.Context, h protocol.Head) error {
	if r.filled {
		return nil
	}
	present, err := anyFile(r.opt.Tree.Paths)
	if err != nil {
		return err
	}
	if present && !r.opt.Protocol.DiscardImageFiles {
		saved := r.saveDiverged(ctx, protocol.SaveDiverged{Head: h, Reason: "files appeared while this instance stood by"})
		if err := saved.(protocol.DivergedSaved).Err; err != nil {
			return err
		}
	}
	r.filled = true
	return nil
}

// saveDiverged keeps what the disk holds and h's snapshot does not, as a snapshot
// that is tagged and never committed.
func (r *Runtime) saveDiverged(ctx context.Context, a protocol.SaveDiverged) protocol.Input {
	id, err := r.storeDiverged(ctx, a)
	if err != nil {
		return protocol.DivergedSaved{Err: fmt.Errorf("keep diverged files: %w", err)}
	}
	if id != "" {
		r.opt.Log.Warn("local files differ from the committed history: kept as a diverged snapshot", "snapshot", id, "reason", a.Reason)
		r.mu.Lock()
		r.stats.Diverged = append(r.stats.Diverged, id)
		r.mu.Unlock()
	}
	return protocol.DivergedSaved{Snapshot: id}
}

// sameAsHead compares the files themselves with the head's snapshot: tree ids tell
// nothing here, since inode numbers and change times are part of them.
func (r *Runtime) sameAsHead(ctx context.Context, h protocol.Head) (bool, error) {
	if h.Snapshot == "" {
		return false, nil
	}
	sn, err := r.headSnapshot(ctx, h)
	if errors.Is(err, ErrNoSnapshot) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	diff, err := restore.Diff(ctx, r.v.Repo, sn, restore.Options{Keep: r.keep})
	if err != nil {
		return false, fmt.Errorf("compare with the head: %w", err)
	}
	return len(diff) == 0, nil
}

// keep tells a restore which files are not the volume's.
func (r *Runtime) keep(path string) bool { return IsMarker(r.opt.Tree.Paths, path) }

func (r *Runtime) storeDiverged(ctx context.Context, a protocol.SaveDiverged) (string, error) {
	lock, err := r.v.Repo.Lock(ctx, repo.LockOptions{Hostname: lockHost(r.opt.Protocol.Self.ID)})
	if err != nil {
		return "", err
	}
	stop := lock.KeepFresh(ctx)
	defer func() {
		stop()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
		defer cancel()
		if err := lock.Unlock(ctx); err != nil {
			r.opt.Log.Warn("remove our repository lock", "err", err)
		}
	}()
	if err := r.v.setCondemned(a.Head); err != nil {
		return "", err
	}
	if err := r.v.Repo.LoadIndex(ctx); err != nil {
		return "", fmt.Errorf("load index: %w", err)
	}
	if same, err := r.sameAsHead(ctx, a.Head); same || err != nil {
		return "", err
	}
	opt := r.archiveOptions()
	opt.OnUnreadable = archive.Skip // a rest is better than nothing
	w := r.v.Repo.NewWriter(ctx, repo.WriterOptions{})
	defer w.Abort()
	start := time.Now()
	res, err := archive.Run(ctx, w, r.v.Repo, opt)
	if err != nil {
		return "", err
	}
	sn := r.snapshot(a.Head, res, CaptureStats{Start: start, Files: int64(res.Files), Bytes: int64(res.Bytes)})
	sn.Tags = []string{"diverged", "instance:" + r.opt.Protocol.Self.ID}
	// A commit stores index and snapshot at once. Here nobody waits, and a snapshot without an
	// index would stay when this process dies between them: nothing says that it is not meant.
	_, stats, err := w.Finish(ctx, nil)
	if err != nil {
		return "", err
	}
	if sn.Summary != nil {
		stats.Into(sn.Summary)
	}
	if err := lock.Check(ctx); err != nil {
		return "", err
	}
	id, err := r.v.Repo.SaveSnapshot(ctx, sn)
	if err != nil {
		return "", fmt.Errorf("save snapshot: %w", err)
	}
	return id.String(), lock.Check(ctx)
}

// Latest returns the snapshot that the head names. Errors: ErrNoSnapshot.
func (v *Volume) Latest(ctx context.Context) (format.ID, *format.Snapshot, error) {
	seen, err := v.ReadHead(ctx)
	if err != nil {
		return format.ID{}, nil, err
	}
	sn, err := v.headSnapshot(ctx, seen.Head)
	if err != nil {
		return format.ID{}, nil, err
	}
	id, err := format.ParseID(seen.Head.Snapshot)
	return id, sn, err
}
