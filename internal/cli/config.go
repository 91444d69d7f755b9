package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"drover/internal/app"
)

const configName = "config"

// The words of drover config.
const (
	configRender   = "render"
	configValidate = "validate"
	configSchema   = "schema"
)

func (s *session) configCommand() *cobra.Command {
	words := []string{configRender, configValidate, configSchema}
	cmd := &cobra.Command{
		Use:   configName + " render|validate|schema [-c FILE] [flags] [-- command…]",
		Short: "Show, check and describe the configuration file",
		Long: `render prints the file as it is read: its template, if it is one, carried out over the
environment. The store's password is hidden; other values stand as they are.

validate checks the configuration as drover run would read it, with the flags and the
environment given here, and starts nothing. Each thing that is wrong is one line.

schema prints the JSON Schema of the file, for editors.

` + exitHelp(exitOK, exitUsage),
		Example: `  drover config validate -c drover.yaml
  DB_HOST=db1 drover config render
  drover config validate --state /srv/git -- git daemon /srv/git
  drover config schema > drover.schema.json`,
		ValidArgs: words,
		Args: func(cmd *cobra.Command, args []string) error {
			before := args
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				before = args[:dash]
			}
			if len(before) != 1 || !slices.Contains(words, before[0]) {
				return usageError{"nothing says what to do with the configuration", "give render, validate or schema"}
			}
			return nil
		},
	}
	addSettings(cmd.Flags(), cmd, app.GroupStore, app.GroupClaim, app.GroupTree, app.GroupTest, app.GroupRun)
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch args[0] {
		case configValidate:
			return s.validateConfig(cmd, args[1:])
		case configSchema:
			_, err := s.Out.Write([]byte(app.ConfigSchema()))
			return err
		}
		return s.renderConfig(cmd)
	}
	return cmd
}

func (s *session) renderConfig(cmd *cobra.Command) error {
	text, err := app.RenderedConfig(s.sources(cmd, nil))
	switch {
	case err != nil:
		return err
	case s.json:
		return s.printJSON(map[string]string{"text": text})
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	_, err = s.Out.Write([]byte(text))
	return err
}

// validation is what drover config validate --json prints.
type validation struct {
	Valid    bool      `json:"valid"`
	Problems []problem `json:"problems"`
}

type problem struct {
	Where string `json:"where"` // file:line:column, a flag or a variable; "" if nowhere
	What  string `json:"what"`
	Hint  string `json:"hint,omitempty"`
}

func (s *session) validateConfig(cmd *cobra.Command, command []string) error {
	found := app.ConfigProblems(s.sources(cmd, command))
	if len(found) == 0 && !s.json {
		return s.say("valid")
	}
	result := validation{Valid: len(found) == 0, Problems: []problem{}}
	for _, err := range found {
		s.exit = s.fail(err)
		one := problem{What: err.Error()}
		if bad := (*app.ConfigError)(nil); errors.As(err, &bad) {
			one = problem{Where: bad.Where, What: bad.What, Hint: bad.Hint}
		}
		result.Problems = append(result.Problems, one)
	}
	if s.json {
		return s.printJSON(result)
	}
	return nil
}
