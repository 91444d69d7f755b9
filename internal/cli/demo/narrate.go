package demo

import "fmt"

// The few control sequences that are used (ECMA-48, select graphic rendition).
const (
	bold  = "\x1b[1m"
	green = "\x1b[32m"
	plain = "\x1b[0m"
)

func (s *story) coloured(colour, text string) string {
	if !s.Colour {
		return text
	}
	return colour + text + plain
}

// act announces what comes.
func (s *story) act(title string) { _, _ = fmt.Fprintf(s.Out, "\n%s\n", s.coloured(bold, title)) }

// tell explains.
func (s *story) tell(format string, args ...any) {
	_, _ = fmt.Fprintf(s.Out, "  "+format+"\n", args...)
}

// good says what was measured and is as it should be.
func (s *story) good(format string, args ...any) {
	_, _ = fmt.Fprintf(s.Out, "  %s %s\n", s.coloured(green, "ok"), fmt.Sprintf(format, args...))
}
