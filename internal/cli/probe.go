package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

func (s *session) probeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Check that the store does what Drover needs of it",
		Long: `Tries, in a corner of its own of the store, what Drover's safety rests on: conditional
writes (a second creation and a stale replacement are refused, of 32 racing writers
one wins), listing, ranged reads. Removes what it wrote.

` + exitHelp(exitOK, exitFailure, exitUsage, exitInterrupted),
		Example: `  drover probe --store 's3://state/wiki?endpoint=http://s3:9000'
  drover probe --json`,
		Args: noArgs,
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore)
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return s.withStore(cmd, func(ctx context.Context, o operations) error { return s.probe(ctx, o) })
	}
	return cmd
}

func (s *session) probe(ctx context.Context, o operations) error {
	report, err := o.Probe(ctx)
	if len(report.Steps) > 0 { // it is as good as it came, whatever the error
		if s.json {
			err = errors.Join(err, s.printJSON(report))
		} else {
			err = errors.Join(err, s.printProbe(report))
		}
	}
	return err
}

func (s *session) printProbe(report app.ProbeReport) error {
	rows := [][]string{{"CHECK", "RESULT", "TOOK"}}
	for _, step := range report.Steps {
		verdict := "ok"
		if !step.OK {
			verdict = "FAILED"
		}
		rows = append(rows, []string{step.Name, verdict, seconds(step.Took.Seconds())})
	}
	if err := table(s.Out, rows); err != nil || len(report.Latency) == 0 {
		return err
	}
	rows = [][]string{{"\nCALL", "MEDIAN", "99 %"}}
	for _, l := range report.Latency {
		rows = append(rows, []string{l.Op, seconds(l.P50.Seconds()), seconds(l.P99.Seconds())})
	}
	return table(s.Out, rows)
}
