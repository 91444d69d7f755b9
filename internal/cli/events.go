package cli

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) eventsCommand() *cobra.Command {
	var opt client.EventsOptions
	cmd := &cobra.Command{
		Use:   "events [--recent N] [--follow]",
		Short: "Show what happened to the running agent and its jobs",
		Long: `Prints the newest events that the agent on the control socket keeps, one a line: the
time, the event as jobs name it (on: [exit:db]), an exit status, and more. With --follow
it goes on with those that happen, until the agent ends. With --json each line is one
JSON object.

` + agentExits(),
		Example: `  drover events
  drover events --follow --recent 0
  drover events -f --json | jq 'select(.event == "failed")'`,
		Args: noArgs,
	}
	cmd.Flags().IntVar(&opt.Recent, "recent", 20, "begin with the newest `N`")
	cmd.Flags().BoolVarP(&opt.Follow, "follow", "f", false, "go on with what happens")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if opt.Recent < 0 {
			return usageError{fmt.Sprintf("--recent: cannot show %d events", opt.Recent), "give a number of 0 or more"}
		}
		return s.withAgent(cmd, func(ctx context.Context, c *client.Client) error {
			for line, err := range c.Events(ctx, opt) {
				if err == nil {
					err = s.printEvent(line)
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

// printMissed tells of what a slow reader lost.
func (s *session) printMissed(n int, what string) error {
	if s.json {
		return s.printLine(client.Missed{Missed: n})
	}
	_, err := fmt.Fprintf(s.Err, "drover: %s missed: they came faster than they were read\n", count(int64(n), what))
	return err
}

func (s *session) printEvent(line client.EventLine) error {
	switch {
	case line.Missed > 0:
		return s.printMissed(line.Missed, "event")
	case s.json:
		return s.printLine(line.Event)
	}
	name := line.Name
	if line.Source != "" {
		name += ":" + line.Source
	}
	text := line.Time.Local().Format("2006-01-02 15:04:05.000") + "  " + printable(name)
	if line.Status != nil {
		text += fmt.Sprintf("  status %d", *line.Status)
	}
	if line.Text != "" {
		text += "  " + printable(line.Text)
	}
	return s.say("%s", text)
}

// printLine prints v as JSON on one line.
func (s *session) printLine(v any) error {
	out := json.NewEncoder(s.Out)
	out.SetEscapeHTML(false)
	return out.Encode(v)
}
