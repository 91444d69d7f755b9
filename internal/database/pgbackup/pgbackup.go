// Package pgbackup makes base backups of a running PostgreSQL as snapshots of a volume, and
// restores them, to any moment since, with the archived log.
//
// It promises: a backup that Backup returned is enough to restore, by itself and the archive: its
// files are committed, its log is stored without a gap, it was made on one timeline by one life of the server.
// A snapshot without that is none: it has neither backup_label nor pg_control, and no server
// starts on it. Restore ends with a directory that a server recovers from, or with one that none starts on.
// What Expire removes, no moment of the window needs.
//
// It leaves to others: running servers and archiving their log (the engine's driver, package wal), and
// when to back up.
//
// Source: PostgreSQL's documentation, "Making a Base Backup Using the Low Level API" and
// "Recovery Target"; the same from 15 to 18.
package pgbackup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"drover/internal/database/wal"
	"drover/internal/volume"
)

var (
	// ErrInterrupted: the server was restarted, promoted or moved to another timeline meanwhile.
	ErrInterrupted = errors.New("the server did not stay as it was during the backup")
	// ErrRefused: this server cannot be backed up as it is; the error says what to change.
	ErrRefused = errors.New("cannot back up this server")
	// ErrNoBackup: no backup fits the target.
	ErrNoBackup = errors.New("no base backup fits")
	// ErrNotEmpty: there are files that no interrupted Restore left.
	ErrNotEmpty = errors.New("directory is not empty")
	// ErrTarget: a target that cannot be meant.
	ErrTarget = errors.New("recovery target")
)

// Store is where the backups of one database are.
type Store struct {
	Volume  *volume.Volume
	Archive *wal.Archive
	// Claim is how the volume is claimed: of Protocol the volume's name, TTL and Self, of Tree
	// Host, Version and Cache.
	Claim volume.Options
	Log   *slog.Logger // nil: silent
}

// Open is the store of one database's backups in a volume. It asks nothing of it.
func Open(v *volume.Volume, stream wal.Stream, claim volume.Options, log *slog.Logger) (*Store, error) {
	a, err := wal.New(v.Store(), wal.Options{Secret: v.Repo.Secret(wal.Purpose), System: stream.System, Stream: stream.Name})
	if err != nil {
		return nil, err
	}
	return &Store{Volume: v, Archive: a, Claim: claim, Log: log}, nil
}

// Streams lists the databases of which a volume has anything: where an instance begins that knows
// nothing but the bucket.
func Streams(ctx context.Context, v *volume.Volume) ([]wal.Stream, error) {
	return wal.Streams(ctx, v.Store())
}

func (s *Store) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

// Source is a running server, primary or replica.
type Source struct {
	Directory string // its data directory
	// Connect opens a session of a superuser, or of one who may execute pg_backup_start and
	// pg_backup_stop and read pg_control's functions. It is kept for the whole backup.
	Connect func(context.Context) (*pgx.Conn, error)
	Label   string // for people
	// Switch has the primary end its segment (pg_switch_wal). Of a replica it is called after the backup, which else
	// waits until the segment in which it ends is full; nil: it waits.
	Switch func(context.Context) error
}

// Record is a base backup, as it is stored beside the log.
type Record struct {
	Format   int          `json:"format"`
	Name     string       `json:"-"`
	System   uint64       `json:"system"`
	Snapshot string       `json:"snapshot"`
	Path     string       `json:"path"` // of the data directory in the snapshot
	Timeline wal.Timeline `json:"timeline"`
	Start    wal.LSN      `json:"start"` // recovery begins here
	Stop     wal.LSN      `json:"stop"`  // and is consistent from here on
	Segment  int64        `json:"segment_size"`
	Version  int          `json:"version"` // server_version_num
	Begin    time.Time    `json:"begin"`   // by the server's clock
	End      time.Time    `json:"end"`
	Replica  bool         `json:"replica,omitempty"` // made from one
	Instance string       `json:"instance,omitempty"`
	// What the server gave at the end, and pg_control as it was read last.
	Label   string `json:"backup_label"`
	Spaces  string `json:"tablespace_map,omitempty"`
	Control []byte `json:"pg_control"`
	Bytes   int64  `json:"bytes,omitempty"` // of the files
	Added   int64  `json:"added,omitempty"` // that were stored
}

const recordFormat = 1

// errFormat: a newer version made the backup.
var errFormat = errors.New("a newer version made this backup: upgrade this drover")

// First and Last are the segments without which the backup is nothing.
func (r Record) First() wal.Name { return wal.SegmentAt(r.Timeline, r.Start, r.Segment) }

// Last is the other end of First.
func (r Record) Last() wal.Name { return wal.SegmentBefore(r.Timeline, r.Stop, r.Segment) }

// name is unique, and sorts by time.
func (r Record) name() string {
	return fmt.Sprintf("%s-%s-%.16s", r.End.UTC().Format("20060102T150405.000Z"), r.First(), r.Snapshot)
}

// List returns the backups, oldest first. One that cannot be read is an error: what it needs is not known.
func (s *Store) List(ctx context.Context) ([]Record, error) {
	var all []Record
	err := s.Archive.Notes(ctx, func(name string, content []byte, err error) error {
		if err != nil {
			return err
		}
		r := Record{Name: name}
		if err := json.Unmarshal(content, &r); err != nil {
			return fmt.Errorf("read backup %s: %w", name, err)
		}
		if r.Format > recordFormat {
			return fmt.Errorf("read backup %s: %w", name, errFormat)
		}
		if err := wal.CheckSize(r.Segment); err != nil || r.System != s.Archive.System() || r.Stop < r.Start || r.Timeline == 0 {
			return fmt.Errorf("read backup %s: it contradicts itself", name)
		}
		all = append(all, r)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list backups: %w", err)
	}
	slices.SortFunc(all, func(a, b Record) int {
		if c := a.End.Compare(b.End); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all, nil
}
