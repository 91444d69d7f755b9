// Package cli is Drover's command line: one file for each command, with its options,
// what it prints and its exit codes.
//
// It promises: results on stdout, everything else on stderr; one line for an error,
// which says what, where and how to mend it; the exit codes of one table (exit.go);
// progress and colours on a terminal only; --json wherever a script reads.
//
// It leaves to others: what a command does (package app, or the agent by way of
// package client), and what a setting means (package config).
package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"drover/internal/app"
)

// World is what a command touches of the process and the machine.
type World struct {
	In               io.Reader
	Out, Err         io.Writer
	OutTerm, ErrTerm bool                        // whether Out and Err are terminals
	Env              func(string) (string, bool) // nil: the process's own
	Files            []string                    // configuration files to look for; nil: the default ones
	Now              func() time.Time

	ops   opener
	agent runner
	look  string // root of the file system that doctor looks at; "": the machine's
}

// System is the process itself.
func System() World {
	return World{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		OutTerm: term.IsTerminal(int(os.Stdout.Fd())), ErrTerm: term.IsTerminal(int(os.Stderr.Fd())),
		Now: time.Now, ops: openOps, agent: runAgent,
	}
}

// session is one invocation: the world, and the options that all commands share.
type session struct {
	World
	configFile string
	json       bool
	exit       int    // status of a command that ends well with another than 0
	stop       func() // ends the watch for signals
}

// Main carries out one command line and returns the exit code.
func Main(args []string, w World) int { return run(context.Background(), args, w) }

// run is Main under a context that the caller ends.
func run(ctx context.Context, args []string, w World) int {
	s := &session{World: w, stop: func() {}}
	defer func() { s.stop() }()
	root := s.root() //nolint:contextcheck // cobra keeps the context in its commands
	root.SetArgs(args)
	root.SetIn(w.In)
	root.SetOut(w.Out)
	root.SetErr(w.Err)
	if cmd, err := root.ExecuteContextC(ctx); err != nil {
		return walExit(cmd, err, s.fail(err))
	}
	return s.exit
}

// errInterrupted is why the context of an interrupted command ended.
var errInterrupted = errors.New("interrupted")

// interruptible ends the context at the first SIGINT or SIGTERM; the second one kills,
// as it would have without us.
func interruptible(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-signals:
			signal.Stop(signals)
			cancel(errInterrupted)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
		<-done
	}
}

// root is the tree of commands.
func (s *session) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "drover",
		Short: "Run a stateful application on servers that may be thrown away",
		Long: `Drover runs in front of an application's command, keeps the application's
directories in object storage while it runs, and restores them wherever it starts next.`,
		Example: `  drover run --store s3://state/wiki --state /var/lib/wiki -- wiki-server
  drover backup
  drover status`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:              noSuchCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRun: func(cmd *cobra.Command, _ []string) {
			if cmd.Name() == runName {
				return // the agent has its own way with signals
			}
			ctx, stop := interruptible(cmd.Context())
			s.stop = stop
			cmd.SetContext(ctx)
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var value *pflag.InvalidValueError
		if errors.As(err, &value) {
			if errors.Is(err, strconv.ErrSyntax) || errors.Is(err, strconv.ErrRange) {
				return usageError{"--" + value.GetFlag().Name + ": " + quoted(value.GetValue()) + " is not a whole number", ""}
			}
			return usageError{"--" + value.GetFlag().Name + ": " + oneLine(errors.Unwrap(value).Error()), ""}
		}
		return usageError{oneLine(err.Error()), "see " + cmd.CommandPath() + " --help"}
	})
	root.SuggestionsMinimumDistance = 2
	root.SetHelpCommand(&cobra.Command{Use: "help [command]", Short: "Show the help of a command", RunE: func(cmd *cobra.Command, args []string) error {
		target, _, err := root.Find(args)
		if bad := noSuchCommand(root, args); err != nil || target == root && bad != nil {
			return bad
		}
		return target.Help()
	}})
	root.PersistentFlags().StringVarP(&s.configFile, "config", "c", "", "configuration `FILE` (default ./drover.yaml, then /etc/drover/drover.yaml)")
	addSettings(root.PersistentFlags(), root, app.GroupAgent)
	root.AddCommand(
		s.runCommand(), s.backupCommand(), s.takeoverCommand(), s.statusCommand(), s.eventsCommand(), s.logsCommand(), s.pingCommand(),
		s.startCommand(), s.stopCommand(), s.restartCommand(), s.signalCommand(), s.reloadCommand(), s.maintenanceCommand(), s.putEnvCommand(), s.putMetricCommand(), s.webhookCommand(),
		s.renderCommand(), s.rollCommand(), s.walCommand(),
		s.membersCommand(), s.switchoverCommand(), s.failoverCommand(), s.pauseCommand(), s.resumeCommand(), s.reinitCommand(), s.historyCommand(), s.upgradeCommand(),
		s.initCommand(), s.snapshotCommand(), s.restoreCommand(), s.restoreTestCommand(),
		s.snapshotsCommand(), s.lsCommand(), s.diffCommand(), s.rollbackCommand(), s.exportCommand(), s.cloneCommand(), s.copyCommand(), s.keyCommand(),
		s.verifyCommand(), s.forgetCommand(), s.pruneCommand(), s.probeCommand(), s.doctorCommand(),
		s.resticEnvCommand(), s.gitCommand(), s.configCommand(), s.convertCommand(), s.demoCommand(), s.versionCommand(), s.completionCommand(),
	)
	for _, cmd := range root.Commands() {
		cmd.DisableFlagsInUseLine = true
	}
	return root
}

