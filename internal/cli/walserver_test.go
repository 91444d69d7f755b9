package cli

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"drover/client"
	"drover/internal/control"
	"drover/internal/database/pgbackup"
	"drover/internal/database/wal"
	"drover/internal/objstore/mem"
	"drover/internal/testkit/postgresserver"
)

// carrier is an agent with a database.
type carrier struct {
	agent
	courier *wal.Courier
}

func (c carrier) PushWAL(ctx context.Context, path string) error { return c.courier.Store(ctx, path) }

func (c carrier) FetchWAL(ctx context.Context, name, path string) error {
	err := c.courier.Bring(ctx, name, path)
	if errors.Is(err, wal.ErrNotFound) {
		return &client.Error{Kind: client.KindAbsent, Message: err.Error()}
	}
	return err
}

// testServerArchives: a real PostgreSQL, whose own user calls the real program, has its log archived,
// and is recovered from a copy of its files and that.
func testServerArchives(t *testing.T, m *machine) {
	pg := postgresserver.Start(t)
	dir := pg.Exec("SHOW data_directory")
	system, err := strconv.ParseUint(pg.Exec("SELECT system_identifier FROM pg_control_system()"), 10, 64)
	ok(t, err)
	st := mem.New()
	ok(t, st.Put(t.Context(), "config", []byte("x")))
	archive, err := wal.New(st, wal.Options{Secret: make([]byte, 32), System: system})
	ok(t, err)
	courier := wal.NewCourier(archive, wal.CourierOptions{Directory: dir})
	t.Cleanup(func() { _ = courier.Close() })
	home, err := os.MkdirTemp("", "w") //nolint:usetesting // short, for the socket, and open to other users
	ok(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	ok(t, os.Chmod(home, 0o755))
	owner := func(path string) uint32 {
		fi, err := os.Stat(path)
		ok(t, err)
		return fi.Sys().(*syscall.Stat_t).Uid
	}
	socket := filepath.Join(home, "s")
	serveUsers(t, carrier{agent{talk: &talk{}}, courier}, socket, owner(dir))

	env := "DROVER_SOCKET=" + socket + " PATH=" + filepath.Dir(m.binary) + ":$PATH; export DROVER_SOCKET PATH; "
	pg.Exec("ALTER SYSTEM SET archive_mode = 'on'")
	pg.Exec("ALTER SYSTEM SET archive_command = '" + quoteSQL(env+pgbackup.ArchiveCommand) + "'")
	pg.Exec("ALTER SYSTEM SET restore_command = '" + quoteSQL(env+pgbackup.RestoreCommand) + "'")
	pg.Stop()
	cold := filepath.Join(home, "cold")
	ok(t, exec.Command("cp", "-a", dir, cold).Run())
	pg.StartAgain()
	pg.Exec("CREATE TABLE t(n int); INSERT INTO t SELECT generate_series(1, 100000)")
	last := pg.Exec("SELECT pg_walfile_name(pg_switch_wal() - 1)")
	name, err := wal.ParseName(last)
	ok(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	first := wal.Name{Kind: wal.Segment, Timeline: 1, Low: 1}
	if err := archive.Await(ctx, first, name, 16<<20); err != nil {
		t.Fatalf("%v; %s", err, pg.Exec("SELECT * FROM pg_stat_archiver"))
	}
	pg.Stop()

	ok(t, os.RemoveAll(dir))
	ok(t, exec.Command("cp", "-a", cold, dir).Run())
	ok(t, os.WriteFile(filepath.Join(dir, "recovery.signal"), nil, 0o644))
	segments, err := filepath.Glob(filepath.Join(dir, "pg_wal", "0*"))
	ok(t, err)
	for _, s := range segments {
		ok(t, os.Remove(s))
	}
	pg.StartAgain()
	for end := time.Now().Add(limit); pg.Exec("SELECT pg_is_in_recovery()") != "f"; {
		if time.Now().After(end) {
			t.Fatal("it does not end its recovery")
		}
	}
	if got := pg.Exec("SELECT count(*) FROM t"); got != "100000" {
		t.Errorf("%s rows came back", got)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func quoteSQL(text string) string {
	out := ""
	for _, r := range text {
		if r == '\'' {
			out += "'"
		}
		out += string(r)
	}
	return out
}

// serveUsers is serveAt for an agent whose jobs are of another user.
func serveUsers(t *testing.T, a control.Agent, path string, uid uint32) {
	t.Helper()
	server := control.New(a, control.Options{Path: path, JobUIDs: func() []uint32 { return []uint32{uid} }})
	ok(t, server.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
