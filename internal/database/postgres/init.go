package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Init implements database.Driver.
func (d *Driver) Init(ctx context.Context) error {
	if err := d.init(ctx); err != nil {
		return fmt.Errorf("make a database: %w", err)
	}
	return nil
}

func (d *Driver) init(ctx context.Context) error {
	disk, err := d.Disk(ctx)
	if err != nil {
		return err
	}
	if !disk.Empty {
		return fmt.Errorf("there is one in %s", d.o.Data)
	}
	if err := d.makeDir(d.o.Run); err != nil {
		return err
	}
	dir, err := d.fresh()
	if err != nil {
		return err
	}
	secret := filepath.Join(d.o.Run, "superuser"+passSuffix)
	password := d.o.Superuser.Password()
	if _, err := passLine(d.o.Superuser.Name, password); err != nil {
		return err
	}
	if err := d.writeRun(secret, password+"\n"); err != nil {
		return err
	}
	defer func() { _ = os.Remove(secret) }()
	args := []string{
		"-D", dir, "-U", d.o.Superuser.Name, "--pwfile", secret, "-A", "scram-sha-256", "--data-checksums", "-E", "UTF8",
	}
	args = append(args, d.locale()...)
	if _, err := d.run(ctx, "", nil, "initdb", append(args, d.o.InitArgs...)...); err != nil {
		return err
	}
	if err := d.makeUsers(ctx, dir); err != nil {
		return err
	}
	return errors.Join(exchange(dir, d.o.Data), removeFile(d.unfinished()))
}

// makeUsers makes those that replicas need. No other process sees the server meanwhile.
func (d *Driver) makeUsers(ctx context.Context, dir string) error {
	statements, err := d.userStatements()
	if err != nil {
		return err
	}
	_, err = d.run(ctx, strings.Join(statements, "\n")+"\n", nil, "postgres",
		"--single", "-D", dir, "-c", "exit_on_error=on", "-c", "log_statement=none", "-c", "log_min_error_statement=panic", maintenance)
	return err
}

// userStatements are one line each: that is what ends a statement in single-user mode.
func (d *Driver) userStatements() ([]string, error) {
	var out []string
	create := func(r Role, attributes string) error {
		password := r.Password()
		if _, err := passLine(r.Name, password); err != nil {
			return fmt.Errorf("the password of %s: %w", r.Name, err)
		}
		out = append(out, "CREATE ROLE "+ident(r.Name)+" LOGIN "+attributes+" PASSWORD "+literal(password))
		return nil
	}
	if err := errors.Join(create(d.o.Replication, "REPLICATION"), create(d.o.Rewind, "")); err != nil {
		return nil, err
	}
	for _, function := range []string{
		"pg_ls_dir(text, boolean, boolean)", "pg_stat_file(text, boolean)", // what pg_rewind's documentation names
		"pg_read_binary_file(text)", "pg_read_binary_file(text, bigint, bigint, boolean)",
		"pg_control_checkpoint()", "pg_control_system()",
	} {
		out = append(out, "GRANT EXECUTE ON FUNCTION pg_catalog."+function+" TO "+ident(d.o.Rewind.Name))
	}
	return append(out, "GRANT pg_checkpoint TO "+ident(d.o.Rewind.Name)), nil
}
