package cli

import (
	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) restartCommand() *cobra.Command {
	return s.jobCommand(&cobra.Command{
		Use:   "restart JOB",
		Short: "Restart a job of the running agent, and wait until it is ready again",
		Long: `Asks the agent on the control socket to stop a job in its orderly way and to start it,
and returns when it is ready again, or has failed. One that does not run is started.

` + agentExits(exitHeld),
		Example: `  drover restart web
  drover put-env FEATURE=on && drover restart web`,
	}, (*client.Client).RestartJob)
}
