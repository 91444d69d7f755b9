package app

import (
	"context"
	"errors"
	"time"

	"drover/internal/config"
	"drover/internal/database"
	"drover/internal/database/pgbackup"
	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/volume"
	"drover/internal/volume/protocol"
)

// databaseMirrorEvery is how often a database's mirror is looked after if the configuration does not say so: each time all of the
// log is listed on both sides.
const databaseMirrorEvery = time.Minute

// newDatabaseMirror returns nil if the configuration has none.
func newDatabaseMirror(b *backups) *mirror {
	to := b.cfg.MirrorConfig()
	if to == nil {
		return nil
	}
	every := databaseMirrorEvery
	if b.cfg.Given("mirror.every") {
		every = b.cfg.Mirror.Every.Std()
	}
	return &mirror{cfg: to, every: every, maxLag: b.cfg.Mirror.MaxLag.Std(), log: b.log}
}

// mirrored copies base backups and log to the mirror while it is this member's turn, until ctx ends.
func (b *backups) mirrored(ctx context.Context, m *database.Member) {
	c := databaseCopy{b: b}
	defer c.close()
	repeat(ctx, b.mirror.every, func() {
		if worker(m, config.FromAny) != b.cfg.ID {
			b.mirror.leave()
			return
		}
		b.mirror.begin()
		res, err := c.copy(ctx)
		if ctx.Err() == nil && !errors.Is(err, repo.ErrNoRepository) { // the primary makes it
			b.mirror.note(res, err)
		}
	})
}

// leave forgets what is another's business from now on.
func (m *mirror) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mine, m.known, m.late, m.last = false, false, time.Time{}, nil
}

// begin notes that there may be something to copy.
func (m *mirror) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mine = true; m.late.IsZero() {
		m.late = time.Now()
	}
}

// turn reports whether this member copies to the mirror.
func (m *mirror) turn() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mine
}

// databaseCopy is a mirror that was opened.
type databaseCopy struct {
	b    *backups
	st   objstore.Store
	from *volume.Volume // with an index of its own
	to   *volume.Volume
	sync *volume.Mirror
}

func (c *databaseCopy) close() {
	if s, ok := c.st.(objstore.Closer); ok {
		_ = s.Close()
	}
}

// copy brings what is new, and removes in the mirror what no moment of the window needs, once a base backup has come.
func (c *databaseCopy) copy(ctx context.Context) (res volume.MirrorResult, err error) {
	if c.sync == nil {
		if err := c.open(ctx); err != nil {
			return res, err
		}
	}
	if res, err = c.sync.Sync(ctx, nil); err != nil {
		return res, err
	}
	done, err := pgbackup.Copy(ctx, c.from, c.to, c.b.log)
	if err != nil || done.Backups == 0 || c.b.cfg.Mirror.Upkeep == 0 {
		return res, err
	}
	streams, err := pgbackup.Streams(ctx, c.to)
	if err != nil {
		return res, err
	}
	for _, stream := range streams {
		s, err := pgbackup.Open(c.to, stream, claimOf(c.b.mirror.cfg), c.b.log)
		if err != nil {
			return res, err
		}
		c.b.expire(ctx, s)
	}
	return res, nil
}

func (c *databaseCopy) open(ctx context.Context) (err error) {
	m := c.b.mirror
	v, err := c.b.volume(ctx, false)
	if err != nil {
		return err
	}
	if c.st == nil {
		if c.st, err = openStore(ctx, m.cfg, nil, commandAttempts, c.b.log); err != nil {
			return err
		}
	}
	c.from = v.Again()
	if c.to, err = openCopy(ctx, c.st, v, m.cfg, c.b.log); err != nil {
		return err
	}
	c.sync = volume.NewMirror(v, c.to, volume.MirrorOptions{
		Instance: m.cfg.ID, Version: Version, TTL: m.cfg.Lease.TTL.Std(), Log: c.b.log, Copied: m.copied,
	})
	return nil
}

// claimOf is how a volume with a database's base backups is held.
func claimOf(cfg *config.Config) volume.Options {
	return volume.Options{
		Protocol: protocol.Config{
			Volume: cfg.Volume, TTL: cfg.Lease.TTL.Std(), Self: protocol.Holder{ID: cfg.ID, Address: hostname()},
		},
		Tree: treeOptions(cfg),
	}
}
