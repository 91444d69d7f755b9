package cli

import (
	"runtime"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

func (s *session) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Long:  "Prints the version, what it was built with, and what it was built for.\n\n" + exitHelp(exitOK),
		Example: `  drover version
  drover version --json`,
		Args: noArgs,
	}
	s.jsonFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		platform := runtime.GOOS + "/" + runtime.GOARCH
		if s.json {
			return s.printJSON(struct {
				Version  string `json:"version"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{app.Version, runtime.Version(), platform})
		}
		return s.say("drover %s (%s, %s)", app.Version, runtime.Version(), platform)
	}
	return cmd
}
