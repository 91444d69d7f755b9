package cli

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

// cloneTarget is where a clone goes, as far as that was said.
type cloneTarget struct {
	what                        string // that goes there
	store, volume, passwordFile string
}

// add gives a command the flags.
func (to *cloneTarget) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&to.store, "to-store", "", "store of the new volume, a `URL`; this one's by default")
	cmd.Flags().StringVar(&to.volume, "to-volume", "", "`NAME` of the new volume; this one's by default")
	cmd.Flags().StringVar(&to.passwordFile, "to-password-file", "", "`FILE` that holds the new volume's password")
}

func (s *session) cloneCommand() *cobra.Command {
	to := cloneTarget{what: "clone"}
	cmd := &cobra.Command{
		Use:   "clone [SNAPSHOT|latest|--at TIME] --to-store URL|--to-volume NAME",
		Short: "Make a new volume that begins with a snapshot of this one",
		Long: `Copies the newest committed state, or the snapshot named, into a new volume: of another
name in the same store, or in another store, where the name stays unless one is given.
The new volume has a repository, a key and a history of its own, and its password is that
of --to-password-file or DROVER_TO_PASSWORD. This volume is only read, also while an agent
holds it. Both stores are opened with the same credentials.

The place must be empty. A clone that is interrupted leaves no volume there: the same
command goes on with what is copied already (with the same password), or remove all
objects of the new volume. An agent of the new volume needs a data directory of its own
where one of a volume with the same name has run.

` + storeExits(exitIncomplete),
		Example: `  DROVER_TO_PASSWORD=… drover clone --to-volume staging
  drover clone --at 1d --to-store s3://elsewhere/wiki --to-password-file /run/secrets/other
  drover clone 1a2b3c4d --to-volume before-upgrade --to-password-file pw --json`,
		Args:              atMost(1),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore)
	to.add(cmd)
	at := s.addAt(cmd)
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		o, cfg, err := s.open(cmd, (*app.Config).CheckStore)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, o.Close()) }()
		var opt app.CloneOptions
		if opt.To, err = s.target(cmd, cfg, to); err != nil {
			return err
		}
		if opt.Snapshot, err = s.choose(cmd.Context(), o, arg(args, 0), at); err != nil {
			return err
		}
		return s.clone(cmd.Context(), o, opt)
	}
	return cmd
}

// target is the configuration of the new volume: this one's, with another place and
// another password.
func (s *session) target(cmd *cobra.Command, cfg *app.Config, to cloneTarget) (*app.Config, error) {
	const passwordEnv = "DROVER_TO_PASSWORD"
	env := s.Env
	if env == nil {
		env = os.LookupEnv
	}
	password, _ := env(passwordEnv)
	switch {
	case to.store == "" && to.volume == "":
		return nil, usageError{"nothing says where the " + to.what + " goes", "give --to-store URL, --to-volume NAME, or both"}
	case to.passwordFile == "" && password == "":
		return nil, usageError{"no password given for the new volume", "set " + passwordEnv + " or --to-password-file"}
	case to.passwordFile != "" && password != "":
		return nil, usageError{"the new volume's password is given in more than one way", "keep one of --to-password-file and " + passwordEnv}
	}
	flags := givenSettings(cmd)
	delete(flags, "password-file")
	delete(flags, "password-command")
	for flag, value := range map[string]string{"store": to.store, "volume": to.volume, "password-file": to.passwordFile} {
		if value != "" {
			flags[flag] = []string{value}
		}
	}
	target, err := app.LoadConfig(app.Sources{File: s.configFile, Files: s.Files, Flags: flags, Env: func(name string) (string, bool) {
		switch {
		case name == "DROVER_PASSWORD":
			return password, password != ""
		case strings.HasPrefix(name, "DROVER_PASSWORD_"):
			return "", false
		}
		return env(name)
	}})
	var bad *app.ConfigError
	if errors.As(err, &bad) { // the flag has another name here
		told := *bad
		told.Where = strings.Replace(told.Where, "--", "--to-", 1)
		return nil, &told
	}
	if err == nil && target.Store.URL == cfg.Store.URL && target.Volume == cfg.Volume {
		err = usageError{"the " + to.what + " would be the volume itself", "give another --to-volume or --to-store"}
	}
	return target, err
}

func (s *session) clone(ctx context.Context, o operations, opt app.CloneOptions) error {
	report, wipe := s.newProgress()
	opt.Progress = report
	res, err := o.Clone(ctx, opt)
	wipe()
	switch {
	case err != nil:
		return err
	case s.json:
		return s.printJSON(res)
	}
	return s.say("cloned %s to volume %s of %s: %s stored in %s", shortID(res.Of), res.Volume, printable(res.Store), size(res.Stored), seconds(res.Seconds))
}
