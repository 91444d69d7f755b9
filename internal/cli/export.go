package cli

import (
	"context"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

func (s *session) exportCommand() *cobra.Command {
	var opt app.ExportOptions
	cmd := &cobra.Command{
		Use:   "export [SNAPSHOT|latest|--at TIME] [--output FILE]",
		Short: "Write a snapshot as a tar archive",
		Long: `Writes the newest committed state, or the snapshot named, as a tar archive (POSIX format)
to standard output, or to FILE, which is written whole or not at all. Names are those of
the snapshot without the leading slash. Owners, modes, times, links, devices and extended
attributes are in it; holes in files are written as zeros.

Every byte is checked before it is written. If one is missing the path is named, the exit
code is not 0, and what went to standard output has no end: look at the exit code (in a
shell, set -o pipefail) before you rely on it. The archive is not encrypted.

` + storeExits(exitIncomplete),
		Example: `  drover export --output wiki.tar
  drover export --at 1d | gzip > yesterday.tar.gz
  drover export | tar -x -p --xattrs --xattrs-include='*' --numeric-owner -C /mnt/new`,
		Args:              atMost(1),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore)
	cmd.Flags().StringVarP(&opt.File, "output", "o", "", "write to `FILE`")
	at := s.addAt(cmd)
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case opt.File == "" && s.OutTerm:
			return usageError{"a terminal is no place for an archive", "say --output FILE, or send it on: drover export | tar -t"}
		case opt.File == "" && s.json:
			return usageError{"--json and an archive on standard output", "say --output FILE"}
		}
		return s.withOps(cmd, func(ctx context.Context, o operations) (err error) {
			if opt.Snapshot, err = s.choose(ctx, o, arg(args, 0), at); err != nil {
				return err
			}
			return s.export(ctx, o, opt)
		})
	}
	return cmd
}

func (s *session) export(ctx context.Context, o operations, opt app.ExportOptions) error {
	report, wipe := s.newProgress()
	opt.Progress, opt.Out = report, s.Out
	res, err := o.Export(ctx, opt)
	wipe()
	switch {
	case err != nil || opt.File == "":
		return err
	case s.json:
		return s.printJSON(res)
	}
	return s.say("exported %s to %s: %s, %s, %s in %s", shortID(res.Snapshot), printable(opt.File),
		count(res.Files, "file"), count(res.Dirs, "directory"), size(res.Bytes), seconds(res.Seconds))
}
