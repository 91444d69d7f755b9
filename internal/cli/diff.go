package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"drover/client"
	"drover/internal/app"
)

func (s *session) diffCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diff [A|--at TIME] [B]",
		Short: "Show what changed between two snapshots",
		Long: `Lists the paths in which snapshot B differs from snapshot A: + was added, - was removed,
M changed, with what of it: content, type, mode, owner, xattr, mtime. Without B it is the
newest committed state; without A it is the one committed before the newest. The time of
a directory is not compared: each change in it gives it a new one. A directory ends in /.

With --json it is one object: the list changes, then from, to, and the counts.

` + storeExits(),
		Example: `  drover diff
  drover diff 1a2b3c4d
  drover diff --at 1d
  drover diff 1a2b3c4d 5e6f7a8b --json`,
		Args:              atMost(2),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore)
	at := s.addAt(cmd)
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		from, to := arg(args, 0), arg(args, 1)
		if at.given && len(args) == 1 {
			from, to = "", from // --at is the first of the two
		}
		return s.withOps(cmd, func(ctx context.Context, o operations) (err error) {
			if from != "" || at.given {
				if from, err = s.choose(ctx, o, from, at); err != nil {
					return err
				}
			}
			return s.diff(ctx, o, from, to)
		})
	}
	return cmd
}

// diff prints as it goes: nobody knows how long the list becomes.
func (s *session) diff(ctx context.Context, o operations, from, to string) (err error) {
	out := bufio.NewWriter(s.Out)
	defer func() { err = errors.Join(err, out.Flush()) }()
	each, end := diffLines(out)
	if s.json {
		each, end = diffJSON(out)
	}
	res, err := o.Diff(ctx, from, to, each)
	if err != nil {
		return err
	}
	return end(res)
}

func diffLines(out io.Writer) (each func(app.Change) error, end func(app.DiffResult) error) {
	signs := map[string]string{"added": "+", "removed": "-", "changed": "M"}
	each = func(c app.Change) error {
		slash, what := "", ""
		if c.Type == "dir" {
			slash = "/"
		}
		if len(c.What) > 0 {
			what = " (" + strings.Join(c.What, ", ") + ")"
		}
		_, err := fmt.Fprintf(out, "%s %s%s%s\n", signs[string(c.Kind)], printable(c.Path), slash, what)
		return err
	}
	end = func(res app.DiffResult) error {
		name := func(sn client.Snapshot) string {
			return shortID(sn.ID) + " of " + sn.Time.Local().Format(momentLayout)
		}
		_, err := fmt.Fprintf(out, "%d added, %d removed, %d changed from %s to %s\n", res.Added, res.Removed, res.Changed, name(res.From), name(res.To))
		return err
	}
	return each, end
}

// diffJSON prints the list first and the rest of the object after it.
func diffJSON(out io.Writer) (each func(app.Change) error, end func(app.DiffResult) error) {
	write := func(before string, v any) error {
		if _, err := io.WriteString(out, before); err != nil {
			return err
		}
		lines := json.NewEncoder(out)
		lines.SetEscapeHTML(false)
		return lines.Encode(v)
	}
	before := "{\"changes\": [\n"
	each = func(c app.Change) error {
		err := write(before, c)
		before = ","
		return err
	}
	end = func(res app.DiffResult) error {
		if before != "," {
			if _, err := io.WriteString(out, before); err != nil {
				return err
			}
		}
		for _, part := range []struct {
			name  string
			value any
		}{{"],\n\"from\": ", res.From}, {",\"to\": ", res.To}, {",\"added\": ", res.Added}, {",\"removed\": ", res.Removed}, {",\"changed\": ", res.Changed}} {
			if err := write(part.name, part.value); err != nil {
				return err
			}
		}
		_, err := io.WriteString(out, "}\n")
		return err
	}
	return each, end
}
