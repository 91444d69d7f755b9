package postgres

import (
	"context"
	"fmt"
	"slices"

	"drover/internal/database"

	"github.com/jackc/pgx/v5"
)

type slot struct {
	Name   string
	Active bool
	Lost   bool
	Behind bool // it keeps what a replica has applied
}

// Replicas implements database.Driver. A primary keeps a slot for each member, and so the log that it has not received yet, up to
// max_slot_wal_keep_size. A replica has the same slots, so that others find theirs as soon as it is promoted, but moves them
// along: by then the others are seconds behind, which is what wal_keep_size is for.
func (d *Driver) Replicas(ctx context.Context, members []database.Peer) error {
	err := d.with(ctx, func(conn *pgx.Conn) error {
		w, err := d.want()
		if err != nil {
			return err
		}
		var names []string
		for _, m := range members {
			if m.ID != w.ID {
				names = append(names, slotName(m.ID))
			}
		}
		return keepSlots(ctx, conn, names)
	})
	if err != nil {
		return fmt.Errorf("keep what replicas need: %w", ailing(err))
	}
	return nil
}

// keepSlots has slots with these names, and none of the agent's besides, except those that are in use.
func keepSlots(ctx context.Context, conn *pgx.Conn, names []string) error {
	rows, err := conn.Query(ctx, `SELECT slot_name::text, active, wal_status IS NOT DISTINCT FROM 'lost',
			pg_is_in_recovery() AND coalesce(restart_lsn < pg_last_wal_replay_lsn(), false) FROM pg_replication_slots
		WHERE slot_type = 'physical' AND starts_with(slot_name, $1)`, slotPrefix)
	if err != nil {
		return err
	}
	slots, err := pgx.CollectRows(rows, pgx.RowToStructByPos[slot])
	if err != nil {
		return err
	}
	var have []string
	for _, s := range slots {
		do := ""
		switch wanted := slices.Contains(names, s.Name); {
		case s.Active:
		case !wanted, s.Lost:
			do = "SELECT pg_drop_replication_slot($1)"
		case s.Behind:
			do = "SELECT pg_replication_slot_advance($1, pg_last_wal_replay_lsn())"
		}
		if do != "" {
			if _, err := conn.Exec(ctx, do, s.Name); err != nil {
				return err
			}
		}
		if s.Active || !s.Lost {
			have = append(have, s.Name)
		}
	}
	for _, n := range names {
		if slices.Contains(have, n) {
			continue
		}
		if _, err := conn.Exec(ctx, "SELECT pg_create_physical_replication_slot($1, true)", n); err != nil {
			return err
		}
	}
	return nil
}
