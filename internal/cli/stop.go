package cli

import (
	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) stopCommand() *cobra.Command {
	return s.jobCommand(&cobra.Command{
		Use:   "stop JOB",
		Short: "Stop a job of the running agent, and wait until it is gone",
		Long: `Asks the agent on the control socket to stop a job in its orderly way, and returns
when it is gone. It stays stopped, whatever its restart policy, its conditions and its
turns, until drover start or drover restart starts it. Stopping the main job does not
end the instance.

` + agentExits(exitHeld),
		Example: `  drover stop cleanup
  docker exec review-1 drover stop web`,
	}, (*client.Client).StopJob)
}
