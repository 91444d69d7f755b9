package cli

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"drover/client"
)

// orderTimeout is how long an order to a database's cluster may take, where nothing else is said.
const orderTimeout = time.Minute

// timeoutFlag gives a command --timeout.
func timeoutFlag(cmd *cobra.Command, limit *durationValue, preset string) {
	cmd.Flags().Var(limit, "timeout", "give up waiting after this time (default "+preset+")")
}

// order carries out an order to the cluster of a database, says meanwhile who leads, and prints what came of it.
func (s *session) order(cmd *cobra.Command, do func(context.Context, *client.Client) (client.DatabaseOutcome, error), line func(client.DatabaseOutcome) string) error {
	return s.withAgent(cmd, func(ctx context.Context, c *client.Client) error {
		stop := s.watchCluster(ctx, c)
		out, err := do(ctx, c)
		stop()
		switch {
		case err != nil:
			return s.failed(err)
		case s.json:
			return s.printJSON(out)
		}
		return s.say("%s", line(out))
	})
}

// watchCluster tells people on a terminal who leads, whenever that changes, until it is stopped.
func (s *session) watchCluster(ctx context.Context, c *client.Client) (stop func()) {
	if !s.ErrTerm || s.json {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for told := ""; ; {
			d, err := c.DatabaseMembers(ctx)
			if line := clusterLine(d); err == nil && line != told {
				told = line
				_, _ = fmt.Fprintln(s.Err, line)
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return func() {
		cancel()
		group.Wait()
	}
}

// leads says who does, and who did before.
func leads(o client.DatabaseOutcome) string {
	line := fmt.Sprintf("%s leads, in epoch %d", printable(o.Primary), o.Epoch)
	if o.Former != "" && o.Former != o.Primary {
		line += ", after " + printable(o.Former)
	}
	return line + fmt.Sprintf(" (%s)", seconds(o.Seconds))
}

// completeMembers offers the names of the cluster's members.
func (s *session) completeMembers(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const no = cobra.ShellCompDirectiveNoFileComp
	socket, err := s.socket(cmd)
	if err != nil || len(args) > 0 {
		return nil, no
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	agent := client.New(socket)
	defer agent.Close()
	d, err := agent.DatabaseMembers(ctx)
	if err != nil {
		return nil, no
	}
	var names []string
	for _, m := range d.Members {
		names = append(names, m.Name)
	}
	return names, no
}

// toFlag gives a command --to.
func (s *session) toFlag(cmd *cobra.Command, to *string, usage string) {
	cmd.Flags().StringVar(to, "to", "", usage)
	if err := cmd.RegisterFlagCompletionFunc("to", s.completeMembers); err != nil {
		panic(err) // the flag is there
	}
}
