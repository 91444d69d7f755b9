package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

func (s *session) copyCommand() *cobra.Command {
	to := cloneTarget{what: "copy"}
	cmd := &cobra.Command{
		Use:   "copy [SNAPSHOT…] --to-store URL|--to-volume NAME",
		Short: "Copy the history into another volume, as far as it is not there yet",
		Long: `Copies the committed snapshots, or those named, oldest first, into a volume of another
store or another name, which is made if it is not there. It has a key of its own, and its
password is that of --to-password-file or DROVER_TO_PASSWORD. This volume is only read,
also while an agent holds it. Credentials of another S3 store: credentials=FILE and
profile=NAME in its URL.

The same command brings what is missing, and goes on after an interruption. A history
only goes forward: what is older than the newest one there is not copied. Where somebody
else has committed, nothing is written. Of a database the log and base backups come
along. An agent does the same in the background: see mirror in the configuration.

` + storeExits(exitIncomplete),
		Example: `  DROVER_TO_PASSWORD=… drover copy --to-store s3://elsewhere/wiki
  drover copy --to-store file:///mnt/usb --to-password-file pw --json`,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore)
	to.add(cmd)
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		o, cfg, err := s.open(cmd, (*app.Config).CheckStore)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, o.Close()) }()
		opt := app.CopyOptions{Snapshots: args}
		if opt.To, err = s.target(cmd, cfg, to); err != nil {
			return err
		}
		report, wipe := s.newProgress()
		opt.Progress = report
		res, err := o.Copy(cmd.Context(), opt)
		wipe()
		switch {
		case err != nil:
			return err
		case s.json:
			return s.printJSON(res)
		}
		what := count(int64(res.Copied), "snapshot")
		if res.Log+res.Backups > 0 {
			what += fmt.Sprintf(", %s of a database and %s of its log", count(int64(res.Backups), "base backup"), count(int64(res.Log), "file"))
		}
		return s.say("copied %s to volume %s of %s, which is at seq %d now: %s stored in %s",
			what, res.Volume, printable(res.Store), res.Seq, size(res.Stored), seconds(res.Seconds))
	}
	return cmd
}
