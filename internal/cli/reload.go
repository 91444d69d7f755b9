package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) reloadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have the running agent read its configuration again",
		Long: `Asks the agent on the control socket to read its configuration file again and to
change its jobs to what it says: a job whose definition is the same is not touched, a
changed one is restarted, others are started or stopped. It returns when they run. If
one of them does not start, the former jobs are put back and the command fails. It also
fails, and nothing is touched, if the file has a mistake, or if a setting other than jobs,
metrics and log differs: that needs a new start of the agent.

Of a database, parameters and hba are given to the running server, if it takes all of
them; what waits for a restart of it is named.

` + agentExits(exitHeld),
		Example: `  drover reload
  drover reload --json | jq .changed`,
		Args: noArgs,
	}
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return s.withAgent(cmd, func(ctx context.Context, c *client.Client) error {
			changed, err := c.Reload(ctx)
			if err != nil {
				return s.failed(err)
			}
			return s.printReload(changed)
		})
	}
	return cmd
}

func (s *session) printReload(r client.Reload) error {
	if s.json {
		return s.printJSON(r)
	}
	var parts []string
	for _, part := range []struct {
		verb string
		jobs []string
	}{{"started", r.Started}, {"restarted", r.Changed}, {"stopped", r.Stopped}} {
		if len(part.jobs) > 0 {
			parts = append(parts, part.verb+" "+printable(strings.Join(part.jobs, ", ")))
		}
	}
	switch {
	case len(parts) == 0:
		parts = append(parts, "no job changed")
	case len(r.Kept) > 0:
		parts = append(parts, count(int64(len(r.Kept)), "job")+" not touched")
	}
	if len(r.Parameters) > 0 {
		parts = append(parts, "the database's "+printable(strings.Join(r.Parameters, ", "))+" changed")
	}
	if len(r.Pending) > 0 {
		parts = append(parts, restartLine(r.Pending))
	}
	return s.say("%s", strings.Join(parts, "; "))
}
