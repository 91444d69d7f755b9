package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) upgradeCommand() *cobra.Command {
	var version string
	var members int
	var limit durationValue
	cmd := &cobra.Command{
		Use:   "upgrade [--to VERSION] [--members N]",
		Short: "Have a member of a newer release lead the database's cluster, when there are enough of them",
		Long: `Asks the agent on the control socket, which may be any member's, to move the cluster to
members of another release: of the server (a minor version) or of the agent. New members
are added before, with the new image, as the scheduler adds instances; this waits until
enough of them receive and are synchronous, has one of them lead, and names those that
may then be ended, as the scheduler ends instances. Nothing that was acknowledged is lost.

The release is the newest that a member has, or the one that --to names by its server's
or agent's version. Enough are as many as commits need acknowledgements, and one; or
--members. Fewer are refused. If all members have the release, nothing is done.

Members of another major version cannot follow: docs/databases.md has the ways there.

` + agentExits(exitHeld),
		Example: `  docker compose up -d --no-recreate --scale new=3 && drover upgrade
  drover upgrade --to 15.14 --timeout 30m
  drover upgrade --json | jq -r '.leave[]'`,
		Args: noArgs,
	}
	cmd.Flags().StringVar(&version, "to", "", "the server's or agent's version (default: the newest)")
	cmd.Flags().IntVar(&members, "members", 0, "how many members of it are waited for (default: acknowledgements + 1)")
	timeoutFlag(cmd, &limit, "none")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if members < 0 {
			return usageError{"--members is negative", ""}
		}
		return s.order(cmd, func(ctx context.Context, c *client.Client) (client.DatabaseOutcome, error) {
			return c.UpgradeDatabase(ctx, client.UpgradeRequest{Version: version, Members: members, Timeout: limit.Std().Seconds()})
		}, upgraded)
	}
	return cmd
}

func upgraded(o client.DatabaseOutcome) string {
	release := "server " + printable(o.Server) + ", agent " + printable(o.Agent)
	if len(o.Leave) == 0 {
		return "all members have the release (" + release + "); " + leads(o)
	}
	return leads(o) + "; it has the release (" + release + "), and these may be ended: " + printable(strings.Join(o.Leave, ", "))
}
