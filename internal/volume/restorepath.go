package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"

	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/repo/format"
	"drover/internal/repo/restore"
)

// PathRestore says what RestorePath restores where.
type PathRestore struct {
	Snapshot string // its id
	Path     string // a directory of the snapshot
	Into     string // becomes exactly that directory, at another place; it is made if it is missing
	// Keep are names in Into that are left alone.
	Keep []string
	// Concurrency is how many files are restored at once; 0: as many as is good.
	Concurrency int
	Instance    string                          // who restores, for people who see the lock
	Progress    func(path string, bytes uint64) // after each file, from any goroutine; nil: nobody
}

// RestorePath restores one directory of a snapshot to another place, which nobody
// uses. Interrupted, it is called again. Errors: repo.ErrSnapshotNotFound, ErrIncomplete,
// the store's.
func (v *Volume) RestorePath(ctx context.Context, opt PathRestore) (err error) {
	id, err := format.ParseID(opt.Snapshot)
	if err != nil {
		return fmt.Errorf("restore snapshot %.80q: %w", opt.Snapshot, err)
	}
	lock, err := v.Repo.Lock(ctx, repo.LockOptions{Hostname: lockHost(opt.Instance)})
	switch {
	case errors.Is(err, objstore.ErrUnauthorised): // it lets us only read
	case err != nil:
		return err
	default:
		stop := lock.KeepFresh(ctx)
		defer func() {
			stop()
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
			defer cancel()
			_ = lock.Unlock(ctx) // a lock that is left is called stale after 30 minutes
		}()
	}
	sn, err := v.Repo.LoadSnapshot(ctx, id)
	if err != nil {
		return err
	}
	if err := v.Repo.LoadIndex(ctx); err != nil {
		return fmt.Errorf("load index: %w", err)
	}
	node, err := v.findDirectory(ctx, sn, opt.Path)
	if err != nil {
		return err
	}
	if err := makeLike(opt.Into, node); err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, name := range opt.Keep {
		keep[path.Join("/", name)] = true
	}
	_, err = restore.Run(ctx, v.Repo, &format.Snapshot{Tree: node.Subtree, Paths: []string{"/"}}, restore.Options{
		Target: opt.Into, Delete: true, Keep: func(p string) bool { return keep[p] }, Concurrency: opt.Concurrency, Progress: opt.Progress,
	})
	var incomplete *restore.IncompleteError
	if errors.As(err, &incomplete) {
		return fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	return err
}

// findDirectory is the node of a directory in a snapshot.
func (v *Volume) findDirectory(ctx context.Context, sn *format.Snapshot, dir string) (*format.Node, error) {
	node := &format.Node{Subtree: sn.Tree, Mode: os.ModeDir | 0o700}
	for name := range strings.SplitSeq(strings.Trim(path.Clean(dir), "/"), "/") {
		data, err := v.Repo.LoadBlob(ctx, format.Handle{Type: format.TreeBlob, ID: *node.Subtree}, nil)
		if err != nil {
			return nil, fmt.Errorf("read directory %s of the snapshot: %w", dir, err)
		}
		nodes, err := format.DecodeTree(data)
		if err != nil {
			return nil, fmt.Errorf("read directory %s of the snapshot: %w", dir, err)
		}
		node = nil
		for i := range nodes {
			if nodes[i].Name == name && nodes[i].Subtree != nil {
				node = &nodes[i]
			}
		}
		if node == nil {
			return nil, fmt.Errorf("find directory %s in the snapshot: %w", dir, os.ErrNotExist)
		}
	}
	return node, nil
}

// makeLike makes a directory with a node's mode and, if we may, owner.
func makeLike(dir string, node *format.Node) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	err := os.Chmod(dir, node.Mode.Perm())
	if os.Geteuid() == 0 {
		err = errors.Join(err, os.Chown(dir, int(node.UID), int(node.GID)))
	}
	if err != nil && !errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	return nil
}
