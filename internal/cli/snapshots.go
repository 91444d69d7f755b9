package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"drover/client"
	"drover/internal/app"
)

func (s *session) snapshotsCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "snapshots [--all]",
		Short: "List the committed states of the volume",
		Long: `Lists the committed snapshots, oldest first. --all adds those that are not part of the
history: uncommitted ones, and diverged ones, which keep what a deposed instance had not
committed.

` + storeExits(),
		Example: `  drover snapshots
  drover snapshots --all --json`,
		Args: noArgs,
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore)
	cmd.Flags().BoolVar(&all, "all", false, "list uncommitted and diverged snapshots too")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return s.withOps(cmd, func(ctx context.Context, o operations) error {
			list, err := o.Snapshots(ctx, all)
			if err != nil {
				return err
			}
			return s.printSnapshots(list)
		})
	}
	return cmd
}

func (s *session) printSnapshots(list []client.Snapshot) error {
	if s.json {
		if list == nil {
			list = []client.Snapshot{}
		}
		return s.printJSON(list)
	}
	if len(list) == 0 {
		return s.say("no snapshots")
	}
	rows := [][]string{{"ID", "TIME", "HOST", "SEQ", "FILES", "SIZE", "STATE", "PATHS"}}
	for _, sn := range list {
		rows = append(rows, []string{
			shortID(sn.ID), sn.Time.Local().Format("2006-01-02 15:04:05"), printable(sn.Hostname), strconv.FormatUint(sn.Seq, 10),
			strconv.FormatInt(sn.Files, 10), size(sn.Bytes), snapshotState(sn), printable(strings.Join(sn.Paths, ", ")),
		})
	}
	return table(s.Out, rows)
}

func snapshotState(sn client.Snapshot) string {
	switch {
	case sn.Head:
		return "head"
	case sn.Diverged:
		return "diverged"
	case sn.Committed:
		return "committed"
	default:
		return "uncommitted"
	}
}
