package cli

import (
	"context"

	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) pauseCommand() *cobra.Command {
	return s.pausing(true, &cobra.Command{
		Use:   "pause",
		Short: "Pause failover of the database's cluster",
		Long: `Asks the agent on the control socket, which may be any member's, to have nobody be
elected, and nothing be switched over, until drover resume: for work on the network or
on the coordinator. A primary whose server ends is started again where it was. One that
cannot reach the coordinator and all others ends all the same: it cannot know of a
failover by hand.

` + agentExits(exitHeld),
		Example: `  drover pause
  drover pause && drover restart postgres && drover resume`,
	})
}

func (s *session) resumeCommand() *cobra.Command {
	return s.pausing(false, &cobra.Command{
		Use:   "resume",
		Short: "Have failover of the database's cluster go on",
		Long: `Asks the agent on the control socket, which may be any member's, to end what drover pause
began.

` + agentExits(exitHeld),
		Example: `  drover resume`,
	})
}

// pausing is what pause and resume have in common.
func (s *session) pausing(on bool, cmd *cobra.Command) *cobra.Command {
	cmd.Args = noArgs
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return s.order(cmd, func(ctx context.Context, c *client.Client) (client.DatabaseOutcome, error) {
			return c.Pause(ctx, on)
		}, func(o client.DatabaseOutcome) string {
			line := map[bool]string{true: "failover is paused", false: "failover goes on"}[on]
			if !o.Changed {
				line += ": it was so already"
			}
			return line
		})
	}
	return cmd
}
