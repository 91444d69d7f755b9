package cli

import (
	"context"

	"github.com/spf13/cobra"

	"drover/client"
)

func (s *session) walPushCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "push PATH",
		Short: "Store a file of PostgreSQL's log",
		Args:  exactly(1, "file", "write archive_command = 'drover wal push %p'"),
	}
	limit := s.walFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		err := s.withWAL(cmd, limit, args[0], func(ctx context.Context, c *client.Client, path string) error {
			return c.PushWAL(ctx, path)
		})
		return s.walDone(err)
	}
	return cmd
}
