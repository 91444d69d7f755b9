package cli

import (
	"context"

	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) webhookCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "webhook NAME",
		Short: "Tell the running agent of a hook that was called",
		Long: `Makes the event webhook:NAME in the agent on the control socket, as a call of that
hook does: jobs that are to run then (on, once) are started.

` + agentExits(exitHeld),
		Example: `  drover webhook deploy
  docker exec review-1 drover webhook reindex`,
		Args:              exactly(1, "hook", "jobs name them: on: [webhook:NAME]"),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return s.withAgent(cmd, func(ctx context.Context, c *client.Client) error {
			return s.done(c.Webhook(ctx, args[0]), "told")
		})
	}
	return cmd
}
