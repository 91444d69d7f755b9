package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"drover/internal/app"
	"drover/internal/cli/demo"
)

type demoOptions struct {
	keep   bool
	pushes int
	ttl    durationValue
}

func (s *session) demoCommand() *cobra.Command {
	opt := demoOptions{pushes: 5, ttl: durationValue{app.Duration(demo.DefaultTTL)}}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Act out the loss of a server and the recovery of its data, on this machine",
		Long: `Starts a server of Git repositories under drover run, with a directory as the bucket;
pushes to it, each push waiting until it is safe; kills all of the server with SIGKILL and
removes its disk; starts another server; and compares what a fresh clone has. All of it
is real and timed. It needs git; no server, no root. It removes what it wrote.

` + exitHelp(exitOK, exitFailure, exitUsage, exitInterrupted),
		Example: `  drover demo
  drover demo --pushes 20 --keep
  drover demo --json`,
		Args: noArgs,
	}
	cmd.Flags().BoolVar(&opt.keep, "keep", false, "leave the bucket and the servers' files, and say where")
	cmd.Flags().IntVar(&opt.pushes, "pushes", opt.pushes, "push `N` commits before the loss")
	cmd.Flags().Var(&opt.ttl, "ttl", "lease, which the second server waits out")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return s.demo(cmd, opt) }
	return cmd
}

func (s *session) demo(cmd *cobra.Command, opt demoOptions) error {
	if opt.pushes < 1 || opt.pushes > 1000 {
		return usageError{fmt.Sprintf("cannot push %d commits", opt.pushes), "give a number from 1 to 1000"}
	}
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	out, colour := s.Out, s.OutTerm
	if s.json {
		out, colour = s.Err, s.ErrTerm
	}
	summary, err := demo.Run(cmd.Context(), demo.Options{
		Binary: binary, Out: out, Colour: colour, Pushes: opt.pushes, TTL: opt.ttl.Std(), Keep: opt.keep,
	})
	if s.json {
		if printErr := s.printJSON(summary); err == nil {
			err = printErr
		}
	}
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return nil
}