// noSuchCommand refuses a word that is no command, naming the one that may be meant.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "see drover --help"
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError{"unknown command " + quoted(args[0]), hint}
}

// sources is where the configuration of cmd comes from.
func (s *session) sources(cmd *cobra.Command, command []string) app.Sources {
	return app.Sources{File: s.configFile, Files: s.Files, Env: s.Env, Flags: givenSettings(cmd), Command: command}
}

// load reads the configuration for cmd.
func (s *session) load(cmd *cobra.Command, command []string) (*app.Config, error) {
	cfg, err := app.LoadConfig(s.sources(cmd, command))
	if err != nil || cmd.Name() == runName {
		return cfg, err
	}
	return selected(cmd, cfg)
}

// selected is the configuration of the volume that the flags of cmd name.
func selected(cmd *cobra.Command, cfg *app.Config) (_ *app.Config, err error) {
	slot := -1
	if f := cmd.Flags().Lookup(slotFlag); f != nil && f.Changed {
		if slot, err = cmd.Flags().GetInt(slotFlag); err != nil || slot < 0 {
			return nil, usageError{"--slot: " + quoted(f.Value.String()) + " is not a slot", "write a number, 0 or more"}
		}
	}
	volume := cmd.Flags().Lookup("volume")
	return cfg.Select(slot, volume != nil && volume.Changed), nil
}

// open reads the configuration, has it checked, and opens the operations on its store.
func (s *session) open(cmd *cobra.Command, check func(*app.Config) error) (operations, *app.Config, error) {
	cfg, err := s.load(cmd, nil)
	if err != nil {
		return nil, nil, err
	}
	if err := check(cfg); err != nil {
		return nil, nil, err
	}
	// A command speaks through its result; only what is wrong is worth a line.
	return s.ops(cfg, app.NewLogger(s.Err, cfg, true)), cfg, nil
}

// withOps runs fn on the store's operations and closes them.
func (s *session) withOps(cmd *cobra.Command, fn func(ctx context.Context, o operations) error) error {
	return s.withChecked(cmd, (*app.Config).CheckVolume, fn)
}

// withStore is withOps for what needs no password.
func (s *session) withStore(cmd *cobra.Command, fn func(ctx context.Context, o operations) error) error {
	return s.withChecked(cmd, (*app.Config).CheckStoreURL, fn)
}

func (s *session) withChecked(cmd *cobra.Command, check func(*app.Config) error, fn func(ctx context.Context, o operations) error) (err error) {
	o, _, err := s.open(cmd, check)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	return fn(cmd.Context(), o)
}

// jsonFlag gives a command --json.
func (s *session) jsonFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&s.json, "json", false, "print the result as JSON")
}
