package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/pmezard/go-difflib/difflib"
	"github.com/spf13/cobra"

	"drover/internal/app"
)

// renderTimeout is how long a render waits for what is missing, if nothing is said.
const renderTimeout = 30 * time.Second

func (s *session) renderCommand() *cobra.Command {
	var opt app.RenderOptions
	timeout := durationValue{app.Duration(renderTimeout)}
	cmd := &cobra.Command{
		Use:   "render [--dry-run] [--timeout TIME] [TEMPLATE…]",
		Short: "Render the configured templates once, and exit",
		Long: `Renders the templates of the configuration, or those that are named, once, and needs no
agent. The check command of a template is asked before its file is replaced. What follows
from a change (on_change) is not done, and no turn (roll) is waited for: an agent does
that.

What is missing, as a key that does not exist, is waited for until --timeout; then it is
named, and the command fails. The other templates are rendered all the same.

--dry-run writes nothing, and shows what would change as a diff. The text of a template
that reads secrets is not shown, and what was leased for it is given back. Without
--dry-run what was leased stays until it ends with the token that it was read with.

` + exitHelp(exitOK, exitFailure, exitUsage, exitInterrupted),
		Example: `  drover render
  drover render nginx --timeout 5s
  drover render --dry-run
  drover render --dry-run --json | jq '.[] | select(.changed) | .destination'`,
		ValidArgsFunction: s.completeNames(app.TemplateNames, true),
	}
	cmd.Flags().BoolVar(&opt.DryRun, "dry-run", false, "only show what would change")
	cmd.Flags().Var(&timeout, "timeout", "how long to wait for what is missing")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		opt.Names = args
		if timeout.Std() <= 0 {
			return usageError{"--timeout: nothing can be read in no time", "give a time such as 30s"}
		}
		return s.withChecked(cmd, anyConfig, func(ctx context.Context, o operations) error {
			limited, cancel := context.WithTimeout(ctx, timeout.Std())
			defer cancel()
			list, err := o.Render(limited, opt)
			if errors.Is(context.Cause(ctx), errInterrupted) {
				err = errors.Join(errInterrupted, err)
			}
			return errors.Join(s.printRendered(list, opt.DryRun), err)
		})
	}
	return cmd
}

// anyConfig is the check of commands that need neither a store nor a volume.
func anyConfig(*app.Config) error { return nil }

// printRendered tells what templates came to.
func (s *session) printRendered(list []app.Rendered, dry bool) error {
	if s.json {
		type shown struct {
			app.Rendered
			Diff string `json:"diff,omitempty"`
		}
		all := []shown{}
		for _, r := range list {
			one := shown{Rendered: r}
			if dry && !r.Secret {
				one.Diff = diffOf(r)
			}
			all = append(all, one)
		}
		return s.printJSON(all)
	}
	for _, r := range list {
		text := "written"
		switch {
		case !r.Changed:
			text = "not changed"
		case dry && r.Secret:
			text = "would be written; its text may hold secrets, and is not shown"
		case dry:
			if err := s.say("%s", strings.TrimSuffix(s.shownDiff(diffOf(r)), "\n")); err != nil {
				return err
			}
			continue
		}
		if err := s.say("%s: %s", printable(r.Destination), text); err != nil {
			return err
		}
	}
	return nil
}

// diffOf is the change of a file as a unified diff.
func diffOf(r app.Rendered) string {
	if !r.Changed {
		return ""
	}
	const context = 3
	from := r.Destination
	if r.New {
		from = "/dev/null"
	}
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: linesOf(r.Old), B: linesOf(r.Text), FromFile: from, ToFile: r.Destination, Context: context,
	})
	if err != nil || text == "" { // an empty file is made
		return "--- " + from + "\n+++ " + r.Destination + "\n"
	}
	return text
}

// linesOf splits a text after its line breaks; a last line without one is marked as diff
// does it.
func linesOf(text string) []string {
	lines := strings.SplitAfter(text, "\n")
	last := len(lines) - 1
	if lines[last] == "" {
		return lines[:last]
	}
	lines[last] += "\n\\ No newline at end of file\n"
	return lines
}

// shownDiff is a diff as a terminal may get it.
func (s *session) shownDiff(diff string) string {
	if !s.OutTerm {
		return diff
	}
	p := s.painter()
	var b strings.Builder
	for line := range strings.Lines(diff) {
		line = strings.TrimSuffix(line, "\n")
		shade := plainText
		switch {
		case strings.HasPrefix(line, "+"):
			shade = green
		case strings.HasPrefix(line, "-"):
			shade = red
		case strings.HasPrefix(line, "@@"):
			shade = dim
		}
		fields := strings.Split(line, "\t")
		for i := range fields {
			fields[i] = printable(fields[i])
		}
		b.WriteString(p.paint(shade, strings.Join(fields, "\t")) + "\n")
	}
	return b.String()
}

// completeNames offers names out of the configuration: as the first argument, or as any.
func (s *session) completeNames(of func(*app.Config) []string, many bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		const no = cobra.ShellCompDirectiveNoFileComp
		cfg, err := s.load(cmd, nil)
		if err != nil || len(args) > 0 && !many {
			return nil, no
		}
		return of(cfg), no
	}
}
