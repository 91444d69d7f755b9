package app

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"drover/client"
	"drover/internal/config"
	"drover/internal/objstore"
	"drover/internal/repo/archive"
	"drover/internal/volume"
	"drover/internal/volume/protocol"
)

// mirror keeps a second store up to date while this instance holds the volume. It shares
// nothing with the agent's own work but the repository's key: whatever becomes of the
// second store, only this falls behind.
type mirror struct {
	cfg    *config.Config // of the mirror as a volume
	every  time.Duration
	maxLag time.Duration
	keep   volume.KeepOptions // Every is 0: nothing is kept up
	log    *slog.Logger

	mu    sync.Mutex
	mine  bool // of a database's member: it is the one that copies
	known bool // seq is the mirror's
	seq   uint64
	last  error
	late  time.Time // since when there is something to copy; zero: there is nothing
	kept  *volume.UpkeepStats
	due   time.Time // of the next run of its upkeep
}

// newMirror returns nil if the configuration has none. The cache is of the volume's
// trees; paused says whether the upkeep waits.
func newMirror(cfg *config.Config, cache archive.TreeCache, data *volume.DataDir, paused func() bool, log *slog.Logger) *mirror {
	m := cfg.MirrorConfig()
	if m == nil {
		return nil
	}
	every := cfg.Mirror.Upkeep.Std()
	return &mirror{
		cfg: m, every: cfg.Mirror.Every.Std(), maxLag: cfg.Mirror.MaxLag.Std(), log: log,
		due: time.Now().Add(min(every, mirrorSettles)),
		keep: volume.KeepOptions{
			UpkeepOptions: volume.UpkeepOptions{
				Every: every, Grace: cfg.Upkeep.Grace.Std(), Paused: paused, Log: log.With("mirror", m.Store.URL),
				Keep: volume.Retention{Committed: policyOf(cfg.Mirror.Keep)},
			},
			Cache: cache, Shelf: data.Path("snapshots-mirror"),
		},
	}
}

// mirrorSettles is when the first run of the mirror's upkeep comes, at the latest: it
// holds the mirror, and an instance that has just started may have much to copy.
const mirrorSettles = 2 * time.Minute

// mirrorPause is the longest pause after failures.
const mirrorPause = 5 * time.Minute

// run copies what rt has committed, until ctx ends.
func (m *mirror) run(ctx context.Context, v *volume.Volume, rt *volume.Runtime) {
	var to *volume.Mirror
	var st objstore.Store
	defer func() {
		if c, ok := st.(objstore.Closer); ok {
			_ = c.Close()
		}
	}()
	pause := m.every
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		copies, tends := m.wanted(rt)
		if !copies && !tends {
			continue
		}
		var err error
		if to == nil {
			to, st, err = m.open(ctx, v)
		}
		if copies {
			pause = m.copy(ctx, to, err)
		}
		if tends && err == nil && ctx.Err() == nil {
			m.tend(ctx, to)
		}
	}
}

// copy copies what is new, unless the mirror was not to be opened, and says when to look again.
func (m *mirror) copy(ctx context.Context, to *volume.Mirror, err error) time.Duration {
	var res volume.MirrorResult
	if err == nil {
		res, err = to.Sync(ctx, nil)
	}
	if ctx.Err() != nil {
		return m.every
	}
	m.note(res, err)
	if err == nil {
		return m.every
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return min(max(time.Since(m.late), m.every), max(mirrorPause, m.every))
}

// tend makes one run of the mirror's upkeep, which logs what it meets.
func (m *mirror) tend(ctx context.Context, to *volume.Mirror) {
	next, err := to.Keep(ctx)
	if err != nil {
		next = m.keep.Every
	}
	kept := to.Kept()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept, m.due = &kept, time.Now().Add(min(next, m.keep.Every))
}

// wanted reports whether this instance holds, and the mirror may be behind; and whether
// its upkeep is due.
func (m *mirror) wanted(rt *volume.Runtime) (copies, tends bool) {
	s, _ := rt.Status()
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.Phase != protocol.PhaseHolder {
		m.known, m.late, m.last, m.kept = false, time.Time{}, nil, nil // another's business
		return false, false
	}
	tends = m.keep.Every > 0 && m.known && m.last == nil && !time.Now().Before(m.due) && !m.keep.Paused()
	if m.known && m.last == nil && m.seq >= s.Head.Seq {
		m.late = time.Time{}
		return false, tends
	}
	if m.late.IsZero() {
		m.late = time.Now()
	}
	return true, tends
}

func (m *mirror) open(ctx context.Context, v *volume.Volume) (*volume.Mirror, objstore.Store, error) {
	st, err := openStore(ctx, m.cfg, nil, commandAttempts, m.log)
	if err != nil {
		return nil, nil, err
	}
	to, err := openCopy(ctx, st, v, m.cfg, m.log)
	if err != nil {
		if c, ok := st.(objstore.Closer); ok {
			err = errors.Join(err, c.Close())
		}
		return nil, nil, err
	}
	mirror := volume.NewMirror(v, to, volume.MirrorOptions{
		Instance: m.cfg.ID, Version: Version, TTL: m.cfg.Lease.TTL.Std(), Log: m.log, Copied: m.copied,
	})
	mirror.KeepUp(m.keep)
	return mirror, st, nil
}

// copied notes a snapshot that has arrived.
func (m *mirror) copied(seq uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known, m.seq = true, seq
}

// note keeps what an attempt came to, and logs each new fault once.
func (m *mirror) note(res volume.MirrorResult, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil && (m.last == nil || m.last.Error() != err.Error()) {
		level := slog.LevelWarn
		if errors.Is(err, volume.ErrForked) {
			level = slog.LevelError
		}
		m.log.Log(context.Background(), level, "mirror: not up to date", "store", m.cfg.Store.URL, "volume", m.cfg.Volume, "err", err)
	}
	if err == nil && m.last != nil {
		m.log.Info("mirror: up to date again", "seq", res.Seq)
	}
	if m.last = err; err == nil {
		m.known, m.seq = true, res.Seq
		m.late = time.Time{}
	}
}

// status tells how far the mirror is behind the head.
func (m *mirror) status(h protocol.Head) *client.Mirror {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &client.Mirror{Store: m.cfg.Store.URL, Volume: m.cfg.Volume, Seq: m.seq, Known: m.known}
	if h.Seq > m.seq {
		s.Behind = h.Seq - m.seq
	}
	if !m.late.IsZero() {
		s.BehindSeconds = time.Since(m.late).Seconds()
	}
	if m.last != nil {
		s.Error = m.last.Error()
	}
	s.Stopped = errors.Is(m.last, volume.ErrForked)
	if m.kept != nil {
		s.Upkeep = upkeepOf(*m.kept)
	}
	return s
}

// health says what is wrong, "" if nothing is.
func (m *mirror) health(s *client.Mirror) string {
	switch {
	case s.Stopped:
		return "the mirror is stopped: " + s.Error
	case s.BehindSeconds > m.maxLag.Seconds():
		return "the mirror is behind for longer than max_lag: " + s.Error
	case s.Upkeep != nil && s.Upkeep.Error != "":
		return "upkeep of the mirror: " + s.Upkeep.Error
	}
	return ""
}
