package app

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"drover/client"
	"drover/internal/config"
	"drover/internal/database"
	"drover/internal/database/wal"
	"drover/internal/event"
	"drover/internal/volume"
)

// What a member knows of the database's backups, and tells the others.

// longestProblem bounds what is told of an error, in bytes.
const longestProblem = 500

// brief is an error in one line.
func brief(err error) string {
	line := strings.Join(strings.Fields(err.Error()), " ")
	if len(line) > longestProblem {
		line = strings.ToValidUTF8(line[:longestProblem], "") + "…"
	}
	return line
}

// note looks at what there is to tell.
func (b *backups) note() {
	b.mu.Lock()
	courier := b.courier
	b.mu.Unlock()
	var stats wal.Stats
	var waiting wal.Waiting
	if courier != nil {
		stats = courier.Stats()
		waiting, _ = wal.WaitingIn(b.cfg.Database.Data) // files that are exchanged just now have none
	}
	test := restoreTestOf(b.tests.outcome())
	b.mu.Lock()
	k := &b.known
	k.Archived, k.ArchivedAt = "", nil
	if stats.Last.Kind == wal.Segment {
		k.Archived, k.ArchivedAt = stats.Last.String(), &stats.Stored
	}
	k.ArchiveError, k.ArchiveFailures = "", stats.Failures
	if stats.Problem != nil {
		k.ArchiveError = brief(stats.Problem)
	}
	k.Waiting, k.WaitingBytes, k.WaitingSeconds = waiting.Segments, waiting.Bytes, 0
	if waiting.Segments > 0 {
		k.WaitingSeconds = max(0, time.Since(waiting.Since).Seconds())
	}
	k.RestoreTest = test
	text, err := json.Marshal(k)
	b.mu.Unlock()
	if raw := json.RawMessage(text); err == nil {
		b.said.Store(&raw)
	}
}

// tells is what the other members are told.
func (b *backups) tells() json.RawMessage {
	if raw := b.said.Load(); raw != nil {
		return *raw
	}
	return nil
}

// backupsOf is what a member says of backups; nil: nothing.
func backupsOf(v database.View) *client.DatabaseBackups {
	if v.Backups == nil {
		return nil
	}
	var said client.DatabaseBackups
	if json.Unmarshal(v.Backups, &said) != nil {
		return nil
	}
	return &said
}

// allBackups is what the member of a view knows of backups, with what it heard from the others; nil: there are none.
func allBackups(v database.View) *client.DatabaseBackups {
	all := backupsOf(v)
	if all == nil {
		return nil
	}
	for _, s := range v.Peers {
		said := backupsOf(s.View)
		if said == nil {
			continue
		}
		if t := said.Last; t != nil && (all.Last == nil || t.After(*all.Last)) {
			all.Last, all.By = t, said.By
		}
		if t := said.RestoreTest; t != nil && (all.RestoreTest == nil || t.Time.After(all.RestoreTest.Time)) {
			all.RestoreTest = t
		}
	}
	return all
}

// backupsHealth says what is wrong with a database's backups; empty: nothing.
func backupsHealth(b *client.DatabaseBackups) string {
	switch {
	case b == nil:
		return ""
	case b.ArchiveError != "":
		return "the database's log is not archived: " + b.ArchiveError
	case b.Error != "":
		return "the last base backup failed: " + b.Error
	}
	return restoreTestHealth(b.RestoreTest)
}

// newDatabaseTests makes restore tests on a schedule while it is this member's turn; nil: none are configured.
func (b *backups) newDatabaseTests(m *database.Member, paused func() bool, tell func(event.Event)) *restoreTests {
	every := b.cfg.Database.RestoreTest.Every.Std()
	if every == 0 {
		return nil
	}
	turns, mine := uint64(0), false
	return &restoreTests{
		every: every, log: b.log, tell: tell,
		holder: func() (uint64, bool) {
			before := mine
			known := allBackups(m.View())
			if mine = worker(m, config.FromAny) == b.cfg.ID && known != nil && known.Last != nil && !paused(); mine && !before {
				turns++ // others may have made some meanwhile
			}
			return turns, mine
		},
		load: func(ctx context.Context) (*volume.RestoreTest, error) {
			v, err := b.volume(ctx, false)
			if err != nil {
				return nil, err
			}
			return v.LastRestoreTest(ctx)
		},
		save: func(ctx context.Context, t volume.RestoreTest) error {
			v, err := b.volume(ctx, false)
			if err != nil {
				return err
			}
			return v.SaveRestoreTest(ctx, t)
		},
		test: b.test,
	}
}

// test makes one restore test, with an index of its own.
func (b *backups) test(ctx context.Context) (volume.RestoreTest, error) {
	t := volume.RestoreTest{Instance: b.cfg.ID, Time: time.Now()}
	v, err := b.volume(ctx, false)
	if err != nil {
		return t, t.End(ctx, err)
	}
	s, _, err := newestDatabase(ctx, v.Again(), b.claim(), b.log)
	if err != nil || s == nil {
		return t, t.End(ctx, err)
	}
	return databaseTest{cfg: b.cfg, log: b.log, store: s}.run(ctx)
}
