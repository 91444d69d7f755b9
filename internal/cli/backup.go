package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"drover/client"
)

type backupOptions struct {
	queue   bool
	timeout durationValue
}

// errTimeout is why the context of a command ended that had a time limit.
var errTimeout = errors.New("not committed in time")

func (s *session) backupCommand() *cobra.Command {
	var opt backupOptions
	cmd := &cobra.Command{
		Use:   "backup [--queue] [--timeout TIME]",
		Short: "Have the running agent commit the state, and wait until it is safe",
		Long: `Asks the agent on the control socket for a backup of what is on the disk now, and
returns when it is committed: then it is in every later restore. It waits for the
store however long that takes. Call it from a hook of the application (a git
post-receive hook, an upload handler), and acknowledge nothing before it returns.

With --timeout it gives up after that time and fails; the backup itself goes on.
With --queue it returns at once; requests that wait are made as one backup.

` + exitHelp(exitOK, exitFailure, exitUsage, exitIncomplete, exitHeld, exitInterrupted),
		Example: `  drover backup
  drover backup --timeout 30s
  drover backup --queue`,
		Args: noArgs,
	}
	cmd.Flags().BoolVar(&opt.queue, "queue", false, "return when the request is accepted")
	cmd.Flags().Var(&opt.timeout, "timeout", "give up after this time (default: never)")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return s.backup(cmd, opt) }
	return cmd
}

func (s *session) backup(cmd *cobra.Command, opt backupOptions) error {
	socket, err := s.socket(cmd)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if limit := opt.timeout.Std(); limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w: the limit was %s", errTimeout, opt.timeout.Duration))
		defer cancel()
	}
	agent := client.New(socket)
	defer agent.Close()
	b, err := agent.Backup(ctx, opt.queue)
	if err != nil {
		if s.json {
			return errors.Join(err, s.printJSON(failedBackup(b, err)))
		}
		return fmt.Errorf("backup: %w", err)
	}
	return s.printBackup(b)
}

// failedBackup is what JSON says of a backup that did not come about.
func failedBackup(b client.Backup, err error) client.Backup {
	b.Error = oneLine(err.Error())
	if b.Kind == "" {
		b.Kind = client.KindFailed
		if errors.Is(err, errTimeout) {
			b.Kind = client.KindTimeout
		}
	}
	return b
}

// printBackup prints what a backup did; the skipped paths go to stderr.
func (s *session) printBackup(b client.Backup) error {
	if s.json {
		return s.printJSON(b)
	}
	for _, path := range b.Skipped {
		_, _ = fmt.Fprintln(s.Err, "drover: skipped, not readable:", printable(path))
	}
	switch {
	case b.Queued:
		return s.say("queued")
	case b.Unchanged:
		return s.say("committed already: nothing changed since %s (seq %d) in %s", shortID(b.Snapshot), b.Seq, seconds(b.Seconds))
	default:
		return s.say("committed %s (seq %d): %s, %s; %s stored in %s",
			shortID(b.Snapshot), b.Seq, count(b.Files, "file"), size(b.Bytes), size(b.Added), seconds(b.Seconds))
	}
}

// noArgs refuses arguments.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{"unexpected argument " + quoted(args[0]), ""}
	}
	return nil
}

// atMost refuses more than n arguments.
func atMost(n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > n {
			return usageError{"unexpected argument " + quoted(args[n]), ""}
		}
		return nil
	}
}
