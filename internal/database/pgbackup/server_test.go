package pgbackup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"drover/internal/database/wal"
	"drover/internal/objstore"
	"drover/internal/testkit/process"
	"drover/internal/volume"
	"drover/internal/volume/protocol"
)

// patience is how long anything may take on a busy machine.
const patience = time.Minute

// place is where the servers of one test live, with a store.
type place struct {
	t       *testing.T
	dir     string
	bin     string // of PostgreSQL
	who     *syscall.Credential
	store   objstore.Store
	volume  *volume.Volume
	archive *wal.Archive
}

// newPlace makes a place; the archive is there when the first server is.
func newPlace(t *testing.T, st objstore.Store) *place {
	t.Helper()
	parent := "/dev/shm" // what is tested waits for many syncs, and on a disk for everybody else's
	if _, err := os.Stat(parent); err != nil {
		parent = ""
	}
	dir, err := os.MkdirTemp(parent, "pgbackup-") //nolint:usetesting // short, for sockets, and open to another user
	must(t, err)
	p := &place{t: t, dir: dir, store: st}
	t.Cleanup(func() { p.remove() })
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		t.Fatalf("PostgreSQL is not installed: apt-get install postgresql (%v)", err)
	}
	p.bin = filepath.Dir(slices.Max(found))
	must(t, os.Chmod(dir, 0o755))
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		must(t, err)
		uid, err := strconv.Atoi(u.Uid)
		must(t, err)
		gid, err := strconv.Atoi(u.Gid)
		must(t, err)
		p.who = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		must(t, os.Chown(dir, uid, gid))
	}
	p.volume, _, err = volume.Open(t.Context(), st, volume.OpenOptions{Name: "data", Password: "sesame", Create: true})
	must(t, err)
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// remove waits until the last process of a killed server has gone from its files.
func (p *place) remove() {
	deadline := time.Now().Add(patience)
	for {
		err := os.RemoveAll(p.dir)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			p.t.Error(err)
			return
		}
	}
}

// backups is the store of the database, as an instance sees it.
func (p *place) backups(instance string) *Store {
	return &Store{
		Volume: p.volume, Archive: p.archive,
		Claim: volume.Options{
			Protocol: protocol.Config{Volume: "data", TTL: 10 * time.Second, Self: protocol.Holder{ID: instance}},
			Tree:     volume.TreeOptions{Host: "test"},
		},
	}
}

// server is one PostgreSQL.
type server struct {
	p       *place
	dir     string // its files
	name    string
	log     process.Output
	cmd     *exec.Cmd
	done    chan struct{}
	end     []func() // of its courier
	mu      sync.Mutex
	errs    []error // of its courier
	writers int
	from    *wal.Archive // where its log is brought from; nil: from where it goes to
	// limit of what the courier does for one call
	limit time.Duration
}

func (p *place) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir = p.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.who, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (p *place) run(name string, args ...string) string {
	p.t.Helper()
	out, err := p.command(name, args...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// create makes a new database, and the archive of it.
func (p *place) create(name string) *server {
	p.t.Helper()
	s := p.server(name)
	p.run("initdb", "-D", s.dir, "-U", "super", "-A", "trust", "-k", "--wal-segsize=1", "--no-sync", "-E", "UTF8")
	p.archive = p.open("")
	return s
}

// open opens the archive of the database, whose server may be stopped.
func (p *place) open(stream string) *wal.Archive {
	p.t.Helper()
	files, err := filepath.Glob(filepath.Join(p.dir, "*", controlFile))
	must(p.t, err)
	b, err := os.ReadFile(files[0])
	must(p.t, err)
	var system uint64
	for i := range 8 {
		system |= uint64(b[i]) << (8 * i)
	}
	s, err := Open(p.volume, wal.Stream{System: system, Name: stream}, volume.Options{}, nil)
	must(p.t, err)
	return s.Archive
}

// server is one whose files are, or will be, in the place's folder of that name.
func (p *place) server(name string) *server {
	s := &server{p: p, dir: filepath.Join(p.dir, name), name: name, limit: patience}
	p.t.Cleanup(func() {
		s.kill()
		if p.t.Failed() {
			p.t.Logf("%s said:\n%s", name, s.log.String())
		}
	})
	return s
}

// start starts it, with a courier of archive; archives says whether its log goes there.
func (s *server) start(archive *wal.Archive, archives bool, more ...string) {
	s.p.t.Helper()
	s.launch(archive, archives, more...)
	s.await(func(ctx context.Context) bool { _, err := s.query(ctx, "SELECT 1"); return err == nil })
}

// launch starts it without waiting for anything.
func (s *server) launch(archive *wal.Archive, archives bool, more ...string) {
	s.p.t.Helper()
	port := s.courier(archive)
	mode := "off"
	if archives {
		mode = "always"
	}
	call := func(what, args string) string {
		return fmt.Sprintf(`bash -c 'exec 3<>/dev/tcp/127.0.0.1/%d && echo "$PWD %s $*" >&3 && read -r s <&3; exit ${s:-254}' x %s`, port, what, args)
	}
	args := []string{
		"-D", s.dir, "-k", s.socketDir(), "-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=50",
		"-c", "archive_mode=" + mode, "-c", "archive_command=" + call("push", "%p"), "-c", "restore_command=" + call("fetch", "%f %p"),
		"-c", "wal_retrieve_retry_interval=100ms", "-c", "max_wal_size=32MB", "-c", "log_min_messages=warning", "-c", "wal_level=replica",
	}
	cmd := s.p.command("postgres", append(args, more...)...)
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	must(s.p.t, cmd.Start())
	done := make(chan struct{})
	go func() { // ends with the process, which kill waits for
		_ = cmd.Wait()
		close(done)
	}()
	s.cmd, s.done = cmd, done
}

func (s *server) socketDir() string {
	dir := filepath.Join(s.p.dir, "s-"+s.name)
	must(s.p.t, os.MkdirAll(dir, 0o777))
	must(s.p.t, os.Chmod(dir, 0o777))
	return dir
}

// ended waits until the server has ended by itself.
func (s *server) ended() {
	s.p.t.Helper()
	select {
	case <-s.done:
	case <-time.After(patience):
		s.p.t.Fatalf("%s goes on:\n%s", s.name, s.log.String())
	}
	s.kill()
}

// kill ends it as a loss of power does, without the loss of what was not synced.
func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		<-s.done
		s.cmd = nil
	}
	for _, end := range s.end {
		end()
	}
	s.end = nil
}

