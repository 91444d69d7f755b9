package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

func (s *session) snapshotCommand() *cobra.Command {
	var opt app.SnapshotOptions
	cmd := &cobra.Command{
		Use:   "snapshot PATH…",
		Short: "Commit paths to the volume without an agent",
		Long: `Claims the volume, commits the paths as its newest state, and releases it. Refuses
while an agent holds the volume, and if the paths are not those of the newest state
(--replace-paths). Without a PATH it takes the configured state paths.

` + storeExits(exitIncomplete),
		Example: `  drover snapshot /var/lib/wiki
  drover snapshot --exclude '*.tmp' --json /srv/git /srv/conf`,
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore, app.GroupClaim, app.GroupTree)
	cmd.Flags().BoolVar(&opt.ReplacePaths, "replace-paths", false, "let these paths replace those of the newest state")
	cmd.Flags().StringArrayVar(&opt.Tags, "tag", nil, "`TAG` of the snapshot (repeatable)")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return s.snapshot(cmd, args, opt) }
	return cmd
}

func (s *session) snapshot(cmd *cobra.Command, paths []string, opt app.SnapshotOptions) (err error) {
	o, cfg, err := s.open(cmd, (*app.Config).CheckStore)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	opt.Paths = paths
	if len(paths) == 0 {
		opt.Paths = cfg.Paths()
	}
	if len(opt.Paths) == 0 {
		return usageError{"no path given", "name what to commit: drover snapshot PATH…"}
	}
	report, wipe := s.newProgress()
	opt.Progress = report
	b, err := o.Snapshot(cmd.Context(), opt)
	wipe()
	if err != nil {
		return err
	}
	return s.printBackup(b)
}
