package cli

import (
	"context"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

// restoreDatabase is `drover restore --database`.
func (s *session) restoreDatabase(cmd *cobra.Command, target string, at *atValue, snapshot bool) error {
	switch {
	case target == "":
		return usageError{"the database has no directory to go to", "add --target DIR, which is missing or empty"}
	case snapshot:
		return usageError{"a database is not restored from a snapshot alone", "say --at, or nothing for the end of the log"}
	}
	opt := app.RestoreDatabaseOptions{Target: target, At: app.ParseDatabaseTarget(at.text)}
	if at.given {
		opt.At = app.DatabaseTarget{Time: at.Time}
	}
	return s.withOps(cmd, func(ctx context.Context, o operations) error {
		report, wipe := s.newProgress()
		opt.Progress = report
		res, err := o.RestoreDatabase(ctx, opt)
		wipe()
		if err != nil {
			return err
		}
		if s.json {
			return s.printJSON(res)
		}
		return s.say("restored the database %s to %s: from the base backup of %s and %s of log, in %s",
			res.System, printable(res.Target), res.Backup.Local().Format(momentLayout), count(int64(res.Segments), "file"), seconds(res.Seconds))
	})
}
