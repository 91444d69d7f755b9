package cli

import (
	"context"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

func (s *session) pruneCommand() *cobra.Command {
	var opt app.PruneOptions
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove stored data that no snapshot needs",
		Long: `Removes what no snapshot reaches, and packs what is left in half-empty packs anew.
Refuses while an agent holds the volume. Killed at any moment, it has removed nothing
that is needed.

` + storeExits(),
		Example: `  drover prune --dry-run
  drover prune`,
		Args: noArgs,
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore, app.GroupClaim)
	cmd.Flags().BoolVar(&opt.DryRun, "dry-run", false, "only say what would go")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return s.withOps(cmd, func(ctx context.Context, o operations) error {
			report, wipe := s.newProgress()
			opt.Progress = report
			res, err := o.Prune(ctx, opt)
			wipe()
			if err != nil {
				return err
			}
			if s.json {
				return s.printJSON(res)
			}
			return s.printPrune(res, opt.DryRun)
		})
	}
	return cmd
}

func (s *session) printPrune(res app.PruneReport, dry bool) error {
	freed := "freed"
	if dry {
		freed = "would free"
	}
	return s.say("%s %s: %s removed, %s packed anew", freed, size(res.BytesFreed),
		count(int64(res.PacksDeleted), "pack"), count(int64(res.PacksRepacked), "pack"))
}
