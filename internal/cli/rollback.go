package cli

import (
	"context"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

func (s *session) rollbackCommand() *cobra.Command {
	var opt app.RollbackOptions
	cmd := &cobra.Command{
		Use:   "rollback SNAPSHOT|--at TIME",
		Short: "Make an older state of the volume the newest one",
		Long: `Commits the state of an older snapshot anew, as the newest one of the volume. Nothing is
taken out of the history: the states in between stay, and a rollback to one of them goes
forward again. A diverged snapshot may be named too. That files go is no reason to refuse.

Refuses while an agent holds the volume. Stop the application on every instance first (as
with docker stop), roll back, and start it again: an agent that starts finds that the
files on its disk are not those of the newest state, keeps as a diverged snapshot what
differs, and restores exactly. Snapshots without all of their data are refused.

` + storeExits(exitIncomplete),
		Example: `  drover rollback 1a2b3c4d
  drover rollback --at '2026-01-31 15:04'
  drover rollback --at 2h --json`,
		Args:              atMost(1),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore, app.GroupClaim)
	cmd.Flags().BoolVar(&opt.ReplacePaths, "replace-paths", false, "let the snapshot's paths replace those of the newest state")
	at := s.addAt(cmd)
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 && !at.given {
			return usageError{"no snapshot given", "name one of drover snapshots, or say --at TIME"}
		}
		return s.withOps(cmd, func(ctx context.Context, o operations) (err error) {
			if opt.Snapshot, err = s.choose(ctx, o, arg(args, 0), at); err != nil {
				return err
			}
			return s.rollback(ctx, o, opt)
		})
	}
	return cmd
}

func (s *session) rollback(ctx context.Context, o operations, opt app.RollbackOptions) error {
	res, err := o.Rollback(ctx, opt)
	switch {
	case err != nil:
		return err
	case s.json:
		return s.printJSON(res)
	case res.Unchanged:
		return s.say("nothing to do: the newest state %s (seq %d) is that of %s", shortID(res.Snapshot), res.Seq, shortID(res.Of))
	}
	return s.say("committed %s (seq %d) with the state of %s: %s, %s in %s", shortID(res.Snapshot), res.Seq, shortID(res.Of),
		count(res.Files, "file"), size(res.Bytes), seconds(res.Seconds))
}
