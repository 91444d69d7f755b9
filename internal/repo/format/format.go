// Package format holds the data types of a restic repository, format version 2:
// ids, blobs, trees, nodes and snapshots, and their exact JSON.
//
// It promises that what it encodes is what stock restic encodes for the same
// values (so that equal trees have equal ids), and that decoding bytes from
// outside never panics and never accepts a name that could leave its directory.
// It does no I/O. Source: doc/design.rst of restic, and trial against restic 0.18.
package format

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// ID is the SHA-256 of an object's plain content (blobs) or of its stored bytes
// (all files but config).
type ID [sha256.Size]byte

// Hash returns the ID of data.
func Hash(data []byte) ID { return sha256.Sum256(data) }

// NewRandomID returns an ID from the kernel's random source.
func NewRandomID() ID {
	var id ID
	if _, err := rand.Read(id[:]); err != nil {
		panic(err) // crypto/rand never returns an error since Go 1.24
	}
	return id
}

// ParseID reads 64 hexadecimal digits.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("id %.80q has %d digits instead of %d", s, len(s), 2*len(id))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("id %q: %w", s, err)
	}
	return id, nil
}

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short is the id's first eight digits, as people name it.
func (id ID) Short() string { return hex.EncodeToString(id[:4]) }

// IsZero reports whether id is the zero value, which no object has.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText gives the 64 digits; the zero ID is the empty text.
func (id ID) MarshalText() ([]byte, error) {
	if id.IsZero() {
		return nil, nil
	}
	return []byte(id.String()), nil
}

// UnmarshalText reads what MarshalText gives.
func (id *ID) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*id = ID{}
		return nil
	}
	*id, err = ParseID(string(text))
	return err
}

// BlobType says what a blob holds. The zero value is invalid.
type BlobType uint8

// The two types of blob.
const (
	DataBlob BlobType = 1 + iota
	TreeBlob
)

func (t BlobType) String() string {
	switch t {
	case DataBlob:
		return "data"
	case TreeBlob:
		return "tree"
	}
	return fmt.Sprintf("BlobType(%d)", uint8(t))
}

// Handle names a blob.
type Handle struct {
	Type BlobType
	ID   ID
}

func (h Handle) String() string { return h.Type.String() + "/" + h.ID.Short() }

// FileType is a kind of file in the repository; its string is the folder's name.
type FileType string

// The kinds of file.
const (
	ConfigFile   FileType = "config"
	KeyFile      FileType = "keys"
	DataFile     FileType = "data"
	IndexFile    FileType = "index"
	SnapshotFile FileType = "snapshots"
	LockFile     FileType = "locks"
)

// Key returns the object key of the file (t, id) below the repository's prefix.
func (t FileType) Key(id ID) string {
	switch t {
	case ConfigFile:
		return "config"
	case DataFile:
		s := id.String()
		return "data/" + s[:2] + "/" + s
	}
	return string(t) + "/" + id.String()
}

// Snapshot is the root of one state of the volume.
type Snapshot struct {
	Time     time.Time `json:"time"`
	Parent   *ID       `json:"parent,omitempty"`
	Tree     *ID       `json:"tree"`
	Paths    []string  `json:"paths"`
	Hostname string    `json:"hostname,omitempty"`
	Username string    `json:"username,omitempty"`
	UID      uint32    `json:"uid,omitempty"`
	GID      uint32    `json:"gid,omitempty"`
	Excludes []string  `json:"excludes,omitempty"`
	Tags     []string  `json:"tags,omitempty"`
	Original *ID       `json:"original,omitempty"`

	ProgramVersion string   `json:"program_version,omitempty"`
	Summary        *Summary `json:"summary,omitempty"`
}

// Totals is how much the snapshot holds, as its summary says; 0 if there is none, or
// no snapshot.
func (s *Snapshot) Totals() (files, bytes int64) {
	if s == nil || s.Summary == nil {
		return 0, 0
	}
	return int64(s.Summary.TotalFilesProcessed), int64(s.Summary.TotalBytesProcessed)
}

// Summary is what restic's `snapshots` shows of a backup: counts and bytes.
type Summary struct {
	BackupStart         time.Time `json:"backup_start"`
	BackupEnd           time.Time `json:"backup_end"`
	FilesNew            uint      `json:"files_new"`
	FilesChanged        uint      `json:"files_changed"`
	FilesUnmodified     uint      `json:"files_unmodified"`
	DirsNew             uint      `json:"dirs_new"`
	DirsChanged         uint      `json:"dirs_changed"`
	DirsUnmodified      uint      `json:"dirs_unmodified"`
	DataBlobs           int       `json:"data_blobs"`
	TreeBlobs           int       `json:"tree_blobs"`
	DataAdded           uint64    `json:"data_added"`
	DataAddedPacked     uint64    `json:"data_added_packed"`
	TotalFilesProcessed uint      `json:"total_files_processed"`
	TotalBytesProcessed uint64    `json:"total_bytes_processed"`
}
