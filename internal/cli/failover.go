package cli

import (
	"context"

	"github.com/spf13/cobra"

	"drover/client"
	"drover/internal/app"
)

func (s *session) failoverCommand() *cobra.Command {
	limit := durationValue{Duration: app.Duration(orderTimeout)}
	var to string
	var force bool
	cmd := &cobra.Command{
		Use:   "failover [--to MEMBER] --force",
		Short: "Have a member of the database's cluster lead although commits may be lost",
		Long: `For when members are lost, and those that are left cannot elect one of them because they
may lack commits: asks the agent on the control socket to have one lead nevertheless. A
failover that loses nothing happens by itself, and a planned one is drover switchover.

Without --force nothing is done, and the refusal says what may be lost. Without --to it
is the member that has received most.

` + agentExits(exitHeld),
		Example: `  drover failover
  drover failover --to db-3 --force`,
		Args: noArgs,
	}
	s.toFlag(cmd, &to, "the member that is to lead (default: who has most)")
	cmd.Flags().BoolVar(&force, "force", false, "do it, whatever may be lost")
	timeoutFlag(cmd, &limit, "1m")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return s.order(cmd, func(ctx context.Context, c *client.Client) (client.DatabaseOutcome, error) {
			return c.Failover(ctx, client.FailoverRequest{To: to, Force: force, Timeout: limit.Std().Seconds()})
		}, leads)
	}
	return cmd
}
