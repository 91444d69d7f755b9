package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

func (s *session) resticEnvCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restic-env",
		Short: "Print the environment with which stock restic opens the volume",
		Long: `Prints shell commands that set RESTIC_REPOSITORY and what restic needs besides. The
password is not among them, only where it comes from. restic may list, check and restore
at any time, and forget and prune while no agent runs.

` + exitHelp(exitOK, exitFailure, exitUsage),
		Example: `  eval "$(drover restic-env)" && restic snapshots
  drover restic-env --json`,
		Args: noArgs,
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore)
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return s.withStore(cmd, func(ctx context.Context, o operations) error {
			vars, err := o.ResticEnv(ctx)
			if err != nil {
				return err
			}
			return s.printEnv(vars)
		})
	}
	return cmd
}

func (s *session) printEnv(vars []app.EnvVar) error {
	if s.json {
		object := map[string]string{}
		for _, v := range vars {
			object[v.Name] = v.Value
		}
		return s.printJSON(object)
	}
	for _, v := range vars {
		if err := s.say("export %s=%s", v.Name, shellQuoted(v.Value)); err != nil {
			return err
		}
	}
	return nil
}

// shellQuoted writes a value as one word of a POSIX shell.
func shellQuoted(value string) string {
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}
