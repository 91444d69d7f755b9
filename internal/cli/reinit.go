package cli

import (
	"context"

	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) reinitCommand() *cobra.Command {
	var limit durationValue
	cmd := &cobra.Command{
		Use:   "reinit MEMBER",
		Short: "Have a replica's files be copied anew from the primary",
		Long: `Asks the agent on the control socket, which may be any member's, to have a replica's
files be replaced by a new copy of the primary's, and waits until it receives again. A
replica that cannot go on is copied anew by itself; this is for one that is not trusted.

It is refused for the primary, without one, and if commits would wait meanwhile.

` + agentExits(exitHeld),
		Example:           `  drover reinit db-3`,
		Args:              exactly(1, "member", "drover members lists them"),
		ValidArgsFunction: s.completeMembers,
	}
	timeoutFlag(cmd, &limit, "none")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return s.order(cmd, func(ctx context.Context, c *client.Client) (client.DatabaseOutcome, error) {
			return c.Reinit(ctx, client.ReinitRequest{Member: args[0], Timeout: limit.Std().Seconds()})
		}, func(o client.DatabaseOutcome) string {
			return printable(args[0]) + " receives from " + printable(o.Primary) + " (" + seconds(o.Seconds) + ")"
		})
	}
	return cmd
}
