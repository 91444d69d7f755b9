package cli

import (
	"context"

	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) walFetchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fetch NAME PATH",
		Short: "Bring a file of PostgreSQL's log",
		Args:  exactly(2, "name and path", "write restore_command = 'drover wal fetch %f %p'"),
	}
	limit := s.walFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		err := s.withWAL(cmd, limit, args[1], func(ctx context.Context, c *client.Client, path string) error {
			return c.FetchWAL(ctx, args[0], path)
		})
		return s.walDone(err)
	}
	return cmd
}
