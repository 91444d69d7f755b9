package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

func (s *session) lsCommand() *cobra.Command {
	var long bool
	cmd := &cobra.Command{
		Use:   "ls [SNAPSHOT|latest|--at TIME] [PATH]",
		Short: "List the files of a snapshot",
		Long: `Lists what lies at or below PATH in a snapshot, the newest committed one by default.
With --json, one object a line.

` + storeExits(),
		Example: `  drover ls
  drover ls -l latest /srv/git
  drover ls --at 3d /srv/git
  drover ls 1a2b3c4d --json`,
		Args:              atMost(2),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore)
	cmd.Flags().BoolVarP(&long, "long", "l", false, "show mode, owner, size and time")
	at := s.addAt(cmd)
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		name, path := arg(args, 0), arg(args, 1)
		if len(args) == 1 && strings.HasPrefix(name, "/") {
			name, path = "", name // an id never begins so
		}
		return s.withOps(cmd, func(ctx context.Context, o operations) error {
			snapshot, err := s.choose(ctx, o, name, at)
			if err != nil {
				return err
			}
			return s.ls(ctx, o, snapshot, path, long)
		})
	}
	return cmd
}

func (s *session) ls(ctx context.Context, o operations, snapshot, path string, long bool) (err error) {
	out := bufio.NewWriter(s.Out)
	defer func() { err = errors.Join(err, out.Flush()) }()
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	return o.Ls(ctx, snapshot, path, func(e app.Entry) error {
		switch {
		case s.json:
			return lines.Encode(e)
		case long:
			_, err := fmt.Fprintf(out, "%s %5d %5d %12d %s %s%s\n", modeText(e.Mode), e.UID, e.GID, e.Size,
				e.ModTime.Local().Format("2006-01-02 15:04:05"), printable(e.Path), arrow(e))
			return err
		default:
			_, err := fmt.Fprintln(out, printable(e.Path))
			return err
		}
	})
}

// modeText writes a mode as ls does.
func modeText(mode os.FileMode) string {
	kind := byte('-')
	for _, k := range []struct {
		bit    os.FileMode
		letter byte
	}{{os.ModeDir, 'd'}, {os.ModeSymlink, 'l'}, {os.ModeNamedPipe, 'p'}, {os.ModeSocket, 's'}, {os.ModeDevice, 'b'}, {os.ModeCharDevice, 'c'}} {
		if mode&k.bit != 0 {
			kind = k.letter
		}
	}
	text := []byte(mode.Perm().String())
	text[0] = kind
	for _, special := range []struct {
		bit    os.FileMode
		at     int
		letter byte
	}{{os.ModeSetuid, 3, 's'}, {os.ModeSetgid, 6, 's'}, {os.ModeSticky, 9, 't'}} {
		if mode&special.bit == 0 {
			continue
		}
		if text[special.at] == '-' {
			special.letter -= 'a' - 'A'
		}
		text[special.at] = special.letter
	}
	return string(text)
}

func arrow(e app.Entry) string {
	if e.LinkTarget == "" {
		return ""
	}
	return " -> " + printable(e.LinkTarget)
}
