package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"drover/internal/database"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// onTrial are the settings of a server on trial. Nothing of what is in the database acts by itself: no worker of an extension,
// no subscription, which would take what is meant for the original.
func (d *Driver) onTrial() ([]setting, error) {
	// Nobody but the agent and the server's user can enter the directory of the socket.
	if err := d.writeRun(d.hbaFile(), "local all all trust\n"); err != nil {
		return nil, err
	}
	set := []setting{
		{"hba_file", d.hbaFile()}, {"port", strconv.Itoa(d.o.Port)}, {"archive_mode", "off"},
		{"max_worker_processes", "0"}, {"max_logical_replication_workers", "0"}, {"autovacuum", "off"},
		{"shared_buffers", "64MB"}, {"huge_pages", "off"}, {"max_wal_size", strconv.Itoa(TrialLog>>20) + "MB"},
		{"fsync", "off"}, {"full_page_writes", "off"},
	}
	if d.major() >= 17 {
		set = append(set, setting{"event_triggers", "off"})
	}
	return set, nil
}

// TrialLog is about how many bytes of log the files of a server on trial have besides those of its archive.
const TrialLog = 512 << 20

// admitted waits until a server on trial, which is a primary already, lets somebody in.
func (d *Driver) admitted(ctx context.Context) error {
	soon, cancel := context.WithTimeout(ctx, recoveryEnd)
	defer cancel()
	for {
		err := d.with(soon, func(*pgx.Conn) error { return nil })
		if !errors.Is(err, database.ErrNotRunning) {
			return err
		}
		if late := wait(soon, 100*time.Millisecond); late != nil {
			return errors.Join(err, late)
		}
	}
}

// Ask asks a server on trial a query, as somebody who may read everything and change nothing. It is an error if there is no
// row, or the first value of the first one is false or null.
func (d *Driver) Ask(ctx context.Context, where, query string) error {
	if err := d.askRestored(ctx, where, query); err != nil {
		return fmt.Errorf("query of the restored database: %w", err)
	}
	return nil
}

func (d *Driver) askRestored(ctx context.Context, where, query string) error {
	role := "drover_trial_" + strings.ToLower(rand.Text()[:8])
	err := d.with(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "CREATE ROLE "+ident(role)+" LOGIN BYPASSRLS IN ROLE pg_read_all_data; GRANT CONNECT ON DATABASE "+ident(where)+" TO "+ident(role))
		return err
	})
	if err != nil {
		return err
	}
	config, err := pgx.ParseConfig("sslmode=disable target_session_attrs=any")
	if err != nil {
		return err
	}
	config.Host, config.Port, config.Database, config.User = d.o.Run, uint16(d.o.Port), where, role
	conn, err := d.dial(ctx, config, map[string]string{
		"search_path": `"$user", public`, "statement_timeout": "0", "default_transaction_read_only": "on",
	})
	if err != nil {
		return err
	}
	defer closeConn(conn)
	return agrees(ctx, conn, query)
}

// agrees reports whether a query's answer is yes.
func agrees(ctx context.Context, conn *pgx.Conn, query string) error {
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	if !rows.Next() {
		rows.Close()
		if err := rows.Err(); err != nil {
			return err
		}
		return errors.New("it gives no row")
	}
	value, kinds := rows.RawValues(), rows.FieldDescriptions()
	var answer error
	switch {
	case len(value) == 0 || value[0] == nil:
		answer = errors.New("it gives null")
	case kinds[0].DataTypeOID == pgtype.BoolOID && string(value[0]) == "f":
		answer = errors.New("it gives false")
	}
	rows.Close()
	return errors.Join(rows.Err(), answer)
}

// Checksummed reports whether the pages have checksums.
func (d *Driver) Checksummed(ctx context.Context) (bool, error) {
	c, err := d.control(ctx)
	return err == nil && c.fields["Data page checksum version"] != "0", err
}

// Sound reads all pages of the stopped database, and compares them with their checksums.
func (d *Driver) Sound(ctx context.Context) error {
	_, err := d.run(ctx, "", nil, "pg_checksums", "--check", "-D", d.o.Data)
	return err
}

// Consistent has a server on trial look through its tables and indexes, which says something where there are no checksums.
func (d *Driver) Consistent(ctx context.Context) error {
	_, err := d.run(ctx, "", nil, "pg_amcheck", "-h", d.o.Run, "-p", strconv.Itoa(d.o.Port), "-U", d.o.Superuser.Name,
		"--maintenance-db="+maintenance, "--all", "--install-missing")
	return err
}

// Left is the history of the timeline that a restored database is on, as its server wrote it when the recovery ended.
func (d *Driver) Left(ctx context.Context) (timeline uint32, history string, err error) {
	c, err := d.control(ctx)
	if err != nil {
		return 0, "", err
	}
	text, err := os.ReadFile(filepath.Join(d.o.Data, "pg_wal", fmt.Sprintf("%08X.history", c.timeline)))
	return c.timeline, string(text), err
}
