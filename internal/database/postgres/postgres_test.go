package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"drover/internal/database"
	"drover/internal/database/databasetest"
	"drover/internal/testkit/leak"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestConformance(t *testing.T) {
	made := newMade(t)
	databasetest.Run(t, func(t *testing.T) databasetest.Engine { return newEngineOf(t, made) })
}

// engine is PostgreSQL for a test.
type engine struct {
	t       testing.TB
	options []Options
	made    string // a database, made with the first of such options; empty: none
}

// newMade makes a database that others are copies of, and returns its directory.
func newMade(t *testing.T) string {
	t.Helper()
	e := newEngine(t)
	m := newMember(t, e, 0, nil)
	m.must(m.Init(m.ctx()))
	return e.options[0].Data
}

// newEngineOf is one whose databases are copies of one that was made.
func newEngineOf(t testing.TB, made string) *engine {
	t.Helper()
	e := newEngine(t)
	e.made = made
	return e
}

// home is where databases are, if there is room for them: in memory. What is tested waits for many syncs, and on a disk
// for everybody else's.
func home() string {
	const memory, room = "/dev/shm", 3 << 30
	var fs unix.Statfs_t
	if err := unix.Statfs(memory, &fs); err != nil || int64(fs.Bavail)*fs.Bsize < room {
		return ""
	}
	return memory
}

func newEngine(t testing.TB) *engine {
	t.Helper()
	dir, err := os.MkdirTemp(home(), "postgres-") //nolint:usetesting // not the test's folder, which only we may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	e := &engine{t: t}
	who := serverUser(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		base := filepath.Join(dir, fmt.Sprint(n))
		if err := os.Mkdir(base, 0o755); err != nil {
			t.Fatal(err)
		}
		if who != nil {
			if err := os.Chown(base, int(who.Uid), int(who.Gid)); err != nil {
				t.Fatal(err)
			}
		}
		e.options = append(e.options, Options{
			Data: filepath.Join(base, "data"), Run: filepath.Join(base, "run"), Listen: "127.0.0.1", Port: freePort(t), User: who,
			Superuser: role("super", "s:e'c\\r et"), Replication: role("repl", `re"p\l:`), Rewind: role("rewinder", "rewind"),
			Parameters: map[string]string{
				"fsync": "off", "shared_buffers": "16MB", "max_connections": "30", "autovacuum": "off",
				"dynamic_shared_memory_type": "mmap", // in the files: a killed server leaves it
			},
			InitArgs: []string{"--no-sync"},
		})
	}
	return e
}

func role(name, password string) Role { return Role{name, func() string { return password }} }

// serverUser is whom the server runs as: it refuses to be root.
func serverUser(t testing.TB) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatalf("PostgreSQL is not installed: apt-get install postgresql (%v)", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func (e *engine) Driver(n int) database.Driver {
	e.t.Helper()
	d, err := New(e.options[n])
	if err != nil {
		e.t.Fatal(err)
	}
	return d
}

// Make implements databasetest.Maker.
func (e *engine) Make(n int) error {
	if out, err := exec.Command("cp", "-a", e.made, e.options[n].Data).CombinedOutput(); err != nil {
		return fmt.Errorf("copy a database: %w: %s", err, out)
	}
	return nil
}

func (e *engine) Peer(n int) (string, int) { return "127.0.0.1", e.options[n].Port }

func (e *engine) User() *syscall.Credential { return e.options[0].User }

func (e *engine) Session(ctx context.Context, n int) (databasetest.Session, error) {
	o := e.options[n]
	config, err := pgx.ParseConfig("sslmode=disable")
	if err != nil {
		return nil, err
	}
	config.Host, config.Port, config.User, config.Database = "127.0.0.1", uint16(o.Port), o.Superuser.Name, "postgres"
	config.Password = o.Superuser.Password()
	config.Fallbacks = nil
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	return session{conn}, nil
}

type session struct{ conn *pgx.Conn }

func (s session) Close() { closeConn(s.conn) }

func (s session) Append(ctx context.Context, row string) error {
	_, err := s.conn.Exec(ctx, "CREATE TABLE IF NOT EXISTS test (n serial, row text)", pgx.QueryExecModeSimpleProtocol)
	if err == nil {
		_, err = s.conn.Exec(ctx, "INSERT INTO test (row) VALUES ($1)", pgx.QueryExecModeSimpleProtocol, row)
	}
	return err
}

func (s session) Rows(ctx context.Context) ([]string, error) {
	rows, err := s.conn.Query(ctx, "SELECT row FROM test ORDER BY n", pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return nil, err
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	var said *pgconn.PgError
	if errors.As(err, &said) && said.Code == "42P01" {
		return nil, nil
	}
	return found, err
}
