package cli

import (
	"context"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) putEnvCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "put-env NAME=VALUE… NAME-…",
		Short: "Change the environment of the jobs that start from now on",
		Long: `Tells the agent on the control socket variables for the environment of its jobs. What
runs already keeps what it has: restart it. NAME=VALUE sets one, split at the first "=";
NAME= makes it empty; NAME- takes it out. It lasts as long as the agent.

` + agentExits(exitHeld),
		Example: `  drover put-env FEATURE=on && drover restart web
  drover put-env 'DSN=host=db user=app' PROXY-`,
		Args: func(_ *cobra.Command, args []string) error {
			_, err := parseEnv(args)
			return err
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		change, err := parseEnv(args)
		if err != nil {
			return err
		}
		return s.withAgent(cmd, func(ctx context.Context, c *client.Client) error {
			return s.done(c.PutEnv(ctx, change), count(int64(len(change)), "variable")+" put")
		})
	}
	return cmd
}

// parseEnv reads NAME=VALUE, and NAME- as nil.
func parseEnv(args []string) (map[string]*string, error) {
	if len(args) == 0 {
		return nil, usageError{"no variable given", "write NAME=VALUE, or NAME- to take it out"}
	}
	change := map[string]*string{}
	for _, arg := range args {
		name, value, sets := strings.Cut(arg, "=")
		put := &value
		if !sets {
			bare, takesOut := strings.CutSuffix(arg, "-")
			if !takesOut {
				return nil, usageError{quoted(arg) + " is neither NAME=VALUE nor NAME-", ""}
			}
			name, put = bare, nil
		}
		switch _, twice := change[name]; {
		case name == "":
			return nil, usageError{quoted(arg) + " names no variable", ""}
		case twice:
			return nil, usageError{quoted(name) + " is given twice", ""}
		case !utf8.ValidString(arg) || strings.ContainsRune(arg, 0):
			return nil, usageError{quoted(arg) + " is not text that can be sent", ""}
		}
		change[name] = put
	}
	return change, nil
}
