package cli

import (
	"context"

	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) signalCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "signal JOB SIGNAL",
		Short: "Send a job of the running agent a signal",
		Long: `Asks the agent on the control socket to send a signal, named as TERM or SIGTERM, to a
job that runs: to its first process, and as another if the job's signals say so.

` + agentExits(exitHeld),
		Example: `  drover signal web HUP
  drover signal db SIGUSR1`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{"no job given", "drover status lists them"}
			}
			return exactly(2, "signal", "name one such as HUP")(cmd, args)
		},
		ValidArgsFunction: s.completeJobs("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH", "STOP", "CONT", "KILL"),
	}
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return s.withAgent(cmd, func(ctx context.Context, c *client.Client) error {
			return s.done(c.SignalJob(ctx, args[0], args[1]), "sent")
		})
	}
	return cmd
}
