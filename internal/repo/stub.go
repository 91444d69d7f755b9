package repo

import (
	"context"
	"errors"
	"time"

	"drover/internal/repo/format"
)

var errTODO = errors.New("not written yet")

// KeyInfo describes one key file.
type KeyInfo struct {
	ID       format.ID
	Created  time.Time
	Hostname string
	Username string
	Current  bool // it opened this Repository
}

func (r *Repository) AddKey(ctx context.Context, password string) (format.ID, error) {
	return format.ID{}, errTODO
}
func (r *Repository) ListKeys(ctx context.Context) ([]KeyInfo, error)   { return nil, errTODO }
func (r *Repository) RemoveKey(ctx context.Context, id format.ID) error { return errTODO }

// LockOptions of Lock.
type LockOptions struct {
	Exclusive bool
	Hostname  string        // "": the machine's
	Username  string        // "": the process's user
	PID       int           // 0: the process's
	Wait      time.Duration // how long to wait for conflicting locks to go
}

// Lock is a lock object of ours in the repository.
type Lock struct{}

// LockInfo describes a lock object.
type LockInfo struct {
	ID        format.ID
	Time      time.Time
	Exclusive bool
	Hostname  string
	Username  string
	PID       int
	ModTime   time.Time // the store's clock
	Stale     bool      // by restic's rules
}

func (r *Repository) Lock(ctx context.Context, opt LockOptions) (*Lock, error) { return nil, errTODO }
func (r *Repository) Locks(ctx context.Context) ([]LockInfo, error)            { return nil, errTODO }
func (r *Repository) RemoveLock(ctx context.Context, id format.ID) error       { return errTODO }
func (l *Lock) ID() format.ID                                                  { return format.ID{} }
func (l *Lock) Refresh(ctx context.Context) error                              { return errTODO }
func (l *Lock) Check(ctx context.Context) error                                { return errTODO }
func (l *Lock) Unlock(ctx context.Context) error                               { return errTODO }

// Policy says which snapshots to keep; a snapshot is kept if any rule keeps it.
type Policy struct {
	Last, Hourly, Daily, Weekly, Monthly, Yearly int           // -1: all
	Within                                       time.Duration // before the newest snapshot
	Tags                                         []string      // snapshots with any of these tags
}

// Choose divides snapshots by the policy.
func (p Policy) Choose(all []SnapshotRef, now time.Time) (keep, remove []SnapshotRef) {
	return all, nil
}

// Forget removes the snapshot objects that the policy does not keep and for which keep is false.
func (r *Repository) Forget(ctx context.Context, p Policy, keep func(SnapshotRef) bool) (kept, removed []SnapshotRef, err error) {
	return nil, nil, errTODO
}

// UnusedPacks returns the packs, among all that are stored or indexed, that hold
// nothing any snapshot object reaches and are not pinned.
func (r *Repository) UnusedPacks(ctx context.Context, pinned map[format.ID]struct{}) ([]format.ID, error) {
	return nil, errTODO
}
func (r *Repository) DropFromIndex(ctx context.Context, packs map[format.ID]struct{}) error {
	return errTODO
}
func (r *Repository) DeletePacks(ctx context.Context, packs []format.ID) error { return errTODO }

// CompactIndex merges small index objects if there are more than limit.
func (r *Repository) CompactIndex(ctx context.Context, limit int) error { return errTODO }

// PruneOptions of Prune.
type PruneOptions struct {
	DryRun    bool
	MaxUnused float64 // share of a pack's bytes that may be unused before it is rewritten; 0: any unused byte
}

// PruneReport says what Prune did, or would do.
type PruneReport struct {
	Deleted, Repacked []format.ID // packs
	Freed             uint64      // bytes
}

func (r *Repository) Prune(ctx context.Context, lock *Lock, opt PruneOptions) (PruneReport, error) {
	return PruneReport{}, errTODO
}

// CheckOptions of Check.
type CheckOptions struct {
	ReadData bool
	Progress func(done, total int)
}

// Problem is one thing that is wrong.
type Problem struct {
	Object    string // key of the object, or the blob
	Err       error
	Snapshots []format.ID // that it touches
	Paths     []string    // that it touches, the first ones
}

// Report is the result of Check.
type Report struct {
	Problems  []Problem
	Snapshots int
	Packs     int
	Blobs     int
	BytesRead uint64
	Orphans   []format.ID // packs in no index; harmless
}

func (r *Repository) Check(ctx context.Context, opt CheckOptions) (Report, error) {
	return Report{}, errTODO
}
