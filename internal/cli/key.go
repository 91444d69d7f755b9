package cli

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

// newPassword is where the command line says that a new password is.
type newPassword struct{ file, command string }

const newPasswordEnv = "DROVER_NEW_PASSWORD"

func (s *session) keyCommand() *cobra.Command {
	var from newPassword
	cmd := &cobra.Command{
		Use:   "key list|add|remove ID|passwd",
		Short: "List, add, remove and replace the passwords of the volume",
		Long: `Each password of a volume has a key file, in which the one master key of the repository
is encrypted with it.

  list       lists them; that of the password in use is marked with *
  add        makes another password open the volume, too
  remove ID  removes the key file whose id begins with ID: its password opens nothing any
             more. That of the password in use cannot be removed, so that one is left
  passwd     replaces the password in use by another one

The new password of add and passwd is that of --new-password-file, --new-password-command
or DROVER_NEW_PASSWORD. Interrupted, passwd leaves the old password, the new one or both;
the same again completes it. Agents that run go on: they need the new password when they
start next. Use this and not restic's command, which does not know of drover/init.

The master key stays the same: who has a copy of it, or of an old key file (or an old
version of such an object) with its password, can still read everything. For a new master
key copy the history into a new volume, with drover copy, and remove the old one.

` + storeExits(),
		Example: `  drover key list
  drover key passwd --new-password-file /run/secrets/new
  DROVER_NEW_PASSWORD=… drover key add
  drover key remove 1a2b3c4d`,
		Args:      keyArgs,
		ValidArgs: []string{"list", "add", "remove", "passwd"},
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore)
	cmd.Flags().StringVar(&from.file, "new-password-file", "", "`FILE` that holds the new password")
	cmd.Flags().StringVar(&from.command, "new-password-command", "", "shell `COMMAND` that prints the new password")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var password app.Secret
		if args[0] == "add" || args[0] == "passwd" {
			var err error
			if password, err = s.readNewPassword(cmd.Context(), from); err != nil {
				return err
			}
		} else if from != (newPassword{}) {
			return usageError{"drover key " + args[0] + " takes no new password", "take it out"}
		}
		return s.withOps(cmd, func(ctx context.Context, o operations) error { return s.key(ctx, o, args, password) })
	}
	return cmd
}

func keyArgs(_ *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return usageError{"nothing says what to do with keys", "give list, add, remove ID or passwd"}
	case !slices.Contains([]string{"list", "add", "remove", "passwd"}, args[0]):
		return usageError{"unknown word " + quoted(args[0]), "give list, add, remove ID or passwd"}
	case args[0] == "remove" && len(args) != 2:
		return usageError{"drover key remove takes the id of one key", "see drover key list"}
	case args[0] != "remove" && len(args) != 1:
		return usageError{"drover key " + args[0] + " takes no arguments", "a password is never one: set " + newPasswordEnv + " or --new-password-file"}
	}
	return nil
}

func (s *session) key(ctx context.Context, o operations, args []string, password app.Secret) error {
	switch args[0] {
	case "add":
		id, err := o.AddKey(ctx, password)
		return s.sayKey(id, "added", err)
	case "passwd":
		id, err := o.ReplaceKey(ctx, password)
		return s.sayKey(id, "the new password's; the old password opens nothing any more", err)
	case "remove":
		id, err := o.RemoveKey(ctx, args[1])
		return s.sayKey(id, "removed", err)
	}
	list, err := o.Keys(ctx)
	switch {
	case err != nil:
		return err
	case s.json:
		return s.printJSON(list)
	}
	rows := [][]string{{"", "ID", "USER", "HOST", "CREATED"}}
	for _, k := range list {
		mark := ""
		if k.Current {
			mark = "*"
		}
		rows = append(rows, []string{mark, shortID(k.ID), printable(k.Username), printable(k.Hostname), k.Created.UTC().Format("2006-01-02 15:04:05")})
	}
	return table(s.Out, rows)
}

func (s *session) sayKey(id, done string, err error) error {
	switch {
	case err != nil:
		return err
	case s.json:
		return s.printJSON(map[string]string{"id": id})
	}
	return s.say("key %s: %s", shortID(id), done)
}

// readNewPassword reads it as the password in use is read, from names of its own.
func (s *session) readNewPassword(ctx context.Context, from newPassword) (app.Secret, error) {
	env := s.Env
	if env == nil {
		env = os.LookupEnv
	}
	password, _ := env(newPasswordEnv)
	flags, ways := map[string][]string{}, 0
	for flag, value := range map[string]string{"password-file": from.file, "password-command": from.command} {
		if value != "" {
			flags[flag] = []string{value}
			ways++
		}
	}
	if password != "" {
		ways++
	}
	if ways != 1 {
		return app.Secret{}, usageError{"the new password has to be given in exactly one way", "set --new-password-file, --new-password-command or " + newPasswordEnv}
	}
	cfg, err := app.LoadConfig(app.Sources{Files: []string{}, Flags: flags, Env: func(name string) (string, bool) {
		switch name {
		case "DROVER_PASSWORD":
			return password, password != ""
		case "HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR":
			return env(name)
		}
		return "", false
	}})
	if err == nil {
		var secret app.Secret
		if secret, err = cfg.ReadPassword(ctx); err == nil {
			return secret, nil
		}
	}
	var bad *app.ConfigError
	if errors.As(err, &bad) && len(bad.Where) > 2 && bad.Where[:2] == "--" {
		told := *bad // the flag has another name here
		told.Where = "--new-" + told.Where[2:]
		return app.Secret{}, &told
	}
	return app.Secret{}, err
}
