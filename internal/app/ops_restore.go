package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"time"

	"drover/internal/repo/format"
	"drover/internal/repo/restore"
	"drover/internal/volume"
)

// RestoreOptions of Restore.
type RestoreOptions struct {
	Snapshot       string // id, prefix of one, or "latest": the head's
	Target         string // "": in place, at the stored absolute paths
	Delete         bool   // remove what is below the restored paths and not in the snapshot
	StrictMetadata bool
	Include        []string // patterns; none: all
	Progress       func(Progress)
}

// RestoreResult is what a restore did.
type RestoreResult struct {
	Snapshot        string           `json:"snapshot"`
	Target          string           `json:"target"`
	Files           int64            `json:"files"`
	Dirs            int64            `json:"dirs"`
	Bytes           int64            `json:"bytes"`
	Seconds         float64          `json:"seconds"`
	SkippedMetadata map[string]int64 `json:"skipped_metadata,omitempty"`
}

// Restore restores a snapshot: in place only while nobody holds the volume.
// Errors: ErrHeld, ErrIncomplete.
func (o *Ops) Restore(ctx context.Context, opt RestoreOptions) (RestoreResult, error) {
	v, err := o.open(ctx)
	if err != nil {
		return RestoreResult{}, err
	}
	if opt.Target != "" {
		var res RestoreResult
		err := o.held(ctx, v, func(ctx context.Context) error {
			res, err = o.restore(ctx, v, opt)
			return err
		})
		return res, err
	}
	var res RestoreResult
	err = v.Claim(ctx, o.sessionOptions(o.treeOptions()), func(ctx context.Context, _ *volume.Session) error {
		res, err = o.restore(ctx, v, opt)
		return err
	})
	return res, err
}

func (o *Ops) restore(ctx context.Context, v *volume.Volume, opt RestoreOptions) (RestoreResult, error) {
	start := time.Now()
	id, sn, err := o.find(ctx, v, opt.Snapshot)
	if err != nil {
		return RestoreResult{}, err
	}
	if err := v.Repo.LoadIndex(ctx); err != nil {
		return RestoreResult{}, fmt.Errorf("load index: %w", err)
	}
	ropt := restore.Options{
		Target: opt.Target, Delete: opt.Delete, Include: opt.Include, StrictMetadata: opt.StrictMetadata,
		Keep: func(p string) bool { return volume.IsMarker(sn.Paths, p) },
	}
	whole := sn
	if len(opt.Include) > 0 {
		whole = nil
	}
	ropt.Progress = counted("restore", opt.Progress, whole)
	res, err := restore.Run(ctx, v.Repo, sn, ropt)
	out := RestoreResult{Snapshot: id.String(), Target: opt.Target, Seconds: time.Since(start).Seconds()}
	if res != nil {
		out.Files, out.Dirs, out.Bytes = int64(res.Files), int64(res.Dirs), int64(res.Bytes)
		out.SkippedMetadata = skipped(res)
	}
	var incomplete *restore.IncompleteError
	if errors.As(err, &incomplete) {
		return out, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	if err != nil {
		return out, fmt.Errorf("restore: %w", err)
	}
	return out, nil
}

// skipped names the metadata that could not be set, and how often.
func skipped(res *restore.Result) map[string]int64 {
	counts := map[string]int64{}
	for kind, n := range map[string]uint64{
		"owner": res.SkippedOwner, "xattr": res.SkippedXattr, "mode": res.SkippedMode, "device": res.SkippedNode,
	} {
		if n > 0 {
			counts[kind] = int64(n)
		}
	}
	return counts
}

// Entry is one file of a snapshot.
type Entry struct {
	Path       string      `json:"path"`
	Type       string      `json:"type"` // file, dir, symlink, …, as restic names them
	Mode       os.FileMode `json:"mode"`
	UID        uint32      `json:"uid"`
	GID        uint32      `json:"gid"`
	Size       uint64      `json:"size"`
	ModTime    time.Time   `json:"mtime"`
	LinkTarget string      `json:"link_target,omitempty"`
}

// Ls calls fn for every entry of a snapshot that lies at or below the path below
// ("" or "/": all), parents first.
func (o *Ops) Ls(ctx context.Context, snapshot, below string, fn func(Entry) error) error {
	v, err := o.open(ctx)
	if err != nil {
		return err
	}
	_, sn, err := o.find(ctx, v, snapshot)
	if err != nil {
		return err
	}
	if err := v.Repo.LoadIndex(ctx); err != nil {
		return fmt.Errorf("load index: %w", err)
	}
	l := lister{repo: v, below: path.Clean("/" + below), fn: fn}
	if err := l.tree(ctx, *sn.Tree, "/"); err != nil {
		return err
	}
	if !l.found {
		return fmt.Errorf("find %s in the snapshot: %w", l.below, os.ErrNotExist)
	}
	return nil
}

type lister struct {
	repo  *volume.Volume
	below string
	fn    func(Entry) error
	found bool
}

func (l *lister) tree(ctx context.Context, id format.ID, dir string) error {
	data, err := l.repo.Repo.LoadBlob(ctx, format.Handle{Type: format.TreeBlob, ID: id}, nil)
	if err != nil {
		return fmt.Errorf("read directory %s: %w", dir, err)
	}
	nodes, err := format.DecodeTree(data)
	if err != nil {
		return fmt.Errorf("read directory %s: %w", dir, err)
	}
	for i := range nodes {
		if err := l.node(ctx, &nodes[i], path.Join(dir, nodes[i].Name)); err != nil {
			return err
		}
	}
	return nil
}

func (l *lister) node(ctx context.Context, n *format.Node, at string) error {
	inside := l.below == "/" || at == l.below || within(at, l.below)
	if !inside && !within(l.below, at) {
		return nil
	}
	if inside {
		l.found = true
		if err := l.fn(Entry{
			Path: at, Type: string(n.Type), Mode: n.Mode, UID: n.UID, GID: n.GID,
			Size: n.Size, ModTime: n.ModTime, LinkTarget: n.LinkTarget,
		}); err != nil {
			return err
		}
	}
	if n.Subtree == nil {
		return nil
	}
	return l.tree(ctx, *n.Subtree, at)
}

// within reports whether p lies below dir.
func within(p, dir string) bool {
	return dir == "/" || len(p) > len(dir) && p[:len(dir)] == dir && p[len(dir)] == '/'
}
