package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"drover/client"
)

// jobCommand is what start, stop and restart have in common.
func (s *session) jobCommand(cmd *cobra.Command, do func(*client.Client, context.Context, string) (client.Job, error)) *cobra.Command {
	cmd.Args = exactly(1, "job", "drover status lists them")
	cmd.ValidArgsFunction = s.completeJobs()
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return s.withAgent(cmd, func(ctx context.Context, c *client.Client) error {
			job, err := do(c, ctx, args[0])
			if err != nil {
				return s.failed(err)
			}
			if s.json {
				return s.printJSON(job)
			}
			return s.say("%s: %s", printable(job.Name), jobLine(job))
		})
	}
	return cmd
}

// failed is the error of a call to the agent; with --json it is printed besides.
func (s *session) failed(err error) error {
	if !s.json {
		return err
	}
	kind := client.KindFailed
	var refusal *client.Error
	if errors.As(err, &refusal) {
		kind = refusal.Kind
	}
	return errors.Join(err, s.printJSON(client.Error{Kind: kind, Message: oneLine(err.Error())}))
}

// done ends a call that has no result but its success, which the line tells.
func (s *session) done(err error, line string) error {
	switch {
	case err != nil:
		return s.failed(err)
	case s.json:
		return s.printJSON(struct{}{})
	}
	return s.say("%s", line)
}
