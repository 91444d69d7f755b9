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
	var database bool
	cmd := &cobra.Command{
		Use:   "restore-test",
		Short: "Restore the newest commit into scratch space, check it, and remove it again",
		Long: `Restores the newest commit as a new instance would, into a directory of its own, reads
every byte back, has --restore-test-check look at the files if that is given, and removes
them again. It needs no claim: the application may run meanwhile, here or elsewhere.

The check runs in the directory of the restored files ($DROVER_RESTORED), where each is
at its absolute path: $DROVER_RESTORED/srv/git for /srv/git. The test fails if it ends
with another status than 0.

Of a database, the newest base backup and all of the log are restored. A server that
nobody reaches recovers them, is asked database.restore_test.query, and stopped; every
page is read.

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
	cmd.Flags().BoolVar(&database, "database", false, "test the newest database in the volume (default if the configuration has one)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return s.withOps(cmd, func(ctx context.Context, o operations) error { return s.restoreTest(ctx, o, database) })
	}
	return cmd
}

func (s *session) restoreTest(ctx context.Context, o operations, database bool) error {
	report, wipe := s.newProgress()
	t, err := o.RestoreTest(ctx, app.RestoreTestOptions{Database: database, Progress: report})
	wipe()
	if s.json && !t.Time.IsZero() {
		err = errors.Join(err, s.printJSON(t))
	}
	if err != nil || s.json {
		return err
	}
	if t.Backup != nil {
		return s.say("passed: the base backup of %s and the log up to %s, %s; recovered in %s", t.Backup.Local().Format(momentLayout), t.Reached,
			size(t.Bytes), seconds(t.Restore))
	}
	return s.say("passed: %s (seq %d), %s, %s; restored and read back in %s", shortID(t.Snapshot), t.Seq,
		count(t.Files, "file"), size(t.Bytes), seconds(t.Restore))
}

// restoreTestLine is status's row of the last restore test.
func restoreTestLine(t *client.RestoreTest, now time.Time) string {
	if t == nil {
		return ""
	}
	line := seconds(max(0, now.Sub(t.Time).Seconds())) + " ago"
	if t.Backup != nil {
		line += ", of the base backup of " + t.Backup.Local().Format(momentLayout)
	} else {
		line += ", seq " + strconv.FormatUint(t.Seq, 10)
	}
	switch {
	case t.Passed:
		return "passed " + line + ", in " + seconds(t.Restore)
	case t.Begun:
		return "FAILED " + line + ": " + t.Error
	}
	return "could not be made " + line + ": " + t.Error
}
