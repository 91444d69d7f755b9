package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"drover/client"
	"drover/internal/app"
)

// takeoverGrace is how long a planned takeover may take before it is given up.
const takeoverGrace = time.Minute

func (s *session) takeoverCommand() *cobra.Command {
	grace := durationValue{Duration: app.Duration(takeoverGrace)}
	cmd := &cobra.Command{
		Use:   "takeover [--grace TIME]",
		Short: "Have a standby take over from this instance, as planned",
		Long: `Asks the agent on the control socket, which must be the holder's, to make room: it
commits, stops the application, commits what changed meanwhile, and releases the
volume, so that a standby has it at once and nobody waits for a lease. This instance
then stands by. Nothing is lost: every byte is committed before the release.

If that is not done in the time of --grace (the store is away), it is given up and
the application starts again here. If no standby takes the volume within the TTL of
the lease, this instance takes it back, and the command fails.

` + exitHelp(exitOK, exitFailure, exitUsage, exitHeld, exitInterrupted),
		Example: `  drover takeover
  docker exec review-1 drover takeover --grace 5m`,
		Args: noArgs,
	}
	cmd.Flags().Var(&grace, "grace", "give up after this time (default 1m)")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return s.takeover(cmd, grace) }
	return cmd
}

func (s *session) takeover(cmd *cobra.Command, grace durationValue) error {
	socket, err := s.socket(cmd)
	if err != nil {
		return err
	}
	if grace.Std() <= 0 {
		return usageError{"--grace is no time at all", "give one such as 1m"}
	}
	agent := client.New(socket)
	defer agent.Close()
	t, err := agent.HandOver(cmd.Context(), grace.Std())
	switch {
	case err != nil && s.json:
		return errors.Join(err, s.printJSON(t))
	case err != nil:
		return fmt.Errorf("takeover: %w", err)
	case s.json:
		return s.printJSON(t)
	}
	return s.say("%s has the volume in epoch %d, after %s", t.Holder, t.Epoch, seconds(t.Seconds))
}
