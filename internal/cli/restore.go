package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

func (s *session) restoreCommand() *cobra.Command {
	var opt app.RestoreOptions
	cmd := &cobra.Command{
		Use:   "restore [SNAPSHOT|latest|--at TIME] [--target DIR] [--delete]",
		Short: "Restore a snapshot, in place or below a directory",
		Long: `Restores the newest committed state, or the snapshot that is named by its id or the
beginning of it, or with --at the newest committed one that is not newer than TIME: a
local time, one in RFC 3339, or how long ago. With --target the stored absolute paths
appear below DIR; without, they are restored in place, which is refused while the volume
is held. Files that are not in the snapshot stay, unless --delete is given. Every byte is
checked; a restore that misses one fails and names the path.

An agent that starts next finds that files restored in place are not those of the newest
state, and brings that back: drover rollback makes an older state the newest one.

With --database it is a PostgreSQL database that is restored, from a base backup and the
archived log, up to --at: a time, a position in the log (16/B374D848), the number of a
transaction, or the name of a restore point; without it, to the end of the log. --target
becomes a data directory that was recovered and stopped: it can be started, or be the
first member of another cluster (first_start: adopt; give that a volume of its own).

What only root may set (owner, devices, security attributes) is left out for other
users and counted in one line; --strict-metadata makes that an error.

` + storeExits(exitIncomplete),
		Example: `  drover restore
  drover restore --delete
  drover restore --at '2026-01-31 15:04' --target /tmp/then
  drover restore --at 2h --target /tmp/earlier
  drover restore 1a2b3c4d --target /tmp/yesterday --include /srv/git/project.git
  drover restore --database --at '2026-01-31 15:04' --target /var/lib/postgresql/then/data`,
		Args:              atMost(1),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore, app.GroupClaim)
	cmd.Flags().StringVar(&opt.Target, "target", "", "restore below the directory `DIR`")
	cmd.Flags().BoolVar(&opt.Delete, "delete", false, "remove files below the restored paths that are not in the snapshot")
	cmd.Flags().StringArrayVar(&opt.Include, "include", nil, "restore only what matches `PATTERN`, by restic's rules (repeatable)")
	cmd.Flags().BoolVar(&opt.StrictMetadata, "strict-metadata", false, "fail if any metadata cannot be set")
	at := s.addAt(cmd)
	at.keep = true
	database := cmd.Flags().Bool("database", false, "restore the newest database that was backed up, into the new data directory of --target")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *database {
			return s.restoreDatabase(cmd, opt.Target, at, len(args) > 0)
		}
		if at.err != nil {
			return usageError{"--at: " + oneLine(at.err.Error()), ""}
		}
		return s.withOps(cmd, func(ctx context.Context, o operations) (err error) {
			if opt.Snapshot, err = s.choose(ctx, o, arg(args, 0), at); err != nil {
				return err
			}
			return s.restore(ctx, o, opt)
		})
	}
	return cmd
}

func (s *session) restore(ctx context.Context, o operations, opt app.RestoreOptions) error {
	report, wipe := s.newProgress()
	opt.Progress = report
	res, err := o.Restore(ctx, opt)
	wipe()
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(res)
	}
	if len(res.SkippedMetadata) > 0 {
		_, _ = fmt.Fprintln(s.Err, "drover: metadata not set:", skippedLine(res.SkippedMetadata))
	}
	to := "in place"
	if opt.Target != "" {
		to = "below " + printable(opt.Target)
	}
	return s.say("restored %s %s: %s, %s, %s in %s", shortID(res.Snapshot), to,
		count(res.Files, "file"), count(res.Dirs, "directory"), size(res.Bytes), seconds(res.Seconds))
}

// skippedLine counts the metadata that could not be set, by kind.
func skippedLine(skipped map[string]int64) string {
	parts := make([]string, 0, len(skipped))
	for _, kind := range slices.Sorted(maps.Keys(skipped)) {
		parts = append(parts, fmt.Sprintf("%s %d", kind, skipped[kind]))
	}
	return strings.Join(parts, ", ")
}
