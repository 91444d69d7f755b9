//go:build e2e

package e2e

import (
	"testing"
	"time"

	"drover/internal/testkit/dockertest"
)

// TestTerminal: docker run -it, stdin: inherit: the job sits at the terminal itself, and
// Ctrl-C there stops the instance in order.
func TestTerminal(t *testing.T) {
	c := supervised(t, dockertest.New(t), "terminal", []string{"--tty", "--interactive"}, "-c", "/etc/drover/terminal.yaml")
	awaitLog(t, c, "at /dev/pts/0")
	keys := c.Terminal()
	keys.Type("hello\r")
	awaitLog(t, c, "heard hello")
	keys.Type("\x03")
	if code := c.AwaitExit(10 * time.Second); code != 6 {
		t.Errorf("exit status %d, want that of the job at TERM, 6", code)
	}
	awaitLog(t, c, "stopped")
}
