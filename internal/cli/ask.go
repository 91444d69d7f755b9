package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"drover/client"
)

// withAgent runs fn with a client of the agent on the control socket.
func (s *session) withAgent(cmd *cobra.Command, fn func(ctx context.Context, c *client.Client) error) error {
	socket, err := s.socket(cmd)
	if err != nil {
		return err
	}
	agent := client.New(socket)
	defer agent.Close()
	if err := fn(cmd.Context(), agent); err != nil {
		return fmt.Errorf("%s: %w", cmd.Name(), err)
	}
	return nil
}

// socket is the agent's. Where it is said outright, as jobs have it in their
// environment, the file is not read: an agent is reached also while its file is broken.
func (s *session) socket(cmd *cobra.Command) (string, error) {
	env := s.Env
	if env == nil {
		env = os.LookupEnv
	}
	path, _ := env("DROVER_SOCKET")
	if given := givenSettings(cmd)["socket"]; len(given) > 0 {
		path = given[len(given)-1]
	}
	if filepath.IsAbs(path) {
		return path, nil
	}
	cfg, err := s.load(cmd, nil)
	if err != nil {
		return "", err
	}
	return cfg.Socket, nil
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
		socket, err := s.socket(cmd)
		if err != nil {
			return nil, no
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		agent := client.New(socket)
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
