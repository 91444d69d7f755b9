package cli

import (
	"context"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

func (s *session) rollCommand() *cobra.Command {
	names := s.completeNames(app.RollNames, true)
	cmd := &cobra.Command{
		Use:   "roll resume NAME",
		Short: "Let a change that instances make in turns go on after it was stopped",
		Long: `A roll stops when an instance is not healthy after its change, or does not come back from
it: the others keep what they have, and drover status says why. Another change goes on by
itself, but not one of a template that reads secrets: of it every text counts as the same.
This lets the same one go on: the instances try it again at once. It speaks to the
coordinator, and needs no agent here.

NAME is that of the roll: roll.name of the template, or the template's own. That the roll
was not stopped is no failure.

` + exitHelp(exitOK, exitFailure, exitUsage, exitInterrupted),
		Example: `  drover roll resume nginx
  drover status --json | jq -r '.rolls[] | select(.state == "stopped") | .why'`,
		Args: rollArgs,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				return []string{"resume"}, cobra.ShellCompDirectiveNoFileComp
			case 1:
				return names(cmd, args, word)
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return s.withChecked(cmd, anyConfig, func(ctx context.Context, o operations) error {
			why, err := o.ResumeRoll(ctx, args[1])
			switch {
			case err != nil:
				return err
			case s.json:
				return s.printJSON(map[string]any{"roll": args[1], "stopped": why != "", "why": why})
			case why == "":
				return s.say("roll %s was not stopped", args[1])
			}
			return s.say("roll %s goes on; it was stopped by %s", args[1], printable(why))
		})
	}
	return cmd
}

func rollArgs(_ *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return usageError{"nothing says what to do with a roll", "give resume NAME"}
	case args[0] != "resume":
		return usageError{"unknown word " + quoted(args[0]), "give resume NAME"}
	case len(args) != 2:
		return usageError{"drover roll resume takes the name of one roll", "drover status lists them"}
	}
	return nil
}
