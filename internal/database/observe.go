package database

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"drover/internal/coord"
	"drover/internal/failover"
)

// look looks at the files.
func (m *Member) look(ctx context.Context) {
	disk, err := m.opt.Driver.Disk(ctx)
	if err != nil && ctx.Err() == nil {
		m.complain("look at the files", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.obs.Disk = &disk
	if err != nil {
		m.obs.Disk = nil
	}
}

// How often it is asked whether there is a backup, while that matters, and how long it may take.
const (
	backupEvery = 2 * time.Second
	backupLimit = time.Minute
)

// seekBackup finds out whether there is a backup to begin with, as long as there are no files. What a store that
// does not answer has is not known: nobody takes that for nothing, and nothing else waits for it.
func (m *Member) seekBackup(ctx context.Context) {
	if m.opt.Backup == nil {
		return
	}
	never := make(chan struct{})
	for {
		m.mu.Lock()
		wanted := m.obs.Disk != nil && m.obs.Disk.Empty && !m.obs.Backup
		m.mu.Unlock()
		if wanted {
			call, cancel := context.WithTimeout(ctx, backupLimit)
			there, err := m.opt.Backup.Available(call)
			cancel()
			if err != nil && ctx.Err() == nil {
				m.complain("look for backups", err)
			}
			m.mu.Lock()
			m.obs.Backup, m.obs.Unsure = there && err == nil, err != nil
			m.mu.Unlock()
			m.nudge()
		}
		if !m.rest(ctx, never, backupEvery) {
			return
		}
	}
}

// complain warns of what went wrong, once as long as it is the same.
func (m *Member) complain(doing string, err error) {
	m.mu.Lock()
	same := m.wrong[doing] == err.Error()
	m.wrong[doing] = err.Error()
	m.mu.Unlock()
	level := slog.LevelWarn
	if same {
		level = slog.LevelDebug
	}
	m.opt.Log.Log(context.Background(), level, "database: "+doing, "err", err)
}

// readRecord reads the record again and again.
func (m *Member) readRecord(ctx context.Context) {
	for {
		m.readOnce(ctx)
		if !m.rest(ctx, m.reread, m.pace(far)) {
			return
		}
	}
}

// readOnce reads the record and its epoch's beat, as of one moment.
func (m *Member) readOnce(ctx context.Context) {
	call, cancel := context.WithTimeout(ctx, m.callTimeout())
	defer cancel()
	sent := m.now()
	pairs, err := m.opt.KV.List(call, m.opt.Prefix+"/")
	if err != nil {
		if ctx.Err() == nil {
			m.opt.Log.Debug("database: read the cluster's record", "err", err)
		}
		return
	}
	var record *failover.Record
	var revision coord.Revision
	beats := map[string][]byte{}
	for _, p := range pairs {
		if p.Key != m.recordKey() {
			beats[p.Key] = p.Value
			continue
		}
		if record, err = failover.ParseRecord(p.Value); err != nil {
			m.opt.Log.Error("database: the cluster's record", "err", err)
			return
		}
		revision = p.Revision
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.obs.Known, m.obs.Record, m.revision = true, record, revision
	m.obs.Sent, m.obs.Got = sent, m.now()
	m.obs.Beat = 0
	if record != nil {
		m.obs.Beat, _ = strconv.ParseUint(string(beats[m.beatKey(record.Epoch)]), 10, 64)
	}
	m.nudge()
}

// watchRecord has the record read as soon as it is another one, where the coordinator tells.
func (m *Member) watchRecord(ctx context.Context) {
	m.opt.KV.Watch(ctx, m.recordKey(), true, func([]coord.Pair, error) { poke(m.reread) })
}

func (m *Member) beatKey(epoch uint64) string {
	return m.opt.Prefix + "/beat/" + strconv.FormatUint(epoch, 10)
}

// beat shows, while this member leads, that it lives. Beats stand outside of the record: nobody
// has to agree to them.
func (m *Member) beat(ctx context.Context) {
	never := make(chan struct{})
	count, former := uint64(time.Now().UnixNano()), uint64(0) // greater than an earlier life's, as a rule; that it differs is enough
	for {
		m.mu.Lock()
		epoch := m.leading()
		m.mu.Unlock()
		if epoch != 0 {
			count++
			m.beatOnce(ctx, epoch, count)
			if former != 0 && former != epoch {
				m.forgetBeat(ctx, former)
			}
			former = epoch
		}
		wait := m.opt.Failover.TTL / 6
		if epoch == 0 {
			wait = min(wait, 50*time.Millisecond)
		}
		if !m.rest(ctx, never, wait) {
			return
		}
	}
}

// leading is the epoch that this member leads in; 0: none, or it was decided too long ago that it does. So one whose
// decisions hang, upon a disk or a server that cannot be killed, falls silent. m.mu is held.
func (m *Member) leading() uint64 {
	if m.now() >= m.decision.LeadUntil {
		return 0
	}
	return m.decision.Beat
}

// forgetBeat tidies up.
func (m *Member) forgetBeat(ctx context.Context, epoch uint64) {
	call, cancel := context.WithTimeout(ctx, m.callTimeout()) // the next beat waits for it
	defer cancel()
	if err := m.opt.KV.Delete(call, m.beatKey(epoch), nil); err != nil && ctx.Err() == nil {
		m.opt.Log.Debug("database: remove an old beat", "err", err)
	}
}

func (m *Member) beatOnce(ctx context.Context, epoch, count uint64) {
	call, cancel := context.WithTimeout(ctx, m.callTimeout())
	defer cancel()
	sent := m.now()
	if _, err := m.opt.KV.Put(call, m.beatKey(epoch), strconv.AppendUint(nil, count, 10)); err != nil {
		if ctx.Err() == nil {
			m.opt.Log.Warn("database: beat", "err", err)
		}
		return
	}
	m.mu.Lock()
	m.obs.Beaten, m.obs.BeatenEpoch = sent, epoch
	m.mu.Unlock()
	m.nudge()
}

// pollServer asks the server again and again how it is.
func (m *Member) pollServer(ctx context.Context) {
	for {
		m.mu.Lock()
		busy := m.busy
		m.mu.Unlock()
		if !m.opt.Processes.Running() && !busy {
			m.look(ctx)
		}
		m.pollOnce(ctx)
		if !m.rest(ctx, m.repoll, m.pace(near)) {
			return
		}
	}
}

func (m *Member) pollOnce(ctx context.Context) {
	if !m.opt.Processes.Running() {
		m.forgetServer()
		return
	}
	call, cancel := context.WithTimeout(ctx, max(m.opt.Failover.TTL/4, 500*time.Millisecond))
	defer cancel()
	asked := m.now()
	db, err := m.opt.Driver.Status(call)
	switch {
	case errors.Is(err, ErrPassword):
		m.complain("ask the server", err) // it does not mend by itself
	case err != nil && !errors.Is(err, ErrNotRunning) && ctx.Err() == nil:
		m.opt.Log.Debug("database: ask the server", "err", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if asked < m.obs.Asked || asked < m.handled {
		return
	}
	m.obs.Database, m.obs.Asked = nil, asked // of a failure, too: what was asked before and is answered later is older
	if err == nil && m.opt.Processes.Running() {
		m.obs.Database, m.answered = &db, true
		m.seeded = m.seeded && !db.Receiving
	}
	m.nudge()
}
