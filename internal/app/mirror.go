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
	log    *slog.Logger

	mu    sync.Mutex
	known bool // seq is the mirror's
	seq   uint64
	last  error
	late  time.Time // since when there is something to copy; zero: there is nothing
}

// newMirror returns nil if the configuration has none.
func newMirror(cfg *config.Config, log *slog.Logger) *mirror {
	m := cfg.MirrorConfig()
	if m == nil {
		return nil
	}
	return &mirror{cfg: m, every: cfg.Mirror.Every.Std(), maxLag: cfg.Mirror.MaxLag.Std(), log: log}
}

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
		if !m.wanted(rt) {
			continue
		}
		var err error
		if to == nil {
			to, st, err = m.open(ctx, v)
		}
		var res volume.MirrorResult
		if err == nil {
			res, err = to.Sync(ctx, nil)
		}
		if ctx.Err() != nil {
			return
		}
		m.note(res, err)
		if pause = m.every; err != nil {
			m.mu.Lock()
			pause = min(max(time.Since(m.late), m.every), max(mirrorPause, m.every))
			m.mu.Unlock()
		}
	}
}

// wanted reports whether this instance holds, and the mirror may be behind.
func (m *mirror) wanted(rt *volume.Runtime) bool {
	s, _ := rt.Status()
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.Phase != protocol.PhaseHolder {
		m.known, m.late, m.last = false, time.Time{}, nil // another's business
		return false
	}
	if m.known && m.last == nil && m.seq >= s.Head.Seq {
		m.late = time.Time{}
		return false
	}
	if m.late.IsZero() {
		m.late = time.Now()
	}
	return true
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
	return volume.NewMirror(v, to, volume.MirrorOptions{
		Instance: m.cfg.ID, Version: Version, TTL: m.cfg.Lease.TTL.Std(), Log: m.log, Copied: m.copied,
	}), st, nil
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
	return s
}

// health says what is wrong, "" if nothing is.
func (m *mirror) health(s *client.Mirror) string {
	switch {
	case s.Stopped:
		return "the mirror is stopped: " + s.Error
	case s.BehindSeconds > m.maxLag.Seconds():
		return "the mirror is behind for longer than max_lag: " + s.Error
	}
	return ""
}
