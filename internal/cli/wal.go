package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"drover/client"
	"drover/internal/app"
)

// walTimeout is how long one file may take. PostgreSQL asks again for one that was not stored,
// and waits for nothing meanwhile, its end included.
const walTimeout = time.Minute

// errWALTimeout is why the context of such a command ended.
var errWALTimeout = errors.New("not done in time")

// walTable says what PostgreSQL is told. Of archive_command 0 says stored, and 1 to 125 that it is to try again;
// of restore_command 0 says that the file is there, 1 to 125 that the log ends here, and anything
// above that nothing is known, which ends the recovery. The first row that matches.
//
// Source: PostgreSQL's documentation, "Setting Up WAL Archiving" and "Recovering Using a
// Continuous Archive Backup".
var walTable = []struct {
	is          func(error) bool
	push, fetch int
}{
	{func(err error) bool { return err == nil }, exitOK, exitOK},
	{isKind(client.KindAbsent), exitFailure, exitFailure},
	{isKind(client.KindConflict), exitWALConflict, exitWALUnknown},
	{isKind(client.KindHeld), exitWALUnknown, exitWALUnknown},
	{isUsage, exitUsage, exitWALUnknown},
	{func(error) bool { return true }, exitFailure, exitWALUnknown},
}

const (
	exitWALConflict = 3
	exitWALUnknown  = 254
)

func isKind(kind string) func(error) bool {
	return func(err error) bool {
		var refusal *client.Error
		return errors.As(err, &refusal) && refusal.Kind == kind
	}
}

func isUsage(err error) bool {
	code, _ := classify(err)
	return code == exitUsage
}

// walExit is the status of a command whose error was told; other commands keep theirs.
func walExit(cmd *cobra.Command, err error, code int) int {
	if cmd == nil || cmd.Name() != walName && (cmd.Parent() == nil || cmd.Parent().Name() != walName) {
		return code
	}
	for _, row := range walTable {
		switch {
		case !row.is(err):
		case cmd.Name() == "push":
			return row.push
		default: // also what was to be one of the two, and is none
			return row.fetch
		}
	}
	return exitWALUnknown
}

const walName = "wal"

func (s *session) walCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   walName + " push PATH | fetch NAME PATH",
		Short: "Archive PostgreSQL's log, and fetch it: what PostgreSQL itself calls",
		Long: `PostgreSQL calls these for each file of its log. The agent on the control socket does
the work: it alone has the store and the password. Users of jobs may call it.

  push PATH        stores a file of pg_wal, as archive_command = 'drover wal push %p'.
                   Another content under a name that is taken is refused: two servers
                   wrote the same timeline, or one went back
  fetch NAME PATH  brings a file to pg_wal, whole and verified, as
                   restore_command = 'drover wal fetch %f %p'

PATH is relative to the data directory, in which PostgreSQL calls, and has to be in its
pg_wal. Segments that come next are stored, and read, ahead of being asked for.

Exit codes:
 push fetch
    0    0  stored; there
    1    1  not stored, PostgreSQL tries again; the store does not have the file
    2  254  wrong usage
    3  254  another content is stored under that name
  254  254  the server is being stopped, and another member has its log and stores it
    1  254  anything else: nothing is known
For restore_command 1 to 125 means that the log ends, so only a store that says that it
does not have the file makes it 1.`,
		Example: `  drover wal push pg_wal/000000010000000000000007
  drover wal fetch 00000002.history pg_wal/RECOVERYHISTORY`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{"nothing says what to do with the log", "give push PATH or fetch NAME PATH"}
			}
			return usageError{"unknown word " + quoted(args[0]), "give push PATH or fetch NAME PATH"}
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	s.jsonFlag(cmd)
	cmd.AddCommand(s.walPushCommand(), s.walFetchCommand())
	for _, sub := range cmd.Commands() {
		sub.DisableFlagsInUseLine = true
	}
	return cmd
}

// walFlags are those of both; the value is filled in when the command runs.
func (s *session) walFlags(cmd *cobra.Command) *durationValue {
	limit := &durationValue{Duration: app.Duration(walTimeout)}
	cmd.Flags().Var(limit, "timeout", "give up after this time (default 1m)")
	s.jsonFlag(cmd)
	return limit
}

// withWAL asks the agent about the file at path, made absolute.
func (s *session) withWAL(cmd *cobra.Command, limit *durationValue, path string, ask func(ctx context.Context, c *client.Client, path string) error) error {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("find %s: %w", path, err)
	}
	return s.withAgent(cmd, func(ctx context.Context, c *client.Client) error {
		if d := limit.Std(); d > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeoutCause(ctx, d, fmt.Errorf("%w: the limit was %s", errWALTimeout, limit.Duration))
			defer cancel()
		}
		return ask(ctx, c, absolute)
	})
}

// walDone says nothing of a success: it would stand in the server's log for each file.
func (s *session) walDone(err error) error {
	if err == nil && !s.json {
		return nil
	}
	return s.done(err, "")
}
