package postgres

import (
	"context"
	"errors"
	"fmt"

	"drover/internal/database"

	"github.com/jackc/pgx/v5"
)

// Reconfigure gives the server other parameters and other lines of pg_hba.conf, as in Options, and has it read them, if it runs.
// What takes effect with its next start only is told by Status (Restart). It is called as the methods of database.Driver are.
// Errors: what the server refuses is named; the rest is in effect.
func (d *Driver) Reconfigure(ctx context.Context, parameters map[string]string, hba []string) error {
	if err := d.reconfigure(ctx, parameters, hba); err != nil {
		return fmt.Errorf("reconfigure PostgreSQL: %w", err)
	}
	return nil
}

func (d *Driver) reconfigure(ctx context.Context, parameters map[string]string, hba []string) error {
	o := d.o
	o.Parameters, o.HBA = parameters, hba
	if err := o.check(); err != nil {
		return err
	}
	d.o.Parameters, d.o.HBA = o.Parameters, o.HBA
	w, err := d.want()
	if errors.Is(err, database.ErrNotRunning) {
		return nil // Configure comes
	}
	if err != nil {
		return err
	}
	if err := d.apply(w); err != nil {
		return err
	}
	err = d.reload(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		said, err := complaint(ctx, conn)
		if err == nil && said != "" {
			err = errors.New(said)
		}
		return err
	})
	if errors.Is(err, database.ErrNotRunning) {
		return nil
	}
	return err
}
