package cli

import (
	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) startCommand() *cobra.Command {
	return s.jobCommand(&cobra.Command{
		Use:   "start JOB",
		Short: "Start a job of the running agent, and wait until it is ready",
		Long: `Asks the agent on the control socket to start a job that does not run, whatever its
conditions, and returns when it is ready (or runs, if it does not tell), or has failed.
A job that runs is left alone.

` + agentExits(exitHeld),
		Example: `  drover start cleanup
  drover start db --json`,
	}, (*client.Client).StartJob)
}
