// Package wal is PostgreSQL's log in a store: its segments, timeline histories and backup
// histories, beside a volume's repository, where restic does not look.
//
// It promises: what Push acknowledged is stored whole, and never replaced. A name is taken by
// whoever stores it first; the same content again is a success, another content is
// ErrConflict, by which two primaries on one timeline find out. An answer of the store that is
// not known is resolved by reading back. Fetch says ErrNotFound only if the store itself says
// that it has the volume and not the file, and gives out nothing that was changed since it was stored.
// Nothing plain is in the store.
//
// It leaves to others: when PostgreSQL calls (archive_command, restore_command), what a base
// backup is, and the repetition of reads that found the store unavailable (objstore/retry).
//
// Source of the names and of a segment's head: PostgreSQL's xlog_internal.h, the same from 15 to 18.
package wal

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"drover/internal/objstore"
)

// What callers act on. Any other error says that nothing is known, and may mend.
var (
	// ErrNotFound: the store has the volume, and not this file.
	ErrNotFound = errors.New("not in the log archive")
	// ErrConflict: the store has another content under this name, and keeps it.
	ErrConflict = errors.New("another content is archived under this name: another server wrote the same timeline, or this one went back; it must not go on")
	// ErrDamaged: what is stored was changed, or sealed with another key.
	ErrDamaged = errors.New("archived file is damaged")
	// ErrForeign: the file is no segment of this database, or not the one that its name says.
	ErrForeign = errors.New("not this database's log")
	// ErrName: no name of a file that PostgreSQL archives.
	ErrName = errors.New("not the name of a log file")
)

// Purpose is what the sealing key is derived for (repo.Repository.Secret).
const Purpose = "database log 1"

// root is where the logs lie, below the volume's prefix; anchor is an object that every
// volume has.
const (
	root   = "drover/log/"
	anchor = "config"
)

// Archive is one stream of logs: those of one database, or of a restored copy of it that
// goes its own way. All methods may be called at once.
type Archive struct {
	st     objstore.Store
	seal   *sealer
	stream string
	system uint64
	others atomic.Bool // the last file that was to be stored was there already
}

// Options of New.
type Options struct {
	// Secret is 32 bytes that all members share: repo.Repository.Secret(Purpose).
	Secret []byte
	// System is the database's identity (pg_controldata's "Database system identifier").
	// Segments of another one are refused.
	System uint64
	// Stream sets a restored copy, which has the same System, apart. Empty: the stream of the system itself.
	Stream string
}

// New makes an archive in st, the store below the volume's prefix. It asks nothing of the store.
func New(st objstore.Store, opt Options) (*Archive, error) {
	if opt.System == 0 {
		return nil, errors.New("open log archive: the database's system identifier is missing")
	}
	stream := Stream{opt.System, opt.Stream}.String()
	if strings.Contains(stream, "/") || objstore.CheckKey(stream) != nil {
		return nil, fmt.Errorf("open log archive: stream %q is no name", opt.Stream)
	}
	s, err := newSealer(opt.Secret)
	if err != nil {
		return nil, fmt.Errorf("open log archive: %w", err)
	}
	return &Archive{st: st, seal: s, stream: stream, system: opt.System}, nil
}

// Stream names the stream: the system's identifier and what sets it apart.
func (a *Archive) Stream() string { return a.stream }

// System is the database's identity.
func (a *Archive) System() uint64 { return a.system }

// key is where a file of the log lies: a folder for each timeline.
func (a *Archive) key(n Name) string { return a.folder(n.Timeline) + n.String() }

func (a *Archive) folder(t Timeline) string { return root + a.stream + "/" + t.String() + "/" }

// Stream is what New has to be told to open a stream.
type Stream struct {
	System uint64
	Name   string // empty: the system's own
}

func (s Stream) String() string {
	if s.Name == "" {
		return strconv.FormatUint(s.System, 10)
	}
	return strconv.FormatUint(s.System, 10) + "-" + s.Name
}

// Streams lists the streams of a volume, in no order. All objects of all of them are listed for it.
func Streams(ctx context.Context, st objstore.Store) ([]Stream, error) {
	var list []Stream
	err := objstore.Folders(ctx, objstore.WithPrefix(st, strings.TrimSuffix(root, "/")), func(folder string) error {
		system, name, _ := strings.Cut(folder, "-")
		if id, err := strconv.ParseUint(system, 10, 64); err == nil && (Stream{id, name}).String() == folder {
			list = append(list, Stream{id, name})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list log archives: %w", err)
	}
	return list, nil
}

// here fails unless the store answers that the volume is in it: one that has lost it, or is
// another one, says of every file that it is not there.
func (a *Archive) here(ctx context.Context) error {
	_, err := a.st.Head(ctx, anchor)
	if errors.Is(err, objstore.ErrNotFound) {
		return errors.New("the store does not have the volume at all")
	}
	return err
}
