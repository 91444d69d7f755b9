package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

func (s *session) verifyCommand() *cobra.Command {
	var opt app.VerifyOptions
	var subset string
	cmd := &cobra.Command{
		Use:   "verify [--read-data | --read-data-subset SPEC]",
		Short: "Check that everything the snapshots need is in the store",
		Long: `Checks the head, the indexes, and that every file of every snapshot is in a stored
pack. --read-data reads all of it and checks every byte. Each problem is one line that
names the object and what it touches.

--read-data-subset reads a part of it: n/t reads group n of t groups, told by the packs'
ids, so that t runs read all; 5% and 10G read packs chosen at random. These are
restic's. next:5% and next:10G read the packs that follow those of the last run on this
machine, and begin anew after the last one: repeated, they read all, whatever is added
meanwhile. Where a run stopped is noted in the data directory (DROVER_DATA_DIR), not in
the store, and only if it found no problem: damage is reported until it is mended.

` + storeExits(),
		Example: `  drover verify
  drover verify --read-data --json
  drover verify --read-data-subset 3/7
  drover verify --read-data-subset next:5%`,
		Args: noArgs,
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore)
	cmd.Flags().BoolVar(&opt.ReadData, "read-data", false, "read and check every byte")
	cmd.Flags().StringVar(&subset, "read-data-subset", "", "read the part `SPEC`: n/t, a percentage, a size, or next: and one of the last two")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if cmd.Flags().Changed("read-data-subset") {
			if opt.ReadData {
				return usageError{"--read-data and --read-data-subset", "give one of them"}
			}
			if opt.Subset, err = app.ParseSubset(subset); err != nil {
				return usageError{"--read-data-subset: " + err.Error(), ""}
			}
			opt.ReadData = true
		}
		return s.withOps(cmd, func(ctx context.Context, o operations) error { return s.verify(ctx, o, opt) })
	}
	return cmd
}

func (s *session) verify(ctx context.Context, o operations, opt app.VerifyOptions) error {
	report, wipe := s.newProgress()
	opt.Progress = report
	res, err := o.Verify(ctx, opt)
	wipe()
	if err != nil {
		return err
	}
	if s.json {
		if err := s.printJSON(res); err != nil {
			return err
		}
	} else {
		for _, problem := range res.Problems {
			if err := s.say("%s", oneLine(problem)); err != nil {
				return err
			}
		}
	}
	if n := len(res.Problems); n > 0 {
		return fmt.Errorf("verify: %s found", count(int64(n), "problem"))
	}
	if s.json {
		return nil
	}
	read := ""
	if opt.ReadData {
		read = fmt.Sprintf(", %s in %s read", size(res.Bytes), count(int64(res.PacksRead), "pack"))
	}
	return s.say("no problem found: %s, %s, %s%s", count(int64(res.Snapshots), "snapshot"),
		count(int64(res.Packs), "pack"), count(int64(res.Blobs), "blob"), read)
}
