package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drover/client"
	"drover/internal/app"
)

func (s *session) doctorCommand() *cobra.Command {
	var grace durationValue
	cmd := &cobra.Command{
		Use:   "doctor [COMPOSE-FILE]",
		Short: "Name what would make the application a pet",
		Long: `Looks at the instance that it runs in or, given a Compose file or its directory, at the
services there, and names what ties the application to one server or would be lost with
it: mounts at the state paths, secrets in the environment, a stop that leaves no time for
the last backup, a store that is lost together with the instance, and more. Each finding
says what, where, why, and how to mend it. Its severity is

  pet   the application, or its state, is tied to one server, or lost with it
  risk  it may not come back everywhere, or not whole
  note  to know; nothing has to be done

The state paths come from --state, DROVER_STATE or drover.yaml, in an instance also from
the agent, in a Compose file also from the service's environment and command; where they
are not known, every mount counts. How long the last backups took, the agent says and,
with a store and its password, the store. Nothing is changed, no value of a secret is
printed. With --json it is a list. Findings by their names: docs/doctor.md.

` + doctorExits,
		Example: `  drover doctor                          # in an instance
  docker exec wiki drover doctor --grace 30s
  drover doctor compose.yaml
  drover doctor compose.yaml --state /var/lib/wiki
  drover doctor compose.yaml --json | jq -r '.[] | select(.severity == "pet") | .where'`,
		Args: atMost(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore)
	for _, setting := range app.Settings() {
		if setting.Flag == "state" {
			addSetting(cmd.Flags(), cmd, setting)
		}
	}
	cmd.Flags().Var(&grace, "grace", "what the scheduler gives this instance to stop (default Docker's 10s)")
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			if cmd.Flags().Changed("grace") {
				return usageError{"--grace and a Compose file", "stop_grace_period says it there"}
			}
			return s.doctorCompose(cmd, args[0])
		}
		return s.doctorInstance(cmd, time.Duration(grace.Duration))
	}
	return cmd
}

const doctorExits = `Exit codes:
    0  no finding of severity pet or risk
    1  there are some, or failure
    2  wrong usage or configuration, or a Compose file that cannot be read
  130  interrupted`

func (s *session) doctorCompose(cmd *cobra.Command, file string) error {
	cfg, err := s.load(cmd, nil)
	if err != nil {
		return err
	}
	all, err := app.CheckCompose(file, cfg, s.Env, app.CheckupOptions{Took: s.askLongest(cmd.Context(), cfg)})
	if err != nil {
		return err
	}
	return s.printFindings(all, file)
}

func (s *session) doctorInstance(cmd *cobra.Command, grace time.Duration) error {
	seen, err := app.LookAround(cmp.Or(s.look, "/"))
	if err != nil {
		return err
	}
	cfg, err := app.LoadConfig(seen.Sources(app.Sources{File: s.configFile, Files: s.Files, Env: s.Env, Flags: givenSettings(cmd)}))
	if err != nil {
		return err
	}
	if cfg, err = selected(cmd, cfg); err != nil {
		return err
	}
	opt := app.CheckupOptions{Grace: grace, Took: s.askLongest(cmd.Context(), cfg)}
	status, err := askStatus(cmd.Context(), cfg.Socket)
	switch {
	case err == nil:
		opt.Status = &status
	case cmd.Context().Err() != nil:
		return err
	case !errors.Is(err, client.ErrNoAgent):
		s.warn("the agent was not asked: " + err.Error())
	}
	return s.printFindings(seen.Check(cfg, opt), cfg.ID)
}

// askLongest asks the store how long backups take, if it can be asked. That it does not
// answer is no reason not to look at the rest.
func (s *session) askLongest(ctx context.Context, cfg *app.Config) time.Duration {
	if cfg.CheckVolume() != nil {
		return 0
	}
	ctx, cancel := context.WithTimeoutCause(ctx, statusTimeout, errors.New("the store does not answer"))
	defer cancel()
	o := s.ops(cfg, app.NewLogger(s.Err, cfg, true))
	took, err := o.LongestBackup(ctx)
	if err := errors.Join(err, o.Close()); err != nil {
		s.warn("the store was not asked how long backups take: " + err.Error())
		return 0
	}
	return took
}

func (s *session) warn(text string) { fmt.Fprintln(s.Err, "drover:", oneLine(text)) }

// printFindings prints them and sets the exit code. of is what was looked at.
func (s *session) printFindings(all []app.Finding, of string) error {
	if app.Grave(all) {
		s.exit = exitFailure
	}
	if s.json {
		return s.printJSON(all)
	}
	page := findingsPage(all, of, s.OutTerm && !s.noColour())
	return s.say("%s", page)
}

// noColour is the custom of many programs (no-color.org).
func (s *session) noColour() bool {
	env := s.Env
	if env == nil {
		env = os.LookupEnv
	}
	v, _ := env("NO_COLOR")
	return v != ""
}

// findingWidth is where the lines of a finding are broken.
const findingWidth = 92

// findingsPage is the report for people: the findings of each service or instance, then
// what was not judged, then how many there are.
func findingsPage(all []app.Finding, of string, colour bool) string {
	var b strings.Builder
	var stateless []string
	last, counts := "", map[string]int64{}
	for _, f := range all {
		if f.ID == app.IDStateless {
			stateless = append(stateless, f.Service)
			continue
		}
		counts[string(f.Severity)]++
		if group := groupOf(f); group != last {
			b.WriteString(paint(printable(group), "1", colour) + "\n\n")
			last = group
		}
		writeFinding(&b, f, colour)
	}
	if len(stateless) > 0 {
		fmt.Fprintf(&b, "Not judged for mounts, having none: %s\n\n", printable(strings.Join(stateless, ", ")))
	}
	if len(counts) == 0 {
		return b.String() + "nothing found: " + printable(of)
	}
	fmt.Fprintf(&b, "%s, %s, %s: %s", count(counts["pet"], "pet"), count(counts["risk"], "risk"), count(counts["note"], "note"), printable(of))
	return b.String()
}

func groupOf(f app.Finding) string {
	if f.Instance != "" {
		return "instance " + f.Instance
	}
	return "service " + f.Service
}

func writeFinding(b *strings.Builder, f app.Finding, colour bool) {
	ink := map[string]string{"pet": "1;31", "risk": "33", "note": "2"}[string(f.Severity)]
	fmt.Fprintf(b, "  %s  %s\n", paint(fmt.Sprintf("%-5s", f.Severity), ink, colour), wrapped(f.What, 9))
	fmt.Fprintf(b, "  where  %s  (%s)\n", printable(f.Where), f.ID)
	fmt.Fprintf(b, "  why    %s\n", wrapped(f.Reason, 9))
	fmt.Fprintf(b, "  mend   %s\n\n", wrapped(f.Mend, 9))
}

// paint gives text a colour, by the number of ECMA-48.
func paint(text, ink string, colour bool) string {
	if !colour {
		return text
	}
	return "\x1b[" + ink + "m" + text + "\x1b[0m"
}

// wrapped breaks text between words, and begins each further line below the first.
func wrapped(text string, indent int) string {
	var b strings.Builder
	column := indent
	for i, word := range strings.Fields(printable(text)) {
		n := len([]rune(word))
		switch {
		case i == 0:
		case column+1+n > findingWidth:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}
