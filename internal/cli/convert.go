package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"drover/internal/containerpilot"
)

func (s *session) convertCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "convert containerpilot FILE [-- command…]",
		Short: "Make a drover.yaml of another program's configuration",
		Long: `Reads a configuration of ContainerPilot 2 or 3 (- reads standard input) and prints a
drover.yaml that does the same. Its templates are kept. What Drover has no equal for is
kept as a comment, and listed on stderr with its line: read that list.

ContainerPilot 2 has the application's command on its command line: put it after --.

` + exitHelp(exitOK, exitFailure, exitUsage),
		Example: `  drover convert containerpilot containerpilot.json5 > drover.yaml
  drover convert containerpilot containerpilot.json -- wiki-server --port 8080
  drover convert containerpilot --json containerpilot.json5 | jq .notes`,
		ValidArgs: []string{"containerpilot"},
	}
	s.jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var command []string
		if dash := cmd.ArgsLenAtDash(); dash >= 0 {
			args, command = args[:dash], args[dash:]
		}
		switch {
		case len(args) == 0 || args[0] != "containerpilot":
			return usageError{"nothing says what to convert", "give containerpilot FILE"}
		case len(args) != 2:
			return usageError{"drover convert containerpilot takes one file", "give its path, or - for standard input"}
		}
		return s.convert(args[1], command)
	}
	return cmd
}

func (s *session) convert(name string, command []string) error {
	source, err := s.readSource(name)
	if err != nil {
		return err
	}
	result, err := containerpilot.Convert(source, containerpilot.Options{Command: command})
	var bad *containerpilot.Error
	switch {
	case errors.As(err, &bad):
		return usageError{fmt.Sprintf("%s:%d:%d: %s", name, bad.Line, bad.Column, bad.What), bad.Hint}
	case err != nil:
		return err
	case s.json:
		return s.printJSON(result)
	}
	for _, n := range result.Notes {
		what := n.What
		if n.Text != "" {
			what = n.Text + " " + what
		}
		if n.Key != "" {
			what = n.Key + ": " + what
		}
		if _, err := fmt.Fprintf(s.Err, "drover: %s:%d:%d: %s\n", name, n.Line, n.Column, oneLine(what)); err != nil {
			return err
		}
	}
	_, err = io.WriteString(s.Out, result.Text)
	return err
}

// readSource reads a file, or standard input for "-".
func (s *session) readSource(name string) (string, error) {
	in := s.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			var at *fs.PathError
			if errors.As(err, &at) {
				return "", usageError{"cannot read " + at.Path + ": " + at.Err.Error(), ""}
			}
			return "", err
		}
		defer func() { _ = f.Close() }() // only read
		in = f
	}
	const most = 2 << 20 // more than the converter takes
	text, err := io.ReadAll(io.LimitReader(in, most))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return string(text), nil
}
