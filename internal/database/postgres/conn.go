package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"drover/internal/database"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// maintenance is the database that the agent connects to. It is always there, unless somebody drops it.
	maintenance = "postgres"
	// agentName is the agent's application_name.
	agentName = "drover"
	// pause is between two looks at something that changes soon.
	pause = 5 * time.Millisecond
	// patience is how long something that should be quick is waited for, if its context has more.
	patience = 20 * time.Second
)

// connect opens a session of the agent's. Whatever was set for its user or database, names are
// PostgreSQL's own there, nothing that it does waits for replicas, and nothing lasts for ever.
func (d *Driver) connect(ctx context.Context) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig("sslmode=disable target_session_attrs=any")
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	config.Host, config.Port, config.Database, config.Fallbacks = d.o.Run, uint16(d.o.Port), maintenance, nil
	config.User, config.Password = d.o.Superuser.Name, d.o.Superuser.Password()
	more := map[string]string{}
	d.set(func() {
		if d.wanted != nil && d.wanted.Major >= 17 {
			more["event_triggers"] = "off" // somebody's trigger at log-in could keep the agent out
		}
	})
	return d.dial(ctx, config, more)
}

// dial connects with what is the same for every session of the agent's.
func (d *Driver) dial(ctx context.Context, config *pgx.ConnConfig, more map[string]string) (*pgx.Conn, error) {
	config.ConnectTimeout = patience
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	config.RuntimeParams = map[string]string{
		"application_name": agentName, "search_path": "pg_catalog", "synchronous_commit": "local",
		"statement_timeout": "60s", "lock_timeout": "10s", "idle_in_transaction_session_timeout": "60s",
		"client_encoding": "UTF8", "DateStyle": "ISO",
		"client_min_messages": "error", "standard_conforming_strings": "on",
	}
	maps.Copy(config.RuntimeParams, more)
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", ailing(err))
	}
	return conn, nil
}

// ailing says ErrNotRunning of an error that means it.
func ailing(err error) error {
	var said *pgconn.PgError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist),
		errors.As(err, &said) && said.Code == "57P03": // cannot_connect_now: it starts, or ends
		return fmt.Errorf("%w: %w", database.ErrNotRunning, err)
	case errors.As(err, &said) && said.Code == "28P01": // invalid_password
		return fmt.Errorf("%w: %w", database.ErrPassword, err)
	}
	return err
}

// with runs f in a session of its own.
func (d *Driver) with(ctx context.Context, f func(*pgx.Conn) error) error {
	conn, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	return f(conn)
}

func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// parentOf is the process that started another one.
func parentOf(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(text), ") ") // a name may have anything but this in it, as PostgreSQL sets it
	fields := strings.Fields(rest)
	if !ok || len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/stat is not understood", pid)
	}
	return strconv.Atoi(fields[1])
}

// reload has a running server read its configuration, and calls f in a session that has it, as all later ones have.
func (d *Driver) reload(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	w, err := d.want()
	if err != nil {
		return err
	}
	s, err := d.postmaster()
	if err == nil {
		err = s.signal(syscall.SIGHUP)
	}
	if err != nil {
		return err
	}
	soon, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err = d.with(soon, func(conn *pgx.Conn) error {
			var stamp string
			if err := conn.QueryRow(soon, "SELECT coalesce(current_setting('drover.stamp', true), '')").Scan(&stamp); err != nil {
				return err
			}
			if stamp != w.Stamp {
				return errOld
			}
			return f(ctx, conn)
		})
		if !errors.Is(err, errOld) {
			return err
		}
		if err := wait(soon, pause); err != nil {
			return fmt.Errorf("have PostgreSQL read its configuration: %w%s", err, d.complaint())
		}
	}
}

// errOld: the server shows an older configuration.
var errOld = errors.New("the server has not read its configuration")

// complaint is what the server says is wrong with its configuration, in parentheses.
func (d *Driver) complaint() string {
	ctx, cancel := context.WithTimeout(d.life, 2*time.Second)
	defer cancel()
	said := ""
	_ = d.with(ctx, func(conn *pgx.Conn) (err error) { // it only says more of another error
		said, err = complaint(ctx, conn)
		return err
	})
	if said == "" {
		return ""
	}
	return " (" + said + ")"
}

// complaint is what the server says is wrong with its configuration files. That it must be restarted is none.
func complaint(ctx context.Context, conn *pgx.Conn) (said string, err error) {
	err = conn.QueryRow(ctx, `SELECT coalesce(string_agg(format('%s in line %s: %s', f.name, f.sourceline, f.error), '; '), '')
		FROM pg_file_settings f LEFT JOIN pg_settings s ON lower(s.name) = lower(f.name)
		WHERE f.error IS NOT NULL AND s.pending_restart IS NOT TRUE`).Scan(&said)
	return said, err
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
