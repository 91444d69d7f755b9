package cli

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) historyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "history",
		Short: "Show who has led the database's cluster, and why",
		Long: `Asks the agent on the control socket, which may be any member's, for the reigns that are
remembered: their epochs, who led and why, on which timeline, from which position of the
log on, and since when. The newest is the last. Below stands the last switchover that was
asked for, if it was withdrawn because it could not be done.

` + agentExits(exitHeld),
		Example: `  drover history
  drover history --json | jq '.reigns[-1]'`,
		Args: noArgs,
	}
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return s.withAgent(cmd, func(ctx context.Context, c *client.Client) error {
			h, err := c.DatabaseHistory(ctx)
			switch {
			case err != nil:
				return s.failed(err)
			case s.json:
				return s.printJSON(h)
			}
			rows := [][]string{{"EPOCH", "PRIMARY", "REASON", "TIMELINE", "FROM", "TIME"}}
			for _, r := range h.Reigns {
				rows = append(rows, []string{
					strconv.FormatUint(r.Epoch, 10), printable(r.Primary), r.Reason, r.Timeline, r.Position, r.Time.Local().Format(time.RFC3339),
				})
			}
			if err := table(s.Out, rows); err != nil || h.Withdrawn == nil {
				return err
			}
			return s.say("%s", withdrawnLine(h.Withdrawn))
		})
	}
	return cmd
}
