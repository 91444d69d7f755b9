package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Admit implements database.Driver.
func (d *Driver) Admit(ctx context.Context, clients bool) error {
	if err := d.admit(ctx, clients); err != nil {
		return fmt.Errorf("admit clients: %w", err)
	}
	return nil
}

func (d *Driver) admit(ctx context.Context, clients bool) error {
	w, err := d.want()
	if err != nil {
		return err
	}
	if clients {
		if err := d.ready(ctx, w); err != nil {
			return err
		}
	}
	w.Open = clients
	if err := d.apply(w); err != nil {
		return err
	}
	if clients { // a server that cannot use a line uses none
		if err := d.with(ctx, d.checkHBA(ctx)); err != nil {
			w.Open = false
			return errors.Join(err, d.apply(w))
		}
	}
	return d.reload(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		// Twice: a session that was being admitted while the server read its configuration shows up a little later.
		for left := 2; left > 0 && !clients; {
			ended, err := d.endSessions(ctx, conn)
			if err != nil {
				return err
			}
			if ended == 0 {
				left--
			}
			if err := wait(ctx, pause); err != nil {
				return err
			}
		}
		return nil
	})
}

// ready has commits of a primary wait for who acknowledges them, before there are any.
func (d *Driver) ready(ctx context.Context, w wanted) error {
	if w.Set.Acks == 0 {
		return nil
	}
	return d.with(ctx, func(conn *pgx.Conn) error {
		var recovering bool
		var start string
		if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery(), pg_postmaster_start_time()::text").Scan(&recovering, &start); err != nil {
			return err
		}
		if recovering {
			return nil
		}
		return d.awaited(ctx, conn, start, w.Set)
	})
}

// endSessions ends those that are no replica's and not the agent's, and says how many there were.
func (d *Driver) endSessions(ctx context.Context, conn *pgx.Conn) (int, error) {
	ended := 0
	err := conn.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE backend_type = 'client backend' AND usename IS DISTINCT FROM $1
		AND NOT (usename = $2 AND application_name = $3)`, d.o.Rewind.Name, d.o.Superuser.Name, agentName).Scan(&ended)
	return ended, err
}
