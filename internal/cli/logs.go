package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) logsCommand() *cobra.Command {
	var opt client.LogsOptions
	cmd := &cobra.Command{
		Use:   "logs [JOB] [--lines N] [--follow]",
		Short: "Show what the running agent's jobs wrote",
		Long: `Prints the newest lines that a job wrote on stdout and stderr, as far as the agent on
the control socket keeps them; without a job, those of all jobs, each after the job's
name. With --follow it goes on with what comes, until the agent ends. With --json each
line is one JSON object with its time and stream. Lines that come faster than they are
read are lost, the oldest first; how many is said.

` + agentExits(),
		Example: `  drover logs
  drover logs web -n 20 -f
  drover logs db --json | jq -r 'select(.stream == "stderr").text'`,
		Args:              atMost(1),
		ValidArgsFunction: s.completeJobs(),
	}
	cmd.Flags().IntVarP(&opt.Lines, "lines", "n", 100, "begin with the newest `N`")
	cmd.Flags().BoolVarP(&opt.Follow, "follow", "f", false, "go on with what comes")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if opt.Lines < 0 {
			return usageError{fmt.Sprintf("--lines: cannot show %d lines", opt.Lines), "give a number of 0 or more"}
		}
		if len(args) == 1 {
			opt.Job = args[0]
		}
		return s.withAgent(cmd, func(ctx context.Context, c *client.Client) error {
			for line, err := range c.Logs(ctx, opt) {
				if err == nil {
					err = s.printLog(line, opt.Job == "")
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return cmd
}

func (s *session) printLog(line client.LogsLine, named bool) error {
	switch {
	case line.Missed > 0:
		return s.printMissed(line.Missed, "line")
	case s.json:
		return s.printLine(line.LogLine)
	}
	text := line.Text
	if s.OutTerm {
		text = harmless(text)
	}
	if named {
		text = printable(line.Job) + " | " + text
	}
	_, err := fmt.Fprintln(s.Out, text)
	return err
}

// harmless is what a terminal may show of a line that others wrote: its colours and
// tabs stay, whatever else would move or ask something of the terminal is escaped.
func harmless(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		at := strings.IndexAny(text, "\x1b\t")
		if at < 0 {
			break
		}
		b.WriteString(printable(text[:at]))
		n := 1
		if text[at] != '\t' {
			n = colourLength(text[at:])
		}
		if n > 0 {
			b.WriteString(text[at : at+n])
		} else {
			b.WriteString(printable(text[at : at+1]))
			n = 1
		}
		text = text[at+n:]
	}
	return b.String() + printable(text)
}

// colourLength is the length of the colour sequence that text begins with; 0: none.
func colourLength(text string) int {
	rest, ok := strings.CutPrefix(text, "\x1b[")
	if !ok {
		return 0
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r != ';' && r != ':' && (r < '0' || r > '9') })
	if end < 0 || rest[end] != 'm' {
		return 0
	}
	return len(text) - len(rest) + end + 1
}
