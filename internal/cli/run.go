package cli

import (
	"context"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

const runName = "run"

func (s *session) runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   runName + " [-c FILE] [flags] [-- command…]",
		Short: "Run an application, keep its state, restore it where it starts next",
		Long: `Runs as PID 1 of a container or as an ordinary process: claims the volume, restores
its paths, starts the jobs, backs up while they run, and hands the volume over at the
end. While another instance holds the volume it waits as a standby, and takes over when
that one is gone. Without a store it is a plain supervisor.

The command after -- becomes the main job, whose end ends the instance.
Every flag is also a variable: --on-change is DROVER_ON_CHANGE. A flag wins over the
variable, the variable over the file. Lists in variables are separated by line breaks,
or else by commas (DROVER_STATE: also by colons).

The exit code is the main job's, 128 + n if signal n ended it. Else:

` + exitHelp(exitFailure, exitUsage, exitNoRepository, exitHeld, exitWrongPassword),
		Example: `  drover run --store s3://state/wiki --state /var/lib/wiki -- wiki-server --port 8080
  drover run --store file:///mnt/bucket --state /srv/git --every 1h -- git daemon /srv/git
  drover run -c drover.yaml
  drover run -- app                      # no store: supervise only`,
		Args: func(cmd *cobra.Command, args []string) error {
			if dash := cmd.ArgsLenAtDash(); len(args) > 0 && dash != 0 {
				return usageError{"unexpected argument " + quoted(args[0]), "put -- before the application's command"}
			}
			return nil
		},
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore, app.GroupClaim, app.GroupTree, app.GroupTest, app.GroupRun)
	cmd.Flags().BoolVar(&s.json, "json", false, "write the log as JSON, as --log-format json does")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		load := func() (*app.Config, error) { return s.loadRun(cmd, args) }
		status, err := s.agent(context.WithoutCancel(cmd.Context()), load, s.Out, s.Err)
		s.exit = status
		return err
	}
	return cmd
}

// loadRun reads the configuration of an agent.
func (s *session) loadRun(cmd *cobra.Command, command []string) (*app.Config, error) {
	if s.json {
		if err := cmd.Flags().Set("log-format", "json"); err != nil {
			return nil, err
		}
	}
	cfg, err := s.load(cmd, command)
	if err != nil {
		return nil, err
	}
	return cfg, cfg.CheckRun()
}
