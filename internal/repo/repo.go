// Package repo is a restic repository, format version 2, over an objstore.Store:
// its keys, its index, reading and writing blobs and snapshots, locks, retention,
// garbage collection and verification.
//
// It promises: whatever it stored, stock restic reads, checks, forgets and prunes;
// every blob is compared with its id when it is read; nothing is deleted because
// of an error, and a listing that failed is never taken for a short one; memory is
// bounded by Options.Connections packs of Options.PackSize. An object it stored is
// never changed; objects are removed only by the methods that say so.
//
// It leaves to others: what a tree means on a disk (archive, restore), which
// snapshot is the newest one of the history (volume), and the repetition of calls
// that found the store unavailable (objstore/retry).
//
// Source of the format: doc/design.rst of restic, and trial against restic 0.18.
package repo

import (
	"errors"
	"log/slog"
	"sync"

	"drover/internal/objstore"
	"drover/internal/repo/crypto"
	"drover/internal/repo/format"
)

// What callers act on.
var (
	// ErrNoRepository: there is no restic repository here (or only parts of one).
	ErrNoRepository = errors.New("no repository here")
	// ErrWrongPassword: no key of the repository opens with this password.
	ErrWrongPassword = errors.New("wrong password: it opens none of the repository's keys")
	// ErrVersion: a repository of a format version that Drover does not use.
	ErrVersion = errors.New("repository format version not supported")
	// ErrReadOnly: a write was asked of a repository opened with Options.ReadOnly.
	ErrReadOnly = errors.New("repository is open for reading only")
	// ErrBlobNotFound: no index knows the blob.
	ErrBlobNotFound = errors.New("blob is in no index")
	// ErrDamaged: an object's content is not what its name or the index says.
	ErrDamaged = errors.New("damaged")
	// ErrLocked: somebody else's lock forbids the operation.
	ErrLocked = errors.New("repository is locked")
	// ErrLockLost: our lock object is gone: somebody called it stale, and may have
	// pruned what we counted on.
	ErrLockLost = errors.New("our repository lock is gone")
	// ErrSnapshotNotFound: no snapshot has that id, or none is meant by that prefix.
	ErrSnapshotNotFound = errors.New("snapshot not found")
)

// Compression says how hard blobs are compressed.
type Compression uint8

// Levels of compression. Whatever the level, a blob that does not shrink is stored plain.
const (
	CompressionAuto Compression = iota // the fastest level of zstd
	CompressionOff
	CompressionMax
)

// Defaults of Options.
const (
	DefaultPackSize    = 16 << 20
	DefaultConnections = 5
)

// Options of Open. The zero value is good.
type Options struct {
	Log         *slog.Logger // nil: silent
	PackSize    int          // bytes; a pack is at most this, but for a single larger blob; 0: DefaultPackSize
	Connections int          // packs uploaded, and objects read, at once; 0: DefaultConnections
	Compression Compression
	ReadOnly    bool // writes fail with ErrReadOnly
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.PackSize <= 0 {
		o.PackSize = DefaultPackSize
	}
	if o.Connections <= 0 {
		o.Connections = DefaultConnections
	}
	return o
}

// Config is the content of the repository's config object.
type Config struct {
	Version           uint
	ID                string // 64 hexadecimal digits, random, unique to the repository
	ChunkerPolynomial uint64 // secret of the chunker: irreducible over GF(2), degree 53
}

// Location says where a copy of a blob is stored.
type Location struct {
	Pack         format.ID
	Offset       uint32 // bytes from the pack's start
	Length       uint32 // bytes in the pack, with nonce and MAC
	Uncompressed uint32 // bytes of the blob if it is stored compressed, 0 if it is stored plain
}

// PlainLength is the blob's length in bytes.
func (l Location) PlainLength() int {
	if l.Uncompressed != 0 {
		return int(l.Uncompressed)
	}
	return int(l.Length) - crypto.Overhead
}

// PackedBlob is a blob and where it is.
type PackedBlob struct {
	format.Handle
	Location
}

// SnapshotRef is a snapshot and the id of its object.
type SnapshotRef struct {
	ID format.ID
	*format.Snapshot
}

// Stats counts what a Writer stored.
type Stats struct {
	DataBlobs, TreeBlobs int    // new blobs
	Bytes                uint64 // of new blobs, plain
	Stored               uint64 // of new blobs, in their packs, with headers
	Packs                int    // new packs
	Known                int    // blobs asked to save that were there already
}

// Repository is an open repository. All its methods may be called at once.
type Repository struct {
	st    objstore.Store
	opt   Options
	key   *crypto.Key
	keyID format.ID // of the key file that opened it
	cfg   Config
	zstd  *compressor

	mu        sync.RWMutex
	index     *memIndex
	condemned map[format.ID]struct{}
	buried    map[format.ID]struct{} // condemned for good, whatever SetCondemned says

	crew *crew // the Writers at work, of all handles of this repository
}

// ID is the repository's own id, 64 hexadecimal digits.
func (r *Repository) ID() string { return r.cfg.ID }

// Config returns the content of the config object.
func (r *Repository) Config() Config { return r.cfg }

// Store returns the store that the repository was opened in.
func (r *Repository) Store() objstore.Store { return r.st }

// Options returns the options in force, with the defaults filled in.
func (r *Repository) Options() Options { return r.opt }

// Seal encrypts and authenticates plain with the repository's key.
func (r *Repository) Seal(plain []byte) []byte { return r.key.Seal(nil, plain) }

// Unseal is the inverse of Seal; sealed stays as it is.
func (r *Repository) Unseal(sealed []byte) ([]byte, error) {
	return r.key.Open(append([]byte(nil), sealed...))
}

func (r *Repository) writable() error {
	if r.opt.ReadOnly {
		return ErrReadOnly
	}
	return nil
}

// idx returns the index in force.
func (r *Repository) idx() *memIndex {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.index
}
