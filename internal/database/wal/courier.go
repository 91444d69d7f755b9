package wal

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// Courier carries files between one data directory and the archive, for PostgreSQL's
// archive_command and restore_command. It stores segments that are ready before they are
// asked for, and reads those that will be asked for next, a few at a time. What it says of a file is
// said only once that file itself was stored, or read and verified.
type Courier struct {
	archive *Archive
	from    *Archive // where files are brought from
	dir     directory
	log     *slog.Logger
	work    context.Context // of what nobody waits for
	stop    context.CancelFunc
	group   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	push   pushes
	spool  spool
	stats  Stats
}

const (
	// abreast is how many files are on their way at once, in each direction.
	abreast = 4
	// lead is how many segments may be stored before they are asked for.
	lead = 2 * abreast
	// roomBytes bounds what files under way, or read before they are asked for, hold in memory, for each direction.
	roomBytes = 256 << 20
)

// CourierOptions of NewCourier.
type CourierOptions struct {
	Directory string       // the data directory, absolute
	Log       *slog.Logger // nil: silent
	// From is the archive that files are brought from, and nothing is stored in: of a copy that is being made,
	// whose own log goes to a stream of its own. nil: the same.
	From *Archive
}

// NewCourier makes a courier; Close ends it.
func NewCourier(a *Archive, opt CourierOptions) *Courier {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Courier{
		archive: a, from: cmp.Or(opt.From, a), dir: directory{path: opt.Directory}, log: opt.Log, work: ctx, stop: cancel,
		push:  pushes{going: map[Name]*flight{}, done: map[Name][sha256.Size]byte{}},
		spool: spool{flights: map[Name]*flight{}},
	}
}

// Close ends what is under way and waits for it.
func (c *Courier) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.group.Wait()
	return nil
}

// flight is one file on its way. What it brought is there when done is closed.
type flight struct {
	done   chan struct{}
	cancel context.CancelFunc
	sum    [sha256.Size]byte // of what was stored
	sealed []byte            // what was read
	err    error
}

// fly begins a flight, with the mutex held.
func (c *Courier) fly(f func(ctx context.Context, fl *flight) error) *flight {
	ctx, cancel := context.WithCancel(c.work)
	fl := &flight{done: make(chan struct{}), cancel: cancel}
	c.group.Go(func() {
		defer cancel()
		fl.err = f(ctx, fl)
		close(fl.done)
	})
	return fl
}

func (f *flight) landed() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// wait waits for a flight's end.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// room is how many files of size bytes may be in memory at once.
func room(most int, size int64) int { return max(1, min(most, int(roomBytes/max(size, 1)))) }

// Store stores the file of the log at the absolute path file: archive_command's %p made
// absolute. nil means stored. Errors: Push's, ErrPath, ErrName.
func (c *Courier) Store(ctx context.Context, file string) error {
	err := c.store(ctx, file)
	c.count(file, err)
	return err
}

func (c *Courier) store(ctx context.Context, file string) error {
	base, err := c.dir.base(file)
	if err != nil {
		return err
	}
	name, err := ParseName(base)
	if err != nil {
		return err
	}
	content, err := c.dir.read(base)
	if err != nil {
		return err
	}
	if name.Kind == History && len(content) == 0 {
		_, err := c.archive.sealed(ctx, name) // it stood in for this one while somebody was promoted
		return err
	}
	if name.Kind != Segment {
		return c.put(ctx, name, content)
	}
	sum := sha256.Sum256(content)
	known, under := c.follow(name, sum, int64(len(content)))
	if known {
		return nil
	}
	if under != nil && under.wait(ctx) == nil && under.sum == sum {
		c.follow(name, sum, int64(len(content)))
		return nil
	}
	if err := c.put(ctx, name, content); err != nil {
		return err
	}
	c.lookAhead(int64(len(content)))
	return nil
}

// put stores one file, as far as it is the database's.
func (c *Courier) put(ctx context.Context, name Name, content []byte) error {
	err := c.archive.Push(ctx, name, content)
	if !errors.Is(err, ErrConflict) {
		return err
	}
	same, unknown := c.left(ctx, name, content)
	if unknown != nil {
		return fmt.Errorf("%w (whether that is of a history that was left is not known: %w)", err, unknown)
	}
	if !same {
		return err
	}
	c.log.Info("a file of the log goes on where the database left its timeline, and another member archived it first: its end is not kept", "file", name.String())
	return nil
}

// Bring fetches a file of the log by name into the absolute path file: restore_command's %f, and %p made
// absolute. Errors: Archive.Fetch's, ErrPath, ErrName.
func (c *Courier) Bring(ctx context.Context, text, file string) error {
	name, err := ParseName(text)
	if err != nil {
		return err
	}
	base, err := c.dir.base(file)
	if err != nil {
		return err
	}
	switch base {
	case "RECOVERYXLOG", "RECOVERYHISTORY", text:
	default:
		return fmt.Errorf("%w: %s is not where %s belongs", ErrPath, base, text)
	}
	content, err := c.content(ctx, name)
	if err != nil {
		return err
	}
	if name.Kind == Segment {
		c.readAhead(name, int64(len(content)))
	}
	return c.dir.write(base, content)
}

// content is a file's, from the spool if it is there.
func (c *Courier) content(ctx context.Context, name Name) ([]byte, error) {
	if fl := c.spooled(name); fl != nil && fl.wait(ctx) == nil {
		content, err := c.from.unseal(name, fl.sealed)
		if err == nil {
			return content, nil
		}
		c.log.Warn("a file of the log that was read ahead is damaged: it is read again", "file", name.String(), "err", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	return c.from.Fetch(ctx, name)
}
