package check

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"testing"

	"drover/internal/testkit/leak"
)

// agentVar makes the test binary an agent that runs one probe of a command, a
// script for the shell, and then waits to be killed.
const agentVar = "CHECK_TEST_AGENT"

// The datadriven package registers -rewrite.
func TestMain(m *testing.M) {
	if script := os.Getenv(agentVar); script != "" {
		_ = sh(script).Probe(context.Background())
		os.Exit(1)
	}
	flag.Parse()
	leak.Main(m)
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// probeFunc is a Prober.
type probeFunc func(context.Context) error

func (f probeFunc) Probe(ctx context.Context) error { return f(ctx) }
