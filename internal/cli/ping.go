package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) pingCommand() *cobra.Command {
	var level string
	levels := []string{client.LevelAlive, client.LevelReady}
	cmd := &cobra.Command{
		Use:   "ping [--level alive|ready]",
		Short: "Ask whether the running agent, and what it runs, is well",
		Long: `Asks the agent on the control socket whether it answers; with --level also whether all
that counts at that level is well: alive (else a restart is due) or ready (else nothing
should be sent to it). Prints one line, and fails if something is not well: for a
container's HEALTHCHECK.

` + agentExits(),
		Example: `  drover ping
  drover ping --level ready
  HEALTHCHECK CMD ["drover", "ping", "--level", "alive"]`,
		Args: noArgs,
	}
	cmd.Flags().StringVar(&level, "level", "", "ask for `alive|ready` too")
	// It fails only for a flag that does not exist or is completed already.
	_ = cmd.RegisterFlagCompletionFunc("level", cobra.FixedCompletions(levels, cobra.ShellCompDirectiveNoFileComp))
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if given := cmd.Flags().Changed("level"); given && level != levels[0] && level != levels[1] {
			return usageError{"--level: " + quoted(level) + " is not one of alive, ready", ""}
		}
		return s.withAgent(cmd, func(ctx context.Context, c *client.Client) error {
			ctx, cancel := context.WithTimeoutCause(ctx, statusTimeout, errors.New("the agent does not answer"))
			defer cancel()
			if level == "" {
				return s.done(c.Ping(ctx), "the agent answers")
			}
			return s.ping(ctx, c, level)
		})
	}
	return cmd
}

func (s *session) ping(ctx context.Context, c *client.Client, level string) error {
	h, err := c.Health(ctx, level)
	if err != nil {
		return s.failed(err)
	}
	if s.json {
		if err := s.printJSON(h); err != nil {
			return err
		}
	}
	switch {
	case !h.Healthy:
		line := "not " + level
		if len(h.Failing) > 0 {
			line += ": " + strings.Join(h.Failing, ", ")
		}
		return errors.New(line)
	case s.json:
		return nil
	}
	return s.say("%s", level)
}
