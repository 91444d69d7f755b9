package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"drover/client"
	"drover/internal/app"
)

func (s *session) switchoverCommand() *cobra.Command {
	limit := durationValue{Duration: app.Duration(orderTimeout)}
	var to, at string
	var cancel bool
	cmd := &cobra.Command{
		Use:   "switchover [--to MEMBER] [--at TIME] [--cancel]",
		Short: "Have another member of the database's cluster lead, as planned",
		Long: `Asks the agent on the control socket, which may be any member's, to have the primary hand
over: it turns clients away, ends its server when its replicas have everything, and
another one leads, at once and without any loss. The former primary follows then.

Without --to the best replica takes over. It is refused, and nothing is done, if no
member could: one that does not receive or has not caught up, is behind in applying by
more than 16 MiB, has the tag nofailover, or is not synchronous while commits wait for
others. So it is while failover is paused.

With --at it is written down, and done at that time or as soon as possible after it;
--cancel takes that back. What has not begun at the end of --timeout is withdrawn; what is
written down and cannot be done is, ten minutes (database.forget) after its time, or soon
if the member is none any more: drover history says why.

` + agentExits(exitHeld),
		Example: `  drover switchover
  drover switchover --to db-2
  drover switchover --at 2026-03-01T03:00:00Z
  drover switchover --cancel`,
		Args: noArgs,
	}
	s.toFlag(cmd, &to, "the member that is to lead (default: the best)")
	cmd.Flags().StringVar(&at, "at", "", "not before this time, as in 2026-03-01T03:00:00Z")
	cmd.Flags().BoolVar(&cancel, "cancel", false, "take back what is to come")
	timeoutFlag(cmd, &limit, "1m")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r := client.SwitchoverRequest{To: to, Cancel: cancel, Timeout: limit.Std().Seconds()}
		if at != "" {
			when, err := time.Parse(time.RFC3339, at)
			if err != nil {
				return usageError{"--at: " + quoted(at) + " is no time", "write one such as 2026-03-01T03:00:00Z"}
			}
			r.At = &when
		}
		if cancel && (to != "" || at != "") {
			return usageError{"--cancel goes with neither --to nor --at", ""}
		}
		return s.order(cmd, func(ctx context.Context, c *client.Client) (client.DatabaseOutcome, error) {
			return c.Switchover(ctx, r)
		}, func(o client.DatabaseOutcome) string { return switched(o, cancel) })
	}
	return cmd
}

func switched(o client.DatabaseOutcome, cancelled bool) string {
	switch {
	case cancelled && o.Changed:
		return "taken back"
	case cancelled:
		return "no switchover was pending"
	case o.Scheduled != nil:
		return "written down for " + o.Scheduled.Local().Format(time.RFC3339)
	}
	return leads(o)
}
