package cli

import (
	"context"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) putMetricCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "put-metric NAME=NUMBER…",
		Short: "Give the running agent values of metrics",
		Long: `Gives the agent on the control socket numbers for metrics that its configuration
names: a gauge is set, a counter is added to, a histogram takes one more observation.
The users of jobs may call it.

` + agentExits(exitHeld),
		Example: `  drover put-metric orders_open=17
  drover put-metric mails_sent=1 mail_seconds=0.24`,
		Args: func(_ *cobra.Command, args []string) error {
			_, err := parseMetrics(args)
			return err
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		values, err := parseMetrics(args)
		if err != nil {
			return err
		}
		return s.withAgent(cmd, func(ctx context.Context, c *client.Client) error {
			return s.done(c.PutMetrics(ctx, values), count(int64(len(values)), "metric")+" put")
		})
	}
	return cmd
}

// parseMetrics reads NAME=NUMBER.
func parseMetrics(args []string) (map[string]float64, error) {
	if len(args) == 0 {
		return nil, usageError{"no metric given", "write NAME=NUMBER"}
	}
	values := map[string]float64{}
	for _, arg := range args {
		name, text, ok := strings.Cut(arg, "=")
		if !ok || name == "" || !utf8.ValidString(name) {
			return nil, usageError{quoted(arg) + " is not NAME=NUMBER", ""}
		}
		number, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(number) || math.IsInf(number, 0) {
			return nil, usageError{quoted(arg) + ": " + quoted(text) + " is not a number", ""}
		}
		if _, twice := values[name]; twice {
			return nil, usageError{quoted(name) + " is given twice", ""}
		}
		values[name] = number
	}
	return values, nil
}
