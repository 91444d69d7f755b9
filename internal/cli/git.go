package cli

import (
	"context"
	"errors"
	"strconv"

	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) gitCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "git sync",
		Short: "Keep keys of the coordinator as they are in Git",
		Long: `Repositories are configured below git: each file of a branch becomes a key, or each
value in a file does. An agent does this by itself; these commands do it without one.

` + exitHelp(exitOK, exitFailure, exitUsage, exitInterrupted),
		Example: `  drover git sync
  drover git sync --follow`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	s.jsonFlag(cmd)
	cmd.AddCommand(s.gitSyncCommand())
	return cmd
}

func (s *session) gitSyncCommand() *cobra.Command {
	follow := false
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Make the keys what Git has",
		Long: `Looks at all repositories once, as the one writer that is elected among all who do this,
and makes the keys what the repositories have. A commit becomes visible whole, by one
compare-and-swap; nothing is deleted because something could not be read.

With --follow it goes on, by polling and by web hooks, until it is told to stop: that is
for a job of its own.

` + exitHelp(exitOK, exitFailure, exitUsage, exitInterrupted),
		Example: `  drover git sync
  drover git sync --json
  drover git sync --follow`,
		Args: noArgs,
	}
	cmd.Flags().BoolVar(&follow, "follow", false, "go on until told to stop")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return s.withOps(cmd, func(ctx context.Context, o operations) error {
			if follow {
				return o.GitFollow(ctx)
			}
			return s.gitSync(ctx, o)
		})
	}
	return cmd
}

func (s *session) gitSync(ctx context.Context, o operations) error {
	targets, err := o.GitSync(ctx)
	if s.json {
		return errors.Join(err, s.printJSON(targets))
	}
	rows := [][]string{{"REPOSITORY", "REF", "COMMIT", "KEYS", "RESULT"}}
	for _, t := range targets {
		rows = append(rows, []string{t.Repository, t.Ref, shortID(t.Commit), strconv.Itoa(t.Written) + " written", gitResult(t)})
	}
	if len(targets) > 0 {
		err = errors.Join(err, table(s.Out, rows))
	}
	return err
}

// gitResult says in a word what became of a branch or a tag.
func gitResult(t client.GitTarget) string {
	switch {
	case t.Error != "":
		return "FAILED: " + t.Error
	case t.Missing:
		return "it is gone"
	case t.Changed:
		return "changed"
	case t.Drift > 0:
		return strconv.Itoa(t.Drift) + " keys were put right"
	}
	return "as it was"
}
