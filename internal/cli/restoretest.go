package cli

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"drover/client"
	"drover/internal/app"
)

func (s *session) restoreTestCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore-test",
		Short: "Restore the newest commit into scratch space, check it, and remove it again",
		Long: `Restores the newest commit as a new instance would, into a directory of its own, reads
every byte back, has --restore-test-check look at the files if that is given, and removes
them again. It needs no claim: the application may run meanwhile, here or elsewhere.

The check runs in the directory of the restored files ($DROVER_RESTORED), where each is
at its absolute path: $DROVER_RESTORED/srv/git for /srv/git. The test fails if it ends
with another status than 0.

The outcome is kept in the store: ` + "`drover status`" + ` shows the last one, whoever made it.
An agent makes such tests by itself: see --restore-test-every of ` + "`drover run`" + `.

` + storeExits(exitIncomplete),
		Example: `  drover restore-test
  drover restore-test --json --restore-test-dir /scratch
  drover restore-test --restore-test-check 'git -C ./srv/git/repo.git fsck --strict'`,
		Args: noArgs,
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore, app.GroupTest)
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return s.withOps(cmd, s.restoreTest) }
	return cmd
}

func (s *session) restoreTest(ctx context.Context, o operations) error {
	report, wipe := s.newProgress()
	t, err := o.RestoreTest(ctx, app.RestoreTestOptions{Progress: report})
	wipe()
	if s.json && !t.Time.IsZero() {
		err = errors.Join(err, s.printJSON(t))
	}
	if err != nil || s.json {
		return err
	}
	return s.say("passed: %s (seq %d), %s, %s; restored and read back in %s", shortID(t.Snapshot), t.Seq,
		count(t.Files, "file"), size(t.Bytes), seconds(t.Restore))
}

// restoreTestLine is status's row of the last restore test.
func restoreTestLine(t *client.RestoreTest, now time.Time) string {
	if t == nil {
		return ""
	}
	line := seconds(max(0, now.Sub(t.Time).Seconds())) + " ago, seq " + strconv.FormatUint(t.Seq, 10)
	switch {
	case t.Passed:
		return "passed " + line + ", in " + seconds(t.Restore)
	case t.Begun:
		return "FAILED " + line + ": " + t.Error
	}
	return "could not be made " + line + ": " + t.Error
}
