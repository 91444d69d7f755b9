package cli

import (
	"context"

	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) maintenanceCommand() *cobra.Command {
	words := []string{"on", "off"}
	cmd := &cobra.Command{
		Use:   "maintenance on|off",
		Short: "Turn the running agent's maintenance on or off",
		Long: `Tells the agent on the control socket that work is done on the application by hand, or
that it is over. Meanwhile the jobs go on, and what the agent does by itself waits:
backups on change and on schedule, upkeep, restore tests, and restarts that checks ask
for. What somebody asks for, such as drover backup, is done. The events maintenance:on
and maintenance:off may run jobs. The end of the agent ends maintenance.

` + agentExits(exitHeld),
		Example: `  drover maintenance on
  drover maintenance off`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := exactly(1, "word", "on or off")(cmd, args); err != nil {
				return err
			}
			if args[0] != words[0] && args[0] != words[1] {
				return usageError{quoted(args[0]) + " is neither on nor off", ""}
			}
			return nil
		},
		ValidArgs: words,
	}
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return s.withAgent(cmd, func(ctx context.Context, c *client.Client) error {
			return s.done(c.Maintenance(ctx, args[0] == words[0]), "maintenance is "+args[0])
		})
	}
	return cmd
}
