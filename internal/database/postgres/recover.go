package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Session opens a session of the superuser's in the running server. It is the caller's.
func (d *Driver) Session(ctx context.Context) (*pgx.Conn, error) { return d.connect(ctx) }

// EndSegment implements database.Segmenter.
func (d *Driver) EndSegment(ctx context.Context) error {
	return d.with(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SELECT pg_switch_wal()")
		return err
	})
}

// recoveryEnd is how long an ended recovery may take to stop.
const recoveryEnd = 2 * time.Minute

// recoverySignal is in files whose recovery has not come to its end, standbySignal in those of a replica.
const (
	recoverySignal = "recovery.signal"
	standbySignal  = "standby.signal"
)

// How far a Restore or a Seed has come, as the file beside the database says while it is not whole. Of what any
// other text says nothing can be used.
const (
	fetching   = "a backup is being brought here\n"
	recovering = "a backup that was brought here is being recovered\n"
)

// Backup is what Restore and Seed begin with.
type Backup struct {
	// Fetch fills a directory, which is empty, or as a Fetch or what came before one has left it, with files that have a recovery.signal.
	Fetch func(ctx context.Context, dir string) error
	// Settle takes away what Fetch has set for the recovery.
	Settle func(dir string) error
	Env    []string // added to the environment of the server that recovers, for restore_command; of no use to Seed
	// Look is called when the server has become a primary, before it is stopped. With it the database is on trial: it is for
	// Look alone, who may connect as it likes (Ask), on little memory, and does nothing by itself. nil: it is no trial.
	Look func(ctx context.Context) error
	// Anew: a recovery that an earlier Restore has begun is not gone on with: it was to another end, or its log is not there any more.
	Anew bool
}

// Restore makes the database from a backup: a server that nobody can connect to runs on its files until it is a
// primary of its own history, and is stopped. Until all of that is done the files count as none; called again, in
// another life of the agent, too, it goes on.
func (d *Driver) Restore(ctx context.Context, b Backup) error {
	if err := d.restore(ctx, b); err != nil {
		return fmt.Errorf("restore PostgreSQL: %w", err)
	}
	return nil
}

func (d *Driver) restore(ctx context.Context, b Backup) error {
	disk, err := d.Disk(ctx)
	if err == nil && !disk.Empty {
		err = fmt.Errorf("%s is not empty", d.o.Data)
	}
	if err != nil {
		return err
	}
	stage, err := os.ReadFile(d.unfinished())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if string(stage) != recovering || b.Anew {
		if err := d.fetch(ctx, b, string(stage) == fetching); err != nil {
			return err
		}
		if err := d.writeFile(d.unfinished(), recovering); err != nil {
			return err
		}
	}
	if err := d.recoverFiles(ctx, b); err != nil {
		return err
	}
	if err := b.Settle(d.o.Data); err != nil {
		return err
	}
	return removeFile(d.unfinished())
}

// fetch has the files brought, and gives them to the server's user. What is there already is of use only to a fetch that goes on.
func (d *Driver) fetch(ctx context.Context, b Backup, again bool) error {
	if err := d.writeFile(d.unfinished(), fetching); err != nil {
		return err
	}
	if !again {
		if err := os.RemoveAll(d.o.Data); err != nil {
			return err
		}
	}
	if err := d.makeDir(d.o.Data); err != nil {
		return err
	}
	if err := errors.Join(d.makeDir(d.o.Run), b.Fetch(ctx, d.o.Data)); err != nil {
		return err
	}
	return errors.Join(os.Chmod(d.o.Data, 0o700), d.ownAll(d.o.Data))
}

func (d *Driver) recoverFiles(ctx context.Context, b Backup) error {
	cmd, said, err := d.recoverer(ctx, b)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	d.work.Go(func() { ended <- cmd.Wait() })
	stop := func(sig syscall.Signal, within time.Duration) error {
		_ = cmd.Process.Signal(sig)
		select {
		case err := <-ended:
			return err
		case <-time.After(within):
			_ = cmd.Process.Kill()
			return errors.Join(errors.New("it did not end in time"), <-ended)
		}
	}
	for {
		select {
		case err := <-ended:
			return fmt.Errorf("the server ended before its recovery: %w: %s", cmp.Or(err, errors.New("it says")), worst(string(said.text)))
		case <-ctx.Done():
			return errors.Join(ctx.Err(), stop(syscall.SIGQUIT, 10*time.Second))
		case <-time.After(200 * time.Millisecond):
		}
		if d.recovered(ctx) {
			if b.Look != nil {
				err = d.admitted(ctx)
			}
			if err == nil && b.Look != nil {
				err = b.Look(ctx)
			}
			return errors.Join(err, stop(syscall.SIGINT, recoveryEnd))
		}
	}
}

// worst is the line of a server's log that says why it ended; without one, all of it.
func worst(log string) string {
	found := strings.TrimSpace(log)
	for line := range strings.Lines(log) {
		for _, level := range []string{"FATAL:", "PANIC:"} {
			if _, text, ok := strings.Cut(line, level); ok {
				found = strings.TrimSpace(text)
			}
		}
	}
	return found
}

// recovered reports whether the server has become a primary.
func (d *Driver) recovered(ctx context.Context) bool {
	if _, err := os.Lstat(filepath.Join(d.o.Data, recoverySignal)); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	c, err := d.control(ctx)
	return err == nil && c.state == "in production"
}

// recoverer is a server that listens nowhere, and takes no queries before it is a primary.
func (d *Driver) recoverer(ctx context.Context, b Backup) (*exec.Cmd, *tail, error) {
	bin, err := d.binaries()
	if err != nil {
		return nil, nil, err
	}
	files, err := d.control(ctx)
	if err != nil {
		return nil, nil, err
	}
	set := []setting{
		{"listen_addresses", ""}, {"unix_socket_directories", d.o.Run}, {"hot_standby", "off"}, {"logging_collector", "off"},
		{"archive_mode", "on"}, {"archive_command", d.o.ArchiveCommand}, {"archive_cleanup_command", ""},
		{"synchronous_standby_names", ""}, {"ssl", "off"}, {"external_pid_file", ""},
	}
	for name, value := range d.o.Parameters {
		switch strings.ToLower(name) {
		case "shared_preload_libraries", "shared_buffers", "fsync", "full_page_writes", "max_prepared_transactions":
			set = append(set, setting{name, value})
		}
	}
	if most, ok := d.floor(files)["max_prepared_transactions"]; ok { // those that were prepared are so again
		set = append(set, setting{"max_prepared_transactions", most})
	}
	if b.Look != nil {
		trial, err := d.onTrial()
		if err != nil {
			return nil, nil, err
		}
		set = append(set, trial...)
	}
	args := []string{"-D", d.o.Data}
	for _, s := range set {
		args = append(args, "-c", s.name+"="+s.value)
	}
	argv := d.argv(filepath.Join(bin, "postgres"), args...)
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // it is stopped in order when the context ends
	cmd.Dir = d.o.Data
	cmd.Env = append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + d.o.Run, "LC_ALL=C", "TZ=UTC"}, b.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: d.o.User, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	said := &tail{most: 4 << 10}
	cmd.Stdout, cmd.Stderr = said, said
	return cmd, said, nil
}

// ownAll gives a directory and all in it to the server's user.
func (d *Driver) ownAll(dir string) error {
	if d.o.User == nil {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return d.own(path)
	})
}
