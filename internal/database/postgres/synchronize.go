package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"drover/internal/failover"

	"github.com/jackc/pgx/v5"
)

// Synchronize implements database.Driver.
//
// Who decides that a commit was acknowledged is not the session that commits but each sender, by
// the set that it has read. That a commit waits at all is decided by a flag that the checkpointer sets, when it
// has read its configuration. Neither shows what it has read; what shows is told at each step.
func (d *Driver) Synchronize(ctx context.Context, set failover.SyncSet) (string, error) {
	at, err := d.synchronize(ctx, set)
	if err != nil {
		return "", fmt.Errorf("set who acknowledges commits: %w", err)
	}
	return at, nil
}

func (d *Driver) synchronize(ctx context.Context, set failover.SyncSet) (string, error) {
	if err := checkSet(set); err != nil {
		return "", err
	}
	w, err := d.want()
	if err != nil {
		return "", err
	}
	w.Set = set
	if err := d.apply(w); err != nil {
		return "", err
	}
	at := ""
	err = d.reload(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		var recovering bool
		var start, names string
		if err := conn.QueryRow(ctx, `SELECT pg_is_in_recovery(), pg_postmaster_start_time()::text, current_setting('synchronous_standby_names')`).
			Scan(&recovering, &start, &names); err != nil {
			return err
		}
		if names != syncNames(set) {
			return fmt.Errorf("synchronous_standby_names is %q, against what was configured", names)
		}
		if recovering {
			return nil
		}
		if err := sendersTurned(ctx, conn); err != nil {
			return err
		}
		if set.Acks > 0 {
			if err := d.awaited(ctx, conn, start, set); err != nil {
				return err
			}
		} else {
			d.setWaits("")
		}
		p, err := (&asker{conn: conn, histories: map[uint32][]span{}}).primaryAt(ctx)
		at = p.String()
		return err
	})
	return at, err
}

// primaryAt is how far the log is flushed.
func (a *asker) primaryAt(ctx context.Context) (position, error) {
	var flush, file string
	if err := a.conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text, pg_walfile_name(pg_current_wal_flush_lsn())").Scan(&flush, &file); err != nil {
		return position{}, err
	}
	return a.leadingAt(ctx, flush, file)
}

// sendersTurned waits until every sender releases commits by the set that new sessions show. The server has signalled
// them by then: a sender that is seen to wait for something to do finds the signal before it looks at the next
// acknowledgement. One that is not seen to wait is ended, and connects again as a new one. Senders to whom their own set
// gives no voice (sync_priority 0: base backups, and what follows asynchronously) release nothing, and are left alone.
func sendersTurned(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, "SELECT pid FROM pg_stat_replication WHERE sync_priority > 0")
	if err != nil {
		return err
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil {
		return err
	}
	busy := map[int32]bool{}
	for _, p := range pids {
		busy[p] = true
	}
	for until := time.Now().Add(2 * time.Second); len(busy) > 0; {
		rows, err := conn.Query(ctx, `SELECT pid, coalesce(wait_event, '') FROM pg_stat_activity WHERE backend_type = 'walsender'`)
		if err != nil {
			return err
		}
		still := map[int32]bool{}
		var pid int32
		var event string
		if _, err := pgx.ForEachRow(rows, []any{&pid, &event}, func() error {
			still[pid] = busy[pid] && event != "WalSenderMain"
			return nil
		}); err != nil {
			return err
		}
		late := time.Now().After(until)
		for p := range busy {
			if busy[p] = still[p]; !busy[p] {
				delete(busy, p)
			} else if late {
				if _, err := conn.Exec(ctx, "SELECT pg_terminate_backend($1)", p); err != nil {
					return err
				}
			}
		}
		if err := wait(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) setWaits(start string) { d.set(func() { d.waits = start }) }

// waitsNow reports whether commits of the server that started then were seen to wait.
func (d *Driver) waitsNow(start string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waits == start
}

// awaited returns when it has seen a commit wait for acknowledgements, as then all later ones do. If replicas are so quick
// that none is seen to, commits are for a moment to be acknowledged by nobody.
func (d *Driver) awaited(ctx context.Context, conn *pgx.Conn, start string, set failover.SyncSet) error {
	if d.waitsNow(start) {
		return nil
	}
	seen, err := d.seenWaiting(ctx, conn)
	if err == nil && !seen {
		err = d.hold(ctx, conn, set)
	}
	if err == nil {
		d.setWaits(start)
	}
	return err
}

// trySeen does what can be done of it at once, right after a promotion, when there are no replicas yet that could be too quick.
func (d *Driver) trySeen(ctx context.Context, conn *pgx.Conn) {
	var start, names string
	err := conn.QueryRow(ctx, "SELECT pg_postmaster_start_time()::text, current_setting('synchronous_standby_names')").Scan(&start, &names)
	if err != nil || names == "" || d.waitsNow(start) {
		return
	}
	if seen, err := d.seenWaiting(ctx, conn); err == nil && seen {
		d.setWaits(start)
	}
}

// hold has all commits wait until one was seen to, and then those of set acknowledge again.
func (d *Driver) hold(ctx context.Context, conn *pgx.Conn, set failover.SyncSet) error {
	w, err := d.want()
	if err != nil {
		return err
	}
	held, back := w, w
	held.Set, back.Set = failover.SyncSet{Acks: 1}, set
	if err = d.apply(held); err == nil {
		err = d.reload(ctx, sendersTurned)
	}
	for seen := false; err == nil && !seen; {
		seen, err = d.seenWaiting(ctx, conn)
	}
	if e := d.apply(back); e != nil {
		return errors.Join(err, e)
	}
	return errors.Join(err, d.reload(ctx, sendersTurned))
}

// seenWaiting commits something, and reports whether that was seen to wait.
func (d *Driver) seenWaiting(ctx context.Context, conn *pgx.Conn) (bool, error) {
	probe, err := d.connect(ctx)
	if err != nil {
		return false, err
	}
	defer closeConn(probe)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pid := probe.PgConn().PID()
	done := make(chan error, 1)
	d.work.Go(func() {
		// A transaction that has only a number waits for nobody: it must have written something.
		_, err := probe.Exec(ctx, "SET synchronous_commit = on; SELECT pg_logical_emit_message(true, 'drover', '')")
		done <- err
	})
	for {
		var event string
		err := conn.QueryRow(ctx, "SELECT coalesce((SELECT wait_event FROM pg_stat_activity WHERE pid = $1), '')", pid).Scan(&event)
		if err != nil || event == "SyncRep" {
			cancel()
			<-done //nolint:errcheck // it was canceled
			if err == nil {
				_, err = conn.Exec(context.WithoutCancel(ctx), "SELECT pg_terminate_backend($1)", pid)
			}
			return err == nil, err
		}
		select {
		case err := <-done:
			return false, err
		default:
		}
	}
}
