package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"drover/client"
)

// withAgent runs fn with a client of the agent on the control socket.
func (s *session) withAgent(cmd *cobra.Command, fn func(ctx context.Context, c *client.Client) error) error {
	cfg, err := s.load(cmd, nil)
	if err != nil {
		return err
	}
	agent := client.New(cfg.Socket)
	defer agent.Close()
	if err := fn(cmd.Context(), agent); err != nil {
		return fmt.Errorf("%s: %w", cmd.Name(), err)
	}
	return nil
}

// exactly refuses other numbers of arguments; what names them.
func exactly(n int, what, hint string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < n:
			return usageError{"no " + what + " given", hint}
		case len(args) > n:
			return usageError{"unexpected argument " + quoted(args[n]), ""}
		}
		return nil
	}
}

// agentExits are the exit codes of commands that ask the agent.
func agentExits(more ...int) string {
	return exitHelp(append(append([]int{exitOK, exitFailure, exitUsage}, more...), exitInterrupted)...)
}

// completeTimeout is how long a shell may wait for names.
const completeTimeout = time.Second

// completeJobs offers the names of the agent's jobs as the first argument; after, as
// the second, these words.
func (s *session) completeJobs(after ...string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		const no = cobra.ShellCompDirectiveNoFileComp
		if len(args) == 1 {
			return after, no
		}
		if len(args) > 1 {
			return nil, no
		}
		cfg, err := s.load(cmd, nil)
		if err != nil {
			return nil, no
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		agent := client.New(cfg.Socket)
		defer agent.Close()
		status, err := agent.Status(ctx)
		if err != nil {
			return nil, no
		}
		var names []string
		for _, job := range status.Jobs {
			names = append(names, job.Name)
		}
		return names, no
	}
}
