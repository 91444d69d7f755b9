package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

func (s *session) verifyCommand() *cobra.Command {
	var opt app.VerifyOptions
	cmd := &cobra.Command{
		Use:   "verify [--read-data]",
		Short: "Check that everything the snapshots need is in the store",
		Long: `Checks the head, the indexes, and that every file of every snapshot is in a stored
pack. --read-data reads all of it and checks every byte. Each problem is one line that
names the object and what it touches.

` + storeExits(),
		Example: `  drover verify
  drover verify --read-data --json`,
		Args: noArgs,
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore)
	cmd.Flags().BoolVar(&opt.ReadData, "read-data", false, "read and check every byte")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
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
		read = ", " + size(res.Bytes) + " read"
	}
	return s.say("no problem found: %s, %s, %s%s", count(int64(res.Snapshots), "snapshot"),
		count(int64(res.Packs), "pack"), count(int64(res.Blobs), "blob"), read)
}
