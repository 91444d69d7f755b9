package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) restartCommand() *cobra.Command {
	var member string
	var all, pending bool
	var limit durationValue
	cmd := s.jobCommand(&cobra.Command{
		Use:   "restart JOB [--member NAME | --all | --pending]",
		Short: "Restart a job of the running agent, and wait until it is ready again",
		Long: `Asks the agent on the control socket to stop a job in its orderly way and to start it,
and returns when it is ready again, or has failed. One that does not run is started.

The job of a database's server is restarted by its cluster: a primary hands over first if
another member can take over. --member names another member of the cluster; --all has all
restarted, one at a time, the primary last; --pending those only whose parameters need it.
A primary whose max_connections goes lower, or another limit that replicas may not have
lower than it, is the first, in its place. It is refused if commits would wait meanwhile.

` + agentExits(exitHeld),
		Example: `  drover restart web
  drover put-env FEATURE=on && drover restart web
  drover restart postgres --member db-2
  drover restart postgres --all
  drover restart postgres --pending`,
	}, (*client.Client).RestartJob)
	cmd.Flags().StringVar(&member, "member", "", "the member of the database's cluster whose server it is (default: this instance)")
	cmd.Flags().BoolVar(&all, "all", false, "the servers of all members, one at a time")
	cmd.Flags().BoolVar(&pending, "pending", false, "the servers, of all members, whose parameters need a restart")
	timeoutFlag(cmd, &limit, "none")
	if err := cmd.RegisterFlagCompletionFunc("member", func(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		return s.completeMembers(cmd, nil, word)
	}); err != nil {
		panic(err) // the flag is there
	}
	job := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case member == "" && !all && !pending && limit.Std() == 0:
			return job(cmd, args)
		case member != "" && all || member != "" && pending || all && pending:
			return usageError{"--member, --all and --pending exclude one another", ""}
		}
		return s.restartServers(cmd, args[0], client.RestartRequest{Member: member, All: all, Pending: pending, Timeout: limit.Std().Seconds()})
	}
	return cmd
}

// restartServers restarts servers of a database's cluster.
func (s *session) restartServers(cmd *cobra.Command, job string, r client.RestartRequest) error {
	return s.order(cmd, func(ctx context.Context, c *client.Client) (client.DatabaseOutcome, error) {
		st, err := c.Status(ctx)
		if err != nil {
			return client.DatabaseOutcome{}, err
		}
		if st.Database == nil || st.Database.Engine != job {
			known := slices.ContainsFunc(st.Jobs, func(j client.Job) bool { return j.Name == job })
			if !known {
				return client.DatabaseOutcome{}, &client.Error{Kind: client.KindUnknown, Message: "there is no job " + quoted(job)}
			}
			return client.DatabaseOutcome{}, &client.Error{Kind: client.KindInvalid, Message: "job " + quoted(job) + " is no database's server: it takes neither --member nor --all nor --pending nor --timeout"}
		}
		return c.RestartDatabase(ctx, r)
	}, func(o client.DatabaseOutcome) string {
		switch {
		case !o.Changed:
			return "no member needs a restart"
		case len(o.Restarted) > 0:
			return "restarted " + printable(strings.Join(o.Restarted, ", ")) + "; " + leads(o)
		}
		return "restarted; " + leads(o)
	})
}
