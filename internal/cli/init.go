package cli

import (
	"context"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

func (s *session) initCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Create the volume's repository in the store",
		Long: `Creates the repository and the head of the volume. If they exist and open with this
password, nothing happens and the exit code is 0. ` + "`drover run`" + ` does the same at an empty
prefix, unless init is never.

` + storeExits(),
		Example: `  drover init --store file:///mnt/bucket --password-file /run/secrets/store
  DROVER_PASSWORD=… drover init --store 's3://state/wiki?endpoint=http://s3:9000'`,
		Args: noArgs,
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore)
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return s.withOps(cmd, func(ctx context.Context, o operations) error {
			created, err := o.Init(ctx)
			switch {
			case err != nil:
				return err
			case s.json:
				return s.printJSON(struct {
					Created bool `json:"created"`
				}{created})
			case created:
				return s.say("created; keep the password: without it nothing can be restored")
			default:
				return s.say("exists already, and opens with this password")
			}
		})
	}
	return cmd
}
