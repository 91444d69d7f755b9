package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

func (s *session) forgetCommand() *cobra.Command {
	var opt app.ForgetOptions
	var within durationValue
	cmd := &cobra.Command{
		Use:   "forget [flags] [SNAPSHOT…]",
		Short: "Remove snapshots that a policy does not keep",
		Long: `Removes committed snapshots that no --keep rule keeps, and those that are named. The
newest committed state and base backups of databases always stay; diverged snapshots go
only by name. The data goes with prune. Refuses while an agent holds the volume (not with
--dry-run).

` + storeExits(),
		Example: `  drover forget --keep-daily 7 --keep-weekly 5 --prune
  drover forget --keep-within 30d --dry-run
  drover forget 1a2b3c4d`,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore, app.GroupClaim)
	for _, rule := range []struct {
		name string
		to   *int
		of   string
	}{
		{"keep-last", &opt.Last, "snapshots"}, {"keep-hourly", &opt.Hourly, "hours"}, {"keep-daily", &opt.Daily, "days"},
		{"keep-weekly", &opt.Weekly, "weeks"}, {"keep-monthly", &opt.Monthly, "months"}, {"keep-yearly", &opt.Yearly, "years"},
	} {
		cmd.Flags().IntVar(rule.to, rule.name, 0, "keep the newest of each of the last `N` "+rule.of)
	}
	cmd.Flags().Lookup("keep-last").Usage = "keep the last `N` snapshots"
	cmd.Flags().Var(&within, "keep-within", "keep what is younger than this, as in 30d")
	cmd.Flags().BoolVar(&opt.DryRun, "dry-run", false, "only say what would go")
	cmd.Flags().BoolVar(&opt.Prune, "prune", false, "prune afterwards")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		opt.Snapshots, opt.Within = args, within.Std()
		if err := checkForget(opt); err != nil {
			return err
		}
		return s.withOps(cmd, func(ctx context.Context, o operations) error { return s.forget(ctx, o, opt) })
	}
	return cmd
}

// checkForget refuses a command that would keep nothing, or remove nothing.
func checkForget(opt app.ForgetOptions) error {
	rules := []int{opt.Last, opt.Hourly, opt.Daily, opt.Weekly, opt.Monthly, opt.Yearly}
	sum := 0
	for _, n := range rules {
		if n < 0 {
			return usageError{fmt.Sprintf("cannot keep %d", n), "give a number of 1 or more"}
		}
		sum += n
	}
	if sum == 0 && opt.Within == 0 && len(opt.Snapshots) == 0 {
		return usageError{"no rule says what to keep", "give --keep-last, --keep-daily, …, or name snapshots"}
	}
	return nil
}

func (s *session) forget(ctx context.Context, o operations, opt app.ForgetOptions) error {
	report, wipe := s.newProgress()
	opt.Progress = report
	res, err := o.Forget(ctx, opt)
	wipe()
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(res)
	}
	removed := "removed"
	if opt.DryRun {
		removed = "would remove"
	}
	for _, sn := range res.Remove {
		if err := s.say("%s %s of %s", removed, shortID(sn.ID), sn.Time.Local().Format("2006-01-02 15:04:05")); err != nil {
			return err
		}
	}
	if err := s.say("%s %d, kept %d", removed, len(res.Remove), len(res.Keep)); err != nil || res.Prune == nil {
		return err
	}
	return s.printPrune(*res.Prune, false)
}
