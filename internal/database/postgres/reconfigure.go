package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"drover/internal/database"

	"github.com/jackc/pgx/v5"
)

// SettingError says what of the options the server cannot use, and why, in one line.
type SettingError struct {
	Key string // parameters.NAME, or hba[N], counted from 0
	Why string
}

func (e *SettingError) Error() string { return e.Why }

func badParameter(name, format string, args ...any) error {
	return &SettingError{"parameters." + name, fmt.Sprintf(format, args...)}
}

// CheckParameters asks the server's program whether it takes these parameters. Nothing runs or is changed, and it may be called at
// any time. Errors: a SettingError, if it does not.
func (d *Driver) CheckParameters(ctx context.Context, parameters map[string]string) error {
	o := d.o
	o.Parameters = parameters
	if err := o.checkParameters(); err != nil {
		return err
	}
	if err := d.askProgram(ctx, parameters); err != nil {
		if bad := refusedParameter(err.Error(), slices.Collect(maps.Keys(parameters))); bad != nil {
			return bad
		}
		return fmt.Errorf("check PostgreSQL's parameters: %w", err)
	}
	return nil
}

// askProgram has the program read these parameters, from a file, since a value may be nobody's business, and do nothing.
func (d *Driver) askProgram(ctx context.Context, parameters map[string]string) error {
	if err := d.makeDir(d.o.Run); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(d.o.Run, "check-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var conf strings.Builder
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		fmt.Fprintf(&conf, "%s = %s\n", name, confValue(parameters[name]))
	}
	file := filepath.Join(dir, "postgresql.conf")
	if err := errors.Join(d.own(dir), d.writeRun(file, conf.String())); err != nil {
		return err
	}
	_, err = d.run(ctx, "", nil, "postgres", "-D", dir, "-c", "config_file="+file,
		"-c", "log_min_messages=warning", "-c", "log_line_prefix=", "-c", "lc_messages=C", "-C", "port")
	return err
}

var (
	saidOf   = regexp.MustCompile(`(?m)^.*?(?:LOG|FATAL|ERROR):\s+(.*parameter "([^"]+)".*)$`)
	saidHint = regexp.MustCompile(`(?m)^.*?HINT:\s+(.*)$`)
	saidFile = regexp.MustCompile(` in file "[^"]*" line \d+`)
)

// refusedParameter finds in what PostgreSQL said which parameter it does not take; nil: none of these.
func refusedParameter(said string, names []string) error {
	for _, at := range saidOf.FindAllStringSubmatchIndex(said, -1) {
		line, name := said[at[2]:at[3]], said[at[4]:at[5]]
		i := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
		if i < 0 {
			continue
		}
		why := saidFile.ReplaceAllString(line, "")
		next, _, _ := strings.Cut(strings.TrimPrefix(said[at[1]:], "\n"), "\n")
		if hint := saidHint.FindStringSubmatch(next); hint != nil {
			why += "; " + strings.TrimSuffix(hint[1], ".")
		}
		return badParameter(names[i], "%s", why)
	}
	return nil
}

// checkTogether says which parameters cannot be together, which the server finds only when it starts.
func (o *Options) checkTogether() error {
	const most, kept, more = "max_connections", "superuser_reserved_connections", "reserved_connections"
	_, some := o.Parameters[most]
	if reserved := o.number(kept, 5) + o.number(more, 0); some && o.number(most, 100) <= reserved {
		return badParameter(most, "%s is %s, and %d connections are reserved (%s, %s): no client could connect", most, o.Parameters[most], reserved, kept, more)
	}
	if strings.EqualFold(o.Parameters["wal_level"], "minimal") {
		return badParameter("wal_level", "wal_level is minimal: nobody could follow; replica or logical is needed")
	}
	return nil
}

// Reconfigure gives the server other parameters and other lines of pg_hba.conf, as in Options, and has it read them, if it runs.
// What takes effect with its next start only is told by Status (Pending). It is called as the methods of database.Driver are.
// Errors: what the server refuses is named (SettingError, if it is known which it is), and the former are in effect again.
func (d *Driver) Reconfigure(ctx context.Context, parameters map[string]string, hba []string) error {
	formerParameters, formerHBA := d.o.Parameters, d.o.HBA
	err := d.reconfigure(ctx, parameters, hba)
	if err == nil {
		return nil
	}
	if e := d.reconfigure(ctx, formerParameters, formerHBA); e != nil {
		err = errors.Join(err, fmt.Errorf("go back: %w", e))
	}
	return fmt.Errorf("reconfigure PostgreSQL: %w", err)
}

func (d *Driver) reconfigure(ctx context.Context, parameters map[string]string, hba []string) error {
	o := d.o
	o.Parameters, o.HBA = parameters, hba
	if err := o.check(); err != nil {
		return err
	}
	d.set(func() { d.o.Parameters, d.o.HBA = o.Parameters, o.HBA })
	w, err := d.want()
	if errors.Is(err, database.ErrNotRunning) {
		return nil // Configure comes
	}
	if err != nil {
		return err
	}
	w.Floor = d.stillNeeded(w.Floor)
	if err := d.apply(w); err != nil {
		return err
	}
	err = d.with(ctx, d.checkHBA(ctx)) // the file is read by this question, and by the server not yet
	if err == nil {
		err = d.reload(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			said, err := complaint(ctx, conn)
			if err == nil && said != "" {
				err = errors.New(said)
			}
			return err
		})
	}
	if errors.Is(err, database.ErrNotRunning) {
		return nil
	}
	return err
}

// stillNeeded is what of a replica's floor is higher than what is configured now.
func (d *Driver) stillNeeded(floor map[string]string) map[string]string {
	left := map[string]string{}
	for _, s := range floors {
		need, err := strconv.Atoi(floor[s.name])
		if err == nil && need > d.o.number(s.name, s.initial) {
			left[s.name] = floor[s.name]
		}
	}
	return left
}

// checkHBA asks what the server would not take of pg_hba.conf, which has the user's lines if clients are admitted.
func (d *Driver) checkHBA(ctx context.Context) func(*pgx.Conn) error {
	return func(conn *pgx.Conn) error {
		var line int
		var why string
		err := conn.QueryRow(ctx, "SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL ORDER BY line_number LIMIT 1").Scan(&line, &why)
		switch i := line - 1 - len(d.hbaHead()); {
		case errors.Is(err, pgx.ErrNoRows):
			return nil
		case err != nil:
			return err
		case i >= 0 && i < len(d.o.HBA):
			return &SettingError{fmt.Sprintf("hba[%d]", i), fmt.Sprintf("%q is no line of pg_hba.conf: %s", d.o.HBA[i], why)}
		}
		return fmt.Errorf("pg_hba.conf, line %d: %s", line, why)
	}
}
