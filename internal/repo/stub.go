package repo

import (
	"context"
	"errors"
	"time"

	"drover/internal/objstore"
	"drover/internal/repo/format"
)

const sealOverhead = 32

var errTODO = errors.New("not written yet")

// Bundle is what makes a new repository: both objects, made before anything is
// stored. It holds no secret that the password does not protect.
type Bundle struct {
	Key    []byte    `json:"key"`    // the key file's bytes
	KeyID  format.ID `json:"key_id"` // its name
	Config []byte    `json:"config"` // the config object's bytes, sealed
}

// NewBundle makes a new repository's master key, its config, and a key file that
// opens with password. It stores nothing.
func NewBundle(password string) (*Bundle, error) { return nil, errTODO }

// Materialise stores the bundle's objects, each only if it is absent. It is
// idempotent, and fails if another repository is there.
func Materialise(ctx context.Context, st objstore.Store, b *Bundle) error { return errTODO }

// Open opens the repository in st.
func Open(ctx context.Context, st objstore.Store, password string, opt Options) (*Repository, error) {
	return nil, errTODO
}

func (r *Repository) ID() string            { return "" }
func (r *Repository) Config() Config        { return Config{} }
func (r *Repository) Store() objstore.Store { return r.st }
func (r *Repository) Options() Options      { return r.opt }

// Seal encrypts and authenticates plain with the repository's key.
func (r *Repository) Seal(plain []byte) []byte { return nil }

// Unseal is the inverse of Seal.
func (r *Repository) Unseal(sealed []byte) ([]byte, error) { return nil, errTODO }

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
func (r *Repository) LoadIndex(ctx context.Context) error               { return errTODO }
func (r *Repository) SetCondemned(set map[format.ID]struct{})           {}
func (r *Repository) DropCaches()                                       {}
func (r *Repository) MissingPacks() []format.ID                         { return nil }
func (r *Repository) Has(h format.Handle) bool                          { return false }
func (r *Repository) Lookup(h format.Handle) ([]Location, bool)         { return nil, false }
func (r *Repository) LoadBlob(ctx context.Context, h format.Handle, buf []byte) ([]byte, error) {
	return nil, errTODO
}
func (r *Repository) LoadPackBlobs(ctx context.Context, pack format.ID, blobs []PackedBlob, fn func(h format.Handle, data []byte, err error) error) error {
	return errTODO
}

// WriterOptions of NewWriter. The zero value is good.
type WriterOptions struct {
	Uploaded func(bytes int) // called after each stored pack, from any goroutine
}

// Writer stores blobs, packs of them, their index and one snapshot.
type Writer struct{}

func (r *Repository) NewWriter(ctx context.Context, opt WriterOptions) *Writer { return nil }
func (w *Writer) Save(ctx context.Context, t format.BlobType, data []byte) (format.ID, error) {
	return format.ID{}, errTODO
}
func (w *Writer) SaveHashed(ctx context.Context, h format.Handle, data []byte) error { return errTODO }

// Finish stores what is left. It sets sn.Summary's counts of blobs and bytes, if there is a Summary.
func (w *Writer) Finish(ctx context.Context, sn *format.Snapshot) (format.ID, Stats, error) {
	return format.ID{}, Stats{}, errTODO
}
func (w *Writer) Abort()             {}
func (w *Writer) Packs() []format.ID { return nil }

func (r *Repository) LoadSnapshot(ctx context.Context, id format.ID) (*format.Snapshot, error) {
	return nil, errTODO
}
func (r *Repository) SaveSnapshot(ctx context.Context, sn *format.Snapshot) (format.ID, error) {
	return format.ID{}, errTODO
}

// Snapshots calls fn for every snapshot object, one at a time, in no promised order.
func (r *Repository) Snapshots(ctx context.Context, fn func(format.ID, *format.Snapshot) error) error {
	return errTODO
}
func (r *Repository) FindSnapshot(ctx context.Context, prefix string) (format.ID, *format.Snapshot, error) {
	return format.ID{}, nil, errTODO
}
func (r *Repository) RemoveSnapshot(ctx context.Context, id format.ID) error { return errTODO }

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
