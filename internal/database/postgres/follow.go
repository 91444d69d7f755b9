package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"drover/internal/database"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

// Follow implements database.Driver. It tells the server and does not wait: Status says when it is so.
//
// That nothing more is received does not depend on when the startup process reads its configuration, which it does not
// while a query of somebody's holds it up: without a password file no receiver can connect, and one that is
// connected is ended.
func (d *Driver) Follow(ctx context.Context, upstream *database.Peer) error {
	err := d.quick(ctx, func() error { return d.follow(upstream) })
	if err != nil {
		return fmt.Errorf("follow another member: %w", err)
	}
	return nil
}

func (d *Driver) follow(upstream *database.Peer) error {
	w, err := d.want()
	if err != nil {
		return err
	}
	if !w.Standby {
		return errors.New("a primary follows nobody")
	}
	w.Upstream, w.Archive = upstream, false
	if upstream != nil {
		if err := checkPeer(*upstream); err != nil {
			return err
		}
	}
	if err := d.apply(w); err != nil {
		return err
	}
	server, err := d.postmaster()
	if err != nil {
		return err
	}
	if err := server.signal(syscall.SIGHUP); err != nil {
		return err
	}
	if upstream == nil {
		return server.endReceiver()
	}
	return nil
}

// server is the running postmaster.
type server struct{ pid int }

// postmaster finds it without asking it: by the file that it holds, if the process is really one in these files.
func (d *Driver) postmaster() (server, error) {
	text, err := os.ReadFile(d.o.Data + "/postmaster.pid")
	if errors.Is(err, os.ErrNotExist) {
		return server{}, database.ErrNotRunning
	}
	if err != nil {
		return server{}, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid <= 1 {
		return server{}, fmt.Errorf("postmaster.pid begins with %q: %w", line, database.ErrNotRunning)
	}
	// Where it works cannot be read in a container, where even root may not trace others' processes.
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !slices.Contains(strings.Split(string(args), "\x00"), d.o.Data) {
		return server{}, database.ErrNotRunning
	}
	return server{pid}, nil
}

func (s server) signal(sig syscall.Signal) error {
	if err := unix.Kill(s.pid, sig); err != nil {
		return fmt.Errorf("signal the server: %w: %w", err, database.ErrNotRunning)
	}
	return nil
}

// endReceiver ends the process that is connected to an upstream.
func (s server) endReceiver() error {
	for _, pid := range s.children() {
		title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !strings.Contains(string(title), "walreceiver") {
			continue
		}
		if p, err := parentOf(pid); err != nil || p != s.pid {
			continue
		}
		if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

func (s server) children() []int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", s.pid, s.pid))
	if err != nil {
		return nil
	}
	var pids []int
	for f := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Promote implements database.Driver.
func (d *Driver) Promote(ctx context.Context) error {
	if err := d.promote(ctx); err != nil {
		return fmt.Errorf("promote PostgreSQL: %w", err)
	}
	return nil
}

func (d *Driver) promote(ctx context.Context) error {
	w, err := d.want()
	if err != nil {
		return err
	}
	if w.Standby && (w.Upstream != nil || w.Archive) {
		return errors.New("it is not detached")
	}
	settle, err := d.passOver(ctx)
	if err != nil {
		return err
	}
	if w.Open { // its readers would become writers
		w.Open = false
		if err := d.apply(w); err != nil {
			return err
		}
		err = d.reload(ctx, d.promoteIn)
	} else {
		err = d.with(ctx, func(conn *pgx.Conn) error { return d.promoteIn(ctx, conn) })
	}
	if err == nil {
		err = settle()
	}
	if err != nil {
		return ailing(err)
	}
	w.Standby, w.Archive, w.Open, w.Floor = false, false, false, nil
	if err := d.apply(w); err != nil {
		return err
	}
	d.checkpoint()
	s, err := d.postmaster()
	if err != nil {
		return err
	}
	return s.signal(syscall.SIGHUP)
}

// promoteIn promotes a server that admits no new clients, and ends the sessions of those that it has.
func (d *Driver) promoteIn(ctx context.Context, conn *pgx.Conn) error {
	for told := false; ; told = true {
		ended, err := d.endSessions(ctx, conn)
		if err != nil {
			return err
		}
		var replica bool
		if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&replica); err != nil {
			return err
		}
		if !replica && ended == 0 {
			d.trySeen(ctx, conn)
			return nil
		}
		if replica && !told {
			if _, err := conn.Exec(ctx, "SELECT pg_promote(false)"); err != nil {
				return err
			}
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// checkpoint has the control file name the new timeline, beside what else is done: pg_rewind, which brings
// others to it, believes that file, and the server by itself takes minutes for its first checkpoint. It also ends the need to
// recover from before the promotion.
func (d *Driver) checkpoint() {
	d.work.Go(func() {
		ctx, cancel := context.WithTimeout(d.life, 10*time.Minute)
		defer cancel()
		_ = d.with(ctx, func(conn *pgx.Conn) error { // without it, Rewind asks for one
			_, err := conn.Exec(ctx, "SET statement_timeout = 0; CHECKPOINT")
			return err
		})
	})
}

// Stop implements database.Driver. A fast shutdown ends sessions, writes a checkpoint, and then ends
// senders when their replicas have everything; a checkpoint before it makes that one short.
func (d *Driver) Stop(ctx context.Context) error {
	s, err := d.postmaster()
	if err != nil {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	_ = d.with(ctx, func(conn *pgx.Conn) error { // without it, the shutdown takes longer
		_, err := conn.Exec(ctx, "SET statement_timeout = 0; CHECKPOINT")
		return err
	})
	if err := s.signal(syscall.SIGINT); err != nil {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	return nil
}
