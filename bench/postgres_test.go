//go:build bench

package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"drover/internal/testkit/process"
)

// The sizes of the databases that are measured.
var (
	scale   = flag.Int("scale", 14, "pgbench's scale, of 15 MB each, of a database that is copied or backed up")
	seconds = flag.Int("seconds", 20, "how long pgbench runs each time")
)

const pgBin = "/usr/lib/postgresql/15/bin"

// database is a PostgreSQL server that is measured. Who keeps it is another matter.
type database struct {
	t    *testing.T
	name string
	host string // host:port
	data string
}

// conn connects as the superuser, whatever the server lets one do.
func (d *database) conn(ctx context.Context) (*pgx.Conn, error) {
	host, port, _ := net.SplitHostPort(d.host)
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres sslmode=disable connect_timeout=2", host, port))
	if err != nil {
		return nil, err
	}
	cfg.Password = dbPassword
	return pgx.ConnectConfig(ctx, cfg)
}

// query is the first value of the first row as text; empty: NULL, or no row.
func (d *database) query(ctx context.Context, sql string) (string, error) {
	conn, err := d.conn(ctx)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil || len(results) == 0 || len(results[0].Rows) == 0 {
		return "", err
	}
	return string(results[0].Rows[0][0]), nil
}

// sql is query for when there must be an answer.
func (d *database) sql(text string) string {
	d.t.Helper()
	value, err := d.query(d.t.Context(), text)
	if err != nil {
		d.t.Fatalf("%s: %s: %v", d.name, text, err)
	}
	return value
}

// until waits for a condition, which the server is often asked for.
func (d *database) until(what string, limit time.Duration, is func(ctx context.Context) bool) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is(ctx) {
		select {
		case <-ctx.Done():
			d.t.Fatalf("%s: waited %v for %s", d.name, limit, what)
		case <-tick.C:
		}
	}
}

// bench runs pgbench, and returns what it says.
func (d *database) bench(args ...string) string {
	d.t.Helper()
	host, port, _ := net.SplitHostPort(d.host)
	cmd := exec.CommandContext(d.t.Context(), filepath.Join(pgBin, "pgbench"), append([]string{"-h", host, "-p", port, "-U", "postgres", "-n"}, append(args, "postgres")...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PGPASSWORD=" + dbPassword, "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Fatalf("%s: pgbench %v: %v\n%s", d.name, args, err, out)
	}
	return string(out)
}

// fill makes pgbench's tables. Its vacuum is in it, so that no later one disturbs.
func (d *database) fill(scale int) {
	d.t.Helper()
	began := time.Now()
	d.bench("-i", "-q", "-I", "dtgvp", "-s", strconv.Itoa(scale))
	d.sql("CHECKPOINT")
	d.t.Logf("%s: %s in %.0f s", d.name, d.sql("SELECT pg_size_pretty(sum(pg_database_size(oid))) FROM pg_database"), time.Since(began).Seconds())
}

var tpsForm = regexp.MustCompile(`(?m)^tps = ([0-9.]+) `)

// tps lets clients write for the time given, and returns how many transactions they got through in a second.
func (d *database) tps(clients int, args ...string) float64 {
	d.t.Helper()
	out := d.bench(append([]string{"-c", strconv.Itoa(clients), "-j", "1", "-T", strconv.Itoa(*seconds)}, args...)...)
	m := tpsForm.FindStringSubmatch(out)
	if m == nil {
		d.t.Fatalf("pgbench does not say how fast it was: %s", out)
	}
	n, _ := strconv.ParseFloat(m[1], 64)
	return n
}

// plain is a server that nobody minds: by hand, with the settings that Drover gives.
type plain struct {
	database
	*process.Process

	dir      string
	settings []string
	who      *syscall.Credential
}

// packaged is PostgreSQL's user.
func packaged(t *testing.T) *syscall.Credential {
	t.Helper()
	who, err := user.Lookup("postgres")
	if err != nil {
		t.Fatalf("%v: install PostgreSQL (Debian: apt-get install postgresql-15)", err)
	}
	uid, err1 := strconv.ParseUint(who.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(who.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// newPlain has no files yet.
func newPlain(t *testing.T, name string, settings ...string) *plain {
	t.Helper()
	p := &plain{who: packaged(t), dir: shelter(t, name), settings: settings}
	p.database = database{t: t, name: name, host: process.FreeAddresses(t, 1)[0], data: filepath.Join(p.dir, "data")}
	p.Process = process.New(t, name, syscall.SIGINT, time.Minute)
	if err := os.Chown(p.dir, int(p.who.Uid), int(p.who.Gid)); err != nil {
		t.Fatal(err)
	}
	return p
}

// shelter is a directory that PostgreSQL's user may enter.
func shelter(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", name) //nolint:usetesting // others than root must come in
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// command is a program of PostgreSQL, or of its friends, run as its user.
func (p *plain) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = p.dir
	cmd.Env = []string{"PATH=" + pgBin + ":" + os.Getenv("PATH"), "HOME=" + p.dir, "LC_ALL=C.UTF-8", "PGPASSWORD=" + dbPassword}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.who}
	return cmd
}

// do runs such a program to its end.
func (p *plain) do(name string, args ...string) took {
	p.t.Helper()
	cmd := p.command(p.t.Context(), filepath.Join(pgBin, name), args...)
	if filepath.IsAbs(name) {
		cmd = p.command(p.t.Context(), name, args...)
	}
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s: %s %v: %v\n%s", p.name, name, args, err, out)
	}
	return took{time.Since(began), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
}

// create makes an empty database, as Drover does, and starts it.
func (p *plain) create() {
	p.t.Helper()
	put(p.t, filepath.Join(p.dir, "password"), dbPassword, 0o644)
	p.do("initdb", "-D", p.data, "-U", "postgres", "--pwfile", filepath.Join(p.dir, "password"), "--auth-host", "scram-sha-256", "--auth-local", "trust", "--data-checksums", "-E", "UTF8")
	p.start()
}

// copyOf makes the files those of a primary's replica, and does not start it.
func (p *plain) copyOf(primary *plain) {
	p.t.Helper()
	host, port, _ := net.SplitHostPort(primary.host)
	p.do("pg_basebackup", "-D", p.data, "-d", fmt.Sprintf("host=%s port=%s user=postgres password=%s application_name=%s", host, port, dbPassword, p.name),
		"-R", "-c", "fast", "-X", "stream", "--no-estimate-size")
}

// start returns when the server answers.
func (p *plain) start() {
	p.t.Helper()
	_, port, _ := net.SplitHostPort(p.host)
	args := []string{"-D", p.data, "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=" + p.dir}
	for _, s := range append([]string{
		"wal_log_hints=on", "max_wal_senders=20", "max_replication_slots=20", "wal_keep_size=512MB", "wal_receiver_status_interval=1s", "shared_buffers=128MB",
	}, p.settings...) {
		args = append(args, "-c", s)
	}
	if err := p.Start(p.command(context.Background(), filepath.Join(pgBin, "postgres"), args...)); err != nil {
		p.t.Fatal(err)
	}
	if err := p.Until(func(ctx context.Context) error { _, err := p.query(ctx, "SELECT 1"); return err }); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}