// stop ends it in good order.
func (s *server) stop() {
	s.p.t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGINT)
	s.ended()
}

func (s *server) await(holds func(context.Context) bool) {
	s.p.t.Helper()
	ctx, cancel := context.WithTimeout(s.p.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds(ctx) {
		select {
		case <-ctx.Done():
			s.p.t.Fatalf("%s: waited in vain:\n%s", s.name, s.log.String())
		case <-s.done:
			s.p.t.Fatalf("%s ended:\n%s", s.name, s.log.String())
		case <-tick.C:
		}
	}
}

func (s *server) connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, "host="+s.socketDir()+" user=super dbname=postgres")
}

// query runs one statement over a connection of its own, and returns its first column.
func (s *server) query(ctx context.Context, statement string) (string, error) {
	c, err := s.connect(ctx)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	rows, err := c.Query(ctx, statement, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		text := ""
		if raw := rows.RawValues(); len(raw) > 0 {
			text = string(raw[0])
		}
		all = append(all, text)
	}
	return strings.Join(all, " "), rows.Err()
}

func (s *server) exec(statement string) string {
	s.p.t.Helper()
	text, err := s.query(s.p.t.Context(), statement)
	if err != nil {
		s.p.t.Fatalf("%s: %v", statement, err)
	}
	return text
}

// source is the server as a backup sees it.
func (s *server) source() Source { return Source{Directory: s.dir, Connect: s.connect, Label: "test"} }

// flush has all of the log up to now archived.
func (s *server) flush() {
	s.p.t.Helper()
	last := s.exec("SELECT pg_walfile_name(pg_switch_wal() - 1)") // without anything new, this is where a segment begins that nothing is in
	n, err := wal.ParseName(last)
	must(s.p.t, err)
	ctx, cancel := context.WithTimeout(s.p.t.Context(), patience)
	defer cancel()
	if err := s.p.archive.Await(ctx, n, n, 1<<20); err != nil {
		s.p.t.Fatalf("%v\n%s", err, s.log.String())
	}
}

// courier answers what the server's children ask, as an agent would.
func (s *server) courier(archive *wal.Archive) (port int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(s.p.t, err)
	c := wal.NewCourier(archive, wal.CourierOptions{Directory: s.dir, From: s.from})
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { s.serve(ctx, c, conn) })
		}
	})
	s.end = append(s.end, func() {
		cancel()
		_ = l.Close()
		group.Wait()
		_ = c.Close()
	})
	return l.Addr().(*net.TCPAddr).Port
}

func (s *server) serve(ctx context.Context, c *wal.Courier, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	words := strings.Fields(line)
	path := words[len(words)-1]
	if !filepath.IsAbs(path) {
		path = filepath.Join(words[0], path)
	}
	status := 0
	if words[1] == "push" {
		if err = c.Store(ctx, path); err != nil {
			status = 1
		}
	} else if err = c.Bring(ctx, words[2], path); err != nil {
		status = 254
		if errors.Is(err, wal.ErrNotFound) {
			status = 1
		}
	}
	if err != nil {
		s.mu.Lock()
		s.errs = append(s.errs, fmt.Errorf("%s: %w", words[1], err))
		s.mu.Unlock()
	}
	_, _ = fmt.Fprintln(conn, status)
}

// met reports whether the courier met an error of that kind.
func (s *server) met(kind error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.errs, func(err error) bool { return errors.Is(err, kind) })
}

// writer appends rows until it is told to stop, and knows which were acknowledged.
type writer struct {
	cancel context.CancelFunc
	group  sync.WaitGroup
	mu     sync.Mutex
	rows   int
}

// write begins to write in the background, from several sessions.
func (s *server) write() *writer {
	ctx, cancel := context.WithCancel(s.p.t.Context())
	w := &writer{cancel: cancel}
	s.writers++
	for i := range 3 {
		i += 10 * s.writers // none has the numbers of an earlier one
		w.group.Go(func() {
			c, err := s.connect(ctx)
			if err != nil {
				return
			}
			defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
			for n := 0; ctx.Err() == nil; n++ {
				_, err := c.Exec(ctx, fmt.Sprintf("INSERT INTO load(w, n, fill) SELECT %d, %d, md5(random()::text) FROM generate_series(1, 50); UPDATE load SET fill = md5(fill) WHERE ctid IN (SELECT ctid FROM load ORDER BY random() LIMIT 20)", i, n))
				if err != nil {
					return
				}
				w.mu.Lock()
				w.rows++
				w.mu.Unlock()
			}
		})
	}
	return w
}

func (w *writer) stop() int {
	w.cancel()
	w.group.Wait()
	return w.rows
}

func (w *writer) wrote() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rows
}
